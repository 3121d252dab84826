"""Criterion ``minimum_risk``: make the better of a sentence's candidates the more probable.

Minimum-risk training (Shen et al. 2016, https://aclanthology.org/P16-1159; Edunov et al. 2018,
https://aclanthology.org/N18-1033) on fixed n-best lists, those of the teacher, whose costs
``dad-candidates`` has computed. The loss of a sentence with n target tokens is

    (1 - w) * label-smoothed NLL  +  w * n * risk

where the risk is the candidates' expected cost, from 0 to 1. It counts n times, as a mean over
the tokens would, so that w weighs the same for all lengths and batch sizes. A sentence without
candidates learns from its target alone, with weight 1.
"""

import contextlib
from dataclasses import dataclass, field
from typing import Optional

import torch
from fairseq import utils
from fairseq.criterions import register_criterion
from fairseq.criterions.label_smoothed_cross_entropy import (
    LabelSmoothedCrossEntropyCriterion,
    LabelSmoothedCrossEntropyCriterionConfig,
)
from fairseq.dataclass import ChoiceEnum
from fairseq.logging import metrics
from omegaconf import II
from torch.utils.checkpoint import checkpoint

from fairseq_plugins.data.candidates import FEWEST
from fairseq_plugins.losses import expected_cost

SHARPNESS = {"mean": 1.0, "sum": 5e-3}  # Edunov et al.'s, Shen et al.'s
SUMS = ("risk", "lowest_cost", "chosen_cost", "risk_sentences")


@dataclass
class MinimumRiskConfig(LabelSmoothedCrossEntropyCriterionConfig):
    risk_weight: float = field(
        default=0.5,
        metadata={"help": "share of the loss taken from the risk, 0 to 1; the rest is the NLL"},
    )
    risk_scores: ChoiceEnum(list(SHARPNESS)) = field(
        default="mean",
        metadata={
            "help": "log-probability of a candidate by token (mean: Edunov et al.), so that "
            "lengths do not count, or as a whole (sum: Shen et al.)"
        },
    )
    risk_sharpness: Optional[float] = field(
        default=None,
        metadata={
            "help": "exponent of the candidates' probabilities before these are made to sum to "
            "1: small, and all count alike; large, and the most probable one counts alone; "
            "default: 1 with --risk-scores mean, 0.005 with sum"
        },
    )
    risk_candidates: int = field(
        default=0,
        metadata={"help": "take the first N candidates of a sentence; 0 takes all"},
    )
    risk_max_tokens: Optional[int] = field(
        default=None,
        metadata={
            "help": "decoder's tokens at a time, padding included; with more, candidates are "
            "scored in parts and once more in the backward pass, which saves memory and costs "
            "a third more time; default: --max-tokens; 0 never splits"
        },
    )
    # filled from fairseq's own flag of the same name
    max_tokens: Optional[int] = II("dataset.max_tokens")


