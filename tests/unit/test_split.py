"""data_prep/split.py: dev and test by whole documents, at random, and every line accounted for."""

import gzip
import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.cleaning.steps import Context, parse
from data_prep.files import find_text, read_lines
from data_prep.overlap import HeldOut, check
from data_prep.split import (
    FEW,
    Drawn,
    Judged,
    Pair,
    document_names,
    fill,
    judge,
    rank,
    split,
)
from data_prep.split import _main as main
from tests.fixtures.bitext import read_side, write_folder, write_side

LANGS = ("de", "en")
STEPS = ["whitespace", "empty", "length:max=30"]


def sentence(number):
    """A pair that is near to no other."""
    return (
        " ".join(f"wort{number}{letter}" for letter in "abcdef") + ".",
        " ".join(f"word{number}{letter}" for letter in "abcdef") + ".",
    )


def corpus(folder, pairs=400, documents=None, suffix="", **splits):
    """A raw folder with train alone; each document has so many lines."""
    pairs = [sentence(number) for number in range(pairs)] if isinstance(pairs, int) else pairs
    splits = {"dev": None, "test": None, **splits}
    write_folder(folder, train=pairs, suffix=suffix, **splits)
    write_side(folder / f"train.origin{suffix}", [f"o{n}" for n in range(len(pairs))])
    if documents:
        names = [name for name, lines in documents for _ in range(lines)]
        write_side(folder / f"train.documents{suffix}", names)
    return folder


def lines_of(folder, part, ending):
    return list(read_lines(find_text(folder, part, ending)))


def numbers_of(folder, part):
    return list(map(int, lines_of(folder, part, "lines")))


def left_out_of(folder):
    return [line.split("\t") for line in read_side(folder / "left-out.tsv")[1:]]


def bytes_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()
            if path.name != "manifest.json"}  # fmt: skip


def run(folder, **options):
    out = folder.with_name(f"{folder.name}.split")
    number = 2
    while out.exists():
        out, number = folder.with_name(f"{folder.name}.split{number}"), number + 1
    split(folder, LANGS, out, **{"dev": 20, "test": 30, "steps": STEPS, **options})
    return out


# -- laws ------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_every_line_is_in_one_place_and_is_what_its_number_says(tmp_path, suffix):
    pairs = [sentence(number) for number in range(400)]
    pairs[::7] = [("Ja.", "Yes.")] * len(pairs[::7])
    raw = corpus(tmp_path / "raw", pairs, suffix=suffix)
    out = run(raw)
    places = Counter()
    for part in ("train", "dev", "test"):
        numbers = numbers_of(out, part)
        assert numbers == sorted(numbers)
        places.update(numbers)
        for ending, side in (("de", 0), ("en", 1)):
            assert lines_of(out, part, ending) == [pairs[number - 1][side] for number in numbers]
        assert lines_of(out, part, "origin") == [f"o{number - 1}" for number in numbers]
    left_out = [int(number) for number, _ in left_out_of(out)]
    places.update(left_out)
    assert sorted(places.elements()) == list(range(1, 401))
    rows = [line.split("\t") for line in read_side(out / "split.tsv")]
    counts = {row[0]: int(row[2]) for row in rows[1:]}
    assert rows[0] == ["part", "why", "pairs"]
    assert rows[4] == ["left out", "too short", str(len(left_out))] and left_out
    assert counts == {
        "train": len(numbers_of(out, "train")), "dev": len(numbers_of(out, "dev")),
        "test": len(numbers_of(out, "test")), "left out": len(left_out), "all": 400,
    }  # fmt: skip
    assert find_text(out, "train", "de").suffix == (suffix or ".de")


def test_documents_stay_whole_wherever_their_lines_stand(tmp_path):
    documents = [(f"d{number % 40}", 5) for number in range(80)]  # each in two pieces
    raw = corpus(tmp_path / "raw", documents=documents)
    out = run(raw)
    names = {part: lines_of(out, part, "documents") for part in ("train", "dev", "test")}
    for one, other in (("train", "dev"), ("train", "test"), ("dev", "test")):
        assert not set(names[one]) & set(names[other])
    assert set(Counter(names["dev"] + names["test"]).values()) == {10}
    assert (len(names["dev"]), len(names["test"])) == (20, 30)


