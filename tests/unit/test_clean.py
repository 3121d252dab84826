"""data_prep/clean.py: every line is accounted for, the kept are fit, dev and test untouched."""

import gzip
import json
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_prep.clean import (
    Duplicates,
    clean,
    count_words,
    has_long_word,
    is_out_of_ratio,
    is_too_long,
    repair,
    survey,
)
from data_prep.manifest import read_manifest
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

# pieces of which awkward lines are made
lines = st.lists(
    st.sampled_from(
        ["Haus", "house", " ", "  ", "\r", "\u2028", "\t", "\x00", "\u00a0", "ü", "u\u0308",
         "\ufeff", "\u00ad", "你好", "!", "Guten Morgen, Herr Müller!", "x" * 101, "wort " * 201]
    ),
    max_size=4,
).map("".join)  # fmt: skip
pairs = st.lists(st.tuples(lines, lines), min_size=1, max_size=12)

each_example_has_its_own_folder = settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture
def fresh(tmp_path):
    """A function that gives a new place in the test's folder at each call."""
    count = iter(range(10**6))
    return lambda: tmp_path / str(next(count))


def train_of(folder):
    return list(zip(*(read_side(Path(folder) / f"train.{lang}") for lang in LANGS), strict=True))


def clean_pairs(fresh, train, **options):
    """(kept pairs, ledger as written) of training pairs among ordinary ones."""
    out = fresh()
    clean(write_folder(fresh(), train=train), LANGS, out, **options)
    return train_of(out), json.loads((out / "ledger.json").read_text(encoding="utf-8"))


# -- laws ----------------------------------------------------------------------------------


@each_example_has_its_own_folder
@given(awkward=pairs)
def test_kept_and_dropped_lines_sum_to_those_read(fresh, awkward):
    kept, ledger = clean_pairs(fresh, TRAIN + awkward)
    assert ledger["read"] == len(TRAIN) + len(awkward)
    assert ledger["kept"] == len(kept)
    dropped = ledger["dropped"].values()
    assert ledger["read"] == ledger["kept"] + sum(entry["count"] for entry in dropped)
    for entry in dropped:
        assert len(entry["examples"]) == min(5, entry["count"])
        assert entry["share"] == pytest.approx(entry["count"] / ledger["read"], abs=1e-6)


@each_example_has_its_own_folder
@given(awkward=pairs)
def test_each_kept_line_is_one_record_however_it_is_read(fresh, awkward):
    out = fresh()
    clean(write_folder(fresh(), train=TRAIN + awkward), LANGS, out)
    for lang in LANGS:
        with open(out / f"train.{lang}", encoding="utf-8") as file:  # universal newlines
            usual = [line.removesuffix("\n") for line in file]
        assert usual == read_side(out / f"train.{lang}")
        assert usual == (out / f"train.{lang}").read_text(encoding="utf-8").splitlines()


@each_example_has_its_own_folder
@given(awkward=pairs)
def test_line_numbers_lead_back_to_the_input(fresh, awkward):
    out, raw = fresh(), TRAIN + awkward
    clean(write_folder(fresh(), train=raw), LANGS, out)
    numbers = [int(line) for line in read_side(out / "train.lines")]
    assert numbers == sorted(set(numbers))
    assert [tuple(map(repair, raw[number - 1])) for number in numbers] == train_of(out)


@each_example_has_its_own_folder
@given(awkward=pairs)
def test_cleaning_clean_text_changes_nothing(fresh, awkward):
    once, _ = clean_pairs(fresh, TRAIN + awkward, expected_ratio=1.1)
    twice, ledger = clean_pairs(fresh, once, expected_ratio=1.1)
    assert twice == once
    assert ledger["repaired"] == 0


@given(st.text())
def test_repair_is_a_fixed_point(text):
    assert repair(repair(text)) == repair(text)


# -- the steps -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "raw, repaired",
    [
        ("plain text.", "plain text."),
        ("a\u2028b\rc\td\x0be\x85f", "a b c d e f"),
        ("  many   spaces \u3000here\u00a0", "many spaces here"),
        ("\ufeffmark and soft\u00adhyphen", "mark and softhyphen"),
        ("nul\x00", "nul"),
        ("u\u0308ber", "über"),
        ("u\u00ad\u0308ber", "über"),
        ("½ “quoted” … ﬁ，", "½ “quoted” … ﬁ，"),
        ("\r\n\u2029", ""),
    ],
)
def test_repair(raw, repaired):
    assert repair(raw) == repaired


