"""data_prep/clean.py: every line is accounted for, the kept are fit, dev and test untouched."""

import contextlib
import itertools
import json
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_prep import clean as command
from data_prep import manifest
from data_prep.clean import clean
from data_prep.cleaning import blocks
from data_prep.cleaning.engine import complete
from data_prep.cleaning.explain import explain
from data_prep.cleaning.ledger import DROPPED
from data_prep.cleaning.steps import default_steps, parse
from data_prep.files import one_line, read_lines
from data_prep.manifest import read_manifest
from tests.fixtures.bitext import (
    DEV,
    PACK,
    TEST,
    TRAIN,
    read_side,
    run_module,
    write_folder,
    write_side,
)

LANGS = ("de", "en")
PLAIN = ["whitespace", "empty", "length", "word-length", "length-ratio", "duplicate"]
# what is measured is another corpus's when it has been cleaned
SETTLED = [
    "length-ratio:expected=1.1" if step.startswith("length-ratio") else step
    for step in default_steps(*LANGS)
]
# dev and test that random text does not hit
FAR = {"dev": [("Der erste Satz ist fern.", "The first sentence is far.")],
       "test": [("Noch ein Satz anderswo.", "Yet a sentence elsewhere.")]}  # fmt: skip

# pieces of which awkward lines are made
lines = st.lists(
    st.sampled_from(
        ["Haus", "house", " ", "  ", "\r", "\u2028", "\t", "\x00", "\u00a0", "ü", "u\u0308",
         "\ufeff", "\u00ad", "你好", "!", "Guten Morgen, Herr Müller!", "x" * 101, "wort " * 201,
         "&amp;lt;b&gt;", "Ã¼", "www.x.de", "12"]
    ),
    max_size=4,
).map("".join)  # fmt: skip
pairs = st.lists(st.tuples(lines, lines), min_size=1, max_size=12)

# lines of any bytes but the one that ends them
raw_lines = st.one_of(
    lines.map(str.encode),
    st.binary(max_size=12).map(lambda data: data.replace(b"\n", b"")),
    st.sampled_from([b"\xed\xa0\x80", b"s\xfc\xdf", b"\xef\xbb\xbfa", b"\0", b"z" * 900,
                     b"\xff" * 900, b"\xc3", "ü".encode() * 250]),
)  # fmt: skip
raw_pairs = st.lists(st.tuples(raw_lines, raw_lines), min_size=1, max_size=12)

each_example_has_its_own_folder = settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture(autouse=True, scope="module")
def versions_are_known():
    """They take longer than the cleaning of a few lines."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifest, "package_versions", dict)
        patch.setattr(manifest, "commit", lambda: None)
        yield


@pytest.fixture
def fresh(tmp_path):
    """A function that gives a new place in the test's folder at each call."""
    count = iter(range(10**6))
    return lambda: tmp_path / str(next(count))


def train_of(folder):
    return list(zip(*(read_side(Path(folder) / f"train.{lang}") for lang in LANGS), strict=True))


def numbers_of(folder):
    return [int(line) for line in read_side(Path(folder) / "train.lines")]


def dropped_of(folder):
    """{line: (step, why)}."""
    header, *rows = [line.split("\t") for line in read_lines(Path(folder) / DROPPED)]
    assert header == ["line", "step", "why"]
    assert all(len(row) == 3 for row in rows)
    return {int(number): (step, why) for number, step, why in rows}


def ledger_of(folder):
    return json.loads((Path(folder) / "ledger.json").read_text(encoding="utf-8"))


def counts_of(ledger):
    """{step's name: pairs that it dropped}, of those that dropped any."""
    return {step["step"].partition(":")[0]: step["dropped"]
            for step in ledger["steps"] if step.get("dropped")}  # fmt: skip


def clean_pairs(fresh, train, steps=PLAIN, **options):
    """(kept pairs, ledger as written) of training pairs."""
    out = fresh()
    clean(write_folder(fresh(), train=train), LANGS, out, steps=steps, workers=1, **options)
    return train_of(out), ledger_of(out)


def outputs_of(folder):
    """{name: bytes} of all that does not tell of the time."""
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()
            if path.name != "manifest.json"}  # fmt: skip


# -- laws ----------------------------------------------------------------------------------


