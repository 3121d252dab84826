"""Averages of checkpoints: which are taken, what comes out, what is refused."""

import argparse
import math

import pytest
import torch

from fairseq_plugins.checkpoints import mend_last_checkpoint
from fairseq_plugins.export.average import average, choose_checkpoints

METRIC = {"best_checkpoint_metric": "bleu_greedy", "maximize_best_checkpoint_metric": True}


def save(path, updates=0, checkpoint=METRIC, settings={}, tie=True, **weights):
    """A checkpoint whose weights are given; ``copy`` is tied to ``w``."""
    tensors = {"w": torch.tensor([1.0, 2.0]), **weights}
    if tie:
        tensors["copy"] = tensors["w"]
    torch.save(
        {
            "model": tensors,
            "optimizer_history": [{"num_updates": updates}],
            "cfg": {
                "checkpoint": checkpoint,
                "optimization": {"lr": [updates]},
                "model": argparse.Namespace(
                    **{"encoder_attention_heads": 4, "dropout": 0.1, "lr": [updates], **settings}
                ),
            },
        },
        path,
    )
    return path


def several(folder, *weights):
    return [
        save(folder / f"checkpoint{number}.pt", number, w=w)
        for number, w in enumerate(weights, start=1)
    ]


# -- which -------------------------------------------------------------------------------------


def names(folder, wish):
    return [path.name for path in choose_checkpoints(folder, wish)]


def test_the_last_are_those_with_the_most_updates_whatever_their_names(tmp_path):
    for name, updates in (("checkpoint9.pt", 90), ("checkpoint10.pt", 100),
                          ("checkpoint_10_95.pt", 95), ("checkpoint_last.pt", 105),
                          ("checkpoint_best.pt", 200)):  # fmt: skip
        save(tmp_path / name, updates)
    assert names(tmp_path, "last:3") == [
        "checkpoint_10_95.pt", "checkpoint10.pt", "checkpoint_last.pt",
    ]  # fmt: skip


def test_a_copy_under_another_name_counts_once(tmp_path):
    for name, updates in (("checkpoint9.pt", 90), ("checkpoint10.pt", 100),
                          ("checkpoint_last.pt", 100)):  # fmt: skip
        save(tmp_path / name, updates)
    assert names(tmp_path, "last:2") == ["checkpoint9.pt", "checkpoint10.pt"]


@pytest.mark.parametrize(
    "maximize, expected", [(True, ["20.1", "20.5"]), (False, ["9.8", "10.0"])]
)
def test_the_best_are_those_of_the_trainings_own_metric_in_its_own_direction(
    maximize, expected, tmp_path
):
    checkpoint = {**METRIC, "maximize_best_checkpoint_metric": maximize}
    for updates, value in enumerate(("9.8", "20.1", "10.0", "20.5")):
        save(tmp_path / f"checkpoint.best_bleu_greedy_{value}.pt", updates, checkpoint)
    save(tmp_path / "checkpoint_best.pt", 3, checkpoint)
    assert names(tmp_path, "best:2") == [
        f"checkpoint.best_bleu_greedy_{value}.pt" for value in expected
    ]


def test_the_newest_comes_last_since_its_settings_are_kept(tmp_path):
    save(tmp_path / "checkpoint.best_bleu_greedy_5.0000.pt", updates=30)
    save(tmp_path / "checkpoint.best_bleu_greedy_7.0000.pt", updates=10)
    paths = choose_checkpoints(tmp_path, "best:2")
    assert paths[-1].name == "checkpoint.best_bleu_greedy_5.0000.pt"
    assert average(paths)["optimizer_history"][-1]["num_updates"] == 30


def test_fewer_than_asked_for_are_taken_and_that_is_said(tmp_path, capsys):
    save(tmp_path / "checkpoint1.pt", 1)
    assert names(tmp_path, "last:5") == ["checkpoint1.pt"]
    assert "holds 1 checkpoint(s) for --average last:5" in capsys.readouterr().err
    assert names(tmp_path, "last:1") == ["checkpoint1.pt"]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("wish", ["last", "last:0", "best:x", "first:3", "last:-1", ""])
def test_a_wish_that_is_none_is_refused(wish, tmp_path):
    with pytest.raises(ValueError, match="--average is last:N or best:N"):
        choose_checkpoints(tmp_path, wish)


def test_no_checkpoints_are_refused_with_the_flag_that_keeps_them(tmp_path):
    save(tmp_path / "checkpoint_best.pt", 3)
    with pytest.raises(ValueError, match="--keep-best-checkpoints 3"):
        choose_checkpoints(tmp_path, "best:3")
    with pytest.raises(FileNotFoundError, match="none, the folder of the checkpoints, is missing"):
        choose_checkpoints(tmp_path / "none", "last:3")


def test_a_file_named_for_another_metric_is_refused(tmp_path):
    save(tmp_path / "checkpoint.best_loss_3.0000.pt")
    with pytest.raises(ValueError, match="named for loss, but its training chose by bleu_greedy"):
        choose_checkpoints(tmp_path, "best:1")


# -- what comes out ----------------------------------------------------------------------------


