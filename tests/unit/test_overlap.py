"""data_prep/overlap.py: no training line is known from dev or test, in any folder."""

import json
import pickle
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep import overlap
from data_prep.near_duplicates import plain_words
from data_prep.overlap import HeldOut, Leak, check, find_split, match_key
from data_prep.processes import in_processes
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


def held_out(tmp_path, *settings, **splits):
    folder = write_folder(tmp_path / "held", **{"train": None, "dev": None, "test": None, **splits})
    return HeldOut.read([folder], LANGS, *settings)


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
    (leak,) = held_out(tmp_path, dev=[*DEV, ("", "")]).leaks(*([text] for text in pair))
    if side is None:
        assert leak is None
    else:
        folder = f"{tmp_path / 'held'}"
        place = f"{folder}/dev.{LANGS[side]}:2"
        assert leak == Leak(side, place, "exact", 1.0, DEV[1][side], folder)


# long held-out lines (Tatoeba, CC BY 2.0 FR, and TICO-19, CC0) and others of the same corpora
LONG = {
    "de": ("Tom hat sich schon seit drei Jahren keine neuen Schuhe mehr gekauft.",
           "Tom hasn't bought a new pair of shoes in three years."),
    "ru": ("CRT будет обновлять такие страницы, и вся информация будет собрана в одном месте.",
           "The CRT will keep these pages updated and all the information in one place."),
    "zh": ("会上，我们会分享一些最新情况、解答您的问题并留出一些时间供大家交流讨论。",
           "We’ll use this time to share additional updates, answer your questions and spend some "
           "time connecting with each other."),
}  # fmt: skip
OTHERS = {
    "de": [("Ich kann bei mir zu Hause nirgends lernen — es ist zu laut.",
            "I can't study anywhere in my house. It's too noisy."),
           ("Abgesehen von einer Schale Obst war der Küchentisch leer.",
            "The kitchen table was bare except for a bowl of fruit."),
           ("Tom hat keine Schuhe.", "Tom has no shoes.")],
    "ru": [("Мы вместе в такой ситуации и готовы помочь всем, чем сможем.",
            "We’re in this together and here to help however we can."),
           ("Мы готовы оказать поддержку и обеспечить связь по мере необходимости.",
            "We’re here to help provide support and liaise as needed."),
           ("Вся информация собрана в CRT.", "The CRT has all the information.")],
    "zh": [("我们团结一心，在此竭诚为您提供帮助。",
            "We’re in this together and here to help however we can."),
           ("CRT团队会及时更新这些页面，并将所有信息集中到一处。",
            "The CRT will keep these pages updated and all the information in one place."),
           ("我们会解答您的问题。", "We will answer your questions.")],
}  # fmt: skip


def exact_copies(text):
    return [
        text,
        text.upper(),
        text.lower(),
        text.rstrip(".。"),
        f"„{text.replace(',', ' —').replace('，', '——')}“ …",
        text.replace(" ", "  \u00a0") + " ",
        "".join(chr(ord(letter) + 0xFEE0) if "!" <= letter <= "~" else letter for letter in text),
    ]


def near_copies(text):
    words = plain_words(text)
    space = "" if words[0] == "会" else " "
    half = len(words) // 2
    return [
        space.join(copy)
        for copy in (
            [*words[:half], "x1", *words[half + 1 :]],  # exchanged
            [*words[:half], "x2", *words[half:]],  # added
            [*words[:half], *words[half + 1 :]],  # left out
            [*words[:half], words[half + 1], words[half], *words[half + 2 :]],  # swapped
            [*words, "x3", "x4"],  # went on
            ["x5", *words[1:]],
        )
    ]