@each_example_has_its_own_folder
@given(awkward=pairs)
def test_kept_and_dropped_lines_sum_to_those_read(fresh, awkward):
    out = fresh()
    clean(write_folder(fresh(), train=TRAIN + awkward), LANGS, out, workers=1)
    ledger, dropped = ledger_of(out), dropped_of(out)
    assert ledger["read"] == ledger["pairs_in_corpus"] == len(TRAIN) + len(awkward)
    assert ledger["kept"] == len(train_of(out))
    assert sorted([*numbers_of(out), *dropped]) == list(range(1, ledger["read"] + 1))
    assert list(dropped) == sorted(dropped)
    reached = ledger["read"]
    for step in ledger["steps"]:
        assert step["read"] == reached
        if "dropped" in step:
            reached -= step["dropped"]
            mine = [number for number, (name, _) in dropped.items() if name == step["step"]]
            assert len(mine) == step["dropped"]
            assert [example["line"] for example in step["examples"]] == mine[:5]
            assert [example["why"] for example in step["examples"]] == (
                [dropped[number][1] for number in mine[:5]]
            )
            assert step["share"] == pytest.approx(step["dropped"] / ledger["read"], abs=1e-6)
    assert reached == ledger["kept"]


@each_example_has_its_own_folder
@given(awkward=pairs)
def test_each_kept_line_is_one_record_however_it_is_read(fresh, awkward):
    out = fresh()
    clean(write_folder(fresh(), train=TRAIN + awkward), LANGS, out, workers=1)
    for lang in LANGS:
        with open(out / f"train.{lang}", encoding="utf-8") as file:  # universal newlines
            usual = [line.removesuffix("\n") for line in file]
        assert usual == read_side(out / f"train.{lang}")
        assert usual == (out / f"train.{lang}").read_text(encoding="utf-8").splitlines()
        assert usual == list(map(one_line, usual))
        assert all(usual)


@each_example_has_its_own_folder
@given(awkward=pairs)
def test_line_numbers_lead_back_to_the_input(fresh, awkward):
    out, raw = fresh(), TRAIN + awkward
    clean(write_folder(fresh(), train=raw), LANGS, out, steps=PLAIN, workers=1)
    numbers = numbers_of(out)
    assert numbers == sorted(set(numbers))
    assert [tuple(map(one_line, raw[number - 1])) for number in numbers] == train_of(out)


@each_example_has_its_own_folder
@given(awkward=pairs)
def test_cleaning_clean_text_changes_nothing(fresh, awkward):
    once, _ = clean_pairs(fresh, TRAIN + awkward, SETTLED)
    twice, ledger = clean_pairs(fresh, once, SETTLED)
    assert twice == once
    assert ledger["repaired"] == 0


@each_example_has_its_own_folder
@given(awkward=raw_pairs, suffix=st.sampled_from(["", ".gz", ".zst"]), last=st.booleans())
def test_lines_of_any_bytes_are_kept_or_named(fresh, awkward, suffix, last):
    """Judged again here, one line at a time, by what the help promises."""
    longest = 400
    raw = write_folder(fresh(), train=None, **FAR)
    awkward = [(b"begin", b"begin"), *awkward, (b"end", b"end")]
    for side, lang in enumerate(LANGS):
        data = b"\n".join(pair[side] for pair in awkward) + b"\n" * last
        path = raw / f"train.{lang}{suffix}"
        path.write_bytes(PACK.get(suffix, bytes)(data))
    out = fresh()
    clean(raw, LANGS, out, steps=["whitespace"], workers=1, max_line_bytes=longest)
    kept, dropped = [], {}
    for number, pair in enumerate(awkward, start=1):
        texts = [one_line(line.decode("utf-8", "replace")) for line in pair]
        if max(map(len, pair)) > longest:
            dropped[number] = "too long line"
        elif any("\ufffd" in line.decode("utf-8", "replace") for line in pair):
            dropped[number] = "not UTF-8"
        elif not all(texts):
            dropped[number] = "empty"
        else:
            kept.append((number, *texts))
    assert {number: step for number, (step, _) in dropped_of(out).items()} == dropped
    assert list(zip(numbers_of(out), *zip(*train_of(out), strict=True), strict=True)) == kept


