"""A floor for the general domain: the run stops, its best checkpoint is above, resumes agree."""

import math
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest

from data_prep.vocabulary import read_vocabulary
from fairseq_plugins.checkpoints import load_checkpoint
from tests.fixtures.fairseq_cli import run, train
from tests.fixtures.models import toy_checkpoint, write_text
from tests.fixtures.prepared import SIZES, prepared_folders

FLAGS = (
    "--encoder-normalize-before", "--decoder-normalize-before", "--valid-beam", 0,
    "--epoch-fraction", 0.5, "--max-epoch", 6,
)  # fmt: skip
GENTLE_THEN_WILD = ("--lr", "1e-9,1e-9,0.05", "--lr-scheduler", "fixed", "--force-anneal", 99)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """``watched``: a dev set whose references are the start model's own translations: BLEU 100."""
    root = prepared_folders(tmp_path_factory.mktemp("made"))
    model = toy_checkpoint(root / "model.pt", root / "ours")
    shutil.copytree(root / "general", root / "watched")
    decoded = run("fairseq-generate", root / "general", "--path", model, "--beam", 1,
                  "--task", "sequence_distillation", "--gen-subset", "valid",
                  "--max-len-a", 2, "--max-len-b", 20, "--max-tokens", 600)  # fmt: skip
    subwords = read_vocabulary(root / "ours").subwords("de")
    found = {}
    for line in decoded.output.splitlines():
        if line.startswith("H-"):
            number, _, pieces = line.split("\t")
            found[int(number[2:])] = subwords.decode(pieces.split())
    write_text(root / "watched" / "valid.en", [found[i] for i in range(SIZES["general"]["dev"])])
    return root


def adapt(made, save_dir, *flags):
    return train(made / "domain", save_dir, *FLAGS, "--finetune-from-model", made / "model.pt",
                 "--general-valid", made / "watched", *flags, task="domain_adaptation")  # fmt: skip


