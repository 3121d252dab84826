"""fairseq-train with the criterion ``minimum_risk``."""

import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from data_prep.binarise import binarise
from fairseq_plugins.checkpoints import load_checkpoint
from tests.fixtures.candidates import toy_candidates, toy_nbest
from tests.fixtures.fairseq_cli import run, train

RISK = ("--criterion", "minimum_risk", "--lr", "0.01", "--valid-beam", "0", "--max-tokens", "150",
        "--log-format", "json")  # fmt: skip
COSTS = ("risk", "lowest_cost", "chosen_cost")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = toy_nbest(tmp_path_factory.mktemp("training") / "made")
    toy_candidates(root, root / "candidates")
    toy_candidates(root, root / "dev", split="valid")
    return root


def fit(made, out, *words, candidates="candidates", data="prepared"):
    if candidates:
        words = ("--candidates", ":".join(str(made / name) for name in candidates.split()), *words)
    return train(made / data, out, *RISK, *words)


def losses(done):
    assert done.status == 0, done.output
    return [(entry["num_updates"], entry["loss"], entry["risk"])
            for entry in done.entries("train_inner")]  # fmt: skip


def test_training_and_validation_log_the_costs(made, tmp_path):
    done = fit(made, tmp_path, "--max-update", 3, candidates="candidates dev")
    (valid,) = done.entries("valid")
    entries = [done.entries("train_inner")[0], {k.removeprefix("valid_"): v
               for k, v in valid.items()}]  # fmt: skip
    for entry in entries:
        assert {*COSTS, "loss", "nll_loss", "ppl"} <= entry.keys()
        assert 0 <= entry["lowest_cost"] <= min(entry["risk"], entry["chosen_cost"])
        assert max(entry["risk"], entry["chosen_cost"]) <= 100
    state = load_checkpoint(tmp_path / "checkpoint_last.pt")
    assert state["criterion"] is None


def test_a_dev_set_without_candidates_shows_the_plain_losses(made, tmp_path):
    (valid,) = fit(made, tmp_path, "--max-update", 1).entries("valid")
    assert "valid_nll_loss" in valid and "valid_risk" not in valid


def test_weight_0_trains_like_the_parent(made, tmp_path):
    none = fit(made, tmp_path / "none", "--max-update", 3, "--risk-weight", 0)
    parent = train(made / "prepared", tmp_path / "parent", *RISK, "--max-update", 3, "--criterion",
                   "label_smoothed_cross_entropy")  # fmt: skip
    assert none.status == parent.status == 0
    first, second = (load_checkpoint(tmp_path / name / "checkpoint_last.pt")["model"]
                     for name in ("none", "parent"))  # fmt: skip
    assert all(torch.equal(first[name], second[name]) for name in second)


def test_going_on_in_mid_epoch_gives_the_same_losses(made, tmp_path):
    words = ("--save-interval-updates", 2, "--risk-max-tokens", 60)
    straight = losses(fit(made, tmp_path / "straight", *words, "--max-update", 4))
    fit(made, tmp_path / "broken", *words, "--max-update", 2)
    resumed = losses(fit(made, tmp_path / "broken", *words, "--max-update", 4))
    assert len(straight) == 4 and resumed == straight[2:]


def test_a_start_model_and_delayed_updates_and_a_bitext_without_candidates(made, tmp_path):
    shutil.copytree(made / "text", tmp_path / "text")
    for lang in ("de", "en"):
        path = tmp_path / "text" / f"train.{lang}"
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:7]))
    binarise(tmp_path / "text", made / "vocabulary", tmp_path / "other")
    start = fit(made, tmp_path / "start", "--max-update", 1, "--risk-weight", 0, candidates=None)
    assert start.status == 0, start.output
    mixture = f"{made / 'prepared'}=1,{tmp_path / 'other'}=2"
    done = fit(made, tmp_path / "run", "--mixture", mixture, "--update-freq", 2, "--max-epoch", 1,
               "--finetune-from-model", tmp_path / "start" / "checkpoint_last.pt")  # fmt: skip
    assert len(losses(done)) > 1
    assert f"{tmp_path / 'other'}: no candidates for train" in done.output
    assert sum(entry["bsz"] for entry in done.entries("train_inner")) == 40 + 2 * 7