def test_a_byte_order_mark_before_the_first_line_is_no_text(fresh):
    raw, out = write_folder(fresh()), fresh()
    train = raw / "train.de"
    train.write_bytes("\ufeff".encode() + train.read_bytes())
    clean(raw, LANGS, out, steps=PLAIN, workers=1)
    assert train_of(out) == TRAIN
    assert ledger_of(out)["repaired"] == 0


def test_of_a_huge_line_only_so_much_is_read_that_it_is_too_long(tmp_path, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 8)
    for path in (tmp_path / "a", tmp_path / "b"):
        path.write_bytes(b"one\n" + 1000 * b"x" + b"\nthree\n")
    found = list(blocks.read_blocks([(tmp_path / "a", tmp_path / "b")], longest=20))
    lines = b"".join(block.src for block in found).split(b"\n")
    assert lines[0] == b"one" and lines[2:] == [b"three", b""]
    assert 20 < len(lines[1]) < 40
    assert sum(block.lines for block in found) == 3


@each_example_has_its_own_folder
@given(awkward=pairs, size=st.integers(1, 300), most=st.integers(1, 5))
def test_the_result_does_not_depend_on_how_lines_are_batched(fresh, awkward, size, most):
    raw = write_folder(fresh(), train=(TRAIN + awkward) * 2)
    outs = [fresh(), fresh()]
    clean(raw, LANGS, outs[0], workers=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "BLOCK_BYTES", size)
        patch.setattr(blocks, "MOST_LINES", most)
        clean(raw, LANGS, outs[1], workers=1)
    assert outputs_of(outs[0]) == outputs_of(outs[1])


def test_the_result_does_not_depend_on_the_number_of_workers(fresh, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 40)
    started = []
    in_processes = command.in_processes
    monkeypatch.setattr(
        command, "in_processes",
        lambda workers, *rest: started.append(workers) or in_processes(workers, *rest),
    )  # fmt: skip
    awkward = [("", "a"), ("b", "\ufeff"), TRAIN[3], ("ja " * 300, "yes " * 300), *TRAIN[:9]]
    raw, outs = write_folder(fresh(), train=TRAIN + awkward), [fresh(), fresh()]
    for workers, out in enumerate(outs, start=1):
        clean(raw, LANGS, out, steps=[*PLAIN, "near-duplicate"], workers=workers)
    assert started == [1, 2]
    assert outputs_of(outs[0]) == outputs_of(outs[1])


def test_a_small_corpus_does_not_wait_for_processes(fresh, monkeypatch):
    started = []
    monkeypatch.setattr(
        command, "in_processes", lambda workers, *_: started.append(workers) or _in_this_one()
    )
    clean(write_folder(fresh()), LANGS, fresh(), workers=8)
    assert started == [1]


def _in_this_one():
    return contextlib.nullcontext(map)


# -- the steps together --------------------------------------------------------------------


