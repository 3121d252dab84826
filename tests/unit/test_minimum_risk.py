"""The criterion ``minimum_risk`` on batches that the task makes."""

import copy
import math

import numpy as np
import pytest
import torch
from fairseq import options, tasks
from fairseq.criterions.label_smoothed_cross_entropy import LabelSmoothedCrossEntropyCriterion
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.distributed import ModuleProxyWrapper
from torch.nn.functional import log_softmax
from torch.nn.parallel import DistributedDataParallel

from fairseq_plugins.criterions.minimum_risk import MinimumRiskCriterion, split_rows
from fairseq_plugins.data.candidates import Candidates
from tests.fixtures.candidates import toy_candidates, toy_nbest
from tests.fixtures.fairseq_cli import TINY

LOGGED = ("risk", "lowest_cost", "chosen_cost", "risk_sentences")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = toy_nbest(tmp_path_factory.mktemp("risk") / "made", sentences=16)
    toy_candidates(root)
    without = np.load(root / "candidates" / "lists.npy")
    without[::5] = -1  # every fifth sentence has no candidates
    np.save(root / "candidates" / "lists.npy", without)
    return root


class Setting:
    """A model in float64 without dropout, a batch, and criterions for them."""

    def __init__(self, made, *words, candidates=True):
        words = [
            str(made / "prepared"), "--task", "sequence_distillation", *TINY,
            "--dropout", "0", "--valid-beam", "0", "--cpu", *words,
        ]  # fmt: skip
        words += ["--candidates", str(made / "candidates")] if candidates else []
        args = options.parse_args_and_arch(options.get_training_parser(), words)
        cfg = convert_namespace_to_omegaconf(args)
        self.task = tasks.setup_task(cfg.task)
        torch.manual_seed(7)
        self.model = self.task.build_model(cfg.model).double()
        self.task.load_dataset("train")
        self.batch(range(len(self.task.dataset("train"))))

    def batch(self, numbers):
        """Take these sentences for the batch."""
        dataset = self.task.dataset("train")
        self.sample = dataset.collater([dataset[number] for number in numbers])

    def criterion(self, kind=MinimumRiskCriterion, **settings):
        return kind(self.task, **{"sentence_avg": False, "label_smoothing": 0.1, **settings})

    def loss(self, kind=MinimumRiskCriterion, reduce=True, **settings):
        """(loss, sample size, logging output, gradients)."""
        self.model.zero_grad()
        found = self.criterion(kind, **settings)(self.model, self.sample, reduce=reduce)
        found[0].sum().backward()
        return *found, {name: p.grad.clone() for name, p in self.model.named_parameters()}


@pytest.fixture(scope="module")
def setting(made):
    return Setting(made)


def by_hand(setting, weight=0.5, sharpness=1.0, mean=True, epsilon=0.1, most=99, skipped=0):
    """(loss, risks) with every sequence alone in a batch, so without any padding."""
    network, dataset = setting.model, setting.task.dataset("train")

    def lprobs_of(source, target):
        source = source.unsqueeze(0)
        shifted = torch.cat([target[-1:], target[:-1]]).unsqueeze(0)
        logits, _ = network(source, torch.tensor([source.numel()]), shifted)
        return log_softmax(logits[0], dim=-1)[skipped:]

    loss, risks = 0.0, []
    for number in setting.sample["id"].tolist():
        pair = dataset[number]
        lprobs = lprobs_of(pair["source"], pair["target"])
        nll = -lprobs.gather(-1, pair["target"][skipped:, None]).sum()
        share = epsilon / (lprobs.size(-1) - 1)
        nll = (1 - epsilon - share) * nll - share * lprobs.sum()
        tokens, costs = pair["candidates"]
        scores = []
        for candidate in tokens[:most]:
            of_tokens = lprobs_of(pair["source"], candidate)
            of_tokens = of_tokens.gather(-1, candidate[skipped:, None])
            scores.append(of_tokens.mean() if mean else of_tokens.sum())
        if not scores:
            loss += nll
            continue
        powers = torch.stack(scores).mul(sharpness).exp()
        risks.append((powers * torch.tensor(costs[:most])).sum() / powers.sum())
        loss += (1 - weight) * nll + weight * len(pair["target"]) * risks[-1]
    return loss, torch.stack(risks)


