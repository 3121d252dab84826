"""data_prep/overlap.py: no training line is known from dev or test, in any folder."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.overlap import check, find_split, held_out_places, leak_of, match_key
from tests.fixtures.bitext import DEV, TRAIN, run_module, write_folder

LANGS = ("de", "en")


@pytest.mark.parametrize(
    "one, other",
    [
        ("Guten Morgen!", "guten morgen"),
        ("Straße", "STRASSE"),
        ("e-mail", "E Mail"),
        ("u\u0308ber", "Über"),
        ("a\u2028b", "ab"),
        ("你好，世界。", "你好世界"),
        ("１２３ ＡＢＣ", "123 abc"),
        ("Ёлка — зелёная", "ёлка зелёная"),
    ],
)
def test_case_spacing_punctuation_and_width_are_ignored(one, other):
    assert match_key(one) == match_key(other)


@pytest.mark.parametrize(
    "one, other",
    [
        ("5 mg", "50 mg"),
        ("Haus", "Maus"),
        ("schon", "schön"),
        ("你", "您"),
        ("?", "!"),
        ("?", ""),
    ],
)
def test_different_text_stays_different(one, other):
    assert match_key(one) != match_key(other)


@given(st.text(), st.sampled_from([" ", "\u2028", "!", "…", "«"]))
def test_marks_around_a_line_do_not_matter_where_it_has_letters(text, mark):
    word = text + "x"
    assert match_key(mark + word + mark) == match_key(word)


def places(tmp_path, **splits):
    folder = write_folder(tmp_path / "held", **{"train": None, "dev": None, "test": None, **splits})
    return held_out_places([folder], LANGS)


@pytest.mark.parametrize(
    "pair, side",
    [
        (("wie spät", "Something else."), 0),
        (("Etwas anderes.", "What time"), 1),
        (("Etwas anderes.", "Something else."), None),
        (("What time?", "Wie spät?"), None),  # sides are not mixed up
        (("", ""), None),
    ],
)
def test_a_pair_leaks_if_either_side_matches(tmp_path, pair, side):
    leak = leak_of(*pair, places(tmp_path, dev=[*DEV, ("", "")]))
    if side is None:
        assert leak is None
    else:
        assert leak == (side, f"{tmp_path / 'held'}/dev.{LANGS[side]}:2")


def test_half_a_split_is_an_error_and_none_is_not(tmp_path):
    folder = write_folder(tmp_path / "a", dev=None)
    assert find_split(folder, "dev", LANGS) is None
    (folder / "test.en").unlink()
    with pytest.raises(FileNotFoundError, match=r"test\.en is missing"):
        find_split(folder, "test", LANGS)


def test_clean_folders_have_no_leak(tmp_path, capsys):
    folders = [write_folder(tmp_path / "a"), write_folder(tmp_path / "b", dev=[("eins", "one")])]
    assert check(folders, LANGS) == 0
    assert capsys.readouterr().out == (
        "no training line of 2 folders occurs in their dev or test sets\n"
    )


@pytest.mark.parametrize("split", ["dev", "test"])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_leak_from_one_folder_to_another_is_found_with_both_places(
    tmp_path, capsys, split, suffix
):
    one = write_folder(tmp_path / "one", suffix=suffix)
    other = write_folder(
        tmp_path / "other", train=[("a", "b")], suffix=suffix, **{split: [("neu", "new"), TRAIN[6]]}
    )
    assert check([one, other], LANGS) == 1
    printed = capsys.readouterr().out
    assert f"{one}: 1 training pairs occur in dev or test" in printed
    assert f"{one}/train.de{suffix}:7 is {other}/{split}.de{suffix}:2: {TRAIN[6][0]}" in printed


def test_a_leak_inside_a_folder_is_found(tmp_path):
    folder = write_folder(tmp_path / "a", train=[*TRAIN, ("ganz anders", "what time")])
    assert check([folder], LANGS) == 1


def test_all_leaks_are_counted_and_a_few_shown(tmp_path, capsys):
    folder = write_folder(tmp_path / "a", test=TRAIN)
    assert check([folder], LANGS) == len(TRAIN)
    printed = capsys.readouterr().out
    assert printed.count(" is ") >= 5
    assert f"  and {len(TRAIN) - 5} more" in printed


def test_pairs_in_both_dev_and_test_are_a_warning_and_one_side_is_none(tmp_path, capsys):
    folder = write_folder(tmp_path / "a", test=[("Wie spät", "what time"), ("neu", DEV[0][1])])
    assert check([folder], LANGS) == 0
    printed = capsys.readouterr().out
    assert "warning: 1 pairs are in both dev and test" in printed
    assert f"{folder}/dev.de:2 is {folder}/test.de:1" in printed


def test_a_folder_may_lack_train_or_held_out_sets_but_not_all(tmp_path):
    news = write_folder(tmp_path / "news", train=None, dev=None, test=[TRAIN[0]])
    only_train = write_folder(tmp_path / "train", dev=None, test=None)
    assert check([news, only_train], LANGS) == 1
    with pytest.raises(FileNotFoundError, match="none of the folders has a dev or test set"):
        check([only_train], LANGS)
    with pytest.raises(FileNotFoundError, match="holds no train, dev or test of de and en"):
        check([news, tmp_path], LANGS)


def test_the_command_fails_on_a_leak_and_says_what_to_do(tmp_path):
    words = ("--source-lang", "de", "--target-lang", "en")
    leaky = write_folder(tmp_path / "leaky", test=TRAIN[:1])
    done = run_module("data_prep.overlap", *words, leaky)
    assert done.returncode == 1
    assert "python -m data_prep.clean with --held-out" in done.stderr
    assert run_module("data_prep.overlap", *words, write_folder(tmp_path / "a")).returncode == 0


def test_a_clean_bill_is_left_only_where_there_is_no_leak(tmp_path):
    clean = write_folder(tmp_path / "clean")
    leaky = write_folder(tmp_path / "leaky", train=[*TRAIN, DEV[0]])
    flags = ("--source-lang", "de", "--target-lang", "en", "--out")
    good = run_module("data_prep.overlap", *flags, tmp_path / "proof", clean)
    assert good.returncode == 0 and (tmp_path / "proof" / "overlap.json").exists()
    bad = run_module("data_prep.overlap", *flags, tmp_path / "none", clean, leaky)
    assert bad.returncode == 1 and not list(tmp_path.glob("none*"))