@pytest.mark.parametrize(
    "pair, reason",
    [
        (("", "text"), "empty"),
        (("Text", "\u2028\r"), "empty"),
        (("wort " * 10_000, "word " * 10_000), "length"),
        (("Text " + "x" * 101, "text " + "x" * 101), "word-length"),
        (("Ein Satz.", "Many words, none of which have anything to do with it, all too many."),
         "length-ratio"),
        (TRAIN[0], "duplicate"),
        (("  " + TRAIN[3][0].replace(" ", "\t"), TRAIN[3][1]), "duplicate"),
        (("guten morgen herr müller", "Something else."), "held-out"),
        (("Etwas anderes gibt es.", "IT HAS RAINED -- for days"), "held-out"),
        (("x" * (1 << 20) + "x", "x"), "too long line"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_an_unfit_pair_is_dropped_for_its_reason(fresh, pair, reason):
    kept, ledger = clean_pairs(fresh, [*TRAIN, pair])
    assert kept == TRAIN
    assert counts_of(ledger) == {reason: 1}
    (example,) = (example for step in ledger["steps"] for example in step.get("examples", ()))
    assert example["line"] == len(TRAIN) + 1
    assert len(example["source"]) <= 200


def test_the_first_step_that_a_pair_fails_gets_it(fresh):
    bad = ("wort " * 300, "")
    for steps in (["length:max=9", "empty"], ["empty", "length:max=9"]):
        _, ledger = clean_pairs(fresh, [*TRAIN, bad], steps)
        assert counts_of(ledger) == {steps[0].partition(":")[0]: 1}


def test_of_equals_the_first_that_came_so_far_is_kept(fresh):
    """A pair that an earlier step dropped is not one that others repeat."""
    long, short, again = ("eins zwei drei vier", "same"), ("eins", "same"), ("zwei", "same")
    train = [*TRAIN, long, short, again]
    first = len(TRAIN) + 1
    cases = {
        ("length:max=3", "duplicate:of=target"): {first: "length", first + 2: "duplicate"},
        ("duplicate:of=target", "length:max=3"): {first + 1: "duplicate", first + 2: "duplicate"},
    }
    for (one, other), expected in cases.items():
        out = fresh()
        train = [("Nummer", f"Number {n}") for n in range(len(TRAIN))] + [long, short, again]
        clean(write_folder(fresh(), train=train), LANGS, out, steps=[one, other], workers=1)
        dropped = dropped_of(out)
        if one.startswith("duplicate"):
            expected = {first: "length", **expected}
        assert {number: step.partition(":")[0] for number, (step, _) in dropped.items()} == expected
    assert dropped[first + 2][1] == f"repeats line {first}"


def test_dropped_lines_stand_in_the_order_of_the_corpus_whichever_step_came_first(fresh):
    out, last = fresh(), len(TRAIN)
    raw = write_folder(fresh(), train=[*TRAIN, TRAIN[0], ("", "a")])
    clean(raw, LANGS, out, steps=["empty", "duplicate"], workers=1)
    assert list(dropped_of(out)) == [last + 1, last + 2]


def test_what_is_measured_is_what_the_steps_before_have_left(fresh):
    usual = [("x" * length, "y" * length) for length in range(20, 30)]
    again = [("x" * 20, "y" * 80)] * 15
    for steps, ratio in ((["length-ratio", "duplicate"], 4), (["duplicate", "length-ratio"], 1)):
        _, ledger = clean_pairs(fresh, usual + again, steps)
        (step,) = (step for step in ledger["steps"] if step["step"].startswith("length-ratio"))
        assert step["expected_ratio"] == pytest.approx(ratio, rel=0.01)


@pytest.mark.parametrize("factor", [0.2, 1, 4])
def test_the_expected_ratio_is_the_corpus_median_of_target_to_source(fresh, factor):
    usual = [("x" * 20 * length, "y" * round(20 * length * factor)) for length in range(1, 8)]
    odd = [("x", "y" * 500), ("", "y" * 90), ("x" * 500, "y")]
    _, ledger = clean_pairs(fresh, usual + odd, ["length-ratio"])
    (step,) = (step for step in ledger["steps"] if step["step"].startswith("length-ratio"))
    assert step["expected_ratio"] == pytest.approx(factor, rel=0.01)


@pytest.mark.parametrize(
    "given, done",
    [
        ([], ["whitespace", "empty"]),
        (["length"], ["whitespace", "length", "empty"]),
        (["empty", "length"], ["whitespace", "empty", "length"]),
        (["empty", "whitespace"], ["whitespace", "empty", "whitespace", "empty"]),
        (["whitespace", "length", "empty"], ["whitespace", "length", "empty"]),
        (["unicode", "empty"], ["unicode", "whitespace", "empty"]),
        (["whitespace", "unicode"], ["whitespace", "unicode", "whitespace", "empty"]),
    ],
)
def test_whatever_is_asked_for_lines_are_whole_and_not_empty(given, done):
    assert [step.name for step in complete(map(parse, given))] == done


def test_repairs_are_counted_each_and_together(fresh):
    train = [*TRAIN, ("a\u00ad b", "a  b"), ("c", " c"), ("\u00add", "\u00add"), ("\u00ad", "x")]
    _, ledger = clean_pairs(fresh, train, ["controls", "whitespace"])
    repaired = {step["step"]: step["repaired"] for step in ledger["steps"] if "repaired" in step}
    assert list(repaired.values()) == [3, 2]
    assert ledger["repaired"] == 4


def test_lines_of_another_corpus_held_out_are_not_trained_on(fresh):
    leaked = ("Die Dosis beträgt 5 mg.", "The dose is 5 mg.")
    more = ("Täglich eine Tablette.", "One tablet every day.")
    others = [write_folder(fresh(), train=None, dev=None, test=[leaked], suffix=".gz"),
              write_folder(fresh(), train=None, dev=[more], test=None, suffix=".zst")]  # fmt: skip
    kept, ledger = clean_pairs(fresh, [*TRAIN, leaked, more], held_out=others)
    assert kept == TRAIN
    assert counts_of(ledger) == {"held-out": 2}
    assert clean_pairs(fresh, [*TRAIN, leaked, more])[0] == [*TRAIN, leaked, more]


@pytest.mark.parametrize(
    "flags, dropped",
    [
        ([], {"held-out": 1}),
        (["--near-threshold", 0.9], {}),
        (["--near-words", 9], {}),
        (["--near-sides", "both"], {}),
        (["--exact-only"], {}),
    ],
)
def test_what_is_near_to_a_held_out_line_can_be_said(fresh, capsys, flags, dropped):
    dev = [("Heute ist das Wetter wieder schön.", "The weather is fine again today.")]
    near = ("Heute ist das Wetter wieder so schön!", "Fine, is it not?")  # 6 of 7 words
    raw, out = write_folder(fresh(), train=[*TRAIN, near], dev=dev), fresh()
    call(capsys, "--in", raw, "--source-lang", "de", "--target-lang", "en", "--out", out,
         "--step", "empty", *flags)  # fmt: skip
    assert counts_of(ledger_of(out)) == dropped


# -- dev and test --------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_dev_and_test_keep_their_bytes(tmp_path, suffix):
    odd = "\ufeff\u2028 odd \r\nline\u00a0 \n\nno end".encode()
    folder = write_folder(tmp_path / "raw", suffix=suffix)
    for split in ("dev", "test"):
        for lang in LANGS:
            data = odd + f" {split} {lang}".encode()
            (folder / f"{split}.{lang}{suffix}").write_bytes(PACK.get(suffix, bytes)(data))
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
        "ledger.json", "manifest.json", "dropped.tsv.gz",
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
        (lambda raw: write_side(raw / "train.de", ["one"] * 41),
         "parallel at line 41: .*train.en has only 40 lines"),
        (lambda raw: (raw / "dev.de").write_bytes(b"ok\n" + LATIN), "dev.de, line 2: not UTF-8"),
        (lambda raw: (raw / "test.en").write_bytes(LATIN), "test.en, line 1: not UTF-8"),
        (lambda raw: write_folder(raw, train=DEV + TEST),
         r"no training pair of .* is left: kept 0 of 4 \(4 held-out\)"),
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
        ({"lines": 0}, "--lines is a number above 0, not 0"),
        ({"max_line_bytes": 0}, "--max-line-bytes is a number above 0, not 0"),
        ({"workers": 0}, "--workers is a number above 0, not 0"),
        ({"engine": "spark"}, "--engine is one of local, ray, not spark"),
        ({"steps": ["lenght"]}, "step 'lenght' is unknown; there are "),
        ({"steps": ["length:max=many"]}, "step length: max is a whole number, not 'many'"),
        ({"steps": ["length:max=0"]}, "step length: max is 1 or more, not 0"),
        ({"steps": ["length-ratio:max=1"]}, "step length-ratio: max is a factor above 1, not 1.0"),
        ({"steps": ["length-ratio:max=nan"]}, "step length-ratio: max is a number, not 'nan'"),
        ({"steps": ["length-ratio:expected=0"]}, "expected is a number above 0, not 0.0"),
        ({"steps": ["duplicate:of=both"]}, "duplicate: of is pair, source or target, not both"),
    ],
)
def test_an_option_out_of_range_is_refused_with_its_value(tmp_path, options, message):
    write_folder(tmp_path / "raw")
    with pytest.raises(ValueError, match=re.escape(message)):
        clean(tmp_path / "raw", LANGS, tmp_path / "text", **options)
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


def test_a_held_out_folder_without_dev_and_test_is_named(tmp_path):
    write_folder(tmp_path / "raw")
    write_folder(tmp_path / "other", dev=None, test=None)
    with pytest.raises(FileNotFoundError, match=r"other has neither dev\.de nor test\.de"):
        clean(tmp_path / "raw", LANGS, tmp_path / "text", held_out=[tmp_path / "other"])


# -- shards --------------------------------------------------------------------------------


def write_shards(folder, names, suffix=""):
    """TRAIN and one bad pair in so many shards of different length."""
    write_folder(folder, train=None)
    train, cuts = [*TRAIN, ("", "x")], [0, 3, 4, 29, len(TRAIN) + 1]
    for name, (begin, end) in zip(names, itertools.pairwise(cuts), strict=True):
        for side, lang in enumerate(LANGS):
            lines = [pair[side] for pair in train[begin:end]]
            write_side(folder / f"train.{name}.{lang}{suffix}", lines)
    return folder


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_shards_are_one_corpus_in_the_order_of_their_names(fresh, suffix):
    whole, outs = fresh(), [fresh(), fresh()]
    write_folder(whole, train=[*TRAIN, ("", "x")])
    parts = write_shards(fresh(), ["00", "01", "02", "10"], suffix)
    for raw, out in zip((whole, parts), outs, strict=True):
        clean(raw, LANGS, out, steps=PLAIN, workers=1)
    assert outputs_of(outs[0]) == outputs_of(outs[1])
    inputs = {Path(path).name for path in read_manifest(outs[1])["inputs"]}
    assert {f"train.01.de{suffix}", f"train.10.en{suffix}"} <= inputs


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda raw: (raw / "train.b.en").unlink(), r"train\.b\.en is missing, beside .*b\.de"),
        (lambda raw: (raw / "train.b.de").unlink(), r"train\.b\.de is missing, beside .*b\.en"),
        (lambda raw: write_side(raw / "train.de", ["x"]), r"train\.de and train\.a\.de exist"),
        (lambda raw: write_side(raw / "train.en.gz", ["x"]), r"train\.en\.gz and train\.a\.en ex"),
        (lambda raw: write_side(raw / "train.c.en.gz", ["x"]), r"train\.c\.en.* exist"),
        (lambda raw: write_side(raw / "train.c.en", ["x"]),
         r"train\.c\.de and .*train\.c\.en stop being parallel at line 2: .*c\.en has only 1 line"),
    ],
)  # fmt: skip
def test_shards_that_do_not_match_are_named(tmp_path, damage, message):
    damage(write_shards(tmp_path / "raw", "abcd"))
    with pytest.raises((ValueError, OSError), match=message):
        clean(tmp_path / "raw", LANGS, tmp_path / "text")
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