@pytest.mark.parametrize(
    "text, words",
    [
        ("", 0),
        ("two words", 2),
        ("你好，世界。", 4 + 2),  # a mark between characters is a word of its own
        ("用 Python 3 写", 4),
        ("私はペンです", 6),
        ("สวัสดี", 6),
        ("Слово за слово", 3),
        ("한국어 문장", 2),
    ],
)
def test_words_are_counted_in_any_script(text, words):
    assert count_words(text) == words


@pytest.mark.parametrize("text, words", [("wort " * 50, 50), ("字" * 50, 50)])
@pytest.mark.parametrize("side", [0, 1])
def test_the_longest_line_is_let_through_and_the_next_is_not(text, words, side):
    pair = ["kurz", "short"]
    pair[side] = text
    assert not is_too_long(*pair, max_words=words)
    assert is_too_long(*pair, max_words=words - 1)


def test_a_long_word_is_found_between_short_ones_but_chinese_needs_no_spaces():
    assert has_long_word("ein " + "x" * 101, "a", max_word_length=100)
    assert has_long_word("a", "x" * 101, max_word_length=100)
    assert not has_long_word("x" * 100 + " " + "y" * 100, "a", max_word_length=100)
    assert not has_long_word("字" * 150, "x " * 100, max_word_length=100)


@pytest.mark.parametrize("expected_ratio", [0.3, 1.0, 3.0])
def test_the_length_ratio_is_judged_against_what_is_expected(expected_ratio):
    src = "x" * 10_000
    for factor in (1 / 3.2, 1 / 2.8, 1, 2.8, 3.2):
        tgt = "y" * round(10_000 * expected_ratio * factor)
        dropped = factor in (1 / 3.2, 3.2)
        assert is_out_of_ratio(src, tgt, expected_ratio, max_ratio=3.0) is dropped


def test_short_lines_may_differ_more_in_length():
    assert not is_out_of_ratio("Ja.", "Yes, please.", expected_ratio=1.0, max_ratio=3.0)
    assert is_out_of_ratio("Ja. " * 50, "Yes, please. " * 50, expected_ratio=1.0, max_ratio=3.0)


@pytest.mark.parametrize("factor", [0.2, 1, 4])
def test_the_expected_ratio_is_the_corpus_median_of_target_to_source(tmp_path, factor):
    usual = [("x" * 20 * length, "y" * round(20 * length * factor)) for length in range(1, 8)]
    odd = [("x", "y" * 500), ("", "y" * 90), ("x" * 500, "y")]
    write_folder(tmp_path, train=usual + odd)
    found = survey(tmp_path / "train.de", tmp_path / "train.en")
    assert found == (len(usual + odd), pytest.approx(factor, rel=0.01))


def test_only_the_same_pair_is_a_duplicate():
    seen = Duplicates()
    assert [seen("a", "b"), seen("a", "c"), seen("c", "b"), seen("b", "a")] == [False] * 4
    assert [seen("a", "b"), seen("b", "a"), seen("A", "b")] == [True, True, False]


