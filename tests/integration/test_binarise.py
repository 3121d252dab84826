"""data_prep/binarise.py with the real fairseq-preprocess: what goes in is what comes out."""

import json
import os
import shutil
import stat
from array import array

import pytest

from data_prep import binarise as module
from data_prep.binarise import binarise, binary_sizes, check_binary
from data_prep.manifest import read_manifest
from data_prep.vocabulary import make_vocabulary, read_vocabulary
from tests.fixtures.bitext import (
    DEV,
    TEST,
    TRAIN,
    read_side,
    run_module,
    write_folder,
    write_side,
)

LANGS = ("de", "en")
# each of these has cost someone's pipeline a line
AWKWARD = [
    ("eins\u2028zwei\u2029drei", "one\rtwo\x85three"),
    ("\ufeffMarke <unk> </s> <0x0A>", "mark\u00a0and\u3000wide"),
    ("你好，世界 👩‍👧 \x00", "▁ mark ▅ block"),
]
EMPTY = [("", "no source"), ("kein Ziel", "\u2028"), ("", "")]


@pytest.fixture(scope="module", autouse=True)
def quick_preprocess():
    """Not here: fairseq's own command."""


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vocabulary")
    return make_vocabulary(write_folder(folder / "text"), "de", "en", 305, folder / "made").folder


@pytest.fixture(scope="module")
def prepared(vocabulary, tmp_path_factory):
    """(text folder, prepared folder) of awkward text; never written to."""
    folder = tmp_path_factory.mktemp("prepared")
    text = write_folder(
        folder / "text",
        train=TRAIN + AWKWARD,
        dev=DEV + AWKWARD + EMPTY,
        test=TEST + EMPTY + AWKWARD,
    )
    binarise(text, vocabulary, folder / "prepared")
    return text, folder / "prepared"


@pytest.fixture
def no_fairseq(tmp_path, monkeypatch):
    """A function that puts a stand-in for fairseq-preprocess first."""

    def stand_in(script):
        path = tmp_path / "bin" / "fairseq-preprocess"
        path.parent.mkdir(exist_ok=True)
        path.write_text(script)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setattr(module.sys, "executable", str(path.parent / "python"))
        monkeypatch.setenv("PATH", f"{path.parent}{os.pathsep}/usr/bin{os.pathsep}/bin")

    return stand_in


def test_the_folder_holds_binaries_vocabulary_and_raw_held_out_text(prepared):
    _, folder = prepared
    binaries = {
        f"{split}.de-en.{lang}.{kind}"
        for split in ("train", "valid", "test") for lang in LANGS for kind in ("bin", "idx")
    }  # fmt: skip
    assert {path.name for path in folder.iterdir()} == binaries | {
        "valid.de", "valid.en", "test.de", "test.en", "subwords.model", "dict.de.txt",
        "dict.en.txt", "vocabulary.json", "manifest.json",
    }  # fmt: skip


def test_every_line_is_a_sentence_of_as_many_pieces(prepared, vocabulary):
    text, folder = prepared
    subwords = read_vocabulary(vocabulary).subwords("de")
    for split, name in (("train", "train"), ("dev", "valid"), ("test", "test")):
        for lang in LANGS:
            pieces = subwords.encode_batch(read_side(text / f"{split}.{lang}"))
            sizes = binary_sizes(folder / f"{name}.de-en.{lang}")
            assert list(sizes) == [len(line) + 1 for line in pieces]


def test_fairseq_reads_back_the_text(prepared, vocabulary):
    from fairseq.data import Dictionary, data_utils

    text, folder = prepared
    subwords = read_vocabulary(vocabulary).subwords("de")
    for lang in LANGS:
        dictionary = Dictionary.load(str(folder / f"dict.{lang}.txt"))
        data = data_utils.load_indexed_dataset(str(folder / f"train.de-en.{lang}"), dictionary)
        lines = read_side(text / f"train.{lang}")
        assert len(data) == len(lines)
        for ids, line in zip(data, lines, strict=True):
            pieces = [dictionary[number] for number in ids[:-1]]
            assert pieces == subwords.encode(line)
            assert ids[-1] == dictionary.eos()


def test_held_out_text_is_copied_byte_for_byte(prepared):
    text, folder = prepared
    for split, name in (("dev", "valid"), ("test", "test")):
        for lang in LANGS:
            assert (folder / f"{name}.{lang}").read_bytes() == (
                text / f"{split}.{lang}"
            ).read_bytes()