# -- what became of a line -----------------------------------------------------------------

EXPLAINED = [
    ("Viel\u2028Glück!", "Good   luck!"),
    ("", "nothing"),
    ("Viel Glück!", "Good luck!"),
    ("Guten Morgen, Herr Müller.", "Hello there."),
    ("Das bleibt.", "This stays."),
    ("u\u0308ber", "over"),
]


@pytest.fixture
def explained(tmp_path):
    """A function that tells of lines of a cleaned folder."""
    raw, out = write_folder(tmp_path / "raw", train=[*EXPLAINED, *TRAIN]), tmp_path / "text"
    for side, lang in enumerate(LANGS):
        with open(raw / f"train.{lang}", "ab") as file:
            file.write(b"s\xfc\xdf\n" if not side else b"sweet\n")
    clean(raw, LANGS, out, steps=["controls", *PLAIN], workers=1)
    return lambda *numbers, **options: "\n".join(explain(out, numbers, **options))


@pytest.mark.parametrize(
    "number, told",
    [
        (1, ["line 1: kept, line 1 of train", "train.de:1", r"'Viel\u2028Glück!'",
             "'Viel Glück!'", "train.en:1", "'Good   luck!'", "whitespace: 'Good luck!'"]),
        (2, ["line 2: dropped by empty: no source", "''", "'nothing'"]),
        (3, ["line 3: dropped by duplicate:of=pair: repeats line 1",
             "line 1, the first of its kind", r"'Viel\u2028Glück!'"]),
        (4, ["line 4: dropped by held-out: source is ", "dev.de:1",
             "'Guten Morgen, Herr Müller!'"]),
        (5, ["line 5: kept, line 2 of train", "'Das bleibt.'", "'This stays.'"]),
        (6, ["line 6: kept, line 3 of train", r"'u\u0308ber'", "'über'"]),
        (len(EXPLAINED) + len(TRAIN) + 1,
         ["dropped by not UTF-8: source of byte 0xfc at column 2", r"b's\xfc\xdf'"]),
    ],
)  # fmt: skip
def test_what_became_of_a_line_is_told(explained, number, told):
    text = explained(number)
    place = 0
    for words in told:
        assert words in text[place:], text
        place = text.index(words, place)