def files(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.pt")}


@pytest.fixture(scope="module")
def stopped(made, tmp_path_factory):
    """A run that is fine for two epochs and loses the general domain in the third."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    return folder, adapt(made, folder, *GENTLE_THEN_WILD, "--general-floor", 5)


def test_the_run_stops_cleanly_when_too_much_is_lost(stopped):
    _, done = stopped
    assert done.status == 0, done.output
    assert "general-domain BLEU of the start model, greedy: 100.00" in done.output
    entries = done.entries("valid")
    assert [entry["valid_general_bleu_lost"] > 5 for entry in entries] == [False, False, True]
    assert entries[0]["valid_general_bleu_greedy"] == 100
    assert "training stops with general-domain BLEU at" in done.output
    assert "below that of the start model (100.00); --general-floor allows 5" in done.output


def test_a_checkpoint_below_the_floor_is_not_the_best_however_good_it_is(stopped):
    folder, done = stopped
    entries = done.entries("valid")
    # in the domain the third was better: the loss is what chooses here
    assert entries[2]["valid_refused_loss"] < entries[1]["valid_loss"]
    assert entries[2]["valid_loss"] == math.inf
    assert entries[2]["valid_best_loss"] == min(entry["valid_loss"] for entry in entries)
    best = load_checkpoint(folder / "checkpoint_best.pt")
    assert best["optimizer_history"][-1]["num_updates"] == 2
    last = load_checkpoint(folder / "checkpoint_last.pt")
    assert last["optimizer_history"][-1]["num_updates"] == 3
    assert last["extra_state"]["best"] == best["extra_state"]["best"]


def test_a_stopped_run_says_why_and_ends_at_once_when_it_is_run_again(made, stopped):
    folder, _ = stopped
    before = files(folder)
    again = adapt(made, folder, *GENTLE_THEN_WILD, "--general-floor", 5)
    assert again.status == 0 and again.entries("valid") == []
    assert "training was complete already, with general-domain BLEU at" in again.output
    assert files(folder) == before


def test_a_lower_floor_lets_a_stopped_run_go_on(made, stopped, tmp_path):
    shutil.copytree(stopped[0], tmp_path / "run")
    more = adapt(made, tmp_path / "run", *GENTLE_THEN_WILD, "--general-floor", 101)
    assert more.status == 0 and len(more.entries("valid")) == 3
    assert "of the start model" not in more.output


def test_a_run_killed_before_it_stops_ends_with_the_same_files(made, stopped, tmp_path):
    folder, _ = stopped
    flags = (*GENTLE_THEN_WILD, "--general-floor", 5)
    first = adapt(made, tmp_path, *flags, "--max-update", 1)
    second = adapt(made, tmp_path, *flags)
    assert (first.status, second.status) == (0, 0)
    for name in ("checkpoint_best.pt", "checkpoint_last.pt"):
        ours, theirs = (load_checkpoint(place / name) for place in (folder, tmp_path))
        assert ours["task_state"] == theirs["task_state"]
        assert all(weights.equal(theirs["model"][key]) for key, weights in ours["model"].items())
    assert "of the start model, greedy" not in second.output


def test_a_first_validation_below_the_floor_leaves_no_best_checkpoint(made, tmp_path):
    for _ in range(2):  # the run, and the same once more
        done = adapt(made, tmp_path, "--lr", 0.05, "--general-floor", 5, "--patience", 5)
        assert done.status == 1
        assert "no checkpoint is above the floor and the start model is the best" in done.output
    assert not (tmp_path / "checkpoint_best.pt").exists()
    assert done.entries("valid") == []
    allowed = adapt(made, tmp_path, "--lr", 0.05, "--general-floor", 101, "--patience", 5)
    assert allowed.status == 0 and len(allowed.entries("valid")) == 5
    # the refused validation is not what the others are measured by
    patience = load_checkpoint(tmp_path / "checkpoint_last.pt")["task_state"]["patience"]
    assert not math.isnan(patience["best"])
    assert (tmp_path / "checkpoint_best.pt").exists()


def test_without_a_floor_the_general_domain_is_only_watched(made, tmp_path):
    done = adapt(made, tmp_path, "--lr", 0.05, "--max-epoch", 2)
    assert done.status == 0
    assert all(entry["valid_general_bleu_lost"] > 5 for entry in done.entries("valid"))
    assert (tmp_path / "checkpoint_best.pt").exists()


def test_two_workers_find_the_same_general_bleu(made, stopped, tmp_path):
    """Every worker decodes its share, and both stop at the same update."""
    workers = (
        "--distributed-world-size", 2, "--distributed-backend", "gloo", "--distributed-no-spawn",
        "--ddp-backend", "legacy_ddp", "--distributed-init-method", f"file://{tmp_path}/meet",
        "--batch-size-valid", 4,
        # fairseq would send the checkpoint as a pickle that PyTorch refuses to read
        "--load-checkpoint-on-all-dp-ranks",
    )  # fmt: skip

    def work(rank):
        return adapt(made, tmp_path / "run", *GENTLE_THEN_WILD, "--general-floor", 5, *workers,
                     "--distributed-rank", rank)  # fmt: skip

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(work, range(2))
    assert (first.status, second.status) == (0, 0), first.output + second.output
    assert "of the start model, greedy: 100.00" in first.output
    entries = first.entries("valid")
    assert [entry["valid_general_bleu_lost"] > 5 for entry in entries] == [False, False, True]
    assert "training stops with general-domain BLEU at" in first.output


def test_a_run_that_nobody_watched_cannot_be_watched_later(made, tmp_path):
    flags = ("--lr", 0.01, "--finetune-from-model", made / "model.pt")
    begun = train(made / "domain", tmp_path, *FLAGS, *flags, "--max-epoch", 1,
                  task="domain_adaptation")  # fmt: skip
    assert begun.status == 0, begun.output
    done = adapt(made, tmp_path, "--lr", 0.01)
    assert done.status != 0 and "from a run without --general-valid" in done.output