@pytest.mark.parametrize(
    "pair, reason",
    [
        (("", "text"), "empty"),
        (("Text", "\u2028\r"), "empty"),
        (("wort " * 10_000, "word " * 10_000), "too long"),
        (("Text " + "x" * 101, "text " + "x" * 101), "word too long"),
        (("Ein Satz.", "Many words, none of which have anything to do with it, all too many."),
         "length ratio"),
        (TRAIN[0], "duplicate"),
        (("  " + TRAIN[3][0].replace(" ", "\t"), TRAIN[3][1]), "duplicate"),
        (("guten morgen herr müller", "Something else."), "held-out overlap"),
        (("Etwas anderes gibt es.", "IT HAS RAINED -- for days"), "held-out overlap"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_an_unfit_pair_is_dropped_for_its_reason(fresh, pair, reason):
    kept, ledger = clean_pairs(fresh, [*TRAIN, pair])
    assert kept == TRAIN
    dropped = {name: entry["count"] for name, entry in ledger["dropped"].items()}
    assert {name: count for name, count in dropped.items() if count} == {reason: 1}
    (example,) = ledger["dropped"][reason]["examples"]
    assert example["line"] == len(TRAIN) + 1


def test_lines_of_another_corpus_held_out_are_not_trained_on(fresh):
    leaked = ("Die Dosis beträgt 5 mg.", "The dose is 5 mg.")
    other = write_folder(fresh(), train=None, dev=None, test=[leaked], suffix=".gz")
    kept, ledger = clean_pairs(fresh, [*TRAIN, leaked], held_out=[other])
    assert kept == TRAIN
    assert ledger["dropped"]["held-out overlap"]["count"] == 1
    assert clean_pairs(fresh, [*TRAIN, leaked])[0] == [*TRAIN, leaked]


# -- dev and test --------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_dev_and_test_keep_their_bytes(tmp_path, suffix):
    odd = "\ufeff\u2028 odd \r\nline\u00a0 \n\nno end".encode()
    folder = write_folder(tmp_path / "raw", suffix=suffix)
    for split in ("dev", "test"):
        for lang in LANGS:
            data = odd + f" {split} {lang}".encode()
            (folder / f"{split}.{lang}{suffix}").write_bytes(
                gzip.compress(data) if suffix else data
            )
    clean(folder, LANGS, tmp_path / "text")
    for split in ("dev", "test"):
        for lang in LANGS:
            assert (tmp_path / "text" / f"{split}.{lang}").read_bytes() == (
                odd + f" {split} {lang}".encode()
            )


def test_other_files_are_ignored(tmp_path):
    folder = write_folder(tmp_path / "raw", suffix=".gz")
    write_side(folder / "train.origin.gz", ["only one line"])
    write_side(folder / "train.fr", ["une ligne"])
    clean(folder, LANGS, tmp_path / "text")
    assert {path.name for path in (tmp_path / "text").iterdir()} == {
        "train.de", "train.en", "train.lines", "dev.de", "dev.en", "test.de", "test.en",
        "ledger.json", "manifest.json",
    }  # fmt: skip


# -- bad input -----------------------------------------------------------------------------

LATIN = "süß\n".encode("latin-1")


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda raw: (raw / "train.de").unlink(), "train.de is missing"),
        (lambda raw: (raw / "dev.en").unlink(), "dev.en is missing"),
        (lambda raw: (raw / "test.de").unlink(), "test.de is missing"),
        (lambda raw: write_folder(raw, train=[]), "train.en are empty"),
        (lambda raw: write_folder(raw, dev=[]), "dev.en are empty"),
        (lambda raw: write_folder(raw, test=[]), "test.en are empty"),
        (lambda raw: write_side(raw / "train.en", ["one"]), "parallel at line 2"),
        (lambda raw: write_side(raw / "dev.en", ["one"]), "parallel at line 2"),
        (lambda raw: write_side(raw / "test.de", ["one"]), "parallel at line 2"),
        (lambda raw: (raw / "train.en").write_bytes(b"ok\n" + LATIN), "train.en, line 2: not UTF"),
        (lambda raw: (raw / "dev.de").write_bytes(b"ok\n" + LATIN), "dev.de, line 2: not UTF-8"),
        (lambda raw: (raw / "test.en").write_bytes(LATIN), "test.en, line 1: not UTF-8"),
        (lambda raw: write_folder(raw, train=DEV + TEST),
         r"no training pair of .* is left: kept 0 of 4 \(4 held-out overlap\)"),
        (lambda raw: write_folder(raw, train=[("", "a")] * 3),
         r"no training pair of .* is left: kept 0 of 3 \(3 empty\)"),
    ],
)  # fmt: skip
def test_bad_input_is_one_message_and_nothing_is_written(tmp_path, damage, message):
    damage(write_folder(tmp_path / "raw"))
    with pytest.raises((ValueError, OSError), match=message):
        clean(tmp_path / "raw", LANGS, tmp_path / "text")
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