def test_folders_of_a_run_are_found_from_anywhere(tmp_path, monkeypatch):
    """A recipe names them from the folder of its run."""
    write_folder(tmp_path / "run" / "raw", train=[*TRAIN, DEV[0]])
    monkeypatch.chdir(tmp_path / "run")
    clean("raw", LANGS, "corpora/text", steps=PLAIN, workers=1)
    monkeypatch.chdir(tmp_path)
    told = "\n".join(explain("run/corpora/text", [len(TRAIN) + 1]))
    assert f"held out  {tmp_path / 'run' / 'raw' / 'dev.de'}:1" in told
    (tmp_path / "run" / "raw").rename(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError, match="raw, which .* is not here; name it with --in"):
        list(explain("run/corpora/text", [1]))
    assert list(explain("run/corpora/text", [1], "elsewhere"))


def test_lines_are_explained_in_the_order_asked_for(explained):
    assert explained(5, 2) == f"{explained(5)}\n{explained(2)}"


def test_what_a_dropped_line_did_not_come_to_is_not_told(fresh):
    raw, out = write_folder(fresh(), train=[*TRAIN, ("ein\u00ads " + "zwei " * 20, "one")]), fresh()
    clean(raw, LANGS, out, steps=["length:max=9", "controls"], workers=1)
    told = "\n".join(explain(out, [len(TRAIN) + 1]))
    assert "dropped by length" in told and "controls" not in told


