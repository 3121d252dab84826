"""Several domains as one text folder."""

import sys

import pytest

from data_prep import join
from data_prep.manifest import read_manifest
from tests.fixtures.models import read_text, write_text

LANGS = ("de", "en")


def folder(root, name, **lines):
    """A text folder with (source, target) lines of each split."""
    (root / name).mkdir()
    for split in join.SPLITS:
        for lang, side in zip(LANGS, lines.get(split, ([split], [split])), strict=True):
            write_text(root / name / f"{split}.{lang}", side)
    return root / name


def test_one_domain_follows_another_and_none_is_lost(tmp_path):
    law = folder(tmp_path, "law", train=(["a", "", "c"], ["A", "", "C"]))
    it = folder(tmp_path, "it", train=(["d\u2028e"], ["D"]), dev=(["x", "y"], ["X", "Y"]))
    counts = join.join([law, it], LANGS, tmp_path / "all")
    assert counts == {"train": 4, "dev": 3, "test": 2}
    assert read_text(tmp_path / "all/train.de") == ["a", "", "c", "d\u2028e"]
    assert read_text(tmp_path / "all/train.en") == ["A", "", "C", "D"]
    assert read_text(tmp_path / "all/dev.en") == ["dev", "X", "Y"]
    assert read_manifest(tmp_path / "all")["counts"] == counts


def test_sides_that_are_not_parallel_are_refused_and_nothing_is_written(tmp_path):
    # both together would be: the fault of one would hide that of the other
    law = folder(tmp_path, "law", dev=(["a", "b"], ["A"]))
    it = folder(tmp_path, "it", dev=(["c"], ["C", "D"]))
    with pytest.raises(ValueError, match=r"law: dev\.de has 2 lines and dev\.en 1"):
        join.join([law, it], LANGS, tmp_path / "all")
    assert not (tmp_path / "all").exists()


def test_a_missing_file_is_named(tmp_path, monkeypatch, capsys):
    law = folder(tmp_path, "law")
    (law / "test.en").unlink()
    words = ["--text", str(law), "--source-lang", "de", "--target-lang", "en", "--out"]
    monkeypatch.setattr(sys, "argv", ["join", *words, str(tmp_path / "all")])
    with pytest.raises(SystemExit) as end:
        join.main()
    assert end.value.code == 1 and "test.en" in capsys.readouterr().err
