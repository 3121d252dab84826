"""data_prep/vocabulary.py: one joint vocabulary, the same bytes every time, known by its hash."""

import json
import re
import shutil

import pytest
import sentencepiece

from data_prep import vocabulary
from data_prep.files import sha256
from data_prep.learn_subwords import learn_sentencepieces
from data_prep.manifest import read_manifest
from data_prep.moses import Settings
from data_prep.vocabulary import (
    MODEL_FILE,
    VOCABULARY_FILE,
    adopt_vocabulary,
    differences,
    make_vocabulary,
    read_pieces,
    read_vocabulary,
    sample_bitext,
    write_dictionary,
)
from tests.fixtures.bitext import TRAIN, run_module, write_folder, write_side

SIZE = 305


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A vocabulary folder, never written to."""
    folder = tmp_path_factory.mktemp("made")
    write_folder(folder / "text")
    make_vocabulary(folder / "text", "de", "en", SIZE, folder / "vocabulary")
    return folder / "vocabulary"


@pytest.fixture
def folder(made, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(made, tmp_path / "vocabulary")


def pieces_of(path):
    return [line.rsplit(" ", 1) for line in path.read_text(encoding="utf-8").splitlines()]


def test_the_folder_holds_the_promised_files(made):
    names = {path.name for path in made.iterdir()}
    assert names == {
        "subwords.model", "dict.de.txt", "dict.en.txt", "vocabulary.json", "manifest.json"
    }  # fmt: skip
    record = json.loads((made / VOCABULARY_FILE).read_text())
    assert (record["kind"], record["source_lang"], record["target_lang"]) == (
        "sentencepiece", "de", "en"
    )  # fmt: skip
    assert record["files"] == {
        name: sha256(made / name) for name in ("subwords.model", "dict.de.txt", "dict.en.txt")
    }


def test_the_dictionary_is_the_models_pieces_in_order_without_control_pieces(made):
    model = sentencepiece.SentencePieceProcessor(model_proto=(made / MODEL_FILE).read_bytes())
    pieces = [model.id_to_piece(number) for number in range(model.get_piece_size())]
    assert pieces[:3] == ["<unk>", "<s>", "</s>"]
    assert len(pieces) == SIZE
    assert pieces_of(made / "dict.de.txt") == [[piece, "1"] for piece in pieces[3:]]


def test_both_dictionaries_are_the_same_file(made):
    assert (made / "dict.de.txt").read_bytes() == (made / "dict.en.txt").read_bytes()


def test_every_byte_has_a_piece(made):
    pieces = {piece for piece, _ in pieces_of(made / "dict.de.txt")}
    assert {f"<0x{byte:02X}>" for byte in range(256)} <= pieces


def test_the_same_text_gives_the_same_bytes_wherever_they_are_written(made, tmp_path):
    write_folder(tmp_path / "elsewhere", suffix=".gz")
    again = make_vocabulary(tmp_path / "elsewhere", "de", "en", SIZE, tmp_path / "again")
    assert again.files == read_vocabulary(made).files


def test_only_train_is_learnt_from(made, tmp_path):
    write_folder(tmp_path / "text", dev=[("x" * 50, "y" * 50)], test=None)
    again = make_vocabulary(tmp_path / "text", "de", "en", SIZE, tmp_path / "again")
    assert again.files == read_vocabulary(made).files


@pytest.mark.parametrize("size", [303, 308])
def test_the_size_is_the_number_of_pieces(tmp_path, size):
    texts = [text for pair in TRAIN for text in pair]
    model = sentencepiece.SentencePieceProcessor(model_proto=learn_sentencepieces(texts, size))
    assert model.get_piece_size() == size


def test_a_line_of_any_length_is_learnt_from():
    texts = [text for pair in TRAIN for text in pair]
    long_line = "Donaudampfschiff " * 2000  # 34,000 bytes; SentencePiece stops at 4,192
    made = learn_sentencepieces([*texts, long_line], SIZE)
    model = sentencepiece.SentencePieceProcessor(model_proto=made)
    assert len(model.encode("Donaudampfschiff")) <= 2


def test_too_large_a_size_names_the_largest_which_then_works():
    texts = [text for pair in TRAIN for text in pair]
    with pytest.raises(ValueError, match="largest possible --size is") as fault:
        learn_sentencepieces(texts, 8000)
    largest = int(re.search(r"is ([\d,]+)$", str(fault.value))[1].replace(",", ""))
    assert len(learn_sentencepieces(texts, largest)) > 0
    with pytest.raises(ValueError, match="largest possible"):
        learn_sentencepieces(texts, largest + 1)


def test_a_size_too_small_for_the_characters_names_how_many_are_needed():
    texts = ["".join(chr(0x4E00 + number) for number in range(100))]
    with pytest.raises(ValueError, match="need at least 36"):
        learn_sentencepieces(texts, 300, character_coverage=1.0)


@pytest.mark.parametrize("size", [-1, 0, 259])
def test_a_size_without_room_for_pieces_is_refused(size):
    with pytest.raises(ValueError, match=f"--size {size} leaves no room"):
        learn_sentencepieces(["a"], size)


@pytest.mark.parametrize("coverage", [0, 0.5, 1.1])
def test_a_coverage_that_is_no_share_is_refused(coverage):
    with pytest.raises(ValueError, match="--character-coverage is a share"):
        learn_sentencepieces(["a"], 300, character_coverage=coverage)


# -- sampling ------------------------------------------------------------------------------


def sample(tmp_path, pairs, lines, seed=1):
    write_folder(tmp_path, train=pairs, dev=None, test=None)
    return sample_bitext([(tmp_path / "train.de", tmp_path / "train.en")], lines, seed)


def test_a_small_corpus_is_taken_whole_and_in_order(tmp_path):
    assert sample(tmp_path, TRAIN, 1000) == (TRAIN, len(TRAIN))


def test_a_sample_holds_both_sides_of_pairs_from_the_whole_corpus(tmp_path):
    pairs = [(f"links {number}", f"rechts {number}") for number in range(1000)]
    chosen, _ = sample(tmp_path, pairs, 100)
    assert len(chosen) == 50 and set(chosen) <= set(pairs)
    numbers = [int(src.split()[1]) for src, _ in chosen]
    assert numbers == sorted(numbers) and max(numbers) > 800
    assert sample(tmp_path, pairs, 100)[0] == chosen
    assert sample(tmp_path, pairs, 100, seed=2)[0] != chosen


def test_a_sample_is_printable(tmp_path):
    pairs, _ = sample(tmp_path, [("ein\u3000u\u0308", "a\u2028block"), ("", " ")], 100)
    assert pairs == [("ein ü", "a block"), ("", "")]


def test_characters_that_sentencepiece_reserves_do_not_cost_the_line():
    texts = [f"{text} ▅ Dampf" for pair in TRAIN for text in pair]
    model = learn_sentencepieces([*texts, "▅"], SIZE)
    assert model == learn_sentencepieces([text.replace(" ▅", "") for text in texts], SIZE)


# -- reading -------------------------------------------------------------------------------


def test_a_vocabulary_is_read_as_it_was_made(made):
    vocabulary = read_vocabulary(made)
    assert (vocabulary.kind, vocabulary.source_lang, vocabulary.target_lang) == (
        "sentencepiece", "de", "en"
    )  # fmt: skip
    subwords = vocabulary.subwords("de")
    assert subwords.decode(subwords.encode("Das Haus")) == "Das Haus"


def test_a_copy_is_the_same_vocabulary(made, tmp_path):
    read_vocabulary(made).copy_to(tmp_path)
    assert read_vocabulary(tmp_path).files == read_vocabulary(made).files
    assert not (tmp_path / "manifest.json").exists()


@pytest.mark.parametrize("name", ["subwords.model", "dict.de.txt", "dict.en.txt"])
def test_a_changed_file_is_refused_by_name(folder, name):
    (folder / name).write_bytes((folder / name).read_bytes() + b"x")
    with pytest.raises(ValueError, match=f"{name} is not the file that vocabulary.json records"):
        read_vocabulary(folder)


@pytest.mark.parametrize("name", ["subwords.model", "dict.de.txt", "dict.en.txt"])
def test_a_lost_file_is_refused_by_name(folder, name):
    (folder / name).unlink()
    with pytest.raises(ValueError, match=f"{name} is missing"):
        read_vocabulary(folder)


@pytest.mark.parametrize("text", ["[]", "{}", '{"kind": "sentencepiece", "files": 3}', '"a"'])
def test_a_record_of_something_else_is_refused(folder, text):
    (folder / VOCABULARY_FILE).write_text(text)
    with pytest.raises(ValueError, match="does not describe a vocabulary"):
        read_vocabulary(folder)


def test_an_unknown_kind_is_refused(folder):
    record = json.loads((folder / VOCABULARY_FILE).read_text())
    (folder / VOCABULARY_FILE).write_text(json.dumps({**record, "kind": "morse"}))
    with pytest.raises(ValueError, match="kind 'morse' is unknown"):
        read_vocabulary(folder)


def test_a_folder_without_vocabulary_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no vocabulary"):
        read_vocabulary(tmp_path)


@pytest.mark.parametrize(
    "ours, theirs, names",
    [
        ({}, {}, []),
        ({"a": "1"}, {"a": "1"}, []),
        ({"a": "1", "b": "2"}, {"a": "1", "b": "3"}, ["b"]),
        ({"a": "1"}, {}, ["a"]),
        ({}, {"b": "1", "a": "1"}, ["a", "b"]),
    ],
)
def test_differences_name_files_that_differ_or_lack(ours, theirs, names):
    assert differences(ours, theirs) == differences(theirs, ours) == names


# -- the command ---------------------------------------------------------------------------


def test_the_command_writes_the_folder_and_help_teaches(tmp_path):
    write_folder(tmp_path / "text")
    languages = ("--source-lang", "de", "--target-lang", "en")
    words = ("--train", tmp_path / "text", *languages, "--out", tmp_path / "vocabulary")
    done = run_module("data_prep.vocabulary", *words, "--size", SIZE)
    assert done.returncode == 0, done.stderr
    assert read_vocabulary(tmp_path / "vocabulary").source_lang == "de"
    assert done.stdout == ""
    assert "Example:" in run_module("data_prep.vocabulary", "--help").stdout


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda text: (text / "train.en").unlink(), "train.en is missing"),
        (lambda text: write_side(text / "train.en", ["one"]), "stop being parallel at line 2"),
        (lambda text: write_folder(text, train=[]), "hold no text"),
        (lambda text: write_folder(text, train=[("", " ")]), "hold no text"),
        (lambda text: (text / "train.en").write_bytes(b"\xff\n" * len(TRAIN)), "line 1: not UTF-8"),
        (lambda text: write_folder(text, train=TRAIN[:1]), "the largest possible --size is"),
    ],
)
def test_bad_input_is_one_message_and_nothing_is_written(tmp_path, damage, message):
    text = write_folder(tmp_path / "text")
    damage(text)
    with pytest.raises((ValueError, OSError), match=message):
        make_vocabulary(text, "de", "en", SIZE, tmp_path / "vocabulary")
    assert [path.name for path in tmp_path.iterdir()] == ["text"]


def test_an_existing_folder_is_not_overwritten(made, tmp_path):
    with pytest.raises(FileExistsError, match="vocabulary exists"):
        make_vocabulary(write_folder(tmp_path / "text"), "de", "en", SIZE, made)
    assert read_vocabulary(made).kind == "sentencepiece"


# -- kinds ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def codes_folder(tmp_path_factory):
    """A vocabulary of subword-nmt with tokeniser and truecasing, never written to."""
    folder = tmp_path_factory.mktemp("codes")
    write_folder(folder / "text")
    make_vocabulary(
        folder / "text", "de", "en", 260, folder / "vocabulary", kind="subword-nmt",
        vocabulary_threshold=3, tokeniser=Settings(dash_splits=False), truecase=True,
    )  # fmt: skip
    return folder / "vocabulary"


def test_bpe_is_a_sentencepiece_model_of_another_type(made, tmp_path):
    bpe = make_vocabulary(
        write_folder(tmp_path / "text"), "de", "en", SIZE, tmp_path / "bpe", kind="bpe"
    )
    assert bpe.kind == "sentencepiece"
    assert read_manifest(tmp_path / "bpe")["settings"]["kind"] == "bpe"
    scores = bpe.subwords("de").scores().values()
    assert all(score == int(score) for score in scores)  # ranks of merges
    assert differences(bpe.files, read_vocabulary(made).files) == [
        "dict.de.txt", "dict.en.txt", "subwords.model"
    ]  # fmt: skip


def test_the_folder_of_subword_nmt_holds_its_files_and_all_travel(codes_folder, tmp_path):
    files = {"bpe.codes", "vocab.de", "vocab.en", "dict.de.txt", "dict.en.txt", "tokeniser.json",
             "truecaser.de", "truecaser.en"}  # fmt: skip
    vocabulary = read_vocabulary(codes_folder)
    assert vocabulary.kind == "subword-nmt" and vocabulary.files.keys() == files
    vocabulary.copy_to(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == files | {"vocabulary.json"}
    assert read_vocabulary(tmp_path).files == vocabulary.files


def test_every_piece_of_subword_nmt_is_in_the_dictionary_the_frequent_first(codes_folder):
    vocabulary = read_vocabulary(codes_folder)
    known = read_pieces(codes_folder / "dict.de.txt")
    sides = [read_pieces(codes_folder / f"vocab.{lang}") for lang in ("de", "en")]
    assert known.keys() == sides[0].keys() | sides[1].keys()
    counts = [sum(side.get(piece, 0) for side in sides) for piece in known]
    assert counts == sorted(counts, reverse=True)
    assert set(known.values()) == {1}
    for side, lang in enumerate(vocabulary.langs):
        subwords = vocabulary.subwords(lang)
        for pair in TRAIN:
            pieces = subwords.encode(pair[side])
            assert sides[side].keys() >= set(pieces)
            assert subwords.decode(pieces) == pair[side]
    assert read_manifest(codes_folder)["counts"]["pieces"] == len(known)


def test_languages_of_subword_nmt_are_cut_by_pieces_of_their_own(codes_folder):
    german, english = map(read_vocabulary(codes_folder).subwords, ("de", "en"))
    assert german.encode("The house") != english.encode("The house")
    # truecased: at the beginning a word is written as inside a sentence
    assert english.encode("Number")[0] == "number"


def test_all_characters_are_known_even_those_outside_the_sample(tmp_path):
    text = write_folder(tmp_path / "text", train=[*TRAIN, ("Ωμέγα", "你好")] * 3)
    vocabulary = make_vocabulary(
        text, "de", "en", 250, tmp_path / "made", kind="subword-nmt", sample_lines=8
    )
    known = read_pieces(vocabulary.dictionary("de"))
    for character in "Ωμέγα你好~":
        assert {character, f"{character}@@"} <= known.keys()


def test_the_same_text_gives_the_same_codes(codes_folder, tmp_path):
    again = make_vocabulary(
        write_folder(tmp_path / "text", suffix=".gz"), "de", "en", 260, tmp_path / "again",
        kind="subword-nmt", vocabulary_threshold=3, tokeniser=Settings(dash_splits=False),
        truecase=True,
    )  # fmt: skip
    assert again.files == read_vocabulary(codes_folder).files


def test_settings_of_the_tokeniser_are_part_of_the_fingerprint(tmp_path):
    text = write_folder(tmp_path / "text", train=[("aber ja", "yes but")] * 20)
    made = [
        make_vocabulary(text, "de", "en", 270, tmp_path / str(number), tokeniser=settings).files
        for number, settings in enumerate([None, Settings(), Settings(escape=False)])
    ]
    assert differences(made[0], made[1]) == differences(made[1], made[2]) == ["tokeniser.json"]


def test_several_folders_are_learnt_from_as_one(made, tmp_path):
    half = len(TRAIN) // 2
    folders = [write_folder(tmp_path / "a", train=TRAIN[:half]),
               write_folder(tmp_path / "b", train=TRAIN[half:], suffix=".zst")]  # fmt: skip
    vocabulary = make_vocabulary(folders, "de", "en", SIZE, tmp_path / "both")
    assert vocabulary.files == read_vocabulary(made).files
    manifest = read_manifest(tmp_path / "both")
    assert manifest["counts"]["pairs_read"] == len(TRAIN)
    assert sorted(manifest["inputs"]) == sorted(
        str(folder / f"train.{lang}{suffix}")
        for folder, suffix in zip(folders, ["", ".zst"], strict=True) for lang in ("de", "en")
    )  # fmt: skip


def test_little_text_for_the_threshold_is_said(tmp_path, capsys):
    text = write_folder(tmp_path / "text")
    make_vocabulary(text, "de", "en", 600, tmp_path / "rare", kind="subword-nmt",
                    vocabulary_threshold=1000)  # fmt: skip
    assert "lower --vocabulary-threshold" in capsys.readouterr().err
    make_vocabulary(text, "de", "en", 250, tmp_path / "often", kind="subword-nmt",
                    vocabulary_threshold=1)  # fmt: skip
    assert "lower --vocabulary-threshold" not in capsys.readouterr().err


def test_text_without_spaces_is_said_to_be_slow_to_learn(tmp_path, capsys):
    pairs = [("你好世界" * 5, "hello world")] * 20
    text = write_folder(tmp_path / "text", train=pairs, langs=("zh", "en"))
    make_vocabulary(text, "zh", "en", 250, tmp_path / "made", kind="subword-nmt")
    said = [line for line in capsys.readouterr().err.splitlines() if "without spaces" in line]
    assert len(said) == 1 and said[0].startswith("words of zh have 20 characters")


# -- of a model that exists ----------------------------------------------------------------


def adopt(folder, **given):
    return adopt_vocabulary("de", "en", folder / "adopted", **given)


def pieces_in(path, *pieces):
    """A file of pieces, each with the count 7."""
    write_side(path, [f"{piece} 7" for piece in pieces])
    return path


def test_a_sentencepiece_model_gives_its_own_order(made, tmp_path):
    adopted = adopt(tmp_path, model=made / MODEL_FILE)
    assert adopted.files == read_vocabulary(made).files


def test_given_dictionaries_are_taken_in_their_order(made, tmp_path):
    pieces = list(read_pieces(made / "dict.de.txt"))
    padding = [f"madeupword{number:04}" for number in range(60)]
    german = pieces_in(tmp_path / "g", *pieces[::-1], "漢", *padding)
    english = pieces_in(tmp_path / "e", *pieces[:200])
    adopted = adopt(tmp_path, model=made / MODEL_FILE, dictionaries=[german, english])
    assert adopted.dictionary("de").read_bytes() == german.read_bytes()
    assert adopted.dictionary("en").read_bytes() == english.read_bytes()
    counts = read_manifest(adopted.folder)["counts"]
    assert counts["de"] == {"pieces": len(pieces) + 61, "missing": 0}
    assert counts["en"] == {"pieces": 200, "missing": len(pieces) - 200}


def test_a_dictionary_with_windows_line_ends_is_read_as_fairseq_reads_it(made, tmp_path):
    given = tmp_path / "dict.txt"
    given.write_bytes((made / "dict.de.txt").read_bytes().replace(b"\n", b"\r\n"))
    adopted = adopt(tmp_path, model=made / MODEL_FILE, dictionaries=[given])
    assert adopted.files == read_vocabulary(made).files


def test_codes_cut_text_into_pieces_of_the_given_dictionaries(codes_folder, tmp_path, capsys):
    ours = read_vocabulary(codes_folder)
    merged = [p for p in read_pieces(codes_folder / "dict.de.txt") if len(p) > 4][:3]
    german = pieces_in(tmp_path / "g", *(
        piece for piece in read_pieces(codes_folder / "dict.de.txt") if piece not in merged
    ))  # fmt: skip
    adopted = adopt(
        tmp_path, codes=codes_folder / "bpe.codes",
        dictionaries=[german, codes_folder / "dict.en.txt"],
        tokeniser=Settings(dash_splits=False),
        truecasers=[codes_folder / "truecaser.de", codes_folder / "truecaser.en"],
    )  # fmt: skip
    assert adopted.kind == "subword-nmt"
    assert "cannot share all its embeddings" in capsys.readouterr().err
    known = read_pieces(german)
    for line in [src for src, _ in TRAIN]:
        pieces = adopted.subwords("de").encode(line)
        assert set(pieces) <= known.keys()
        assert adopted.subwords("de").decode(pieces) == line
    changed = differences(adopted.files, ours.files)
    assert changed == ["dict.de.txt", "vocab.de", "vocab.en"]


def test_a_vocabulary_filter_is_applied_with_its_threshold(codes_folder, tmp_path):
    ours = read_vocabulary(codes_folder)
    vocabularies, truecasers = (
        [codes_folder / f"{name}.{lang}" for lang in ours.langs] for name in ("vocab", "truecaser")
    )
    given = {
        "codes": codes_folder / "bpe.codes", "dictionaries": [codes_folder / "dict.en.txt"],
        "vocabularies": vocabularies, "tokeniser": Settings(dash_splits=False),
        "truecasers": truecasers,
    }  # fmt: skip
    assert adopt(tmp_path, **given).files == ours.files
    shutil.rmtree(tmp_path / "adopted")
    filtered = adopt(tmp_path, **given, vocabulary_threshold=20)
    assert set(read_pieces(filtered.folder / "vocab.de")) == {
        piece for piece, count in read_pieces(vocabularies[0]).items() if count >= 20
    }


def test_a_piece_of_the_filter_that_the_dictionary_lacks_is_split(codes_folder, tmp_path):
    *pieces, _ = read_pieces(codes_folder / "vocab.en")
    pieces_in(tmp_path / "dict.txt", *pieces)
    adopted = adopt(
        tmp_path, codes=codes_folder / "bpe.codes", dictionaries=[tmp_path / "dict.txt"],
        vocabularies=[codes_folder / "vocab.en"],
    )  # fmt: skip
    assert list(read_pieces(adopted.folder / "vocab.en")) == pieces


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda given, _: given.pop("dictionaries"), "--from-codes needs --from-dictionary"),
        (lambda given, _: given["dictionaries"].append(given["codes"]),
         "--from-dictionary takes one file or two, .* not 3"),
        (lambda given, other: given.update(dictionaries=[other / "dict.de.txt"]),
         r"dict.de.txt has 302 pieces, of which \d+ are none of .*bpe.codes, such as "),
        (lambda given, other: given.update(vocabularies=[other / "dict.de.txt"]),
         "dict.de.txt has 302 pieces, of which .*: they belong to different models"),
        (lambda given, other: given.update(codes=other / MODEL_FILE), "not UTF-8|codes begin"),
        (lambda given, other: given.update(model=given.pop("codes")),
         "bpe.codes is not a SentencePiece model"),
        (lambda given, other: given.update(model=other / MODEL_FILE, codes=None),
         r"dict.de.txt has \d+ pieces, of which \d+ are none of .*subwords.model"),
        (lambda given, other: given.update(dictionaries=[given["codes"]]),
         "bpe.codes, line 1: expected a piece, a space and a count, found '#version: 0.2'"),
        (lambda given, other: given.update(truecasers=["a"]), "takes two files"),
        (lambda given, other: given.update(tokeniser=Settings(), truecasers=[given["codes"]] * 2),
         "truecaser.de is not a truecasing model"),
        (lambda given, other: given.update(codes=other / "none"), "none is missing"),
    ],
)  # fmt: skip
def test_files_of_different_models_are_refused_and_nothing_is_written(
    made, codes_folder, tmp_path, change, message
):
    given = {"codes": codes_folder / "bpe.codes",
             "dictionaries": [codes_folder / "dict.de.txt"] * 2}  # fmt: skip
    change(given, made)
    with pytest.raises((ValueError, OSError), match=message):
        adopt(tmp_path, **given)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "lines, message",
    [
        (["a 1", "b"], "line 2: expected a piece, a space and a count, found 'b'"),
        (["a 1", "b -1"], "line 2: expected"),
        (["a b 1"], "line 1: expected"),
        (["a 1 #fairseq:overwrite"], "line 1: expected"),
        (["a 1", "b 1", "a 2"], "line 3: 'a' is there for the second time"),
        ([" 1"], "line 1: expected"),
    ],
)
def test_a_list_of_pieces_that_is_none_names_the_line(tmp_path, lines, message):
    write_side(tmp_path / "dict.txt", lines)
    with pytest.raises(ValueError, match=message):
        read_pieces(tmp_path / "dict.txt")


def test_a_piece_named_like_a_symbol_of_fairseq_is_refused(tmp_path):
    with pytest.raises(ValueError, match="the piece '</s>' has the name of a symbol"):
        write_dictionary({"a": 1, "</s>": 1}, tmp_path / "dict.txt")
    assert not (tmp_path / "dict.txt").exists()


# -- what is asked for on the command line ---------------------------------------------------


@pytest.mark.parametrize(
    "words, message",
    [
        ("", "--train is missing; or name"),
        ("--train a --from-model b", "--train is for learning a vocabulary"),
        ("--from-model a --size 5", "--size is for learning"),
        ("--from-model a --from-codes b", "name one of --from-folder"),
        ("--from-dictionary a", "name one of --from-folder"),
        ("--from-folder a --from-dictionary b", "--from-folder takes all that"),
        ("--from-folder a --tokenise moses", "--from-folder takes all that"),
        ("--from-folder a --size 5", "--size is for learning"),
        ("--from-model a --from-vocabulary b", "belong to --from-codes"),
        ("--from-model a --vocabulary-threshold 3", "belong to --from-codes"),
        ("--from-model a --from-truecaser b c", "--from-truecaser needs --tokenise moses"),
        ("--from-model a --tokenise moses --truecase", "with --from-truecaser"),
        ("--train a --truecase", "--truecase needs --tokenise moses"),
        ("--train a --moses-no-escape", "--moses-no-escape needs --tokenise moses"),
        ("--train a --kind bpe --vocabulary-threshold 3", "belongs to --kind subword-nmt"),
        ("--train a --kind subword-nmt --character-coverage 1", "belongs to --kind unigram and"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(tmp_path, words, message):
    with pytest.raises(ValueError, match=message):
        main_with(*words.split(), "--out", tmp_path / "out")


def test_the_command_line_reaches_the_vocabulary(codes_folder, tmp_path):
    text = write_folder(tmp_path / "text")
    main_with(
        "--train", text, "--size", 260, "--kind", "subword-nmt", "--vocabulary-threshold", 3,
        "--tokenise", "moses", "--truecase", "--moses-no-dash-splits", "--out", tmp_path / "made",
    )  # fmt: skip
    assert read_vocabulary(tmp_path / "made").files == read_vocabulary(codes_folder).files
    main_with(
        "--from-codes", tmp_path / "made" / "bpe.codes", "--tokenise", "moses",
        "--moses-no-dash-splits", "--from-dictionary", tmp_path / "made" / "dict.de.txt",
        "--from-vocabulary", tmp_path / "made" / "vocab.de", tmp_path / "made" / "vocab.en",
        "--from-truecaser", tmp_path / "made" / "truecaser.de", tmp_path / "made" / "truecaser.en",
        "--out", tmp_path / "adopted",
    )  # fmt: skip
    assert read_vocabulary(tmp_path / "adopted").files == read_vocabulary(codes_folder).files


def main_with(*words):
    vocabulary._main([*map(str, words), "--source-lang", "de", "--target-lang", "en"])
