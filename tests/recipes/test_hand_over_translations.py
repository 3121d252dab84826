"""distil.sh with translations that were made elsewhere: checked, counted, and then like our own."""

import os
import subprocess

import pytest

from data_prep.manifest import read_json, read_manifest
from tests.fixtures.bitext import read_side, write_side
from tests.fixtures.prepared import toy_prepared
from tests.fixtures.toy_chain import ROOT, environment

LINES = 60


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """``data-text`` with 60 training pairs, ``data-vocabulary``."""
    root = tmp_path_factory.mktemp("text")
    toy_prepared(root)
    return root


def distil(made, out, *words):
    return subprocess.run(
        ["bash", str(ROOT / "recipes" / "stages" / "distil.sh"), "--text", made / "data-text",
         "--vocabulary", made / "data-vocabulary", "--source-lang", "de", "--target-lang", "en",
         "--out", out, *words],
        env={**environment(), "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [
            os.environ.get("PYTHONPATH")])])},
        text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def test_they_leave_the_folder_that_a_teacher_would_have_left(made, tmp_path):
    sources = read_side(made / "data-text" / "train.de")
    translations = [line.upper() for line in sources]
    translations[6] = ""
    place = tmp_path / "theirs"
    place.mkdir()
    write_side(place / "train.en.zst", translations)
    write_side(place / "train.de.gz", sources)
    out = tmp_path / "distilled"
    done = distil(made, out, "--translations", place)
    assert done.returncode == 0, done.stdout
    assert "60 lines (1 with an empty translation), taken from translations made" in done.stdout
    assert read_side(out / "decoded" / "train.en") == translations
    counts = read_manifest(out / "decoded" / "train.en")["counts"]
    assert (counts["lines"], counts["empty_outputs"]) == (LINES, 1)
    assert read_side(out / "decoded" / "train.en.ledger.tsv")[1].startswith("7\tempty translation")
    assert read_side(out / "text" / "train.lines") == [
        f"{number}\tdistilled" for number in range(1, LINES + 1) if number != 7
    ]
    assert read_side(out / "text" / "train.de") == sources[:6] + sources[7:]
    assert read_side(out / "text" / "train.en") == translations[:6] + translations[7:]
    ledger = read_json(out / "text" / "ledger.json")
    assert (ledger["read"], ledger["kept"]) == (LINES, LINES - 1)
    counts = read_manifest(out / "prepared")["counts"]
    assert {split: counts[split]["pairs"] for split in counts} == {
        "train": LINES - 1, "dev": 9, "test": 9,
    }  # fmt: skip


def cut(sources):
    return sources[:-2]


def doubled(sources):
    return [*sources, sources[0]]


def another(sources):
    return [*sources[:41], "another line", *sources[42:]]


@pytest.mark.parametrize(
    "targets, sources, message",
    [
        (cut, None, "has only 58 lines, {text}/train.de has 60"),
        (doubled, None, "{text}/train.de has only 60 lines, {place}/train.en has 61"),
        (None, another, "{place}/train.de, line 42: 'another line', where {text}/train.de has"),
        (None, cut, "{place}/train.de and {text}/train.de stop being parallel at line 59"),
        ("bytes", None, "{place}/train.en, line 1: not UTF-8 (byte 0xff at column 2)"),
    ],
)
def test_translations_of_something_else_are_refused_and_nothing_is_learnt(
    made, tmp_path, targets, sources, message
):
    text, place = made / "data-text", tmp_path / "theirs"
    place.mkdir()
    lines = read_side(text / "train.de")
    if targets == "bytes":
        (place / "train.en").write_bytes(b"a\xff\n" * LINES)
    else:
        write_side(place / "train.en", targets(lines) if targets else lines)
    if sources:
        write_side(place / "train.de", sources(lines))
    done = distil(made, tmp_path / "out", "--translations", place)
    assert done.returncode != 0
    assert message.format(text=text, place=place) in done.stdout
    assert not (tmp_path / "out" / "decoded" / "train.en").exists()
    assert not (tmp_path / "out" / "text").exists()