@pytest.mark.parametrize("lang", LONG)
def test_planted_leaks_are_all_found_and_nothing_else(tmp_path, capsys, lang):
    pair, others = LONG[lang], OTHERS[lang]
    planted = [
        (copy, f"Something {number} else.") if side == 0 else (f"Etwas {number} anderes.", copy)
        for side in (0, 1)
        for number, copy in enumerate([*exact_copies(pair[side]), *near_copies(pair[side])])
    ]
    exact, near = (2 * len(copies(pair[0])) for copies in (exact_copies, near_copies))
    train = [*others, *planted, *others]
    random.Random(1).shuffle(train)
    langs = (lang, "en")
    clean = write_folder(tmp_path / "clean", train=others, dev=[pair], test=None, langs=langs)
    leaky = write_folder(tmp_path / "leaky", train=train, dev=None, test=None, langs=langs)
    report = check([clean, leaky], langs, workers=1)
    assert report["leaks_by_held_out"] == [
        {"folder": str(leaky), "held_out": str(clean), "exact": exact, "near": near}
    ]
    assert report["leaks"] == len(planted)
    assert check([clean, leaky], langs, threshold=None)["leaks"] == exact
    found = HeldOut.read([clean], langs).leaks(*zip(*train, strict=True))
    assert [pair for pair, leak in zip(train, found, strict=True) if leak is None] == [
        pair for pair in train if pair in others
    ]


def one_by_one(guard, pairs):
    return [guard.leaks([src], [tgt])[0] for src, tgt in pairs]


def test_neither_batches_nor_order_nor_pickling_matter(tmp_path):
    pairs = [(text, "Other.") for text in near_copies(LONG["de"][0])] + TRAIN + DEV + [("", "")]
    guard = held_out(tmp_path, dev=[LONG["de"], *TRAIN[3:9]])
    expected = guard.leaks(*zip(*pairs, strict=True))
    assert len(list(filter(None, expected))) > 10
    assert one_by_one(guard, pairs) == expected
    assert one_by_one(guard, pairs[::-1]) == expected[::-1]
    again = pickle.loads(pickle.dumps(guard))
    assert again.leaks(*zip(*pairs, strict=True)) == expected


def test_an_exact_leak_comes_before_a_near_one_and_the_nearest_line_counts(tmp_path):
    words = [*"abcdefghij"]
    dev = [(" ".join(words[1:]), "1"), (" ".join([*words, "k"]), "one"), ("0", " ".join(words))]
    guard = held_out(tmp_path, dev=dev)
    (leak,) = guard.leaks([" ".join(words)], ["?"])
    assert (leak.kind, leak.place[-2:], leak.similarity, leak.text) == (
        "near", ":2", 10 / 11, dev[1][0]
    )  # fmt: skip
    (leak,) = guard.leaks([" ".join(words)], ["one!"])
    assert (leak.kind, leak.side, leak.place[-5:]) == ("exact", 1, ".en:2")


def test_one_near_side_is_a_leak_unless_both_are_asked_for(tmp_path):
    src, tgt = (near_copies(text)[0] for text in LONG["de"])
    pairs = [(src, tgt), (src, "Else."), ("Anderes.", tgt), ("Anderes.", LONG["de"][1])]
    for sides, found in (("either", [0, 0, 1, 1]), ("both", [0, None, None, 1])):
        guard = held_out(tmp_path, 0.8, 6, sides, dev=[LONG["de"]])
        leaks = guard.leaks(*zip(*pairs, strict=True))
        assert [leak and leak.side for leak in leaks] == found


def test_short_lines_are_compared_exactly_alone(tmp_path):
    dev = [("Was kann ich noch für dich tun?", "What else can I do?")]
    pairs = (["Etwas anderes.", "Was kann ich für dich tun?"], ["What can I do?", "Else."])
    assert [leak and leak.side for leak in held_out(tmp_path, dev=dev).leaks(*pairs)] == [None, 0]
    short = held_out(tmp_path, 0.8, 4, dev=dev).leaks(*pairs)
    assert [leak.side for leak in short] == [1, 0]


