"""recipes/stages/train.sh: which checkpoint, or which average, becomes the model."""

import subprocess
from pathlib import Path

import pytest

STAGE = Path(__file__).resolve().parents[2] / "recipes" / "stages" / "train.sh"


def commands(*words):
    """Status and words of what train.sh would run, and what it says."""
    done = subprocess.run(
        ["bash", STAGE, "--data", "data", "--out", "out", "--size", "tiny", "--dry-run", *words],
        capture_output=True, text=True,
    )  # fmt: skip
    return done.returncode, done.stdout.replace("\\\n", " ").split(), done.stderr


def value(words, flag):
    return words[words.index(flag) + 1] if flag in words else None


@pytest.mark.parametrize(
    "wish, epochs, best, taken",
    [
        (None, None, None, None),
        ("best:3", None, "3", "best:3"),
        ("last:5", "5", None, "last:5"),
    ],
)
def test_fairseq_keeps_the_checkpoints_that_are_averaged(wish, epochs, best, taken):
    status, words, _ = commands(*(["--average", wish] if wish else []))
    assert status == 0
    assert value(words, "--keep-last-epochs") == epochs
    assert ("--no-epoch-checkpoints" in words) is (epochs is None)
    assert value(words, "--keep-best-checkpoints") == best
    assert value(words, "--average") == taken
    if wish:
        assert value(words, "--checkpoints") == "out/checkpoints" and "--checkpoint" not in words
    else:
        assert value(words, "--checkpoint") == "out/checkpoints/checkpoint_best.pt"


@pytest.mark.parametrize("wish", ["best", "best:0", "first:3", "5", "last:x"])
def test_another_average_is_refused_before_training(wish):
    status, words, said = commands("--average", wish)
    assert status != 0 and not words
    assert f"--average is best:N or last:N, for example best:3, not '{wish}'" in said