@pytest.mark.parametrize(
    "flags, settings, wishes",
    [
        ((), {}, {}),
        ((), {"risk_weight": 1, "risk_sharpness": 3}, {"weight": 1, "sharpness": 3}),
        ((), {"risk_scores": "sum"}, {"mean": False, "sharpness": 0.005}),
        ((), {"risk_candidates": 2}, {"most": 2}),
        (("--left-pad-target",), {"risk_max_tokens": 20}, {}),
        ((), {"ignore_prefix_size": 1}, {"skipped": 1}),
        (("--left-pad-source",), {"report_accuracy": True, "sentence_avg": True}, {}),
    ],
)
def test_the_loss_is_that_of_every_sequence_alone(made, flags, settings, wishes):
    setting = Setting(made, *flags)
    loss, sample_size, logged, gradients = setting.loss(**settings)
    expected, risks = by_hand(setting, **wishes)
    # fairseq computes probabilities in float32
    torch.testing.assert_close(loss.double(), expected, rtol=1e-6, atol=0)
    assert logged["loss"].item() == pytest.approx(expected.item())
    assert logged["risk"].item() == pytest.approx(risks.sum().item(), abs=1e-5)
    assert logged["risk_sentences"] == len(risks) < logged["nsentences"]
    assert sample_size == logged["nsentences" if "sentence_avg" in settings else "ntokens"]
    assert ("n_correct" in logged) is ("report_accuracy" in settings)
    setting.model.zero_grad()
    expected.backward()
    for name, parameter in setting.model.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "settings",
    [{}, {"label_smoothing": 0}, {"report_accuracy": True}, {"ignore_prefix_size": 2},
     {"sentence_avg": True}],
)  # fmt: skip
def test_weight_0_is_label_smoothed_cross_entropy_bit_for_bit(setting, settings):
    theirs = setting.loss(LabelSmoothedCrossEntropyCriterion, **settings)
    ours = setting.loss(risk_weight=0, **settings)
    assert torch.equal(ours[0], theirs[0]) and ours[1] == theirs[1]
    assert {**theirs[2], **dict.fromkeys(LOGGED, 0.0)} == ours[2]
    assert all(torch.equal(ours[3][name], theirs[3][name]) for name in theirs[3])


def test_weight_0_measures_the_risk_in_validation(setting):
    setting.model.eval()
    try:
        (theirs, *_), (ours, _, logged, _) = (
            setting.loss(LabelSmoothedCrossEntropyCriterion),
            setting.loss(risk_weight=0),
        )
    finally:
        setting.model.train()
    assert torch.equal(ours, theirs)
    assert logged["risk"].item() == pytest.approx(by_hand(setting)[1].sum().item(), abs=1e-5)


@pytest.mark.parametrize("max_tokens", [1, 17, 40])
def test_scoring_in_parts_changes_nothing(setting, max_tokens):
    whole = setting.loss(risk_max_tokens=0)
    parts = setting.loss(risk_max_tokens=max_tokens)
    torch.testing.assert_close(parts[0], whole[0])
    for name in whole[3]:
        torch.testing.assert_close(parts[3][name], whole[3][name], rtol=1e-5, atol=1e-7)


def test_the_decoder_sees_the_candidates_that_count_the_longest_first(setting):
    seen = []
    hook = setting.model.decoder.register_forward_hook(
        lambda module, inputs, output: seen.append(tuple(inputs[0].shape))
    )
    try:
        with torch.no_grad():
            setting.criterion(risk_candidates=2, risk_max_tokens=30)(setting.model, setting.sample)
    finally:
        hook.remove()
    lists = [setting.task.dataset("train")[i]["candidates"][0] for i in setting.sample["id"]]
    rows = sum(len(tokens[:2]) for tokens in lists)
    _, *shapes = seen  # first the targets
    assert sum(rows for rows, _ in shapes) == rows
    assert [time for _, time in shapes] == sorted((time for _, time in shapes), reverse=True)
    assert all(rows * time <= 30 for rows, time in shapes)


def test_parts_have_at_most_so_many_tokens_unless_one_row_has_more():
    lengths = [9, 7, 7, 3, 2, 2, 1]
    for most in range(1, 40):
        parts = list(split_rows(lengths, most))
        assert [row for first, end in parts for row in range(first, end)] == list(range(7))
        for first, end in parts:
            assert end - first == 1 or (end - first) * lengths[first] <= most
    assert list(split_rows(lengths, None)) == [(0, 7)]
    assert len(list(split_rows(lengths, 18))) == 3


def test_parts_are_those_of_max_tokens_unless_told_otherwise(setting):
    assert setting.criterion(max_tokens=600).max_tokens == 600
    assert setting.criterion(max_tokens=600, risk_max_tokens=50).max_tokens == 50
    assert setting.criterion(max_tokens=600, risk_max_tokens=0).max_tokens is None


@pytest.mark.parametrize(
    "settings",
    [{"risk_weight": 0.4}, {"risk_scores": "sum"}, {"risk_sharpness": 2}, {"risk_candidates": 3}],
)
def test_every_option_changes_the_loss(setting, settings):
    assert setting.loss(**settings)[0].item() != pytest.approx(setting.loss()[0].item(), abs=1e-6)


def test_a_batch_without_candidates_learns_from_its_targets(setting):
    before = setting.sample
    setting.batch([0, 5, 10])
    try:
        assert setting.sample["candidates"]["slots"] == []
        ours = setting.loss(risk_weight=1)
        theirs = setting.loss(LabelSmoothedCrossEntropyCriterion)
    finally:
        setting.sample = before
    assert torch.equal(ours[0], theirs[0])
    assert ours[2].keys() == setting.loss()[2].keys()  # or processes could not be summed up


def test_it_can_be_had_by_sentence(setting):
    by_sentence = setting.loss(reduce=False)[0]
    assert by_sentence.shape == (setting.sample["target"].size(0),)
    torch.testing.assert_close(by_sentence.sum(), setting.loss()[0])