@pytest.mark.parametrize(
    "settings, words",
    [((0.0,), "above 0, at most 1, not 0.0"), ((1.1,), "not 1.1"), ((float("nan"),), "not nan"),
     ((0.8, 0), "--near-words is 1 or more, not 0"), ((0.8, 6, "all"), "either or both, not all")],
)  # fmt: skip
def test_settings_out_of_range_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        HeldOut([], *settings)


def test_half_a_split_is_an_error_and_none_is_not(tmp_path):
    folder = write_folder(tmp_path / "a", dev=None)
    assert find_split(folder, "dev", LANGS) is None
    (folder / "test.en").unlink()
    with pytest.raises(FileNotFoundError, match=r"test\.en is missing"):
        find_split(folder, "test", LANGS)


def test_clean_folders_have_no_leak(tmp_path, capsys):
    folders = [write_folder(tmp_path / "a"), write_folder(tmp_path / "b", dev=[("eins", "one")])]
    assert check(folders, LANGS)["leaks"] == 0
    assert capsys.readouterr().out == (
        "none of 80 training pairs of 2 folders occurs in the dev and test sets of 2\n"
    )


@pytest.mark.parametrize("split", ["dev", "test"])
@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_a_leak_from_one_folder_to_another_is_found_with_both_places(
    tmp_path, capsys, split, suffix
):
    one = write_folder(tmp_path / "one", suffix=suffix)
    other = write_folder(
        tmp_path / "other", train=[("a", "b")], suffix=suffix, **{split: [("neu", "new"), TRAIN[6]]}
    )
    assert check([one, other], LANGS)["leaks"] == 1
    printed = capsys.readouterr().out
    assert f"{one}: 1 training pairs occur in dev or test (1 exactly, 0 nearly)" in printed
    assert (
        f"{one}/train.de{suffix}:7 is {other}/{split}.de{suffix}:2:\n      {TRAIN[6][0]}" in printed
    )


def test_of_a_near_leak_both_texts_are_shown(tmp_path, capsys):
    line = near_copies(LONG["de"][0])[0]
    folder = write_folder(tmp_path / "a", train=[(line, "Else.")], dev=[LONG["de"]])
    assert check([folder], LANGS)["leaks"] == 1
    assert (
        f"{folder}/train.de:1 is 0.85 similar to {folder}/dev.de:1:\n"
        f"      {line}\n      {LONG['de'][0]}\n"
    ) in capsys.readouterr().out


def test_leaks_are_counted_by_the_folder_that_they_are_from(tmp_path, capsys):
    near = [(text, "Else.") for text in near_copies(LONG["de"][0])]
    one = write_folder(tmp_path / "one", train=[*near, *TRAIN[:3]], dev=[TRAIN[2]])
    two = write_folder(tmp_path / "two", train=TRAIN[:2], dev=[LONG["de"], TRAIN[0]])
    report = check([one, two], LANGS)
    assert [tuple(row.values()) for row in report["leaks_by_held_out"]] == [
        (str(one), str(one), 1, 0), (str(one), str(two), 1, 6), (str(two), str(two), 1, 0),
    ]  # fmt: skip
    table = capsys.readouterr().out.splitlines()[-4:]
    assert table[0].split() == [*"training pairs of in dev or test of exactly nearly".split()]
    assert table[2].split() == [str(one), str(two), "1", "6"]
    assert report["pairs"] == {str(one): 9, str(two): 2}


def test_all_leaks_are_counted_and_a_few_shown(tmp_path, capsys):
    folder = write_folder(tmp_path / "a", test=TRAIN)
    assert check([folder], LANGS)["leaks"] == len(TRAIN)
    printed = capsys.readouterr().out
    assert printed.count(" is ") >= 5
    assert f"  and {len(TRAIN) - 5} more" in printed


