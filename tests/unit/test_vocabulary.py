"""data_prep/vocabulary.py: one joint vocabulary, the same bytes every time, known by its hash."""

import json
import re
import shutil

import pytest
import sentencepiece

from data_prep.files import sha256
from data_prep.learn_subwords import learn_sentencepieces
from data_prep.vocabulary import (
    MODEL_FILE,
    VOCABULARY_FILE,
    differences,
    make_vocabulary,
    read_vocabulary,
    sample_bitext,
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