def test_the_average_of_one_or_of_equal_checkpoints_is_that_checkpoint(tmp_path):
    weights = torch.rand(100, generator=torch.Generator().manual_seed(1))
    paths = several(tmp_path, weights, weights, weights)
    for number in (1, 2, 3):
        assert torch.equal(average(paths[:number])["model"]["w"], weights)


def test_it_is_the_mean_in_whatever_order(tmp_path):
    chance = torch.Generator().manual_seed(1)
    weights = [torch.randn(50, generator=chance) for _ in range(3)]
    paths = several(tmp_path, *weights)
    mean = average(paths)["model"]["w"]
    torch.testing.assert_close(mean, torch.stack(weights).double().mean(0).float(),
                               rtol=0, atol=0)  # fmt: skip
    assert torch.equal(average(paths[::-1])["model"]["w"], mean)
    assert mean.dtype == torch.float32


def test_half_precision_is_summed_with_more_and_kept(tmp_path):
    # in half precision 2048 + 1 is 2048, and 2 x 60000 is infinite
    large, small = torch.tensor([2048.0, 60000.0]).half(), torch.tensor([1.0, 60000.0]).half()
    mean = average(several(tmp_path, large, small, small))["model"]["w"]
    assert mean.dtype == torch.float16
    assert mean.tolist() == [torch.tensor(2050 / 3).half().item(), 60000.0]


def test_tied_tensors_stay_tied_and_the_order_is_kept(tmp_path):
    weights = average(several(tmp_path, torch.ones(2), torch.zeros(2)))["model"]
    assert list(weights) == ["w", "copy"]
    assert weights["w"].data_ptr() == weights["copy"].data_ptr()
    assert weights["copy"].tolist() == [0.5, 0.5]


def test_counters_are_those_of_the_newest(tmp_path):
    paths = [
        save(tmp_path / f"{number}.pt", number, n=torch.tensor([number])) for number in (4, 9)
    ]
    assert average(paths)["model"]["n"].tolist() == [9]


def test_low_rank_updates_are_merged_before_the_average(tmp_path):
    def update(a, b):
        name = "layer.parametrizations.weight"
        return {
            f"{name}.original": torch.zeros(1, 1), f"{name}.0.lora_a": torch.tensor([[a]]),
            f"{name}.0.lora_b": torch.tensor([[b]]), f"{name}.0.scale": torch.tensor(1.0),
        }  # fmt: skip

    paths = [
        save(tmp_path / "1.pt", 1, **update(2.0, 3.0)),
        save(tmp_path / "2.pt", 2, **update(4.0, 5.0)),
    ]
    # not (2 + 4) / 2 x (3 + 5) / 2 = 12
    assert average(paths)["model"]["layer.weight"].item() == (2 * 3 + 4 * 5) / 2


# -- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "first, second, message",
    [
        ({}, {"w": torch.ones(3)}, r"w is float32 2 in .*1.pt, but float32 3 in .*2.pt"),
        ({}, {"w": torch.ones(2).half()}, "w is float32 2 in .* but float16 2"),
        ({}, {"other": torch.ones(1)}, r"different networks \(other\)"),
        ({}, {"tie": False, "copy": torch.ones(2)}, r"different networks \(ties between"),
        ({}, {"settings": {"encoder_attention_heads": 8}},
         "1.pt was trained with encoder_attention_heads 4, .*2.pt with 8"),
        ({}, {"w": torch.tensor([1.0, math.nan])}, "2.pt holds NaN or infinity in w"),
        ({"w": torch.tensor([1.0, math.inf])}, {}, "1.pt holds NaN or infinity in w"),
    ],
)  # fmt: skip
def test_what_cannot_be_averaged_is_refused(first, second, message, tmp_path):
    paths = [
        save(tmp_path / "1.pt", 1, **{"w": torch.ones(2), **first}),
        save(tmp_path / "2.pt", 2, **{"w": torch.zeros(2), **second}),
    ]
    with pytest.raises(ValueError, match=message):
        average(paths)


def test_other_rates_and_dropout_are_no_other_network(tmp_path):
    paths = [
        save(tmp_path / "1.pt", 1, w=torch.ones(2), settings={"dropout": 0.3}),
        save(tmp_path / "2.pt", 2, w=torch.zeros(2)),
    ]
    assert average(paths)["model"]["w"].tolist() == [0.5, 0.5]


def test_a_checkpoint_counts_once(tmp_path):
    (path,) = several(tmp_path, torch.ones(2))
    with pytest.raises(ValueError, match="is named twice"):
        average([path, path])


# -- after a kill ------------------------------------------------------------------------------


def test_a_checkpoint_that_a_kill_cut_short_does_not_stay_among_the_best(tmp_path):
    last, best = tmp_path / "checkpoint_last.pt", tmp_path / "checkpoint.best_bleu_greedy_5.01.pt"
    save(last, 8)
    save(best, 8)
    whole = last.read_bytes()
    best.write_bytes(best.read_bytes()[:700])
    (tmp_path / "checkpoint1.pt").write_bytes(whole)
    mend_last_checkpoint(last)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "checkpoint1.pt", "checkpoint_last.pt",
    ]  # fmt: skip
    assert last.read_bytes() == whole
