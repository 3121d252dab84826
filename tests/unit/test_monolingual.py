"""Monolingual sources: what is kept, where it goes, and that nothing is lost on the way."""

import gzip

import pytest

from data_prep.cleaning.steps import default_steps
from data_prep.manifest import read_json, read_manifest
from data_prep.monolingual import TWO_SIDED, _main, add_monolingual, one_sided_steps
from data_prep.overlap import HeldOut
from tests.fixtures.bitext import DEV, PACK, TEST, TRAIN, read_side, write_folder, write_side

LANGS = ("de", "en")
NEW = [  # no line of TRAIN, DEV or TEST
    "Die Ärztin misst jeden Morgen seinen Blutdruck.",
    "Das Fieber ist gestern Abend wieder gestiegen.",
    "Der Husten dauert nun schon seit drei Wochen.",
]


def make(tmp_path, lines, suffix="", held_out=(), out="out", **options):
    """(sources, targets, origins) of ``lines`` behind the bitext of the fixtures."""
    text = tmp_path / "text"
    if not text.exists():
        write_folder(text)
    raw = tmp_path / "raw"
    raw.mkdir(exist_ok=True)
    write_side(raw / f"monolingual.de{suffix}", lines)
    add_monolingual(raw, text, LANGS, tmp_path / out, held_out=held_out, workers=1, **options)
    return [read_side(tmp_path / out / f"train.{name}") for name in ("de", "en", "origin")]


@pytest.mark.parametrize("suffix", ["", *PACK])
def test_monolingual_lines_stand_behind_the_bitext_with_empty_targets(tmp_path, suffix):
    sources, targets, origins = make(tmp_path, NEW, suffix)
    assert list(zip(sources, targets, strict=True)) == [*TRAIN, *((line, "") for line in NEW)]
    assert origins == [
        *(f"domain\t{number}" for number in range(1, len(TRAIN) + 1)),
        *(f"monolingual\t{number}" for number in range(1, len(NEW) + 1)),
    ]
    for split, pairs in (("dev", DEV), ("test", TEST)):
        assert read_side(tmp_path / "out" / f"{split}.de") == [src for src, _ in pairs]
        assert read_side(tmp_path / "out" / f"{split}.en") == [tgt for _, tgt in pairs]


def test_shards_are_one_corpus(tmp_path):
    (tmp_path / "raw").mkdir()
    write_side(tmp_path / "raw" / "monolingual.01.de.gz", NEW[1:])
    write_side(tmp_path / "raw" / "monolingual.00.de", NEW[:1])
    write_folder(tmp_path / "text")
    add_monolingual(tmp_path / "raw", tmp_path / "text", LANGS, tmp_path / "out", workers=1)
    assert read_side(tmp_path / "out" / "train.de")[-3:] == NEW


@pytest.mark.parametrize(
    "line, step, why",
    [
        (TRAIN[0][0], "known", "is a training source"),
        (DEV[0][0], "held-out", "source is"),
        ("guten  morgen herr müller", "held-out", "source is"),
        (TEST[0][0], "held-out", "source is"),
        ("\u00a0\u200b", "empty", "no source"),
        (NEW[0], "duplicate:of=pair", "repeats line 1"),
        (f"<p>{NEW[0]}</p>", "duplicate:of=pair", "repeats line 1"),
        ("The doctor measures his blood pressure every single morning.", "language", "en"),
        ("Врач каждое утро измеряет ему кровяное давление.", "script", ""),
        ("ja " * 300, "length", ""),
    ],
)
def test_a_line_that_must_go_is_dropped_and_said_why(tmp_path, line, step, why):
    sources, *_ = make(tmp_path, [NEW[0], line, NEW[1]])
    assert sources[len(TRAIN) :] == [NEW[0], NEW[1]]
    (row,) = gzip.decompress((tmp_path / "out" / "dropped.tsv.gz").read_bytes()).splitlines()[1:]
    number, its_step, reason = row.decode().split("\t")
    assert number == "2" and its_step.startswith(step) and why in reason


def test_held_out_lines_of_other_domains_are_kept_out_too(tmp_path):
    other = write_folder(tmp_path / "other", None, [(NEW[2], "The cough …")], None)
    assert NEW[2] in make(tmp_path, NEW, out="without")[0]
    sources, *_ = make(tmp_path, [*NEW, NEW[2].replace("nun ", "")], held_out=[other])
    assert sources[len(TRAIN) :] == NEW[:2]
    assert str(other) in read_manifest(tmp_path / "out")["settings"]["held_out"]
    held_out = HeldOut.read([other, tmp_path / "text"], LANGS)
    assert not any(held_out.leaks(sources, [""] * len(sources)))


def test_the_target_side_of_held_out_sets_says_nothing_about_sources(tmp_path):
    other = write_folder(tmp_path / "other", None, [("Etwas anderes.", NEW[0])], None)
    assert NEW[0] in make(tmp_path, NEW, held_out=[other])[0]


def test_near_lines_are_left_alone_where_that_is_asked_for(tmp_path):
    other = write_folder(tmp_path / "other", None, [(NEW[2], "The cough …")], None)
    near = NEW[2].replace("nun ", "")
    exact_only = {"threshold": None, "sides": "both"}
    sources, *_ = make(tmp_path, [*NEW, near], held_out=[other], near=exact_only)
    assert sources[len(TRAIN) :] == [*NEW[:2], near]
    near_too = {"threshold": 0.8, "sides": "both"}
    sources, *_ = make(tmp_path, [*NEW, near], held_out=[other], near=near_too, out="again")
    assert sources[len(TRAIN) :] == NEW[:2]