def test_a_truncated_archive_is_named(tmp_path):
    folder = write_folder(tmp_path / "raw", suffix=".gz")
    whole = (folder / "train.en.gz").read_bytes()
    (folder / "train.en.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"train\.en\.gz is damaged after line"):
        clean(folder, LANGS, tmp_path / "text")
    assert not (tmp_path / "text").exists()


@pytest.mark.parametrize(
    "options, message",
    [
        ({"max_words": 0}, "--max-words is a number above 0, not 0"),
        ({"max_word_length": -1}, "--max-word-length is a number above 0, not -1"),
        ({"max_ratio": 1.0}, "--max-ratio is a factor above 1, not 1.0"),
        ({"max_ratio": float("nan")}, "--max-ratio is a factor above 1, not nan"),
        ({"expected_ratio": 0.0}, "--expected-ratio is a number above 0, not 0.0"),
        ({"lines": 0}, "--lines is a number above 0, not 0"),
    ],
)
def test_an_option_out_of_range_is_refused_with_its_value(tmp_path, options, message):
    write_folder(tmp_path / "raw")
    with pytest.raises(ValueError, match=re.escape(message)):
        clean(tmp_path / "raw", LANGS, tmp_path / "text", **options)


def test_a_held_out_folder_without_dev_and_test_is_named(tmp_path):
    write_folder(tmp_path / "raw")
    write_folder(tmp_path / "other", dev=None, test=None)
    with pytest.raises(FileNotFoundError, match=r"other has neither dev\.de nor test\.de"):
        clean(tmp_path / "raw", LANGS, tmp_path / "text", held_out=[tmp_path / "other"])


# -- options and the command ---------------------------------------------------------------


@pytest.mark.parametrize("number", [1, 7, len(TRAIN), 10 * len(TRAIN)])
def test_a_trial_takes_lines_from_the_whole_corpus(fresh, number):
    out = fresh()
    clean(write_folder(fresh()), LANGS, out, lines=number)
    numbers = [int(line) for line in read_side(out / "train.lines")]
    assert len(numbers) == min(number, len(TRAIN))
    assert max(numbers) == len(TRAIN)
    gaps = [later - earlier for earlier, later in zip([0, *numbers], numbers, strict=False)]
    assert max(gaps) - min(gaps) <= 1


def test_the_same_input_gives_the_same_bytes(fresh):
    raw, outs = write_folder(fresh(), train=TRAIN + [("", "a")]), [fresh(), fresh()]
    for out in outs:
        clean(raw, LANGS, out)
    for name in ("train.de", "train.en", "train.lines", "ledger.json", "dev.de", "test.en"):
        assert (outs[0] / name).read_bytes() == (outs[1] / name).read_bytes()


def test_the_manifest_tells_inputs_settings_and_counts(tmp_path):
    raw = write_folder(tmp_path / "raw")
    other = write_folder(tmp_path / "other", train=None, dev=None)
    clean(raw, LANGS, tmp_path / "text", held_out=[other], max_ratio=2.5)
    manifest = read_manifest(tmp_path / "text")
    assert manifest["settings"]["max_ratio"] == 2.5
    assert manifest["counts"] == {
        "train": len(TRAIN), "dev": len(DEV), "test": len(TEST), "train_read": len(TRAIN)
    }  # fmt: skip
    read = {f"{raw}/{split}.{lang}" for split in ("train", "dev", "test") for lang in LANGS}
    assert manifest["inputs"].keys() == read | {f"{other}/test.{lang}" for lang in LANGS}


def test_the_command_says_in_one_line_what_it_kept(tmp_path):
    write_folder(tmp_path / "raw", train=[*TRAIN, ("", "a"), ("b", ""), TRAIN[0]])
    words = ("--in", tmp_path / "raw", "--source-lang", "de", "--target-lang", "en")
    done = run_module("data_prep.clean", *words, "--out", tmp_path / "text")
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == (
        f"{tmp_path / 'text'}: kept 40 of 43 (2 empty, 1 duplicate)"
    )
    assert done.stdout == ""

    again = run_module("data_prep.clean", *words, "--out", tmp_path / "text")
    assert again.returncode == 1
    assert again.stderr == (
        f"data_prep.clean: error: {tmp_path / 'text'} exists; remove it or name another place\n"
    )


def test_a_place_that_cannot_be_written_is_one_message(tmp_path):
    write_folder(tmp_path / "raw")
    (tmp_path / "file").write_text("no folder")
    done = run_module(
        "data_prep.clean", "--in", tmp_path / "raw", "--source-lang", "de", "--target-lang", "en",
        "--out", tmp_path / "file" / "text",
    )  # fmt: skip
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert str(tmp_path / "file") in done.stderr