def test_the_vocabulary_travels_unchanged(prepared, vocabulary):
    assert read_vocabulary(prepared[1]).files == read_vocabulary(vocabulary).files


def test_the_manifest_counts_lines_and_finds_nothing_unknown(prepared):
    counts = read_manifest(prepared[1])["counts"]
    for split, lines, empty in (
        ("train", len(TRAIN + AWKWARD), 0),
        ("dev", len(DEV + AWKWARD + EMPTY), 2),
        ("test", len(TEST + AWKWARD + EMPTY), 2),
    ):
        assert counts[split]["lines"] == counts[split]["pairs"] == lines
        for lang in LANGS:
            assert counts[split][lang]["unknown"] == 0
            assert counts[split][lang]["empty"] == empty
            assert counts[split][lang]["pieces"] > 0


def test_distilled_train_is_joined_by_the_references_held_out(vocabulary, tmp_path):
    corpus = write_folder(tmp_path / "corpus")
    output = [(src, tgt.upper()) for src, tgt in TRAIN]
    distilled = write_folder(tmp_path / "distilled", train=output, dev=None, test=None)
    binarise(distilled, vocabulary, tmp_path / "prepared", held_out=corpus, workers=4)
    for lang in LANGS:
        assert (tmp_path / "prepared" / f"valid.{lang}").read_bytes() == (
            corpus / f"dev.{lang}"
        ).read_bytes()
    subwords = read_vocabulary(vocabulary).subwords("de")
    sizes = binary_sizes(tmp_path / "prepared" / "train.de-en.en")
    assert list(sizes) == [len(subwords.encode(tgt)) + 1 for _, tgt in output]


def test_chosen_splits_alone_are_prepared_by_two_workers_alike(prepared, vocabulary, tmp_path):
    text, folder = prepared
    many = (TRAIN + AWKWARD) * 60
    write_folder(tmp_path / "text", train=many, dev=None, test=None)
    binarise(tmp_path / "text", vocabulary, tmp_path / "out", splits=("train",), workers=2)
    once = binary_sizes(folder / "train.de-en.de")
    assert binary_sizes(tmp_path / "out" / "train.de-en.de") == once * 60
    assert not (tmp_path / "out" / "valid.de").exists()


def test_training_pairs_too_long_or_empty_are_dropped_and_their_numbers_kept(vocabulary, tmp_path):
    endless = ("wort " * 10_000, "word")
    text = write_folder(tmp_path / "text", train=[TRAIN[0], endless, *EMPTY, TRAIN[1]])
    binarise(text, vocabulary, tmp_path / "prepared")
    counts = read_manifest(tmp_path / "prepared")["counts"]["train"]
    assert (counts["lines"], counts["pairs"]) == (6, 2)
    assert counts["dropped_lines"] == {"too long": [2], "empty": [3, 4, 5]}
    subwords = read_vocabulary(vocabulary).subwords("de")
    assert list(binary_sizes(tmp_path / "prepared" / "train.de-en.en")) == [
        len(subwords.encode(tgt)) + 1 for _, tgt in TRAIN[:2]
    ]


# -- bad input: no fairseq needed ----------------------------------------------------------


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda text: (text / "train.de").unlink(), "train.de is missing"),
        (lambda text: (text / "test.en").unlink(), "test.en is missing"),
        (lambda text: write_side(text / "dev.en", ["one"]), "parallel at line 2"),
        (lambda text: (text / "dev.en").write_bytes(b"a\n\xff\n"), "dev.en, line 2: not UTF-8"),
        (lambda text: write_folder(text, dev=[]), "nothing to binarise in .*dev.de .*: no lines"),
        (lambda text: write_folder(text, train=[("wort " * 2000, "a")]),
         "of 1 pairs, 1 too long"),
        (lambda text: write_folder(text, test=[*TEST, ("kurz", "word " * 2000)]),
         r"test\.en, line 3: \d+,\d+ pieces, more than --max-pieces 1,022"),
    ],
)  # fmt: skip
def test_bad_text_is_one_message_and_nothing_is_written(vocabulary, tmp_path, damage, message):
    text = write_folder(tmp_path / "text")
    damage(text)
    with pytest.raises((ValueError, OSError), match=message):
        binarise(text, vocabulary, tmp_path / "prepared")
    assert [path.name for path in tmp_path.iterdir()] == ["text"]