def test_repairs_are_those_of_bitext(tmp_path):
    raw = ["Fieber\u00ad und  <b>Husten</b> &amp; Schnupfen\r", NEW[0]]
    assert make(tmp_path, raw)[0][len(TRAIN) :] == ["Fieber und Husten & Schnupfen", NEW[0]]


def test_the_ledger_accounts_for_every_line(tmp_path):
    lines = [*NEW, "", TRAIN[1][0], DEV[0][0], NEW[0], f"{NEW[1]} {NEW[2]}"]
    sources, _, origins = make(tmp_path, lines)
    ledger = read_json(tmp_path / "out" / "ledger.json")
    dropped = sum(step.get("dropped", 0) for step in ledger["steps"])
    assert origins[-1] == "monolingual\t8"
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *(f"{split}.{lang}" for split in ("train", "dev", "test") for lang in LANGS),
        "train.origin", "dropped.tsv.gz", "ledger.json", "manifest.json",
    }  # fmt: skip
    assert ledger["read"] == len(lines) == ledger["kept"] + dropped
    assert ledger["pairs_of_domain"] == len(TRAIN) == len(sources) - ledger["kept"]
    assert read_manifest(tmp_path / "out")["counts"]["train"] == len(sources)


@pytest.mark.parametrize("lang", ["de", "ru", "zh", "xx"])
def test_default_steps_are_those_of_bitext_that_look_at_one_side(lang):
    ours, theirs = (
        [step.partition(":")[0] for step in steps]
        for steps in (one_sided_steps(lang), default_steps(lang, lang))
    )
    assert ours == [step for step in theirs if step not in TWO_SIDED]


def test_of_the_steps_of_bitext_those_that_compare_two_sides_are_left_out(tmp_path, capsys):
    """A line goes through the steps as a pair of equals, which is a copy."""
    make(tmp_path, NEW, steps=[*TWO_SIDED, "length:min=2"])
    names = [step["step"] for step in read_json(tmp_path / "out" / "ledger.json")["steps"]]
    assert not {name.partition(":")[0] for name in names} & {*TWO_SIDED}
    assert any(name.startswith("length:min=2") for name in names)
    assert "left out: copy:max=0.8,words=4, numbers" in capsys.readouterr().err


def test_steps_take_the_place_of_the_default(tmp_path):
    lines = ["The doctor is in the house today.", *NEW]
    assert make(tmp_path, lines, steps=["length:max=7"])[0][len(TRAIN) :] == [
        lines[0], *(line for line in NEW if len(line.split()) <= 7),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "break_it, message",
    [
        (lambda root: (root / "raw" / "monolingual.de").unlink(), "monolingual.de is missing"),
        (lambda root: (root / "text" / "train.en").unlink(), "train.en is missing"),
        (lambda root: (root / "raw" / "monolingual.de").write_text(""), "nothing to train on"),
        (lambda root: (root / "raw" / "monolingual.de").write_text("\n \n"), "no line of"),
        (lambda root: [path.unlink() for split in ("dev", "test")
                       for path in (root / "text").glob(f"{split}.*")], "neither dev.de nor"),
    ],
)  # fmt: skip
def test_what_is_missing_is_told_and_nothing_is_left(tmp_path, break_it, message):
    write_folder(tmp_path / "text")
    (tmp_path / "raw").mkdir()
    write_side(tmp_path / "raw" / "monolingual.de", NEW)
    break_it(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        add_monolingual(tmp_path / "raw", tmp_path / "text", LANGS, tmp_path / "out", workers=1)
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"lines": 0}, "--lines is a number above 0"),
        ({"workers": 0}, "--workers is a number above 0"),
        ({"steps": ["nonsense"]}, "nonsense"),
        ({"steps": ["length:max=0"]}, "length"),
    ],
)
def test_wrong_options_are_refused(tmp_path, options, message):
    write_folder(tmp_path / "text")
    with pytest.raises(ValueError, match=message):
        add_monolingual(tmp_path, tmp_path / "text", LANGS, tmp_path / "out", **options)


def test_the_command(tmp_path, capsys):
    make(tmp_path, [*NEW, NEW[0]], out="python")
    (tmp_path / "steps").write_text("# repairs\nhtml\n")
    words = ["--in", tmp_path / "raw", "--text", tmp_path / "text", "--source-lang", "de",
             "--target-lang", "en", "--workers", "1", "--held-out", tmp_path / "text"]  # fmt: skip
    _main([*map(str, words), "--out", str(tmp_path / "command")])
    for name in ("train.de", "train.en", "train.origin", "dropped.tsv.gz"):
        ours, theirs = (tmp_path / folder / name for folder in ("command", "python"))
        assert ours.read_bytes() == theirs.read_bytes()
    assert "40 pairs of the domain and, without translation, kept 3 of 4" in capsys.readouterr().err
    more = ["--steps", str(tmp_path / "steps"), "--step", "length:max=7", "--lines", "2"]
    _main([*map(str, words), *more, "--exact-only", "--out", str(tmp_path / "more")])
    settings = read_manifest(tmp_path / "more")["settings"]
    assert [step.partition(":")[0] for step in settings["steps"]] == [
        "html", "whitespace", "length", "empty",
    ]  # fmt: skip
    assert settings["lines"] == 2 and settings["near"]["threshold"] is None
    assert read_json(tmp_path / "more" / "ledger.json")["read"] == 2
