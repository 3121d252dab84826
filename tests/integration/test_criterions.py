"""The registered criterions under stock fairseq-train: resumed, in several processes."""

import socket
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from fairseq_plugins.checkpoints import load_checkpoint
from fairseq_plugins.export.weights import keep_weights
from tests.fixtures.fairseq_cli import run, train
from tests.fixtures.models import toy_checkpoint, toy_model
from tests.fixtures.training import toy_data

LOSSES = ("loss", "nll_loss", "teacher_kl", "teacher_agreement")
QUEUE = ("--criterion", "selective_distillation", "--selection-queue", 300)
BATCH = ("--criterion", "selective_distillation", "--selection-level", "batch")
WORD = ("--criterion", "word_distillation", "--divergence", "jensen-shannon")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A prepared folder and a teacher for its vocabulary."""
    root = tmp_path_factory.mktemp("made")
    data, vocabulary = toy_data(root, sentences=60)
    return SimpleNamespace(
        data=data, vocabulary=vocabulary, teacher=toy_model(root / "teacher", vocabulary, seed=5)
    )


def distil(made, save_dir, *words):
    return train(
        made.data, save_dir, "--teacher", made.teacher, "--lr", 0.01, "--max-tokens", 150,
        "--valid-beam", 0, *words,
    )  # fmt: skip


def updates(done):
    """Logged quantities of each update by its number."""
    assert done.status == 0, done.output
    return {
        entry["num_updates"]: {key: entry[key] for key in entry.keys() & {*LOSSES, "selected"}}
        for entry in done.entries("train_inner")
    }


@pytest.mark.parametrize("criterion", [WORD, QUEUE])
def test_resuming_within_an_epoch_gives_the_losses_of_no_interruption(made, tmp_path, criterion):
    saving = ("--save-interval-updates", 3, "--disable-validation", *criterion)
    whole = updates(distil(made, tmp_path / "whole", "--max-update", 7, *saving))
    updates(distil(made, tmp_path / "cut", "--max-update", 3, *saving))
    resumed = updates(distil(made, tmp_path / "cut", "--max-update", 7, *saving))
    assert sorted(resumed) == [4, 5, 6, 7] and len(whole) == 7
    assert resumed == {number: whole[number] for number in resumed}
    if criterion == QUEUE:
        assert len({entry["selected"] for entry in whole.values()}) > 1


def test_a_kept_model_is_measured_without_its_teacher(made, tmp_path):
    assert distil(made, tmp_path / "run", "--max-update", 1, *WORD).status == 0
    keep_weights(tmp_path / "run" / "checkpoint_best.pt", made.data, tmp_path / "model")
    done = run("fairseq-validate", made.data, "--task", "sequence_distillation",
               "--path", tmp_path / "model" / "model.pt", "--max-tokens", 600)  # fmt: skip
    assert done.status == 0, done.output
    assert "nll_loss" in done.output and "teacher_kl" not in done.output


def test_checkpoints_hold_the_queue_and_no_teacher(made, tmp_path):
    done = distil(made, tmp_path, "--max-update", 3, *QUEUE)
    assert done.status == 0, done.output
    state = load_checkpoint(tmp_path / "checkpoint_last.pt")
    scores = state["task_state"]["kept"]["selection_queue"]["scores"]
    assert 100 < len(scores) <= 300
    assert state["criterion"] is None
    assert not [key for key in state["model"] if "teacher" in key]


def test_training_and_validation_log_the_same_quantities(made, tmp_path):
    done = distil(made, tmp_path, "--max-update", 2, *QUEUE)
    (valid,) = done.entries("valid")
    assert {f"valid_{key}" for key in (*LOSSES, "selected")} <= valid.keys()
    assert {*LOSSES, "selected"} <= done.entries("train_inner")[0].keys()
    assert 0 <= valid["valid_teacher_agreement"] <= 100


@pytest.mark.parametrize("criterion", [WORD, BATCH])
def test_two_processes_give_the_losses_of_one_with_two_batches(made, tmp_path, criterion):
    words = ("--max-update", 4, "--dropout", 0, *criterion)
    alone = distil(made, tmp_path / "alone", "--update-freq", 2, *words)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    together = (
        "--distributed-world-size", 2, "--distributed-no-spawn", "--distributed-backend", "gloo",
        "--distributed-init-method", f"tcp://localhost:{port}", "--ddp-backend", "legacy_ddp",
    )  # fmt: skip
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(
            lambda rank: distil(
                made, tmp_path / "together", "--distributed-rank", rank, *together, *words
            ),
            range(2),
        )
    assert second.status == 0, second.output
    expected, found = updates(alone), updates(first)
    assert found.keys() == expected.keys() == {1, 2, 3, 4}
    for number, entry in expected.items():
        assert found[number] == pytest.approx(entry, rel=0.002, abs=0.002), number
    for key in LOSSES:
        assert first.entries("valid")[0][f"valid_{key}"] == pytest.approx(
            alone.entries("valid")[0][f"valid_{key}"], rel=0.002, abs=0.002
        )


@pytest.mark.parametrize("precision", [("--fp16", "--fp16-no-flatten-grads"), ("--amp",)])
def test_half_precision_trains_beside_the_teacher(made, tmp_path, precision):
    plain = updates(distil(made, tmp_path / "plain", "--max-update", 2, *WORD))
    half = updates(distil(made, tmp_path / "half", "--max-update", 2, *WORD, *precision))
    for number, entry in plain.items():
        assert half[number]["loss"] == pytest.approx(entry["loss"], rel=0.02)


def test_weight_0_trains_like_the_parent(made, tmp_path):
    words = ("--max-update", 3, "--disable-validation")
    none = updates(distil(made, tmp_path / "none", *WORD, "--teacher-weight", 0, *words))
    plain = updates(
        train(made.data, tmp_path / "plain", "--lr", 0.01, "--max-tokens", 150, "--valid-beam", 0,
              *words)
    )  # fmt: skip
    assert none == plain


def test_a_bad_teacher_is_refused_before_training(made, tmp_path):
    foreign = toy_checkpoint(tmp_path / "stock.pt", made.vocabulary, task_state={})
    done = distil(made, tmp_path / "run", *WORD, "--teacher", foreign, "--max-update", 1)
    assert done.status != 0 and "--allow-unknown-vocabulary" in done.output
    assert not done.entries("train_inner")


def test_a_distilled_model_validates_with_fairseq_validate(made, tmp_path):
    distil(made, tmp_path, "--max-update", 1, *WORD)
    done = run(
        "fairseq-validate", made.data, "--task", "sequence_distillation", "--valid-beam", 0,
        "--path", tmp_path / "checkpoint_last.pt", "--max-tokens", 600,
    )  # fmt: skip
    assert done.status == 0 and "teacher_kl" in done.output, done.output
