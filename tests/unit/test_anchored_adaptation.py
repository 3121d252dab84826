"""Criterion anchored_adaptation: laws of its loss, and options that it refuses."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from fairseq.criterions.label_smoothed_cross_entropy import LabelSmoothedCrossEntropyCriterion
from fairseq.logging import metrics
from fairseq.tasks.translation import load_langpair_dataset

from fairseq_plugins.criterions.anchored_adaptation import AnchoredAdaptationCriterion
from fairseq_plugins.criterions.word_distillation import WordDistillationCriterion
from fairseq_plugins.generation.fairseq_backend import load_models
from fairseq_plugins.generation.models import open_model
from fairseq_plugins.teachers.estimate_fisher import estimate_fisher
from tests.fixtures.models import toy_model
from tests.fixtures.training import toy_data

DEFAULTS = {
    "sentence_avg": False, "label_smoothing": 0.1, "anchor": None, "anchor_weight": None,
    "anchor_l2": None, "ewc_weight": None, "fisher": None, "teacher_precision": "same",
    "finetune_from_model": None,
}  # fmt: skip
COMBINATIONS = [
    {},
    {"label_smoothing": 0.0},
    {"sentence_avg": True},
    {"ignore_prefix_size": 1},
    {"report_accuracy": True},
    {"sentence_avg": True, "ignore_prefix_size": 2, "report_accuracy": True},
]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """MODEL folders `general` and `adapted`, `fisher.pt` of the former, and `data`."""
    root = tmp_path_factory.mktemp("anchored")
    toy_data(root, sentences=12)
    toy_model(root / "general", root / "vocabulary")
    toy_model(root / "adapted", root / "vocabulary", seed=2)
    estimate_fisher(root / "general", root / "data", root / "fisher.pt", samples=3)
    return root


@pytest.fixture(scope="module")
def loaded(made):
    """The adapted network, without dropout, and its task."""
    (network,), task = load_models([open_model(made / "adapted")])
    return network, task


def criterion(task, **options):
    options = {k: str(v) if isinstance(v, Path) else v for k, v in options.items()}
    return AnchoredAdaptationCriterion(task, **{**DEFAULTS, **options})


def batch(made, task, numbers, left_pad_target=False):
    pairs = load_langpair_dataset(
        str(made / "data"), "train", "de", task.source_dictionary, "en", task.target_dictionary,
        combine=False, dataset_impl=None, upsample_primary=1, left_pad_source=True,
        left_pad_target=left_pad_target, max_source_positions=99, max_target_positions=99,
    )  # fmt: skip
    return pairs.collater([pairs[number] for number in numbers])


def gradients(loss, network):
    network.zero_grad()
    loss.backward()
    return [weight.grad.clone() for weight in network.parameters()]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("options", COMBINATIONS)
def test_weights_of_0_are_label_smoothed_cross_entropy_bit_for_bit(
    made, loaded, options, training
):  # fmt: skip
    network, task = loaded
    sample = batch(made, task, range(6))
    # a cache that is there is not looked at
    listed = torch.zeros(*sample["target"].shape, 1)
    sample["teacher"] = {"indices": listed.long(), "lprobs": listed - 1.0}
    held = criterion(task, anchor_weight=0, anchor_l2=0, ewc_weight=0, **options)
    parent = LabelSmoothedCrossEntropyCriterion(
        task, **{"sentence_avg": False, "label_smoothing": 0.1, **options}
    )
    torch.manual_seed(1)
    network.train(training)
    found = held(network, sample)
    torch.manual_seed(1)
    expected = parent(network, sample)
    network.eval()
    assert found[0].equal(expected[0]) and found[1:] == expected[1:]
    assert held.weight_anchor is None and held.online_teacher is None


@pytest.mark.parametrize("left_pad_target", [False, True])
@pytest.mark.parametrize("options", COMBINATIONS)
def test_the_penalty_is_added_once_per_unit_of_sample_size(made, loaded, options, left_pad_target):
    network, task = loaded
    sample = batch(made, task, range(6), left_pad_target)
    parent = criterion(task, anchor_weight=0, **options)
    held = criterion(task, anchor=made / "general", anchor_l2=0.01, **options)
    penalty = held.weight_anchor.penalty(network)
    loss, size, logged = held(network, sample)
    plain, plain_size, plain_logged = parent(network, sample)
    assert size == plain_size and penalty > 0
    torch.testing.assert_close(loss, plain + size * penalty)
    torch.testing.assert_close(logged["loss"], loss.detach())
    torch.testing.assert_close(logged["anchor_penalty"], size * penalty.detach())
    assert logged["nll_loss"] == plain_logged["nll_loss"]


def test_an_update_sees_the_penalty_once_whatever_the_batches(made, loaded):
    """Sum of gradients over batches, over their sample sizes, as fairseq does with
    --update-freq and with workers."""
    network, task = loaded
    held = criterion(task, anchor=made / "general", ewc_weight=3.0, fisher=made / "fisher.pt")
    parent = criterion(task, anchor_weight=0)
    expected = gradients(held.weight_anchor.penalty(network), network)
    for split in ([range(6)], [range(2), range(2, 6)], [[0], [1], [2], range(3, 6)]):
        summed, sizes = [0.0] * len(expected), 0
        for numbers in split:
            sample = batch(made, task, numbers)
            loss, size, _ = held(network, sample)
            plain = parent(network, sample)[0]
            found = gradients(loss - plain, network)
            summed = [total + more for total, more in zip(summed, found, strict=True)]
            sizes += size
        for total, gradient in zip(summed, expected, strict=True):
            torch.testing.assert_close(total / sizes, gradient, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("options", COMBINATIONS)
def test_holding_the_distribution_is_word_distillation_from_the_general_model(
    made, loaded, options
):  # fmt: skip
    network, task = loaded
    sample = batch(made, task, range(6))
    held = criterion(task, anchor=made / "general", anchor_weight=0.3, **options)
    distilling = WordDistillationCriterion(
        task, **{"sentence_avg": False, "label_smoothing": 0.1, **options},
        teacher=str(made / "general"), teacher_weight=0.3, divergence="forward-kl",
        teacher_temperature=1.0, teacher_top_k=0, teacher_tail="bucket",
        teacher_precision="same", token_weighting="none",
    )  # fmt: skip
    found, expected = held(network, sample), distilling(network, sample)
    assert found[0].equal(expected[0]) and found[1:] == expected[1:]
    assert found[2]["teacher_kl"] > 0
    parent = criterion(task, anchor_weight=0, **options)(network, sample)
    assert not torch.isclose(found[0], parent[0], rtol=1e-3)


def test_the_general_model_itself_is_not_held_back(made, loaded):
    _, task = loaded
    (network,), _ = load_models([open_model(made / "general")])
    sample = batch(made, task, range(6))
    held = criterion(task, anchor=made / "general", anchor_weight=0.3, anchor_l2=5.0)
    loss, _, logged = held(network, sample)
    parent = criterion(task, anchor_weight=0)(network, sample)[0]
    assert logged["anchor_penalty"] == 0
    torch.testing.assert_close(logged["teacher_kl"], torch.tensor(0.0), rtol=0, atol=1e-4)
    for found, plain in zip(
        gradients(loss, network), gradients(parent, network), strict=True
    ):
        torch.testing.assert_close(found, 0.7 * plain, rtol=1e-3, atol=1e-4)


def test_losses_that_are_not_summed_add_up_to_the_sum(made, loaded):
    network, task = loaded
    held = criterion(task, anchor=made / "general", anchor_weight=0.3, anchor_l2=0.01)
    sample = batch(made, task, range(6))
    torch.testing.assert_close(
        held(network, sample, reduce=False)[0].sum(), held(network, sample)[0]
    )


def test_the_general_model_is_no_part_of_the_criterion(made, loaded):
    network, task = loaded
    held = criterion(task, anchor=made / "general", anchor_weight=0.3, ewc_weight=0.1,
                     fisher=made / "fisher.pt")  # fmt: skip
    held(network, batch(made, task, range(2)))
    assert not list(held.parameters()) and not list(held.buffers()) and not held.state_dict()


def test_the_penalty_is_logged_in_the_units_of_the_loss_and_part_of_it(made, loaded):
    network, task = loaded
    options = {"anchor": made / "general", "anchor_l2": 0.01}
    held, parent = criterion(task, **options), criterion(task, anchor_weight=0)
    logged = {}
    for name, used in (("held", held), ("plain", parent)):
        outputs = [used(network, batch(made, task, numbers))[2] for numbers in ([0], range(1, 6))]
        with metrics.aggregate(new_root=True) as found:
            used.reduce_metrics(outputs)
        logged[name] = found.get_smoothed_values()
    difference = logged["held"]["loss"] - logged["plain"]["loss"]
    assert logged["held"]["anchor_penalty"] == pytest.approx(difference, abs=0.002)
    assert logged["held"]["nll_loss"] == logged["plain"]["nll_loss"]
    assert "anchor_penalty" not in logged["plain"]
    assert AnchoredAdaptationCriterion.logging_outputs_can_be_summed()


def test_the_general_model_is_by_default_what_training_started_from(made, loaded):
    network, task = loaded
    found, expected = (
        criterion(task, anchor_l2=0.01, **{name: made / "general"})(
            network, batch(made, task, [0])
        )[0]
        for name in ("finetune_from_model", "anchor")
    )
    assert found == expected
    held = criterion(task, anchor_l2=0.01, anchor=made / "general",
                     finetune_from_model="/nowhere")  # fmt: skip
    assert held(network, batch(made, task, [0]))[0] == expected


# -- from a cache --------------------------------------------------------------------------


def cached(task, temperature=1.0):
    task = SimpleNamespace(**vars(task), target_dictionary=task.target_dictionary,
                           check_checkpoint=task.check_checkpoint)  # fmt: skip
    task.teacher_cache = SimpleNamespace(temperature=temperature, top_k=len(task.tgt_dict))
    return task


def test_the_distribution_may_come_from_a_cache(made, loaded):
    network, task = loaded
    sample = batch(made, task, range(6))
    online = criterion(task, anchor=made / "general", anchor_weight=0.3)
    with torch.no_grad():
        (general,), _ = load_models([open_model(made / "general")])
        lprobs = general.get_normalized_probs(general(**sample["net_input"]), log_probs=True)
    largest = lprobs.topk(lprobs.size(-1))
    sample["teacher"] = {"indices": largest.indices, "lprobs": largest.values}
    held = criterion(cached(task), finetune_from_model=made / "general", anchor_weight=0.3)
    assert held.online_teacher is None
    del sample["teacher"]
    expected = online(network, sample)[0]
    sample["teacher"] = {"indices": largest.indices, "lprobs": largest.values}
    torch.testing.assert_close(held(network, sample)[0], expected, rtol=1e-5, atol=0)


def test_a_cache_at_another_temperature_is_refused(made, loaded):
    with pytest.raises(ValueError, match="made at temperature 2, .* with --temperature 1"):
        criterion(cached(loaded[1], 2.0), anchor_weight=0.3, finetune_from_model="general.pt")


def test_a_cache_and_a_model_are_two_anchors(made, loaded):
    with pytest.raises(ValueError, match="--anchor and --teacher-cache are two general models"):
        criterion(cached(loaded[1]), anchor_weight=0.3, anchor=made / "general")
    held = criterion(cached(loaded[1]), anchor_weight=0.3, anchor_l2=1.0, anchor=made / "general")
    assert held.online_teacher is None and held.weight_anchor is not None


# -- what is refused -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, message",
    [
        ({}, "wants to know how firmly the model is held: --anchor-weight"),
        ({"anchor_weight": 1.5}, "--anchor-weight is a share from 0 to 1, not 1.5"),
        ({"anchor_weight": float("nan")}, "--anchor-weight is a share from 0 to 1, not nan"),
        ({"anchor_l2": -1.0}, r"--anchor-l2 is 0 \(not held\) or more, not -1.0"),
        ({"ewc_weight": float("inf"), "fisher": "f"}, "--ewc-weight is 0 .* or more, not inf"),
        ({"ewc_weight": 1.0}, "--ewc-weight needs --fisher FILE, made by dad-estimate-fisher"),
        ({"anchor_l2": 1.0, "fisher": "f"}, "--fisher is for --ewc-weight"),
        ({"anchor_l2": 1.0}, "name it with --anchor, or start from it with --finetune-from-model"),
        ({"anchor_weight": 0.3}, "name it with --anchor, or start from it"),
        ({"anchor_l2": 1.0, "anchor": "/nowhere"}, "/nowhere is missing"),
        ({"anchor_weight": 0.3, "anchor": "/nowhere"}, "/nowhere is missing"),
        ({"anchor_weight": 0.3, "anchor": "g", "teacher_precision": "int8"},
         "--teacher-precision is one of same, fp32, fp16, bf16, not int8"),
        ({"anchor_l2": 1.0, "anchor": "g", "teacher_precision": "fp16"},
         "--teacher-precision fp16 is for --anchor-weight"),
    ],
)  # fmt: skip
def test_a_bad_option_is_refused(loaded, options, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        criterion(loaded[1], **options)


def test_another_network_than_the_anchors_is_refused_before_the_first_batch(made, loaded, tmp_path):
    _, task = loaded
    toy_model(tmp_path / "wide", made / "vocabulary", flags=["--encoder-ffn-embed-dim", "24"])
    with pytest.raises(ValueError, match="encoder.layers.0.fc1.weight has shape"):
        criterion(task, anchor=tmp_path / "wide", anchor_l2=1.0)