@pytest.mark.parametrize("precision", ["--memory-efficient-fp16", "--amp"])
def test_half_precision_trains(made, tmp_path, precision):
    half = losses(fit(made, tmp_path / "half", "--max-update", 2, precision))
    plain = losses(fit(made, tmp_path / "plain", "--max-update", 2))
    for (_, loss, risk), (_, exact_loss, exact_risk) in zip(half, plain, strict=True):
        assert loss == pytest.approx(exact_loss, rel=0.02)
        assert risk == pytest.approx(exact_risk, rel=0.02)


def test_two_workers_make_the_updates_of_one_that_takes_two_batches(made, tmp_path):
    words = ("--max-update", 3, "--dropout", 0, "--risk-max-tokens", 60)
    together = (
        "--distributed-world-size", 2, "--distributed-backend", "gloo", "--distributed-no-spawn",
        "--ddp-backend", "legacy_ddp", "--load-checkpoint-on-all-dp-ranks",
        "--distributed-init-method", f"file://{tmp_path / 'meeting'}",
    )  # fmt: skip
    with ThreadPoolExecutor(2) as workers:
        both = [
            workers.submit(fit, made, tmp_path / "both", *words, *together,
                           "--distributed-rank", rank)
            for rank in (0, 1)
        ]  # fmt: skip
    assert both[1].result().status == 0, both[1].result().output
    alone = fit(made, tmp_path / "alone", *words, "--update-freq", 2)
    for found, expected in zip(losses(both[0].result()), losses(alone), strict=True):
        assert found == pytest.approx(expected, abs=2e-3)
    first, second = (load_checkpoint(tmp_path / name / "checkpoint_last.pt")["model"]
                     for name in ("both", "alone"))  # fmt: skip
    for name, weight in second.items():
        torch.testing.assert_close(first[name], weight, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "candidates, words, message",
    [
        (None, (), "needs --candidates FOLDER, made by dad-candidates"),
        ("nowhere", (), "nowhere is missing; make it with dad-candidates"),
        ("dev", (), "--candidates names no folder for the training set"),
        ("candidates", ("--risk-weight", 2), "--risk-weight is a share from 0 to 1, not 2"),
        ("candidates", ("--criterion", "label_smoothed_cross_entropy"),
         "--candidates is given and --criterion label_smoothed_cross_entropy does not read it"),
    ],
)
def test_bad_flags_are_refused(made, tmp_path, candidates, words, message):
    done = fit(made, tmp_path, "--max-update", 1, *words, candidates=candidates)
    assert done.status != 0 and message in done.output, done.output
    assert not list(tmp_path.glob("checkpoint*.pt"))


def test_candidates_of_data_that_were_prepared_anew_are_refused(made, tmp_path):
    shutil.copytree(made / "text", tmp_path / "text")
    path = tmp_path / "text" / "train.en"
    path.write_text(path.read_text().replace("ba", "lu", 1))
    binarise(tmp_path / "text", made / "vocabulary", tmp_path / "anew")
    done = fit(made, tmp_path / "run", "--max-update", 1, data=tmp_path / "anew")
    assert done.status != 0 and "which this training does not read" in done.output
    assert "begin training epoch" not in done.output


def test_a_model_can_be_read_where_its_candidates_are_gone(made, tmp_path):
    gone = tmp_path / "gone"
    shutil.copytree(made / "candidates", gone)
    assert fit(made, tmp_path / "run", "--max-update", 1, candidates=str(gone)).status == 0
    shutil.rmtree(gone)
    done = run("fairseq-generate", made / "prepared", "--task", "sequence_distillation", "--path",
               tmp_path / "run" / "checkpoint_last.pt", "--max-len-b", 3)  # fmt: skip
    assert done.status == 0, done.output
