"""Vocabularies of every kind, from text to text: prepared, trained, decoded, exported, refused."""

from types import SimpleNamespace

import pytest
import sacremoses

from data_prep import processes
from data_prep.binarise import binarise, encode_split, summary
from data_prep.files import sha256
from data_prep.moses import Settings
from data_prep.vocabulary import (
    CODES_FILE,
    adopt_vocabulary,
    make_vocabulary,
    read_pieces,
    read_vocabulary,
)
from fairseq_plugins.export.export import export
from fairseq_plugins.export.weights import keep_weights
from fairseq_plugins.generation.generate import generate
from fairseq_plugins.generation.models import check_ensemble, open_model
from fairseq_plugins.selection.reverse_model import Scorer
from tests.fixtures.fairseq_cli import train
from tests.fixtures.models import (
    read_text,
    toy_checkpoint,
    toy_lines,
    toy_model,
    write_text,
)
from tests.fixtures.prepared import set_up

LANGS = ("--source-lang", "de", "--target-lang", "en")
KINDS = {
    "unigram": {"kind": "unigram", "size": 320},
    "bpe": {"kind": "bpe", "size": 320},
    "subword-nmt": {"kind": "subword-nmt", "size": 300, "vocabulary_threshold": 5},
    "tokenised": {"kind": "subword-nmt", "size": 300, "vocabulary_threshold": 5,
                  "tokeniser": Settings(), "truecase": True},
    "tokenised unigram": {"kind": "unigram", "size": 320, "tokeniser": Settings()},
}  # fmt: skip


def sentences(number, seed):
    """Lines with capitals, commas, dashes, quotes and full stops."""
    marks = [", ", "-", ' "', " & ", " (", "; "]
    lines = toy_lines(number, seed=seed, longest=4)
    return [
        f"{line[:4].capitalize()}{marks[place % len(marks)]}{line}."
        for place, line in enumerate(lines)
    ]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Folder of text, and for each kind its vocabulary, prepared folder and model."""
    root = tmp_path_factory.mktemp("kinds")
    text = root / "text"
    text.mkdir()
    for number, split in enumerate(("train", "dev", "test")):
        for side, lang in enumerate(("de", "en")):
            lines = sentences((200, 9, 9)[number], seed=number * 10 + side)
            write_text(text / f"{split}.{lang}", lines)
    for name, settings in KINDS.items():
        settings = dict(settings)
        size = settings.pop("size")
        make_vocabulary(text, "de", "en", size, root / name / "vocabulary", **settings)
        toy_model(root / name / "model", root / name / "vocabulary")
    return root


@pytest.fixture(scope="module")
def prepared(made):
    """A prepared folder of tokenised text."""
    binarise(made / "text", made / "tokenised" / "vocabulary", made / "prepared")
    return made / "prepared"


def translate(model, source, out, **settings):
    generate([model], source, out, workers=1, beam=1, calibration="off", **settings)
    return read_text(out)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_decodes_alike_with_both_backends_and_exported(made, tmp_path, kind):
    source = write_text(tmp_path / "source", sentences(40, seed=5))
    model = made / kind / "model"
    export(model, tmp_path / "exported", "float32")
    ours = read_vocabulary(made / kind / "vocabulary").files
    assert read_vocabulary(tmp_path / "exported").files == ours
    translations = {
        name: translate(folder, source, tmp_path / name, **settings)
        for name, folder, settings in [
            ("fairseq", model, {"backend": "fairseq"}),
            ("ctranslate2", model, {"backend": "ctranslate2"}),
            ("of the export", tmp_path / "exported", {}),
        ]
    }
    assert translations["fairseq"] == translations["ctranslate2"] == translations["of the export"]
    assert len(set(translations["fairseq"])) > 6  # the model does read its source


def test_a_model_of_tokenised_text_gives_plain_text(made, tmp_path):
    """What dad-generate writes is what sacremoses makes of the model's own pieces."""
    import ctranslate2

    lines = sentences(20, seed=6)
    source = write_text(tmp_path / "source", lines)
    translate(made / "tokenised" / "model", source, tmp_path / "out", max_length=20)
    written = read_text(tmp_path / "out")
    export(made / "tokenised" / "model", tmp_path / "exported", "float32")
    translator = ctranslate2.Translator(str(tmp_path / "exported"), intra_threads=1)
    codec = open_model(tmp_path / "exported").codec()
    detruecaser, detokeniser = sacremoses.MosesDetruecaser(), sacremoses.MosesDetokenizer("en")
    for pieces, text in zip(codec.encode_batch(lines), written, strict=True):
        (result,) = translator.translate_batch(
            [pieces], beam_size=1, disable_unk=True, max_decoding_length=20,
            suppress_sequences=[["<blank>"], ["<s>"]],
        )  # fmt: skip
        # the model has learnt nothing and may stop inside a word
        words = f"{' '.join(result.hypotheses[0])} ".replace("@@ ", "")
        cased = detruecaser.detruecase(words)
        assert text == detokeniser.detokenize(cased)
    assert not any("@@" in text or "&quot;" in text or " ," in text for text in written)
    assert any(text[0].isupper() for text in written if text)


