"""Criterion ``selective_distillation``: word distillation of a share of the tokens."""

from dataclasses import dataclass, field

import torch
from fairseq.criterions import register_criterion

from fairseq_plugins import losses
from fairseq_plugins.criterions.word_distillation import (
    WordDistillationConfig,
    WordDistillationCriterion,
    check_choice,
    log_per_token,
)

SCORES = ("student-loss", "teacher-confidence")
LEVELS = ("batch", "queue")


@dataclass
class SelectiveDistillationConfig(WordDistillationConfig):
    selection_by: str = field(
        default="student-loss",
        metadata={
            "help": "which tokens learn from the teacher: those of the highest student-loss "
            "(cross-entropy of the reference) or teacher-confidence (its top probability)"
        },
    )
    selection_level: str = field(
        default="queue",
        metadata={
            "help": "a token's rank is taken in its own batch or in a queue of the last tokens"
        },
    )
    selection_share: float = field(
        default=0.5, metadata={"help": "share of the tokens that is selected, 0 to 1"}
    )
    selection_queue: int = field(
        default=30000, metadata={"help": "tokens in the queue, with --selection-level queue"}
    )


@register_criterion("selective_distillation", dataclass=SelectiveDistillationConfig)
class SelectiveDistillationCriterion(WordDistillationCriterion):
    """``word_distillation`` on the selected tokens, label-smoothed NLL on all others.

    Selective knowledge distillation (Wang et al. 2021, https://arxiv.org/abs/2105.12967): share
    1 is ``word_distillation``, share 0 is ``label_smoothed_cross_entropy``.

    - batch: the ⌈share · n⌉ highest of the n real tokens of a batch; the earlier wins a tie.
    - queue ("global-level" in the paper): tokens whose score is among the highest ⌈share · n⌉
      of the last n tokens seen in training, those of this batch included, which enter first;
      n grows up to --selection-queue. The queue travels in checkpoints. Each worker has its
      own; the first one's is saved, and all go on from it. Validation compares with the queue
      and leaves it as it is; where it is empty still, with the batch itself.

    Logged too: ``selected``, per cent of the real tokens.

    Raises:
        ValueError: as ``word_distillation``, or an option of the selection is out of range.
    """

    def __init__(
        self, task, sentence_avg, label_smoothing, teacher, teacher_weight, divergence,
        teacher_temperature, teacher_top_k, teacher_tail, teacher_precision, token_weighting,
        selection_by, selection_level, selection_share, selection_queue,
        ignore_prefix_size=0, report_accuracy=False,
    ):  # fmt: skip
        check_choice("--selection-by", selection_by, SCORES)
        check_choice("--selection-level", selection_level, LEVELS)
        if not 0 <= selection_share <= 1:
            raise ValueError(f"--selection-share is a share from 0 to 1, not {selection_share}")
        if selection_queue < 1:
            raise ValueError(f"--selection-queue is 1 token or more, not {selection_queue}")
        super().__init__(
            task, sentence_avg, label_smoothing, teacher, teacher_weight, divergence,
            teacher_temperature, teacher_top_k, teacher_tail, teacher_precision, token_weighting,
            ignore_prefix_size, report_accuracy,
        )  # fmt: skip
        self.selection_by, self.selection_share = selection_by, selection_share
        self.queue = None
        if selection_level == "queue":
            self.queue = ScoreQueue(selection_queue)
            task.keep_state("selection_queue", self.queue)

    @property
    def learns_from_teacher(self):
        return super().learns_from_teacher and self.selection_share > 0

    def distilled(self, tokens):
        if self.selection_share in (0, 1):
            return tokens.real & (self.selection_share == 1)
        if self.selection_by == "student-loss":
            scores = tokens.nll.detach()
        else:
            scores = tokens.teacher_top_lprobs
        if self.queue is None:
            return losses.highest_in_batch(scores, tokens.real, self.selection_share)
        own = scores[tokens.real]
        if self.training:
            self.queue.push(own)
        pool = self.queue.scores(scores.device)
        if not len(pool):
            pool = own
        return losses.highest_of_pool(scores, tokens.real, self.selection_share, pool)

    def observed(self, tokens, distilled):
        return {**super().observed(tokens, distilled), "selected": distilled.sum()}

    @classmethod
    def reduce_metrics(cls, logging_outputs):
        super().reduce_metrics(logging_outputs)
        log_per_token(logging_outputs, "selected", 100)


class ScoreQueue:
    """The scores of the last ``size`` tokens, the oldest first."""

    def __init__(self, size):
        self._size, self._scores = size, torch.empty(0)

    def push(self, scores):
        """Put scores at the end; a batch that overflowed in half precision leaves none."""
        scores = scores[scores.isfinite()]
        self._scores = torch.cat([self._scores.to(scores.device), scores])[-self._size :]

    def scores(self, device):
        """All of them, (n,), n from 0 to ``size``."""
        self._scores = self._scores.to(device)
        return self._scores

    def state_dict(self):
        return {"scores": self._scores.cpu().clone()}

    def load_state_dict(self, state):
        self._scores = state["scores"][-self._size :].clone()