def test_a_line_that_a_trial_left_out_is_explained(fresh):
    raw, out = write_folder(fresh()), fresh()
    clean(raw, LANGS, out, steps=PLAIN, lines=1, workers=1)
    assert next(explain(out, [3])) == "line 3: not taken, since --lines took a part of the corpus"


def test_a_line_of_a_shard_is_told_with_its_place_there(fresh):
    raw, out = write_shards(fresh(), "abcd"), fresh()
    clean(raw, LANGS, out, steps=PLAIN, workers=1)
    told = "\n".join(explain(out, [6]))
    assert "train.c.de:2" in told and TRAIN[5][0] in told


def test_raw_files_may_move_but_not_change(tmp_path, fresh):
    raw, out = write_folder(tmp_path / "raw", train=EXPLAINED), tmp_path / "text"
    clean(raw, LANGS, out, steps=PLAIN, workers=1)
    told = list(explain(out, [2]))
    raw.rename(tmp_path / "moved")
    with pytest.raises(FileNotFoundError, match="raw, which .* is not here; name it with --in"):
        list(explain(out, [2]))
    assert len(list(explain(out, [2], tmp_path / "moved"))) == len(told)
    write_side(tmp_path / "moved" / "train.en", ["other"] * len(EXPLAINED))
    with pytest.raises(ValueError, match=r"train\.en has changed since .*text was made"):
        list(explain(out, [2], tmp_path / "moved"))
    with pytest.raises(ValueError, match="was made of train.de, train.en"):
        list(explain(out, [2], write_folder(fresh(), suffix=".gz")))


def test_a_line_or_a_folder_that_is_not_there_is_named(explained, tmp_path):
    last = len(EXPLAINED) + len(TRAIN) + 1
    for number in (0, last + 1):
        with pytest.raises(ValueError, match=f"--explain {number}: .* has lines 1 to {last}"):
            explained(number)
    for folder in ("raw", "none"):
        with pytest.raises(FileNotFoundError, match="is not a folder that data_prep.clean has"):
            list(explain(tmp_path / folder, [1]))


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
        clean(raw, LANGS, out, workers=1)
    assert outputs_of(outs[0]) == outputs_of(outs[1])