def test_a_step_makes_the_cheapest_candidate_more_probable(made):
    setting = Setting(made)
    setting.batch([1, 2, 3, 4])
    criterion = setting.criterion(risk_weight=1)
    before = criterion(setting.model, setting.sample)[2]
    optimiser = torch.optim.SGD(setting.model.parameters(), lr=0.1)
    for _ in range(3):
        optimiser.zero_grad()
        loss, sample_size, _ = criterion(setting.model, setting.sample)
        (loss / sample_size).backward()
        optimiser.step()
    after = criterion(setting.model, setting.sample)[2]
    assert after["risk"] < before["risk"]
    assert after["lowest_cost"] == before["lowest_cost"]


@pytest.mark.parametrize("max_tokens", [0, 40])
def test_pytorchs_data_parallel_wrapper_gets_every_gradient_once(setting, tmp_path, max_tokens):
    settings = {"risk_max_tokens": max_tokens}
    expected = setting.loss(**settings)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'meeting'}", rank=0, world_size=1
    )
    plain = setting.model
    try:
        setting.model = ModuleProxyWrapper(DistributedDataParallel(plain))
        for _ in range(2):  # what is not ready after the first backward pass shows in the second
            loss, _, _, gradients = setting.loss(**settings)
    finally:
        setting.model = plain
        torch.distributed.destroy_process_group()
    torch.testing.assert_close(loss, expected[0])
    for name, gradient in expected[3].items():
        torch.testing.assert_close(gradients[f"module.module.{name}"], gradient)


def test_costs_and_scores_keep_their_precision_in_half_precision(setting):
    batch = copy.copy(setting.sample)
    model = copy.deepcopy(setting.model).bfloat16()
    logged = setting.criterion()(model, batch)[2]
    assert logged["risk"].dtype == torch.float32
    assert batch["candidates"]["costs"].dtype == torch.float64
    exact = setting.loss()[2]
    assert logged["risk"].item() == pytest.approx(exact["risk"].item(), rel=0.02)
    assert logged["lowest_cost"].item() == pytest.approx(exact["lowest_cost"].item(), rel=1e-6)


def test_costs_logged_are_means_of_the_sentences_with_candidates(setting):
    from fairseq.logging import metrics

    criterion = setting.criterion()
    log = criterion(setting.model, setting.sample)[2]
    empty = {**log, **dict.fromkeys(LOGGED, 0.0)}
    with metrics.aggregate() as found:
        criterion.reduce_metrics([log, empty])
    values = found.get_smoothed_values()
    lowest = []
    for number in setting.sample["id"].tolist():
        tokens, costs = setting.task.dataset("train")[number]["candidates"]
        lowest += [min(costs)] if tokens else []
    assert values["lowest_cost"] == pytest.approx(100 * np.mean(lowest), abs=1e-3)
    assert values["risk"] == pytest.approx(100 * (log["risk"] / len(lowest)).item(), abs=1e-3)
    assert values["lowest_cost"] <= values["chosen_cost"] <= 100
    with metrics.aggregate() as found:
        criterion.reduce_metrics([empty])
    assert "risk" not in found.get_smoothed_values()


def test_the_chosen_cost_is_that_of_the_most_probable_candidate(setting):
    sharp = setting.loss(risk_sharpness=1e6)[2]
    plain = setting.loss()[2]
    assert plain["chosen_cost"].item() == pytest.approx(sharp["risk"].item(), abs=1e-3)


def test_candidates_too_long_for_the_model_are_left_out(made, setting):
    dictionary = setting.task.target_dictionary
    everything = Candidates(made / "candidates", 1024, dictionary, False)
    longest = max(len(row) for i in range(len(everything)) for row in everything[i][0])
    fewer = Candidates(made / "candidates", longest - 1, dictionary, False)
    for number in range(len(everything)):
        tokens, costs = everything[number]
        kept = [(len(row), cost) for row, cost in zip(tokens, costs) if len(row) < longest]
        kept = kept if len(kept) > 1 else []
        assert [(len(row), cost) for row, cost in zip(*fewer[number])] == kept


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"risk_weight": 1.5}, "--risk-weight is a share from 0 to 1, not 1.5"),
        ({"risk_weight": math.nan}, "--risk-weight is a share from 0 to 1, not nan"),
        ({"risk_sharpness": 0}, "--risk-sharpness is a number above 0, not 0"),
        ({"risk_candidates": 1}, "--risk-candidates is 2 or more, or 0 for all, not 1"),
        ({"risk_candidates": -2}, "--risk-candidates is 2 or more, or 0 for all, not -2"),
        ({"risk_max_tokens": -1}, "--risk-max-tokens is 0 or more, not -1"),
    ],
)
def test_bad_options_are_refused(setting, settings, message):
    with pytest.raises(ValueError, match=message):
        setting.criterion(**settings)


def test_it_needs_candidates_unless_they_count_nothing(made):
    setting = Setting(made, candidates=False)
    with pytest.raises(ValueError, match="needs --candidates FOLDER, made by dad-candidates"):
        setting.criterion()
    setting.criterion(risk_weight=0)