def test_sources_are_read_by_the_source_language_and_targets_by_the_other(made, tmp_path):
    """A word that only one language knows whole is cut on the other side."""
    vocabulary = read_vocabulary(made / "subword-nmt" / "vocabulary")
    german, english = map(vocabulary.subwords, vocabulary.langs)
    lines = sentences(200, seed=0) + sentences(200, seed=1)
    line = next(line for line in lines if german.encode(line) != english.encode(line))
    codec = open_model(made / "subword-nmt" / "model").codec()
    assert codec.encode_batch([line]) == [german.encode(line)]
    # German puts a space before an apostrophe
    codec = open_model(made / "tokenised" / "model").codec()
    assert codec.decode_batch([["it", "&apos;s"]]) == ["It's"] == [codec.decode(["it", "&apos;s"])]

    class Context:
        langs, trust, allow_unknown_vocabulary = ("en", "de"), False, False
        folder, workers = tmp_path, 1

    class Recorder:
        def score_batch(self, *sides, **_):
            self.sides = sides
            return [SimpleNamespace(log_probs=[0.0])]

    scorer = Scorer(made / "subword-nmt" / "model", Context)
    scorer._translator = Recorder()
    scorer.log_probs([(line, line)])
    assert scorer._translator.sides == ([german.encode(line)], [english.encode(line)])


def test_training_samples_pieces_and_validates_on_plain_text(prepared, tmp_path):
    done = train(prepared, tmp_path, "--max-update", 1, "--lr", 0.01,
                 "--source-sampling", 0.3)  # fmt: skip
    assert done.status == 0, done.output
    (entry,) = done.entries("valid")
    assert entry["valid_sentences"] == 9 and entry["valid_chrf"] > 0


def test_validation_decodes_to_plain_text(prepared, tmp_path):
    task = set_up(prepared, tmp_path)
    line = "Ba'be \"ka\"."  # English has rules of its own for apostrophes
    pieces = task.target_subwords.encode(line)
    tokens = task.tgt_dict.encode_line(" ".join(pieces), add_if_not_exist=False).long()

    class Task(type(task)):
        def inference_step(self, *args, **kwargs):
            return [[{"tokens": tokens}]]

    task.__class__ = Task
    assert task.decode(None, None, None) == [line]


@pytest.mark.parametrize("ours, theirs", [("unigram", "tokenised"), ("tokenised", "unigram")])
def test_a_model_of_one_kind_refuses_data_of_another(made, tmp_path, ours, theirs):
    checkpoint = made / ours / "model-checkpoint.pt"
    folders = {name: made / name / "vocabulary" for name in (ours, theirs)}  # as prepared ones
    with pytest.raises(ValueError, match="was trained with another vocabulary.*bpe.codes"):
        set_up(folders[theirs], tmp_path, *LANGS, "--finetune-from-model", checkpoint)
    with pytest.raises(ValueError, match="was trained with another vocabulary.*bpe.codes"):
        keep_weights(checkpoint, folders[theirs], tmp_path / "kept")
    with pytest.raises(ValueError, match="bpe.codes"):
        set_up(folders[theirs], tmp_path, *LANGS, "--mixture", f"{folders[ours]}=1")
    with pytest.raises(ValueError, match="cannot decode together: bpe.codes"):
        check_ensemble([open_model(made / kind / "model") for kind in (ours, theirs)])


