"""data_prep/manifest.py: beside every output, what made it."""

import json

import pytest

from data_prep.files import sha256
from data_prep.manifest import (
    manifest_path,
    package_versions,
    read_json,
    read_manifest,
    write_json,
    write_manifest,
)


def record(output, tmp_path):
    source = tmp_path / "in.txt"
    source.write_text("text\n")
    write_manifest(
        output,
        settings={"beam": 5},
        inputs=[source],
        counts={"lines": 1},
        seconds=1.23456,
        seed=7,
        command=["make", "it"],
    )
    return read_manifest(output), source


def test_a_manifest_says_what_made_the_output(tmp_path):
    (tmp_path / "out").mkdir()
    found, source = record(tmp_path / "out", tmp_path)
    assert found["command"] == ["make", "it"]
    assert found["settings"] == {"beam": 5}
    assert found["inputs"] == {str(source): sha256(source)}
    assert found["counts"] == {"lines": 1}
    assert found["seed"] == 7
    assert found["seconds"] == 1.235
    assert found["versions"] == package_versions()
    assert "commit" in found


def test_the_manifest_of_a_folder_lies_in_it_and_that_of_a_file_beside_it(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file.txt").write_text("text")
    assert manifest_path(tmp_path / "folder") == tmp_path / "folder" / "manifest.json"
    assert manifest_path(tmp_path / "file.txt") == tmp_path / "file.txt.manifest.json"


def test_versions_name_python_and_what_results_depend_on():
    assert {"python", "sentencepiece"} <= package_versions().keys()


def test_json_is_read_back_as_written(tmp_path):
    write_json(tmp_path / "a.json", {"text": "schön\u2028你好"})
    assert read_json(tmp_path / "a.json") == {"text": "schön\u2028你好"}
    assert json.loads((tmp_path / "a.json").read_bytes())["text"].startswith("schön")


def test_damaged_and_missing_json_are_named(tmp_path):
    (tmp_path / "a.json").write_text('{"half": ')
    with pytest.raises(ValueError, match=r"a\.json is not JSON"):
        read_json(tmp_path / "a.json")
    with pytest.raises(FileNotFoundError, match=r"b\.json is missing"):
        read_json(tmp_path / "b.json")


def test_what_cannot_be_written_as_json_leaves_nothing(tmp_path):
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"path": tmp_path})
    assert list(tmp_path.iterdir()) == []
