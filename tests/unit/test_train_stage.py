"""recipes/stages/train.sh: what training starts from, and which checkpoint becomes the model."""

import os
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


# -- where the weights come from -----------------------------------------------------------------


@pytest.mark.parametrize(
    "flags, task, finetuned",
    [
        ([], "sequence_distillation", None),
        (["--init", "general"], "domain_adaptation", "general/model.pt"),
        (["--from-model", "theirs"], "sequence_distillation", "theirs/model.pt"),
        (["--continue", "last.pt"], "sequence_distillation", None),
    ],
)
def test_only_init_is_adapting(flags, task, finetuned):
    status, words, _ = commands(*flags)
    assert status == 0
    words = words[words.index("fairseq-train") :]
    assert value(words, "--task") == task
    assert value(words, "--finetune-from-model") == finetuned


def test_what_is_gone_on_with_is_checked_by_the_very_words_of_the_training():
    _, plain, _ = commands("--", "--clip-norm", "2")
    _, words, _ = commands("--continue", "last.pt", "--", "--clip-norm", "2")
    training = plain[1 : plain.index("dad-keep-weights")]
    assert words[: len(training) + 6] == [
        "dad-hand-over", "--continue", "last.pt", "--out", "out/checkpoints/checkpoint_last.pt",
        "--", *training,
    ]  # fmt: skip
    assert words[len(training) + 6 :] == plain


@pytest.mark.parametrize(
    "flags, named",
    [
        (["--init", "a", "--from-model", "b"], "--init --from-model"),
        (["--continue", "a", "--from-teacher", "first=b"], "--continue --from-teacher"),
        (["--from-model", "a", "--continue", "b"], "--from-model --continue"),
        (["--init", "a", "--from-teacher", "first=b"], "--init --from-teacher"),
    ],
)
def test_weights_come_from_one_place(flags, named):
    status, words, said = commands(*flags)
    assert status != 0 and not words
    assert f"{named} all say where the weights come from; keep one of them" in said


STAND_INS = {
    "dad-hand-over": 'echo handed over; mkdir -p out/checkpoints; echo theirs > "$4"',
    # killed after its first epoch, and done when it is called again
    "fairseq-train": "cat out/checkpoints/checkpoint_last.pt; "
    "echo ours > out/checkpoints/checkpoint_last.pt; [ -e killed ] || { touch killed; exit 137; }",
    "dad-keep-weights": "mkdir -p out/kept; touch out/kept/model.pt",
}


def test_a_checkpoint_is_handed_over_once(tmp_path):
    for name, script in STAND_INS.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    said = []
    for status in (137, 0, 0):
        done = subprocess.run(
            ["bash", STAGE, "--data", "data", "--out", "out", "--size", "tiny", "--continue", "x"],
            cwd=tmp_path, env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == status, done.stderr
        said.append(done.stdout.split("\n")[:-1])
    assert said == [["handed over", "theirs"], ["ours"], []]