def test_the_same_is_found_in_batches_by_workers(tmp_path, monkeypatch):
    asked = []

    def recorded(workers):
        asked.append(workers)
        return in_processes(workers)

    monkeypatch.setattr(overlap, "in_processes", recorded)
    folder = write_folder(tmp_path / "a", test=TRAIN[3:30])
    alone = check([folder], LANGS, workers=2)  # little text, one process
    assert (alone["leaks"], alone["pairs"]) == (27, {str(folder): len(TRAIN)})
    monkeypatch.setattr(overlap, "BATCH", 7)
    monkeypatch.setattr(overlap, "BYTES_FOR_A_PROCESS", 1)
    assert check([folder], LANGS, workers=2) == alone
    assert asked == [1, 2]


def test_test_pairs_that_dev_knows_are_a_warning_only(tmp_path, capsys):
    near = (near_copies(LONG["de"][0])[0], "Else.")
    folder = write_folder(
        tmp_path / "a", dev=[*DEV, LONG["de"]], test=[("Wie spät", "neu"), near, ("neu", "new")]
    )
    report = check([folder, write_folder(tmp_path / "b", dev=None)], LANGS)
    assert report["leaks"] == 0
    assert report["test_pairs_in_dev"] == {str(folder): {"exact": 1, "near": 1}}
    printed = capsys.readouterr().out
    assert "warning: 2 test pairs occur in dev (1 exactly, 1 nearly)" in printed
    assert f"{folder}/test.de:1 is {folder}/dev.de:2" in printed


def test_a_folder_may_lack_train_or_held_out_sets_but_not_all(tmp_path):
    news = write_folder(tmp_path / "news", train=None, dev=None, test=[TRAIN[0]])
    only_train = write_folder(tmp_path / "train", dev=None, test=None)
    assert check([news, only_train], LANGS)["leaks"] == 1
    with pytest.raises(FileNotFoundError, match="none of the folders has a dev or test set"):
        check([only_train], LANGS)
    with pytest.raises(FileNotFoundError, match="none of the folders has a training set"):
        check([news], LANGS)
    with pytest.raises(FileNotFoundError, match="holds no train, dev or test of de and en"):
        check([news, tmp_path], LANGS)
    with pytest.raises(ValueError, match="--workers is 1 or more, not 0"):
        check([news, only_train], LANGS, workers=0)
    with pytest.raises(FileNotFoundError, match="has neither dev.de nor test.de"):
        HeldOut.read([only_train], LANGS)


def test_the_command_fails_on_a_leak_and_says_what_to_do(tmp_path):
    words = ("--source-lang", "de", "--target-lang", "en", "--json", tmp_path / "report.json")
    leaky = write_folder(tmp_path / "leaky", test=[LONG["de"]],
                         train=[(near_copies(LONG["de"][0])[0], "Else.")])  # fmt: skip
    done = run_module("data_prep.overlap", *words, "--out", tmp_path / "none", leaky)
    assert done.returncode == 1
    assert "python -m data_prep.clean with --held-out" in done.stderr
    assert json.loads((tmp_path / "report.json").read_text())["leaks"] == 1
    assert not list(tmp_path.glob("none*"))


@pytest.mark.parametrize(
    "flags", [["--exact-only"], ["--near-threshold", "0.9"], ["--near-words", "14"],
              ["--near-sides", "both"]],
)  # fmt: skip
def test_proof_is_left_where_there_is_no_leak_by_the_settings(tmp_path, monkeypatch, flags):
    folder = write_folder(tmp_path / "a", test=[LONG["de"]],
                          train=[(near_copies(LONG["de"][0])[0], "Else.")])  # fmt: skip
    words = ["--source-lang", "de", "--target-lang", "en", str(folder)]
    assert overlap._main(words) == 1
    assert overlap._main([*words, *flags, "--out", str(tmp_path / "proof")]) == 0
    report = json.loads((tmp_path / "proof" / "overlap.json").read_text())
    assert report["leaks"] == 0 and report["pairs"] == {str(folder): 1}
    manifest = json.loads((tmp_path / "proof" / "manifest.json").read_text())
    assert manifest["settings"]["near"] == report["near"]
    assert f"{folder}/test.en" in manifest["inputs"]
