"""Criterion anchored_adaptation under stock fairseq-train: resume, several workers, refusals."""

import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from fairseq_plugins.checkpoints import load_checkpoint
from fairseq_plugins.export.weights import keep_weights
from fairseq_plugins.teachers.estimate_fisher import estimate_fisher
from tests.fixtures.fairseq_cli import train
from tests.fixtures.models import toy_checkpoint
from tests.fixtures.training import toy_data

FLAGS = ("--lr", 0.01, "--valid-beam", 0, "--epoch-fraction", 1, "--max-tokens", 60,
         "--dropout", 0, "--criterion", "anchored_adaptation")  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Checkpoint `general.pt`, its Fisher information `fisher.pt`, and `data`."""
    root = tmp_path_factory.mktemp("anchored")
    toy_data(root)
    toy_checkpoint(root / "general.pt", root / "vocabulary")
    keep_weights(root / "general.pt", root / "vocabulary", root / "general")
    estimate_fisher(root / "general", root / "data", root / "fisher.pt", samples=5)
    return root


def adapt(made, save_dir, *words):
    start = ("--finetune-from-model", made / "general.pt")
    same_network = ("--encoder-normalize-before", "--decoder-normalize-before")
    return train(made / "data", save_dir, *start, *same_network, *FLAGS, *words,
                 task="domain_adaptation")  # fmt: skip


def weights(save_dir):
    return load_checkpoint(save_dir / "checkpoint_last.pt")["model"]


def test_adapting_is_held_by_elastic_weight_consolidation_and_shows_it(made, tmp_path):
    held = ("--ewc-weight", 1000, "--fisher", made / "fisher.pt")
    done = adapt(made, tmp_path / "held", *held, "--max-update", 4)
    free = adapt(made, tmp_path / "free", "--anchor-weight", 0, "--max-update", 4)
    assert done.status == free.status == 0, done.output + free.output
    first, *_, last = done.entries("train_inner")
    assert first["anchor_penalty"] == 0 and last["anchor_penalty"] > 0
    assert done.entries("valid")[-1]["valid_anchor_penalty"] > 0
    assert "anchor_penalty" not in free.entries("train_inner")[0]
    general = load_checkpoint(made / "general.pt")["model"]
    distance = {
        name: sum((weights(tmp_path / name)[key] - general[key]).square().sum() for key in general)
        for name in ("held", "free")
    }
    assert distance["held"] < distance["free"]


def test_after_a_resume_the_anchor_is_still_the_general_model(made, tmp_path):
    held = ("--anchor-l2", 0.01, "--anchor-weight", 0.3, "--save-interval-updates", 2)
    straight = adapt(made, tmp_path / "straight", *held, "--max-update", 4)
    adapt(made, tmp_path / "broken", *held, "--max-update", 2)
    resumed = adapt(made, tmp_path / "broken", *held, "--max-update", 4)
    assert resumed.status == 0, resumed.output
    penalties = [entry["anchor_penalty"] for entry in resumed.entries("train_inner")]
    expected = [entry["anchor_penalty"] for entry in straight.entries("train_inner")]
    assert penalties == expected[2:] and min(penalties) > 0
    for name, weight in weights(tmp_path / "straight").items():
        torch.testing.assert_close(weights(tmp_path / "broken")[name], weight, rtol=0, atol=0)


def test_two_workers_make_the_same_updates_as_one_that_takes_two_batches(made, tmp_path):
    held = ("--ewc-weight", 100, "--fisher", made / "fisher.pt", "--anchor-l2", 0.01,
            "--anchor-weight", 0.3, "--max-update", 3)  # fmt: skip
    together = (
        "--distributed-world-size", 2, "--distributed-backend", "gloo", "--distributed-no-spawn",
        "--ddp-backend", "legacy_ddp",  # fairseq's call of PyTorch's own wants a GPU
        # what fairseq sends otherwise holds types that PyTorch refuses since 2.6
        "--load-checkpoint-on-all-dp-ranks",
        "--distributed-init-method", f"file://{tmp_path / 'meeting'}",
    )  # fmt: skip
    with ThreadPoolExecutor() as workers:
        alone = workers.submit(adapt, made, tmp_path / "alone", *held, "--update-freq", 2)
        both = [
            workers.submit(adapt, made, tmp_path / "both", *held, *together,
                           "--distributed-rank", rank)
            for rank in (0, 1)
        ]  # fmt: skip
    for done in (alone, *reversed(both)):
        assert done.result().status == 0, done.result().output
    penalties = [[entry["anchor_penalty"] for entry in run.result().entries("train_inner")]
                 for run in (alone, both[0])]  # fmt: skip
    assert penalties[0][-1] > 0 and penalties[0] == pytest.approx(penalties[1], abs=2e-5)
    for name, weight in weights(tmp_path / "alone").items():
        torch.testing.assert_close(weights(tmp_path / "both")[name], weight, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "flags, message",
    [
        ((), "wants to know how firmly the model is held"),
        (("--anchor-weight", 2), "--anchor-weight is a share from 0 to 1, not 2.0"),
        (("--ewc-weight", 1, "--fisher", "/nowhere"), "Fisher file /nowhere is missing"),
    ],
)
def test_bad_flags_are_refused_before_training(made, tmp_path, flags, message):
    done = adapt(made, tmp_path, "--max-update", 1, *flags)
    assert done.status != 0 and message in done.output
    assert "begin training" not in done.output and not list(tmp_path.glob("*.pt"))


def test_the_model_that_is_kept_does_not_name_places(made, tmp_path):
    shutil.copyfile(made / "fisher.pt", tmp_path / "other.pt")
    for name, fisher in (("a", made / "fisher.pt"), ("b", tmp_path / "other.pt")):
        adapt(made, tmp_path / name, "--ewc-weight", 1, "--fisher", fisher, "--max-update", 1)
        keep_weights(tmp_path / name / "checkpoint_last.pt", made / "data", tmp_path / f"{name}.m")
    assert (tmp_path / "a.m" / "model.pt").read_bytes() == \
        (tmp_path / "b.m" / "model.pt").read_bytes()  # fmt: skip
