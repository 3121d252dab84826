import argparse
import os

import numpy as np
import pytest
import torch

from fairseq_plugins.checkpoints import (
    TRUST_VARIABLE,
    check_vocabulary,
    load_checkpoint,
    vocabulary_of,
)


class Harmful:
    """Runs a command while it is unpickled."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def save(path, **entries):
    torch.save({"model": {"w": torch.ones(2, 3)}, **entries}, path)
    return path


def test_what_fairseq_keeps_is_read(tmp_path):
    kept = {
        "args": argparse.Namespace(arch="transformer"),
        "best": np.float64(4.2),
        "counts": np.arange(3),
        "half": np.float16(1),
    }
    state = load_checkpoint(save(tmp_path / "model.pt", **kept))
    assert state["args"].arch == "transformer" and state["best"] == 4.2
    assert state["counts"].tolist() == [0, 1, 2]
    torch.testing.assert_close(state["model"]["w"], torch.ones(2, 3))


def test_code_in_a_checkpoint_is_named_and_never_run(tmp_path):
    trace = tmp_path / "trace"
    path = save(tmp_path / "model.pt", extra=Harmful(f"touch {trace}"))
    with pytest.raises(ValueError, match=r"needs the type (posix|nt)\.system.*--trust-checkpoint"):
        load_checkpoint(path)
    assert not trace.exists()


@pytest.mark.parametrize("by", ["argument", "variable"])
def test_trust_is_the_users_to_give(tmp_path, monkeypatch, by):
    trace = tmp_path / "trace"
    path = save(tmp_path / "model.pt", extra=Harmful(f"touch {trace}"))
    if by == "variable":
        monkeypatch.setenv(TRUST_VARIABLE, "1")
    load_checkpoint(path, trust=by == "argument")
    assert trace.exists()


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="checkpoint .*model.pt is missing"):
        load_checkpoint(tmp_path / "model.pt")


@pytest.mark.parametrize("left", [0, 10, 500])
def test_a_truncated_checkpoint_is_called_damaged(tmp_path, left):
    path = save(tmp_path / "model.pt")
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(ValueError, match="model.pt is (damaged|not a checkpoint)"):
        load_checkpoint(path)


def test_another_kind_of_file_is_refused(tmp_path):
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(ValueError, match="not a fairseq checkpoint"):
        load_checkpoint(tmp_path / "list.pt")


def test_the_fingerprint_is_found_in_the_tasks_state():
    assert vocabulary_of({"task_state": {"vocabulary": {"a": "1"}}}) == {"a": "1"}
    assert vocabulary_of({"task_state": {}}) is None
    assert vocabulary_of({}) is None


def test_another_vocabulary_is_refused_and_the_file_named():
    ours = {"subwords.model": "1", "dict.en.txt": "2"}
    assert check_vocabulary("m.pt", dict(ours), ours, "data") is None
    with pytest.raises(ValueError, match=r"m\.pt was trained with another.*dict\.en\.txt differs"):
        check_vocabulary("m.pt", {**ours, "dict.en.txt": "3"}, ours, "data")


def test_a_checkpoint_without_fingerprint_needs_consent():
    with pytest.raises(ValueError, match="--allow-unknown-vocabulary"):
        check_vocabulary("m.pt", None, {"a": "1"}, "data")
    assert check_vocabulary("m.pt", None, {"a": "1"}, "data", allow_unknown=True) is None