@register_criterion("minimum_risk", dataclass=MinimumRiskConfig)
class MinimumRiskCriterion(LabelSmoothedCrossEntropyCriterion):
    """Label-smoothed cross-entropy mixed with the risk of the candidates in ``sample``.

    Logs, beside its parent's: ``risk``, expected cost x 100; ``lowest_cost``, that of the best
    candidate, below which the risk cannot fall; ``chosen_cost``, that of the candidate which the
    model holds for the most probable. All are means over the sentences that have candidates,
    from 0 to 100: with chrF, 100 - ``risk`` is the sentence chrF to be expected.

    Raises:
        ValueError: an option is out of range, there are no candidates, or the model is none of
            an encoder and a decoder.
    """

    reads = ("candidates",)  # options of the task

    def __init__(
        self, task, sentence_avg, label_smoothing, ignore_prefix_size=0, report_accuracy=False,
        risk_weight=0.5, risk_scores="mean", risk_sharpness=None, risk_candidates=0,
        risk_max_tokens=None, max_tokens=None,
    ):  # fmt: skip
        super().__init__(task, sentence_avg, label_smoothing, ignore_prefix_size, report_accuracy)
        if not 0 <= risk_weight <= 1:
            raise ValueError(f"--risk-weight is a share from 0 to 1, not {risk_weight}")
        if risk_sharpness is not None and not 0 < risk_sharpness < float("inf"):
            raise ValueError(f"--risk-sharpness is a number above 0, not {risk_sharpness}")
        if risk_candidates < 0 or 0 < risk_candidates < FEWEST:
            raise ValueError(
                f"--risk-candidates is {FEWEST} or more, or 0 for all, not {risk_candidates}; "
                f"with one there is nothing to choose between"
            )
        if risk_max_tokens is not None and risk_max_tokens < 0:
            raise ValueError(f"--risk-max-tokens is 0 or more, not {risk_max_tokens}")
        if risk_weight and not getattr(task.cfg, "candidates", None):
            raise ValueError(
                "--criterion minimum_risk needs --candidates FOLDER, made by dad-candidates from "
                "the teacher's n-best list, and --task sequence_distillation or domain_adaptation"
            )
        self.weight = risk_weight
        self.by_token = risk_scores == "mean"
        self.sharpness = SHARPNESS[risk_scores] if risk_sharpness is None else risk_sharpness
        self.most = risk_candidates
        self.max_tokens = (max_tokens if risk_max_tokens is None else risk_max_tokens) or None

    def forward(self, model, sample, reduce=True):
        """Loss, sample size and logging output of a batch.

        Args:
            model: encoder and decoder, possibly wrapped for data-parallel training.
            sample: batch with ``candidates``, see ``fairseq_plugins.data.candidates``.
            reduce: sum the loss; else it is that of each sentence, (batch,), where the risk
                counts, and the parent's of each token where it does not.
        """
        candidates = sample.get("candidates")
        if candidates is None and self.weight and model.training:
            raise ValueError(
                "--candidates names no folder for the training set, only for others; make one "
                "with dad-candidates, or train with --risk-weight 0"
            )
        with _encoder_output(model) as kept:
            if candidates is None or not candidates["slots"] or not self._counts(model):
                loss, sample_size, logging_output = super().forward(model, sample, reduce)
                return loss, sample_size, {**logging_output, **dict.fromkeys(SUMS, 0.0)}
            net_output = model(**sample["net_input"])
        loss, nll_loss = self.compute_loss(model, net_output, sample, reduce=not self.weight)
        logging_output = self._parents_logging(model, net_output, sample, nll_loss.sum())
        risk, report = self._risk(model, candidates, kept["encoder_out"])
        if self.weight:
            with_risk = ~candidates["missing"].all(dim=-1)
            token_weight = 1.0 - self.weight * with_risk.to(loss)
            tokens = sample["target"].ne(self.padding_idx).sum(dim=-1)
            token_loss = loss.view(len(risk), -1).sum(dim=-1)
            loss = token_weight * token_loss + self.weight * tokens * risk
            loss = loss.sum() if reduce else loss
        logging_output = {**logging_output, "loss": loss.data, **report}
        return loss, logging_output["sample_size"], logging_output

    def _counts(self, model):
        # with weight 0 it is measured in validation, to be compared
        return self.weight > 0 or not model.training

    def _parents_logging(self, model, net_output, sample, nll_loss):
        sentences = sample["target"].size(0)
        logging_output = {
            "nll_loss": nll_loss.data,
            "ntokens": sample["ntokens"],
            "nsentences": sentences,
            "sample_size": sentences if self.sentence_avg else sample["ntokens"],
        }
        if self.report_accuracy:
            n_correct, total = self.compute_accuracy(model, net_output, sample)
            logging_output["n_correct"] = utils.item(n_correct.data)
            logging_output["total"] = utils.item(total.data)
        return logging_output

    def _risk(self, model, candidates, encoder_out):
        """(risk of each sentence, sums for the log)."""
        scores = self._scores(model, candidates, encoder_out)  # (batch, most)
        costs, missing = candidates["costs"].to(scores), candidates["missing"]
        if self.most:
            scores, costs, missing = (
                tensor[:, : self.most] for tensor in (scores, costs, missing)
            )
        risk = expected_cost(scores, costs, missing, self.sharpness)
        with torch.no_grad():
            with_risk = ~missing.all(dim=-1)
            chosen = scores.masked_fill(missing, float("-inf")).argmax(dim=-1, keepdim=True)
            chosen_cost = costs.gather(-1, chosen).squeeze(-1)
            lowest_cost = costs.masked_fill(missing, float("inf")).min(dim=-1).values
            found = (risk, lowest_cost, chosen_cost, torch.ones_like(risk))
            sums = [values.masked_fill(~with_risk, 0.0).sum() for values in found]
        return risk, dict(zip(SUMS, sums, strict=True))

    # -- log-probabilities of the candidates ---------------------------------------------------

    def _scores(self, model, candidates, encoder_out):
        """Log-probability of each candidate, float32, (sentences, most); 0 where there is none."""
        sentences, most = candidates["missing"].shape
        limit = self.most or most
        rows = [row for row, slot in enumerate(candidates["slots"]) if slot % most < limit]
        parts = list(split_rows([candidates["lengths"][row] for row in rows], self.max_tokens))
        if isinstance(encoder_out, dict) and "encoder_states" in encoder_out:
            # reordering would do so to each layer's output as well, and in place
            encoder_out = {**encoder_out, "encoder_states": []}
        found = []
        for first, end in parts:
            arguments = (model, candidates, rows[first:end], encoder_out)
            if len(parts) > 1 and torch.is_grad_enabled():
                found.append(checkpoint(self._score_rows, *arguments, use_reentrant=False))
            else:
                found.append(self._score_rows(*arguments))
        found = torch.cat(found)
        slots = torch.tensor([candidates["slots"][row] for row in rows], device=found.device)
        flat = found.new_zeros(sentences * most).index_copy(0, slots, found)
        return flat.view(sentences, most)

    def _score_rows(self, model, candidates, rows, encoder_out):
        """Log-probability of each of these rows of the candidates, (rows,), float32."""
        device = candidates["target"].device
        most = candidates["missing"].size(1)
        longest = max(candidates["lengths"][row] for row in rows)
        sentences = torch.tensor([candidates["slots"][row] // most for row in rows], device=device)
        picked = torch.tensor(rows, device=device)
        target, prev_output_tokens = (
            # padding on the left is cut on the left
            tokens[:, -longest:] if candidates["left_pad"] else tokens[:, :longest]
            for tokens in (
                candidates[key].index_select(0, picked) for key in ("target", "prev_output_tokens")
            )
        )
        net_output = model.decoder(
            prev_output_tokens,
            encoder_out=model.encoder.reorder_encoder_out(encoder_out, sentences),
        )
        lprobs = model.get_normalized_probs(net_output, log_probs=True)
        token_lprobs = lprobs.gather(-1, target.unsqueeze(-1)).squeeze(-1).float()
        real = target.ne(self.padding_idx)
        real &= real.cumsum(dim=-1) > self.ignore_prefix_size
        total = token_lprobs.masked_fill(~real, 0.0).sum(dim=-1)
        return total / real.sum(dim=-1).clamp(min=1) if self.by_token else total

    # -- logging -------------------------------------------------------------------------------

    @classmethod
    def reduce_metrics(cls, logging_outputs):
        """Aggregate logging outputs from data-parallel training."""
        super().reduce_metrics(logging_outputs)
        sentences = utils.item(sum(log.get("risk_sentences", 0) for log in logging_outputs))
        if sentences:
            for name in ("risk", "lowest_cost", "chosen_cost"):
                mean = utils.item(sum(log.get(name, 0) for log in logging_outputs)) / sentences
                metrics.log_scalar(name, 100 * mean, sentences, round=3)


def split_rows(lengths, max_tokens):
    """Yield (first, end) of successive rows that have at most ``max_tokens`` with their padding.

    Args:
        lengths: of the rows, never rising.
        max_tokens: None: all rows together. A longer row comes alone.
    """
    first = 0
    while first < len(lengths):
        end = len(lengths)
        if max_tokens is not None:
            end = min(end, first + max(1, max_tokens // lengths[first]))
        yield first, end
        first = end


@contextlib.contextmanager
def _encoder_output(model):
    """Gives a dictionary that holds the encoder's output after the model has been called.

    A model that is wrapped for data-parallel training has to be called as a whole, once, which
    prepares the exchange of gradients. Its decoder may then be called by itself: each parameter
    still gets its gradient in one backward pass.
    """
    kept = {}
    if not hasattr(getattr(model, "encoder", None), "reorder_encoder_out"):
        raise ValueError(
            "--criterion minimum_risk needs a model of an encoder and a decoder, such as "
            "--arch transformer"
        )
    hook = model.encoder.register_forward_hook(
        lambda module, inputs, output: kept.update(encoder_out=output)
    )
    try:
        yield kept
    finally:
        hook.remove()