def test_a_vocabulary_that_was_changed_is_refused_before_the_work(vocabulary, tmp_path):
    changed = shutil.copytree(vocabulary, tmp_path / "vocabulary")
    with open(changed / "dict.en.txt", "a") as file:
        file.write("extra 1\n")
    with pytest.raises(ValueError, match="dict.en.txt is not the file"):
        binarise(write_folder(tmp_path / "text"), changed, tmp_path / "prepared")


def test_a_vocabulary_of_other_languages_names_the_missing_file(vocabulary, tmp_path):
    text = write_folder(tmp_path / "text", langs=("ru", "en"))
    with pytest.raises(FileNotFoundError, match=r"train\.de is missing"):
        binarise(text, vocabulary, tmp_path / "prepared")


# -- when fairseq fails --------------------------------------------------------------------


def test_fairseq_that_is_not_installed_is_named(vocabulary, tmp_path, monkeypatch):
    monkeypatch.setattr(module.sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    message = "fairseq-preprocess is neither beside .* dad-doctor"
    with pytest.raises(FileNotFoundError, match=message):
        binarise(write_folder(tmp_path / "text"), vocabulary, tmp_path / "prepared")


def test_what_fairseq_says_when_it_fails_is_shown(vocabulary, tmp_path, no_fairseq):
    no_fairseq("#!/bin/sh\necho starting\necho 'No space left on device' >&2\nexit 3\n")
    with pytest.raises(ValueError, match="failed with status 3(.|\n)*No space left on device"):
        binarise(write_folder(tmp_path / "text"), vocabulary, tmp_path / "prepared")
    assert not list(tmp_path.glob("prepared*"))


def test_fairseq_that_leaves_no_files_is_noticed(vocabulary, tmp_path, no_fairseq):
    no_fairseq("#!/bin/sh\nexit 0\n")
    with pytest.raises(ValueError, match=r"left no readable .*train\.de-en\.de\.bin"):
        binarise(write_folder(tmp_path / "text"), vocabulary, tmp_path / "prepared")
    assert not list(tmp_path.glob("prepared*"))


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda pieces: pieces[:-1], "lines went in and"),
        (lambda pieces: pieces + pieces[:1], "lines went in and"),
        (lambda pieces: array("i", [*pieces[1:], pieces[0]]), r"sentence \d+ has \d+ pieces after"),
    ],
)
def test_a_binary_that_is_not_its_text_is_noticed(prepared, change, message):
    prefix = prepared[1] / "train.de-en.de"
    pieces = array("i", [size - 1 for size in binary_sizes(prefix)])
    check_binary(prefix, pieces)
    with pytest.raises(ValueError, match=message):
        check_binary(prefix, change(pieces))


@pytest.mark.parametrize(
    "kind, keep, message",
    [
        ("idx", 10, "left no readable"),
        ("idx", 30, "not an index of fairseq"),
        ("idx", 80, "not an index of fairseq"),
        ("bin", 10, "does not fit its"),
        ("bin", 0, "does not fit its"),
    ],
)
def test_a_truncated_binary_is_noticed(prepared, tmp_path, kind, keep, message):
    for suffix in ("bin", "idx"):
        shutil.copy(prepared[1] / f"valid.de-en.en.{suffix}", tmp_path / f"x.{suffix}")
    os.truncate(tmp_path / f"x.{kind}", keep)
    with pytest.raises(ValueError, match=message):
        binary_sizes(tmp_path / "x")


# -- the command ---------------------------------------------------------------------------


def test_the_command_reports_pairs_and_unknown_pieces(vocabulary, tmp_path):
    words = (
        "--train", write_folder(tmp_path / "text"), "--vocabulary", vocabulary,
        "--out", tmp_path / "prepared",
    )  # fmt: skip
    done = run_module("data_prep.binarise", *words)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == (
        f"{tmp_path / 'prepared'}: 40 train, 2 dev, 2 test pairs, 0 unknown pieces"
    )
    assert done.stdout == ""
    assert json.loads((tmp_path / "prepared" / "manifest.json").read_text())["command"]
    again = run_module("data_prep.binarise", *words)
    assert again.returncode == 1
    assert again.stderr == (
        f"data_prep.binarise: error: {tmp_path / 'prepared'} exists; remove it or name another "
        "place\n"
    )