def test_other_settings_of_the_tokeniser_are_another_vocabulary(made, tmp_path):
    """Pieces and dictionaries are the same; the text that they were made from is not."""
    vocabulary = made / "tokenised" / "vocabulary"
    other = adopt_vocabulary(
        "de", "en", tmp_path / "other", codes=vocabulary / CODES_FILE,
        dictionaries=[vocabulary / "dict.de.txt"],
        vocabularies=[vocabulary / "vocab.de", vocabulary / "vocab.en"],
        truecasers=[vocabulary / "truecaser.de", vocabulary / "truecaser.en"],
        tokeniser=Settings(escape=False),
    )  # fmt: skip
    with pytest.raises(ValueError, match="another vocabulary .* tokeniser.json"):
        keep_weights(made / "tokenised" / "model-checkpoint.pt", other.folder, tmp_path / "kept")


def test_a_model_made_elsewhere_translates_with_its_own_vocabulary(made, tmp_path):
    """A stock checkpoint without fingerprint, its codes, its dictionary in another order."""
    theirs = made / "subword-nmt" / "vocabulary"
    lines = read_text(theirs / "dict.de.txt")
    dictionary = write_text(tmp_path / "dict.txt", sorted(lines, key=lambda line: line[::-1]))
    adopted = adopt_vocabulary(
        "de", "en", tmp_path / "vocabulary", codes=theirs / CODES_FILE, dictionaries=[dictionary]
    )
    assert sha256(adopted.dictionary("en")) == sha256(dictionary)
    checkpoint = toy_checkpoint(
        tmp_path / "model.pt", adopted.folder, task="translation", task_state={}
    )
    keep_weights(checkpoint, adopted.folder, tmp_path / "model", allow_unknown_vocabulary=True)
    source = write_text(tmp_path / "source", sentences(40, seed=5))
    both = [
        translate(tmp_path / "model", source, tmp_path / backend, backend=backend)
        for backend in ("fairseq", "ctranslate2")
    ]
    assert both[0] == both[1] and len(set(both[0])) > 6
    assert not any("@@" in text for text in both[0])


def encode(vocabulary, text, out, **settings):
    """``Encoded`` of the training text of a folder, the pieces beside it."""
    vocabulary = read_vocabulary(vocabulary)
    known = [read_pieces(vocabulary.dictionary(lang)).keys() for lang in vocabulary.langs]
    paths, out_paths = ([folder / f"train.{lang}" for lang in ("de", "en")]
                        for folder in (text, out))  # fmt: skip
    out.mkdir()
    return encode_split(paths, out_paths, vocabulary, known, 1000, training=True, **settings)


def test_unknown_characters_are_counted_and_shown(made, tmp_path):
    text = tmp_path / "text"
    text.mkdir()
    for lang, lines in (("de", ["ba", "Ω Ωba Ω", "©"]), ("en", ["bu", "ba", "be"])):
        write_text(text / f"train.{lang}", lines)
    encoded = encode(made / "subword-nmt" / "vocabulary", text, tmp_path / "codes")
    counts = encoded.counts(["de", "en"])
    assert (counts["de"]["unknown"], counts["en"]["unknown"]) == (4, 0)
    assert counts["de"]["unknown_examples"] == {"Ω": 2, "Ω@@": 1, "©": 1}
    assert summary({"train": encoded}) == "3 train pairs, 4 unknown pieces (Ω, Ω@@, ©)"
    encoded = encode(made / "unigram" / "vocabulary", text, tmp_path / "bytes")
    assert summary({"train": encoded}) == "3 train pairs, 0 unknown pieces"


def test_two_processes_encode_the_same_pieces(made, tmp_path, monkeypatch):
    asked_for = []

    def in_processes(workers):
        asked_for.append(workers)
        return processes.in_processes(workers)

    monkeypatch.setattr("data_prep.binarise.BATCH", 30)
    monkeypatch.setattr("data_prep.binarise.in_processes", in_processes)
    vocabulary = made / "tokenised" / "vocabulary"
    for workers in (1, 2):
        encoded = encode(vocabulary, made / "text", tmp_path / str(workers), workers=workers)
        assert encoded.lines == 200
    for lang in ("de", "en"):
        one, two = (read_text(tmp_path / str(workers) / f"train.{lang}") for workers in (1, 2))
        assert one == two and len(one) == 200
    encode(made / "unigram" / "vocabulary", made / "text", tmp_path / "threads", workers=2)
    assert asked_for == [1, 2, 1]  # SentencePiece has threads of its own
