"""Watching a training with TensorBoard and W&B: the numbers arrive, and the run takes no notice."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from data_prep.manifest import read_json
from data_prep.pipeline.stage import run_stage
from data_prep.training_log import read_entries
from tests.fixtures.models import read_text, toy_model
from tests.fixtures.toy_chain import ROOT, environment
from tests.fixtures.training import toy_data

STAGES = ROOT / "recipes" / "stages"


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """A work folder to be in, with the environment of a recipe."""
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    for name in ("DAD_TENSORBOARD", "DAD_WANDB", "WANDB_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", f"{STAGES}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def train(model, *words, updates=6):
    """Status of a stage in which train.sh makes ``model`` of the folder data."""
    return run_stage(
        ["train.sh", "--data", "data", "--out", "{out}", "--size", "miniature", "--max-tokens",
         "300", "--valid-beam", "1", "--updates", str(updates), "--", "--num-workers", "0", "--cpu",
         "--log-interval", "2", *words],
        model, ["data"], resume=True, screen="none",
    )  # fmt: skip


def curve(folder, name):
    """{update: value} of one quantity in the event files of ``folder``."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {point.step: point.value for point in events.Scalars(name)}


def logged(model, kind, name):
    """The same of the training log."""
    prefix = f"{kind}_" if kind == "valid" else ""
    return {
        entry[f"{prefix}num_updates"]: entry[prefix + name]
        for found, entry in read_entries(read_text(model / "log.txt"))
        if found == kind
    }


def test_tensorboard_shows_every_model_apart_and_the_run_takes_no_notice(outside, monkeypatch):
    _, vocabulary = toy_data(outside)
    teacher = toy_model(outside / "a-teacher", vocabulary, seed=5)
    word = ("--criterion", "word_distillation", "--teacher", str(teacher))
    monkeypatch.setenv("DAD_TENSORBOARD", "tensorboard")
    assert train("teacher/general") == 0
    assert train("student/9", *word) == 0

    shown = outside / "tensorboard"
    for model, kind, names in (
        ("teacher/general", "train_inner", ("loss", "wps")),
        ("teacher/general", "valid", ("loss", "bleu", "bleu_greedy", "chrf")),
        ("student/9", "train_inner", ("loss", "teacher_kl", "teacher_agreement")),
        ("student/9", "valid", ("loss", "teacher_kl", "bleu")),
    ):
        for name in names:
            points = curve(shown / model / kind, name)
            assert points == pytest.approx(logged(Path(model), kind, name), rel=1e-3), (model, name)
            assert max(points) == 6

    for model in map(Path, ("teacher/general", "student/9")):
        assert "--tensorboard" not in read_text(model / "command.txt")[0]
        assert not any("tfevents" in name for name in read_json(model / "stage.json")["outputs"])
    before = os.stat("student/9/model.pt").st_mtime_ns
    monkeypatch.delenv("DAD_TENSORBOARD")
    assert train("student/9", *word) == 0  # without it nothing is made again
    assert os.stat("student/9/model.pt").st_mtime_ns == before

    monkeypatch.setenv("DAD_TENSORBOARD", "tensorboard")
    assert train("student/9", *word, updates=4) == 0
    assert sorted(curve(shown / "student/9" / "train_inner", "loss")) == [2, 4]
    assert sorted(curve(shown / "teacher/general" / "train_inner", "loss")) == [2, 4, 6]


def script(path, text):
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def stand_ins(outside, monkeypatch):
    """A fairseq-train that tells how it was called and fails, a Python that has every package."""
    (outside / "data").mkdir()
    script(outside / "bin" / "fairseq-train", 'echo "$WANDB_NAME:" "$@"; exit 3')
    script(outside / "bin" / "python", "exit 0")
    monkeypatch.setenv("PATH", f"{outside / 'bin'}:{os.environ['PATH']}")
    return SimpleNamespace(bin=outside / "bin", work=outside)


@pytest.mark.parametrize(
    "variables, seen, not_seen",
    [
        ({}, ": data", "--tensorboard-logdir"),
        ({}, ": data", "--wandb-project"),
        ({"DAD_TENSORBOARD": "/tb"}, "--tensorboard-logdir /tb/student/9", "--wandb-project"),
        ({"DAD_WANDB": "dad"}, "--wandb-project dad", "--tensorboard-logdir"),
        ({"DAD_WANDB": "dad"}, "student/9: data", "--tensorboard-logdir"),
        ({"DAD_WANDB": "dad", "WANDB_NAME": "mine"}, "mine: data", "student/9: data"),
    ],
)
def test_what_watches_is_asked_for_in_the_environment(
    stand_ins, monkeypatch, variables, seen, not_seen
):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert train("student/9") == 3
    said = (stand_ins.work / "student" / "9.log").read_text().partition("\n")[2]
    assert seen in said and not_seen not in said


@pytest.mark.parametrize(
    "variable, package", [("DAD_TENSORBOARD", "tensorboard"), ("DAD_WANDB", "wandb")]
)
def test_a_missing_package_is_told_before_the_training(stand_ins, monkeypatch, variable, package):
    script(stand_ins.bin / "python", "exit 1")
    monkeypatch.setenv(variable, "some")
    assert train("student/9") == 1
    said = (stand_ins.work / "student" / "9.log").read_text()
    assert f"pip install {package}" in said and ": data" not in said


def test_curves_of_a_training_that_goes_on_are_kept(stand_ins, monkeypatch):
    monkeypatch.setenv("DAD_TENSORBOARD", "tensorboard")
    events = stand_ins.work / "tensorboard" / "student" / "9" / "valid" / "events.out.tfevents.1"
    train("student/9")
    events.parent.mkdir(parents=True)
    events.touch()
    checkpoint = stand_ins.work / "student" / "9.part" / "checkpoints" / "checkpoint_last.pt"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.touch()
    train("student/9")
    assert events.exists()
    checkpoint.unlink()
    train("student/9")
    assert not events.exists()
