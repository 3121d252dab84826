"""A training by several workers of torchrun: what one worker would do, with shared batches."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from data_prep.training_log import read_entries
from fairseq_plugins.checkpoints import load_checkpoint
from tests.fixtures.training import toy_data
from tests.fixtures.warm import warm_commands

STAGE = Path(__file__).parents[2] / "recipes" / "stages" / "train.sh"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return toy_data(tmp_path_factory.mktemp("workers"), 61)[0]


def train(data, out, launcher=""):
    """Entries of the dev set in the log of a short training, and all that it said."""
    commands = [str(warm_commands().folder), str(Path(sys.executable).parent)]
    done = subprocess.run(
        ["bash", STAGE, "--data", data, "--out", out, "--size", "miniature", "--lr", "0.01",
         "--updates", "3", "--epoch-fraction", "0.5", "--max-tokens", "400",
         "--update-frequency", "2", "--valid-beam", "2", "--data-workers", "0", "--dropout", "0",
         "--", "--cpu", "--best-checkpoint-metric", "chrf"],
        env={**os.environ, "PATH": ":".join([*commands, os.environ["PATH"]]),
             "OMP_NUM_THREADS": "1", "DAD_LAUNCHER": launcher},
        text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=out.parent,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    seen = [entry for kind, entry in read_entries(done.stdout.splitlines()) if kind == "valid"]
    return seen, done.stdout


def test_two_workers_do_what_one_does(data, tmp_path):
    alone, _ = train(data, tmp_path / "alone")
    two = "torchrun --standalone --nproc-per-node 2"
    together, said = train(data, tmp_path / "together", launcher=two)
    assert "training on 2 devices" in said
    scores = ("valid_loss", "valid_sentences", "valid_chrf", "valid_chrf_greedy", "valid_bleu",
              "valid_num_updates")  # fmt: skip
    assert [[entry[name] for name in scores] for entry in together] == [
        [entry[name] for name in scores] for entry in alone
    ]
    assert alone[0]["valid_sentences"] == 61 and alone[0]["valid_chrf"] > 0
    # the same checkpoint was the best
    kept = load_checkpoint(tmp_path / "together" / "model.pt")["model"]
    for name, weights in load_checkpoint(tmp_path / "alone" / "model.pt")["model"].items():
        torch.testing.assert_close(kept[name], weights)