def test_the_manifest_tells_inputs_settings_and_counts(tmp_path):
    raw = write_folder(tmp_path / "raw")
    other = write_folder(tmp_path / "other", train=None, dev=None)
    (tmp_path / "steps").write_text("empty\n")
    clean(raw, LANGS, tmp_path / "text", held_out=[other], steps=["length:max=9"],
          step_files=[tmp_path / "steps"])  # fmt: skip
    record = read_manifest(tmp_path / "text")
    assert record["settings"]["steps"] == ["whitespace", "length:min=1,max=9", "empty"]
    seconds = record["counts"].pop("processor_seconds")
    assert len(seconds) == len(ledger_of(tmp_path / "text")["steps"])
    assert record["counts"] == {
        "train": len(TRAIN), "dev": len(DEV), "test": len(TEST), "train_read": len(TRAIN)
    }  # fmt: skip
    read = {f"{raw}/{split}.{lang}" for split in ("train", "dev", "test") for lang in LANGS}
    read |= {f"{other}/test.{lang}" for lang in LANGS} | {f"{tmp_path}/steps"}
    assert record["inputs"].keys() == read


def call(capsys, *words):
    """(standard output, standard error) of the command in this process."""
    command._main([str(word) for word in words])
    return capsys.readouterr()


def test_the_command_tells_what_it_kept_step_by_step(tmp_path):
    write_folder(tmp_path / "raw", train=[*TRAIN, ("", "a"), ("b", ""), TRAIN[0]])
    words = ("--in", tmp_path / "raw", "--source-lang", "de", "--target-lang", "en",
             "--step", "empty", "--step", "duplicate")  # fmt: skip
    done = run_module("data_prep.clean", *words, "--out", tmp_path / "text")
    assert done.returncode == 0, done.stderr
    *_, table, last = done.stderr.rpartition("kept   ")[0], *done.stderr.splitlines()[-1:]
    assert re.search(r"^empty +43 +2 +4\.65 % ", table, re.M)
    assert re.search(r"^duplicate:of=pair +41 +1 +2\.33 % ", table, re.M)
    assert last == f"{tmp_path / 'text'}: kept 40 of 43 (2 empty, 1 duplicate)"
    assert done.stdout == ""

    again = run_module("data_prep.clean", *words, "--out", tmp_path / "text")
    assert again.returncode == 1
    assert again.stderr == (
        f"data_prep.clean: error: {tmp_path / 'text'} exists; remove it or name another place\n"
    )


def test_the_steps_that_are_printed_are_those_that_are_done(tmp_path, capsys):
    raw = write_folder(tmp_path / "raw")
    langs = ("--source-lang", "de", "--target-lang", "en")
    printed, _ = call(capsys, *langs, "--print-steps")
    (tmp_path / "steps").write_text(f"# remark\n{printed}")
    call(capsys, *langs, "--in", raw, "--out", tmp_path / "a", "--steps", tmp_path / "steps")
    call(capsys, *langs, "--in", raw, "--out", tmp_path / "b")
    steps = [read_manifest(tmp_path / name)["settings"]["steps"] for name in "ab"]
    assert steps[0] == steps[1]
    call(capsys, *langs, "--in", raw, "--out", tmp_path / "c", "--steps", tmp_path / "steps",
         "--step", "duplicate:of=source")  # fmt: skip
    assert read_manifest(tmp_path / "c")["settings"]["steps"] == [*steps[0], "duplicate:of=source"]


def test_steps_are_told_and_checked_without_text(capsys):
    listed, _ = call(capsys, "--list-steps")
    assert "near-duplicate" in listed and "length-ratio" in listed
    call(capsys, "--check-steps", "--step", "length:max=9")
    with pytest.raises(ValueError, match="option 'mx' is unknown"):
        call(capsys, "--check-steps", "--step", "length:mx=9")


def test_the_command_explains_lines(tmp_path, capsys):
    raw = write_folder(tmp_path / "raw", train=EXPLAINED)
    call(capsys, "--in", raw, "--source-lang", "de", "--target-lang", "en", "--step", "duplicate",
         "--out", tmp_path / "text")  # fmt: skip
    told, _ = call(capsys, "--out", tmp_path / "text", "--explain", 2, 3)
    assert told.startswith("line 2: dropped by empty") and "\nline 3: dropped by dupl" in told


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