def test_the_last_document_is_taken_whole_and_too_long_ones_are_not(tmp_path):
    documents = [("long", 31), *((f"d{number}", 8) for number in range(30)), ("longer", 129)]
    raw = corpus(tmp_path / "raw", documents=documents)
    for seed in range(1, 5):
        out = run(raw, seed=seed)
        names = {part: Counter(lines_of(out, part, "documents")) for part in ("dev", "test")}
        assert names["dev"].total() == 24 and names["test"].total() == 32
        assert not {"long", "longer"} & {*names["dev"], *names["test"]}


def test_without_documents_blocks_of_neighbours_stay_together(tmp_path):
    out = run(corpus(tmp_path / "raw"), block=10)
    for part, size in (("dev", 20), ("test", 30)):
        numbers = numbers_of(out, part)
        assert len(numbers) == size
        assert set(Counter((number - 1) // 10 for number in numbers).values()) == {10}


def test_lines_without_a_name_are_in_blocks_and_block_overrules_names(tmp_path):
    documents = [("", 200), *((f"d{number}", 4) for number in range(50))]
    raw = corpus(tmp_path / "raw", documents=documents)
    numbers = {number for seed in range(1, 4)
               for number in numbers_of(run(raw, seed=seed, test=40), "test")}  # fmt: skip
    blocks = Counter((number - 1) // 20 for number in numbers if number <= 200)
    assert set(blocks.values()) == {20}
    names = Counter((number - 201) // 4 for number in numbers if number > 200)
    assert set(names.values()) == {4}
    drawn = numbers_of(run(raw, block=5), "test")
    assert set(Counter((number - 1) // 5 for number in drawn).values()) == {5}


def test_a_seed_gives_the_same_bytes_and_another_other_documents(tmp_path):
    raw = corpus(tmp_path / "raw", suffix=".gz")
    one, again, other = run(raw), run(raw), run(raw, seed=2)
    assert bytes_of(one) == bytes_of(again)
    assert set(numbers_of(one, "test")) != set(numbers_of(other, "test"))


def test_more_lines_draw_no_other_documents(tmp_path):
    # a set for a smaller wish is what the larger wish begins with, whatever lies in memory
    raw = corpus(tmp_path / "raw")
    few, many = (set(numbers_of(run(raw, test=size, block=5), "test")) for size in (20, 60))
    assert few < many


# -- what is fit -----------------------------------------------------------------------------


def test_only_fit_lines_are_held_out_and_whys_are_told(tmp_path):
    pairs = [sentence(number) for number in range(400)]
    for first in range(0, 400, 20):
        pairs[first] = (" ".join(["lang"] * 31), " ".join(["long"] * 31))
        pairs[first + 1] = ("Ja.", "Yes, this is right.")
        pairs[first + 2] = ("Ja, das ist richtig.", "Yes.")
        pairs[first + 3] = (f"  zwei\u00a0 Wörter und   {first}", pairs[first + 3][1])
        pairs[first + 4] = ("Immer das gleiche gesagt.", "Always said the same thing.")
        pairs[first + 5] = ("Immer das Gleiche gesagt!", "Always said the same thing!")
    out = run(corpus(tmp_path / "raw", pairs))
    whys = Counter(why for _, why in left_out_of(out))
    # two documents are drawn for each set; test, the first, has the sentence that is always said
    assert whys == {"length": 4, "too short": 8, "repeated": 3, "other set": 4}
    for part in ("dev", "test"):
        held_out = list(zip(lines_of(out, part, "de"), lines_of(out, part, "en"), strict=True))
        assert any(src.startswith("zwei Wörter und ") for src, _ in held_out)  # repaired
        assert all(min(len(text.split()) for text in pair) >= 4 for pair in held_out)
    assert any("\u00a0" in line for line in lines_of(out, "train", "de"))  # as it was


def test_dev_and_test_share_no_line_and_near_ones_neither(tmp_path):
    pairs = []
    for number in range(400):
        src, tgt = sentence(number % 20)
        pairs.append((f"{src} Und so geht es {number}.", sentence(1000 + number)[1]))
    raw = corpus(tmp_path / "raw", pairs)
    with pytest.raises(ValueError, match=r"only 0 of 20 pairs for dev .*\(360 other set\)"):
        run(raw)
    report = check([run(corpus(tmp_path / "other"))], LANGS)
    assert not report["leaks"] and not any(
        sum(kinds.values()) for kinds in report["test_pairs_in_dev"].values()
    )


def test_bytes_that_are_no_text_are_left_to_train(tmp_path):
    raw = corpus(tmp_path / "raw")
    lines = (raw / "train.de").read_bytes().split(b"\n")
    lines[::2] = [line + b"\xff\r\x85" for line in lines[::2]]
    (raw / "train.de").write_bytes(b"\n".join(lines)[:-3])
    out = run(raw)
    left_out = [int(number) for number, why in left_out_of(out) if why == "not UTF-8"]
    assert left_out and all(number % 2 for number in left_out)
    kept = (out / "train.de").read_bytes().split(b"\n")[:-1]
    assert kept == [lines[number - 1] for number in numbers_of(out, "train")]


def test_steps_judge_repaired_text_in_order_and_measure_what_is_left():
    long = "a b c " * 11
    texts = [("a\u00a0b", "c d"), ("", "x"), (long, "y z"), ("a b", long)]
    pairs = [Pair(n, *(side.encode() for side in pair)) for n, pair in enumerate(texts, start=7)]
    pairs.append(Pair(99, b"\xff", b"a"))
    steps = list(map(parse, ["whitespace", "empty", "length:max=30", "duplicate"]))
    judged = judge(pairs, steps, Context(LANGS), 2)
    assert judged[0] == Judged(7, "a b", "c d", None)
    assert [one.why for one in judged] == [None, "empty", "length", "length", "not UTF-8"]
    assert [one.number for one in judged] == [7, 8, 9, 10, 99]
    assert judge(pairs[:1], steps, Context(LANGS), 3)[0].why == "too short"
    assert judge(pairs[1:2], steps, Context(LANGS), 1)[0].why == "empty"  # nothing goes on


def test_what_is_measured_is_measured_of_pairs_that_go_on():
    pairs = [Pair(n, b"a" * 10, b"b" * 20) for n in range(9)]
    pairs += [Pair(n, b"a b " * 50, b"b") for n in range(9, 40)]
    pairs.append(Pair(40, b"a" * 60, b"b" * 10))
    steps = list(map(parse, ["length:max=30", "length-ratio"]))
    whys = [one.why for one in judge(pairs, steps, Context(LANGS), 1)]
    assert whys == [None] * 9 + ["length"] * 31 + ["length-ratio"]


def test_a_document_without_a_fit_line_goes_back_to_train():
    fit = [Judged(number, *sentence(number), None) for number in range(1, 5)]
    unfit = [Judged(number, "a", "b", "too short") for number in range(5, 8)]
    filled = fill([unfit, fit[:2][::-1], [unfit[0], fit[2]], fit[3:]], 3, HeldOut([]))
    assert filled == (fit[:3], {5: "too short"}, [fit[3:]], Counter({"too short": 3}))


def test_a_document_longer_than_the_set_is_left_for_another():
    fit = [Judged(number, *sentence(number), None) for number in range(1, 7)]
    assert fill([fit[:4], fit[4:]], 2, HeldOut([])) == (fit[4:], {}, [fit[:4]], Counter())


# -- drawing ---------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(1, 6)), min_size=1, max_size=40),
    st.integers(1, 40),
)
def test_drawn_are_the_first_documents_in_order_until_there_are_enough(pieces, wanted):
    drawn, whole = Drawn(wanted, longest=8), {}
    for place, lines in pieces:
        document = whole.setdefault(place, [])
        pairs = [(place, len(document) + number) for number in range(lines)]
        document += pairs
        if drawn.takes(place):
            drawn.add(place, pairs)
    expected, lines = {}, 0
    for place in sorted(whole):
        if place in drawn.documents:
            expected[place] = whole[place] if len(whole[place]) <= 8 else None
            lines += len(expected[place] or ())
    assert drawn.documents == expected
    assert list(expected) == sorted(whole)[: len(expected)]  # the first, without a gap
    if drawn.last is None:
        assert len(expected) == len(whole)
    if all(len(document) <= 8 for document in whole.values()):
        assert lines >= min(wanted, sum(map(len, whole.values())))
        last = max(expected)
        assert lines - len(expected[last] or ()) < wanted  # and no more than needed


def test_memory_is_that_of_the_lines_wanted():
    drawn = Drawn(100, longest=50)
    for number in range(3000):
        place = rank(str(number), 1)
        if drawn.takes(place):
            drawn.add(place, [number] * (10 if number % 100 else 500))
    assert sum(map(len, filter(None, drawn.documents.values()))) < 110
    assert len(drawn.documents) < 20


def test_too_few_drawn_lines_are_drawn_again_from_more(tmp_path):
    pairs = [sentence(number) if number % 40 < 2 else ("Ja.", "Yes.") for number in range(4000)]
    out = run(corpus(tmp_path / "raw", pairs), dev=40, test=60)
    assert len(numbers_of(out, "dev")) == 40 and len(numbers_of(out, "test")) == 60


def test_names_go_on_without_end_where_there_are_no_documents(tmp_path):
    names = document_names(None, 2)
    first = [next(names) for _ in range(5)]
    assert first[0] == first[1] != first[2] == first[3] != first[4]
    write_side(tmp_path / "documents", ["x", "", "", "x"])
    assert list(document_names(tmp_path / "documents", 2)) == ["x", first[0], first[2], "x"]


# -- sizes, what is there, what is wrong ------------------------------------------------------


@pytest.mark.parametrize("pairs, size", [(400, 20), (1000, 60)])
def test_by_default_a_small_corpus_gives_a_twentieth(tmp_path, pairs, size):
    out = run(corpus(tmp_path / "raw", pairs), dev=None, test=None)
    assert len(numbers_of(out, "dev")) == len(numbers_of(out, "test")) == size


@pytest.mark.parametrize("there, missing", [("dev", "test"), ("test", "dev")])
def test_a_set_that_is_there_is_kept_and_the_other_is_apart_from_it(tmp_path, there, missing):
    given_set = [sentence(number) for number in range(0, 400, 2)] + [("Ja", "Yes")]
    raw = corpus(tmp_path / "raw", suffix=".gz", **{there: given_set})
    write_side(raw / f"{there}.origin", ["x"] * 201)
    for name in ("licences.tsv", "references.bib", f"{missing}.origin", "log.txt"):
        write_side(raw / name, ["CC0"])
    out = run(raw)
    for name in (f"{there}.de.gz", f"{there}.en.gz", f"{there}.origin", "licences.tsv",
                 "references.bib"):
        assert (out / name).read_bytes() == (raw / name).read_bytes()
    for name in (f"{there}.lines.gz", f"{missing}.origin", "log.txt"):
        assert not (out / name).exists()
    numbers = numbers_of(out, missing)
    assert len(numbers) >= 20 and all(number % 2 == 0 for number in numbers)
    assert {why for _, why in left_out_of(out)} == {"other set"}


@pytest.mark.parametrize(
    "options, change, words",
    [
        ({"dev": 0}, None, "--dev is a number above 0, not 0"),
        ({"min_words": 0}, None, "--min-words is a number above 0"),
        ({"dev": 150, "test": 60}, None, "has 400 pairs; --test 60 and --dev 150 would leave less"),
        ({"min_words": 7}, None, r"only 0 of 30 pairs for test are fit \(400 too short\)"),
        ({"block": 31}, None, "the documents are too long"),
        ({}, ("train.en", ["x"]), "stop being parallel at line 2"),
        ({}, ("train.documents", ["x"] * 399), "train.documents has only 399 lines"),
        ({}, ("train.documents", ["x"] * 401), "more lines than .*train.de, which has 400"),
        ({}, ("train.origin", ["x"] * 399), "train.origin has 399 lines, train has 400 pairs"),
        ({"steps": ["nothing"]}, None, "step 'nothing' is unknown"),
    ],
)
def test_what_cannot_work_is_refused_and_nothing_is_left(tmp_path, options, change, words):
    raw = corpus(tmp_path / "raw")
    if change:
        write_side(raw / change[0], change[1])
    with pytest.raises(ValueError, match=words):
        run(raw, **options)
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


def test_what_has_dev_and_test_or_no_train_is_not_split(tmp_path):
    with pytest.raises(ValueError, match="has dev and test; there is nothing to split off"):
        run(write_folder(tmp_path / "whole"))
    with pytest.raises(FileNotFoundError, match="train.de is missing"):
        run(write_folder(tmp_path / "none", train=None, dev=None))


def test_the_command_says_what_it_did_and_warns_of_small_sets(tmp_path, capsys):
    raw = corpus(tmp_path / "raw", suffix=".gz")
    out = tmp_path / "out"
    main(["--in", str(raw), "--source-lang", "de", "--target-lang", "en", "--out", str(out),
          "--dev", "20", "--step", "whitespace", "--block", "10"])  # fmt: skip
    printed = capsys.readouterr().err
    assert f"{out}: train 360, dev 20, test 20 of 400 pairs, 0 left out\n" in printed
    assert f"{out}: warning: dev has only 20 pairs" in printed and FEW > 20
    assert json.loads((out / "manifest.json").read_text())["settings"]["steps"] == [
        "whitespace", "empty"
    ]
    assert gzip.decompress((out / "dev.de.gz").read_bytes()).count(b"\n") == 20
