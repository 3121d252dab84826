"""Models from elsewhere: with their own subwords they translate as they did at home."""

import json
import shutil
import struct

import ctranslate2
import pytest

from data_prep.files import sha256
from data_prep.vocabulary import MODEL_FILE
from fairseq_plugins.export.export import export
from fairseq_plugins.generation.converted import PairCodes, is_converted, open_converted
from fairseq_plugins.generation.decoding import Decoding
from fairseq_plugins.generation.generate import generate
from fairseq_plugins.generation.nbest import read_nbest
from tests.fixtures.models import (
    read_text,
    toy_lines,
    toy_model,
    toy_vocabulary,
    write_text,
)

LINES = toy_lines(40, seed=11)
VOCABULARY = "shared_vocabulary.json"


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    """An EXPORTED folder of ours, exactly as large as float32."""
    folder = tmp_path_factory.mktemp("converted")
    toy_vocabulary(folder / "vocabulary")
    toy_model(folder / "model", folder / "vocabulary", flags=["--max-source-positions", "64"])
    export(folder / "model", folder / "exported", "float32")
    return folder / "exported"


@pytest.fixture
def theirs(ours, tmp_path):
    """The same as CTranslate2's converter leaves it, with the subwords that OPUS-MT names."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    for name in ("model.bin", "config.json", VOCABULARY):
        shutil.copyfile(ours / name, folder / name)
    for name in ("source.spm", "target.spm"):
        shutil.copyfile(ours / MODEL_FILE, folder / name)
    return folder


@pytest.fixture(scope="module")
def expected(ours, tmp_path_factory):
    """What our own command makes of the lines."""
    folder = tmp_path_factory.mktemp("expected")
    source = write_text(folder / "source", LINES)
    generate([ours], source, folder / "out", workers=1)
    return read_text(folder / "out")


def hypotheses(model, lines, **settings):
    """Best piece lists of lines, by nothing but CTranslate2."""
    translator = ctranslate2.Translator(str(model.path), intra_threads=1)
    found = []
    for pieces in model.encode_batch(lines):
        limit = Decoding().length_limit(len(pieces), model.positions["target"])
        (result,) = translator.translate_batch(
            [pieces],
            [model.target_prefix] if model.target_prefix else None,
            beam_size=5, max_input_length=0, disable_unk=True,
            suppress_sequences=[[token] for token in model.suppressed],
            **{"max_decoding_length": limit, **settings},
        )  # fmt: skip
        found.append(result.hypotheses[0])
    return found


def translations(model, lines=LINES, **settings):
    return [model.decode(pieces) for pieces in hypotheses(model, lines, **settings)]


def configure(folder, **settings):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))
    return folder


def rename(folder, tokens):
    """Give tokens of the vocabulary other names."""
    path = folder / VOCABULARY
    path.write_text(json.dumps([tokens.get(t, t) for t in json.loads(path.read_text())]))
    return folder


def refusal(folder, **settings):
    with pytest.raises((ValueError, FileNotFoundError)) as raised:
        open_converted(folder, **settings)
    return str(raised.value)


# -- the same translations -------------------------------------------------------------------


def test_a_model_with_its_own_subwords_translates_as_it_did_with_ours(theirs, expected):
    assert is_converted(theirs)
    model = open_converted(theirs)
    assert (model.source_prefix, model.source_suffix, model.target_prefix) == ([], [], [])
    assert translations(model) == expected
    assert len(set(expected)) > 20  # the model does read its source


def test_our_own_export_is_not_taken_for_a_converted_model(ours, tmp_path):
    assert not is_converted(ours)
    assert not is_converted(tmp_path)


@pytest.mark.parametrize("start", ["</s>", "<pad>"])
def test_the_end_of_sentence_is_added_where_the_model_needs_it(start, theirs, expected):
    # as Marian ("</s>") and T5 ("<pad>") come out of ct2-transformers-converter
    rename(theirs, {"<0x00>": "<pad>"})
    model = open_converted(configure(theirs, add_source_eos=False, decoder_start_token=start))
    assert model.source_suffix == ["</s>"]
    if start == "</s>":
        assert translations(model) == expected
    bare = open_converted(theirs, source_suffix="")
    assert bare.source_suffix == []
    assert translations(bare) != expected


def test_a_model_of_opennmt_gets_no_end_of_sentence(theirs):
    configure(theirs, add_source_eos=False, decoder_start_token="<s>")
    assert open_converted(theirs).source_suffix == []


def test_a_start_token_that_the_caller_gives_is_not_part_of_the_translation(theirs, expected):
    configure(theirs, add_source_eos=False, decoder_start_token=None)
    assert "--target-prefix" in refusal(theirs)
    model = open_converted(theirs, target_prefix="</s>")
    assert model.source_suffix == ["</s>"]
    assert translations(model) == expected
    model = open_converted(theirs, target_prefix="</s> ▁ba")
    (pieces,) = hypotheses(model, LINES[:1])
    assert pieces[0] == "▁ba"
    assert model.decode(["▁ba", "▁be"]) == "be"


def test_prefix_and_suffix_reach_the_model(theirs, expected):
    model = open_converted(theirs, source_prefix="▁ba ▁be", source_suffix=["o"])
    (plain,) = open_converted(theirs).encode_batch(LINES[:1])
    assert model.encode_batch([LINES[0], "", " \u3000"]) == [["▁ba", "▁be", *plain, "o"], [], []]
    assert translations(model) != expected
    assert model.settings == {
        "source_prefix": ["▁ba", "▁be"], "source_suffix": ["o"], "target_prefix": []
    }  # fmt: skip


def test_a_target_prefix_is_forced_and_not_part_of_the_translation(theirs, expected):
    rename(theirs, {"<0x00>": "__de__", "<0x01>": "__en__"})
    model = open_converted(theirs, source_prefix="__de__", target_prefix="__en__")
    found = hypotheses(model, LINES)
    assert all(pieces[0] == "__en__" for pieces in found)
    texts = [model.decode(pieces) for pieces in found]
    assert not any("__" in text for text in texts)
    assert texts != expected
    assert model.decode(["__en__", "▁ba", "__de__", "</s>"]) == "ba"
    words = open_converted(theirs, source_prefix="", target_prefix="▁ba ▁be")
    assert words.decode(["▁ba", "▁be", "▁ba", "▁be"]) == "ba be"


def test_subword_nmt_codes_take_the_place_of_sentencepiece(theirs):
    # the same model, whose pieces get the names that codes give to theirs
    merges = [(a, b) for a in "bdkl" for b in ("a</w>", "e</w>", "a", "e", "i", "o", "u")]
    codes = write_text(theirs / "bpe.codes", ["#version: 0.2", *map(" ".join, merges)])
    for name in ("source.spm", "target.spm"):
        (theirs / name).unlink()
    rest = ["b@@", "d@@", "k@@", "l@@", "a", "i", "o", "u"]
    pieces = sorted(PairCodes.load(codes).pieces - {"ka"}) + rest  # so "ka" has to be split
    names = json.loads((theirs / VOCABULARY).read_text())
    pieces_of_ours = [name for name in names if not name.startswith("<")]
    rename(theirs, dict(zip(pieces_of_ours, pieces, strict=False)))
    model = open_converted(theirs)
    vocabulary = set(json.loads((theirs / VOCABULARY).read_text()))
    encoded = model.encode_batch(LINES)
    assert vocabulary.issuperset(set().union(*encoded))
    assert [model.decode(line) for line in encoded] == LINES
    assert model.decode(["l@@", "o", "</s>"]) == "lo"
    texts = translations(model)
    assert len(set(texts)) > 20
    assert not any("@@" in text for text in texts)


# -- what is around the pieces ---------------------------------------------------------------


def test_a_cut_line_keeps_what_is_around_it(theirs):
    model = open_converted(theirs, source_prefix="▁ba", source_suffix="o ▁be")
    (pieces,) = model.encode_batch(["ba be bi bo bu " * 5])
    assert model.cut(pieces, len(pieces)) == pieces
    assert model.cut(pieces, 6) == [*pieces[:4], "o", "▁be"]
    with pytest.raises(ValueError, match="3 source pieces leave no room for text beside ▁ba o ▁be"):
        model.cut(pieces, 3)


def test_only_tokens_that_the_vocabulary_has_are_suppressed(theirs):
    assert open_converted(theirs).suppressed == ["<blank>", "<s>"]
    rename(theirs, {"<blank>": "<pad>", "<s>": "never"})  # CTranslate2 refuses unknown ones
    assert open_converted(theirs).suppressed == ["<pad>"]
    assert translations(open_converted(theirs))


def test_special_tokens_and_word_marks_do_not_get_into_the_text(theirs):
    model = open_converted(theirs)
    assert model.decode(["<s>", "▁ba", "be", "</s>", "<pad>", "<blank>"]) == "babe"
    # a piece that the target's model does not know
    assert model.decode(["▁ba", "▁Größe", "n"]) == "ba Größen"
    assert model.decode(["▁ba", "\n", "\u2028"]) == "ba"


@pytest.mark.parametrize(
    "tokens, flags",
    [
        ([">>deu<<", ">>fra<<"], ["--source-prefix"]),
        (["__de__", "__en__"], ["--source-prefix", "--target-prefix"]),
        ([f"{a}{b}_XX" for a in "abcd" for b in "xyz"], ["--source-prefix", "--target-prefix"]),
        ([f"{a}{b}c_Latn" for a in "abcd" for b in "xyz"], ["--source-prefix", "--target-prefix"]),
    ],
    ids=["OPUS-MT", "M2M-100", "mBART", "NLLB"],
)
def test_a_model_of_several_languages_is_told_which(tokens, flags, theirs):
    bytes_ = [f"<0x{number:02X}>" for number in range(len(tokens))]
    rename(theirs, dict(zip(bytes_, tokens, strict=True)))
    settings = {}
    for flag in flags:
        message = refusal(theirs, **settings)
        assert f"name one with {flag}, for example {flag} '{tokens[0]}'" in message
        settings[flag.strip("-").replace("-", "_")] = tokens[1]
    assert open_converted(theirs, **settings).source_prefix == [tokens[1]]
    unnamed = open_converted(theirs, **dict.fromkeys(settings, ""))
    assert (unnamed.source_prefix, unnamed.target_prefix) == ([], [])


@pytest.mark.parametrize("flag", ["source_prefix", "source_suffix", "target_prefix"])
def test_a_token_that_the_vocabulary_lacks_is_refused(flag, theirs):
    # CTranslate2 takes it for the unknown piece, without a word
    message = refusal(theirs, **{flag: "▁ba >>deu<<"})
    assert f"--{flag.replace('_', '-')} >>deu<<: the {flag[:6]} vocabulary of" in message


def test_positions_are_those_of_the_model(theirs):
    model = open_converted(theirs)
    assert model.positions == {"source": 64, "target": 1024}
    translator = ctranslate2.Translator(str(theirs), intra_threads=1)
    fits = ["▁ba"] * 63  # and the end of sentence
    translator.translate_batch([fits], max_input_length=0, max_decoding_length=2)
    with pytest.raises(RuntimeError, match="position"):
        translator.translate_batch([fits + ["▁ba"] * 2], max_input_length=0)
    fewer = open_converted(theirs, source_positions=10, target_positions=20)
    assert fewer.positions == {"source": 10, "target": 20}
    assert "--source-positions 65 is more than the 64" in refusal(theirs, source_positions=65)
    assert "--target-positions is 1 or more, not 0" in refusal(theirs, target_positions=0)


def test_a_table_that_encoder_and_decoder_share_counts_for_both(theirs):
    # CTranslate2 stores equal variables once, and the second name by itself
    names = [b"decoder/position_encodings/encodings\0", b"encoder/position_encodings/encodings\0"]
    own, other = (struct.pack("<H", len(name)) + name for name in names)
    (theirs / "model.bin").write_bytes(
        struct.pack("<IH16sII", 6, 16, b"TransformerSpec", 7, 1)
        + own + struct.pack("<BIIBI4s", 2, 77, 1, 5, 4, b"data")
        + struct.pack("<I", 1) + other + own
    )  # fmt: skip
    assert open_converted(theirs).positions == {"source": 77, "target": 77}


def test_a_model_without_a_table_of_positions_reads_sentences_of_usual_length(theirs):
    path = theirs / "model.bin"
    path.write_bytes(path.read_bytes().replace(b"position_encodings", b"positixn_encodings"))
    assert open_converted(theirs).positions == {"source": 512, "target": 512}
    assert open_converted(theirs, source_positions=9000).positions["source"] == 9000


# -- the files -------------------------------------------------------------------------------


def test_every_file_that_shapes_the_translations_is_in_the_fingerprint(theirs, ours):
    before = open_converted(theirs).files
    assert before == {
        **{name: sha256(theirs / name) for name in ("model.bin", "config.json", VOCABULARY)},
        "source subwords": sha256(ours / MODEL_FILE),
        "target subwords": sha256(ours / MODEL_FILE),
    }
    (theirs / "README.md").write_text("of no matter")
    assert open_converted(theirs).files == before
    configure(theirs, layer_norm_epsilon=1e-5)
    assert open_converted(theirs).files != before


@pytest.mark.parametrize("name", ["sentencepiece.bpe.model", "sentencepiece.model",
                                  "spiece.model", "spm.model", MODEL_FILE])  # fmt: skip
def test_one_subword_model_can_serve_both_languages(name, theirs, expected):
    (theirs / "source.spm").rename(theirs / name)
    (theirs / "target.spm").unlink()
    assert translations(open_converted(theirs), LINES[:5]) == expected[:5]


def test_subwords_can_lie_elsewhere(theirs, tmp_path, expected):
    for name in ("source.spm", "target.spm"):
        (theirs / name).rename(tmp_path / name)
    places = {f"{side}_subwords": tmp_path / f"{side}.spm" for side in ("source", "target")}
    model = open_converted(theirs, **places)
    assert translations(model, LINES[:5]) == expected[:5]
    alone = {"source_subwords": places["source_subwords"]}
    assert "--target-subwords is missing" in refusal(theirs, **alone)
    places["target_subwords"] = tmp_path / "nowhere"
    assert "nowhere is missing" in refusal(theirs, **places)


def test_missing_subwords_are_named(theirs):
    (theirs / "target.spm").unlink()
    message = refusal(theirs)
    assert "no subword models but source.spm, half of a pair: looked for source.spm and" in message
    for name in ("source.bpe", "sentencepiece.bpe.model", "bpe.codes", "--target-subwords"):
        assert name in message


def test_two_sets_of_subwords_are_not_chosen_between(theirs):
    shutil.copyfile(theirs / "source.spm", theirs / "spm.model")
    assert "several subword models, source.spm and target.spm or spm.model" in refusal(theirs)


def test_the_subwords_of_another_model_are_refused(theirs):
    codes = ["#version: 0.2", *(f"{a} {b}" for a in "xyz" for b in "xyz")]
    for name in ("source.spm", "target.spm"):
        write_text(theirs / name, codes)
    assert "makes 9 pieces, of which the model's vocabulary has 0" in refusal(theirs)
    (theirs / "source.spm").write_bytes(b"neither\n")
    assert "neither a SentencePiece model nor codes of subword-nmt" in refusal(theirs)


def test_vocabularies_of_older_converters_are_read(theirs, expected):
    tokens = json.loads((theirs / VOCABULARY).read_text())
    (theirs / VOCABULARY).unlink()
    for side in ("source", "target"):
        write_text(theirs / f"{side}_vocabulary.txt", tokens)
    model = open_converted(theirs)
    assert {"source_vocabulary.txt", "target_vocabulary.txt"} < model.files.keys()
    assert translations(model, LINES[:5]) == expected[:5]


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("model.bin", None, "holds no model.bin; convert the model, for example with ct2-opus-mt"),
        ("model.bin", struct.pack("<IH", 5, 3), "has the binary format 5, and 6 is what this"),
        ("model.bin", b"PK\x03\x04" * 9, "no CTranslate2 model or is damaged"),
        ("model.bin", b"", "no CTranslate2 model or is damaged"),
        ("model.bin", struct.pack("<IH12sI", 6, 12, b"WhisperSpec", 0), "is a WhisperSpec, not"),
        ("config.json", None, "config.json is missing; CTranslate2's converters write it"),
        ("config.json", b"{", "config.json is not JSON"),
        ("config.json", b"{}", "not the configuration of a translation model"),
        ("config.json", b"[]", "not the configuration of a translation model"),
        (VOCABULARY, None, "holds no vocabulary: neither shared_vocabulary.json nor source_voc"),
        (VOCABULARY, b'{"a": 1}', "is not a list of tokens"),
        ("source_1_vocabulary.json", b"[]", "reads source features"),
    ],
)  # fmt: skip
def test_what_is_missing_or_unusable_is_named(name, content, message, theirs):
    (theirs / name).unlink(missing_ok=True)
    if content is not None:
        (theirs / name).write_bytes(content)
    assert message in refusal(theirs)


def test_a_cut_off_model_is_noticed(theirs):
    data = (theirs / "model.bin").read_bytes()
    (theirs / "model.bin").write_bytes(data[: len(data) // 2])
    assert "model.bin is no CTranslate2 model or is damaged" in refusal(theirs)


def test_a_file_or_a_missing_folder_is_no_model(theirs):
    assert "is a file; name the folder" in refusal(theirs / "model.bin")
    assert "nowhere is missing" in refusal(theirs / "nowhere")


def test_dad_generate_takes_a_converted_folder_as_a_teacher(theirs, expected, tmp_path):
    source = write_text(tmp_path / "source", LINES)
    record = generate([theirs], source, tmp_path / "out", workers=1)
    assert read_text(tmp_path / "out") == expected
    assert record["settings"]["models"][0]["source subwords"] == sha256(theirs / "source.spm")
    configure(theirs, add_source_eos=False)  # as converted from transformers: ours to add
    generate([theirs], source, tmp_path / "again", workers=1)
    assert read_text(tmp_path / "again") == expected


def test_dad_generate_forces_and_removes_the_target_prefix(theirs, expected, tmp_path):
    source = write_text(tmp_path / "source", LINES)
    generate([theirs], source, tmp_path / "out", workers=1, n_best=2, target_prefix="\u2581ku")
    model = open_converted(theirs, target_prefix="\u2581ku")
    translator = ctranslate2.Translator(str(theirs), intra_threads=1)
    for found, pieces in zip(
        read_nbest(tmp_path / "out.nbest"), model.encode_batch(LINES), strict=True
    ):
        limit = Decoding().length_limit(len(pieces), 1024) + 1
        (result,) = translator.translate_batch(
            [pieces], [["\u2581ku"]], beam_size=5, num_hypotheses=2, return_scores=True,
            max_decoding_length=limit, disable_unk=True,
            suppress_sequences=[[token] for token in model.suppressed],
        )  # fmt: skip
        assert [best.text for best in found] == [model.decode(h) for h in result.hypotheses]
        pieces_and_end = [len(h) + (len(h) < limit) for h in result.hypotheses]
        assert [best.pieces for best in found] == pieces_and_end
    assert read_text(tmp_path / "out") != expected


def test_dad_generate_keeps_the_suffix_of_a_line_that_is_cut(theirs, tmp_path):
    configure(theirs, add_source_eos=False)
    source = write_text(tmp_path / "source", ["ba be bi bo bu " * 9])
    generate([theirs], source, tmp_path / "cut", workers=1, max_source_pieces=10)
    model = open_converted(theirs)
    (pieces,) = model.encode_batch(["ba be bi bo bu " * 9])
    translator = ctranslate2.Translator(str(theirs), intra_threads=1)
    (result,) = translator.translate_batch(
        [[*pieces[:9], "</s>"]], beam_size=5, disable_unk=True, max_decoding_length=42,
        suppress_sequences=[[token] for token in model.suppressed],
    )  # fmt: skip
    assert read_text(tmp_path / "cut") == [model.decode(result.hypotheses[0])]


def test_flags_for_converted_folders_are_refused_for_ours(ours, theirs, tmp_path):
    source = write_text(tmp_path / "source", LINES)
    with pytest.raises(ValueError, match="--target-prefix is for a folder that one of CTranslate2"):
        generate([ours], source, tmp_path / "out", target_prefix="ba")
    with pytest.raises(ValueError, match="has no ensembles"):
        generate([theirs, ours], source, tmp_path / "out")
