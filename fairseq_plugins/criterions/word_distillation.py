"""Criterion ``word_distillation``: learn the references and a teacher's distribution together."""

import logging
import math
from dataclasses import dataclass, field
from typing import NamedTuple, Optional

import torch
from fairseq.criterions import register_criterion
from fairseq.criterions.label_smoothed_cross_entropy import (
    LabelSmoothedCrossEntropyCriterion,
    LabelSmoothedCrossEntropyCriterionConfig,
)
from fairseq.logging import metrics as fairseq_metrics
from fairseq.utils import split_paths

from fairseq_plugins import losses
from fairseq_plugins.teachers.online import PRECISIONS, OnlineTeacher

logger = logging.getLogger(__name__)

TAILS = ("bucket", "renormalise")


@dataclass
class WordDistillationConfig(LabelSmoothedCrossEntropyCriterionConfig):
    teacher: Optional[str] = field(
        default=None,
        metadata={
            "help": "teacher to run beside the student: MODEL folder or checkpoint; several, "
            "joined by ':', are an ensemble whose probabilities are averaged. Without it the "
            "teacher is read from --teacher-cache"
        },
    )
    teacher_weight: float = field(
        default=0.5, metadata={"help": "share of the loss taken from the teacher, 0 to 1"}
    )
    divergence: str = field(
        default="forward-kl",
        metadata={
            "help": "of student and teacher: forward-kl (teacher‖student), "
            "reverse-kl (student‖teacher) or jensen-shannon"
        },
    )
    teacher_temperature: float = field(
        default=1.0,
        metadata={
            "help": "softens both distributions in the teacher's term, which is multiplied by its "
            "square; more than 0"
        },
    )
    teacher_top_k: int = field(
        default=0,
        metadata={
            "help": "words of the teacher that are compared, the likeliest; 0: all that there are"
        },
    )
    teacher_tail: str = field(
        default="bucket",
        metadata={
            "help": "words beyond the top k: bucket (all together are one more outcome) or "
            "renormalise (left out on both sides)"
        },
    )
    teacher_precision: str = field(
        default="same",
        metadata={"help": "arithmetic of --teacher: same (as the student), fp32, fp16 or bf16"},
    )
    token_weighting: str = field(
        default="none",
        metadata={
            "help": "of the teacher's term, mean 1 over a batch: none, teacher-confidence (in "
            "proportion to its top probability) or teacher-entropy (to its entropy)"
        },
    )


@register_criterion("word_distillation", dataclass=WordDistillationConfig)
class WordDistillationCriterion(LabelSmoothedCrossEntropyCriterion):
    """(1 − w) · label-smoothed NLL + w · T² · divergence, summed over real tokens.

    Word-level knowledge distillation (Kim & Rush 2016, https://arxiv.org/abs/1606.07947),
    on references, distilled targets or a mixture. The teacher is run beside the student or
    read from a batch (``sample["teacher"]``, put there by the task's ``--teacher-cache``).
    It is no part of this module: not trained, not saved, not synchronised.

    Logged beside what ``label_smoothed_cross_entropy`` logs, per real token, in training and
    validation alike: ``teacher_kl``, the forward KL divergence in bits at the temperature and
    over the outcomes of the loss (so a lower bound where words are bucketed), whatever
    --divergence is; ``teacher_agreement``, per cent of tokens at which student and teacher
    find the same word likeliest.

    Raises:
        ValueError: an option is out of range or does not fit the teacher.
    """

    reads = ("teacher_cache",)  # options of the task

    def __init__(
        self, task, sentence_avg, label_smoothing, teacher, teacher_weight, divergence,
        teacher_temperature, teacher_top_k, teacher_tail, teacher_precision, token_weighting,
        ignore_prefix_size=0, report_accuracy=False,
    ):  # fmt: skip
        super().__init__(task, sentence_avg, label_smoothing, ignore_prefix_size, report_accuracy)
        if not 0 <= teacher_weight <= 1:
            raise ValueError(f"--teacher-weight is a share from 0 to 1, not {teacher_weight}")
        if not 0 < teacher_temperature < math.inf:
            raise ValueError(
                f"--teacher-temperature is more than 0 (1 changes nothing), "
                f"not {teacher_temperature}"
            )
        vocab = len(task.target_dictionary)
        if not 0 <= teacher_top_k <= vocab:
            raise ValueError(
                f"--teacher-top-k is from 0 (all) to the size of the vocabulary, {vocab:,}, "
                f"not {teacher_top_k}"
            )
        check_choice("--divergence", divergence, losses.DIVERGENCES)
        check_choice("--teacher-tail", teacher_tail, TAILS)
        check_choice("--teacher-precision", teacher_precision, PRECISIONS)
        check_choice("--token-weighting", token_weighting, losses.TOKEN_WEIGHTINGS)
        self.teacher_weight, self.temperature = teacher_weight, teacher_temperature
        self.divergence, self.tail = divergence, teacher_tail
        self.token_weighting, self.top_k = token_weighting, teacher_top_k
        self._check_source(task, teacher, getattr(task, "teacher_cache", None), teacher_precision)
        # without one the batches bring the teacher's distribution
        self.online_teacher = None
        if teacher:
            self.online_teacher = OnlineTeacher(
                split_paths(teacher), task, teacher_temperature, teacher_precision
            )
        self._warned = False

    def _check_source(self, task, teacher, cache, precision):
        if teacher and cache:
            raise ValueError("--teacher and --teacher-cache are two teachers; give one of them")
        if not teacher and not cache:
            raise ValueError(
                "this criterion needs a teacher: --teacher MODEL, to run it beside the student, or "
                "--teacher-cache FOLDER, to read what dad-cache-teacher wrote"
            )
        if teacher:
            check_task(task)
            return
        if precision != "same":
            raise ValueError(
                f"--teacher-precision {precision} is for --teacher; a cache is made already, "
                f"leave the option out"
            )
        if self.temperature != cache.temperature:
            raise ValueError(
                f"--teacher-temperature is {self.temperature:g}, but the teacher's cache was made "
                f"at {cache.temperature:g}; pass --teacher-temperature {cache.temperature:g}, or "
                f"make another cache with dad-cache-teacher"
            )
        if self.top_k > cache.top_k:
            raise ValueError(
                f"--teacher-top-k is {self.top_k}, but the teacher's cache holds {cache.top_k} "
                f"words per token; lower it (0: all that the cache holds), or make another cache "
                f"with dad-cache-teacher"
            )

    @property
    def learns_from_teacher(self):
        """Whether any token can get a teacher's term; if none can, training runs no teacher."""
        return self.teacher_weight > 0

    def forward(self, model, sample, reduce=True):
        """Loss, sample size and logging output of a batch, see ``FairseqCriterion``."""
        if not self._has_teacher(model, sample):
            return super().forward(model, sample, reduce)
        net_output = model(**sample["net_input"])
        tokens = self._compare(model, net_output, sample)
        distilled = self.distilled(tokens)
        if self.learns_from_teacher:
            per_token = self._loss(tokens, distilled)
            loss, nll_loss = (
                found.sum() if reduce else found.unsqueeze(-1)
                for found in (per_token, tokens.nll.masked_fill(~tokens.real, 0.0))
            )
        else:
            loss, nll_loss = self.compute_loss(model, net_output, sample, reduce)
        sample_size = sample["target"].size(0) if self.sentence_avg else sample["ntokens"]
        logging_output = {
            "loss": loss.data,
            "nll_loss": nll_loss.data,
            "ntokens": sample["ntokens"],
            "nsentences": sample["target"].size(0),
            "sample_size": sample_size,
            **self.observed(tokens, distilled),
        }
        if self.report_accuracy:
            n_correct, total = self.compute_accuracy(model, net_output, sample)
            logging_output["n_correct"] = n_correct.item()
            logging_output["total"] = total.item()
        return loss, sample_size, logging_output

    def distilled(self, tokens):
        """Which tokens get the teacher's term, True or False, (tokens,)."""
        return tokens.real

    def observed(self, tokens, distilled):
        """Sums over the real tokens of a batch that :meth:`reduce_metrics` makes averages of."""
        with torch.no_grad():
            divergence = losses.forward_kl(tokens.teacher_lprobs, tokens.student_lprobs)
            return {
                "teacher_kl": divergence.masked_fill(~tokens.real, 0.0).sum(),
                "teacher_agreement": (tokens.agreed & tokens.real).sum(),
                "teacher_tokens": tokens.real.sum(),
            }

    def _has_teacher(self, model, sample):
        """Whether a batch is to be compared with the teacher."""
        if model.training and not self.learns_from_teacher:
            return False
        if self.online_teacher or "teacher" in sample:
            return True
        if model.training:
            raise ValueError(
                "a training batch came without the teacher's distribution; make the cache again "
                "with dad-cache-teacher, for every folder of --mixture"
            )
        if not self._warned:
            logger.info(
                "the teacher's cache has nothing for validation data: their loss is "
                "label-smoothed cross-entropy alone"
            )
            self._warned = True
        return False

    def _compare(self, model, net_output, sample):
        """``Tokens`` of a batch: student, teacher and reference at each target position."""
        lprobs, target = self.get_lprobs_and_target(model, net_output, sample)
        lprobs, vocab = lprobs.float(), lprobs.size(-1)
        teacher_lprobs, words = self._teacher_of(model, sample)
        top_lprobs = teacher_lprobs.amax(dim=-1)
        if words is None:
            listed = teacher_lprobs.argmax(dim=-1, keepdim=True)
        else:
            listed = words
        target_lprobs, listed_lprobs, summed_lprobs = losses.targets_listed_and_sum(
            lprobs, target, listed
        )
        if words is None:
            student_lprobs = losses.softened(lprobs, self.temperature)
        else:
            student_lprobs = losses.listed_outcomes(
                lprobs, listed_lprobs, self.temperature, self.tail
            )
            if self.tail == "renormalise":
                teacher_lprobs = losses.renormalised(teacher_lprobs)
            else:
                teacher_lprobs = losses.with_tail(teacher_lprobs, vocab)
        return Tokens(
            real=target.ne(self.padding_idx),
            nll=-target_lprobs,
            smoothed_nll=losses.label_smoothed_nll(target_lprobs, summed_lprobs, vocab, self.eps),
            student_lprobs=student_lprobs,
            teacher_lprobs=teacher_lprobs,
            teacher_top_lprobs=top_lprobs,
            agreed=listed_lprobs[:, 0].detach() >= lprobs.detach().amax(dim=-1),
        )

    def _teacher_of(self, model, sample):
        """The teacher's log-probabilities and which words they are of, None for all of them.

        (tokens, vocab) and None, or (tokens, k) and (tokens, k), the likeliest word first.
        """
        if self.online_teacher is None:
            teacher = sample["teacher"]
            k = self.top_k or teacher["indices"].size(-1)
            words = self._flat(teacher["indices"][..., :k])
            return self._flat(teacher["lprobs"][..., :k]).float(), words
        lprobs = self._flat(self.online_teacher.lprobs(sample["net_input"], model))
        return lprobs.topk(self.top_k) if self.top_k else (lprobs, None)

    def _flat(self, by_position):
        # as get_lprobs_and_target does with the student's
        kept = by_position[:, self.ignore_prefix_size :]
        return kept.reshape(-1, kept.size(-1))

    def _loss(self, tokens, distilled):
        """Loss of each token, 0 where the target is padding, nats, (tokens,)."""
        divergence = losses.DIVERGENCES[self.divergence](
            tokens.teacher_lprobs, tokens.student_lprobs
        )
        weights = losses.token_weights(
            self.token_weighting, tokens.teacher_lprobs, tokens.teacher_top_lprobs, tokens.real
        )
        share = self.teacher_weight * distilled.to(divergence.dtype)
        teacher_term = self.temperature**2 * weights * divergence
        per_token = (1 - share) * tokens.smoothed_nll + share * teacher_term
        return per_token.masked_fill(~tokens.real, 0.0)

    @classmethod
    def reduce_metrics(cls, logging_outputs):
        """Averages over batches and workers, see ``FairseqCriterion``."""
        super().reduce_metrics(logging_outputs)
        log_per_token(logging_outputs, "teacher_kl", 1 / math.log(2))
        log_per_token(logging_outputs, "teacher_agreement", 100)


class Tokens(NamedTuple):
    """What the loss needs to know of the target tokens of a batch, tensors of (tokens, ...)."""

    real: torch.Tensor  # False where the target is padding
    nll: torch.Tensor  # −log p of the target, nats
    smoothed_nll: torch.Tensor  # the same with label smoothing
    student_lprobs: torch.Tensor  # (tokens, outcomes) at the temperature of the loss
    teacher_lprobs: torch.Tensor  # (tokens, outcomes), a constant
    teacher_top_lprobs: torch.Tensor  # of the teacher's likeliest word
    agreed: torch.Tensor  # whether that is the student's likeliest word too


def log_per_token(logging_outputs, key, scale):
    """Log the mean of ``key`` over the tokens compared with a teacher, times ``scale``."""
    tokens = sum(output.get("teacher_tokens", 0) for output in logging_outputs)
    if tokens > 0:
        total = sum(output.get(key, 0) for output in logging_outputs)
        fairseq_metrics.log_scalar(key, scale * total / tokens, tokens, round=3)


def check_task(task):
    """Refuse a task that does not know its vocabulary."""
    if not hasattr(task, "vocabulary"):
        raise ValueError(
            "this criterion needs --task sequence_distillation or domain_adaptation, "
            "which know whether teacher and student have the same vocabulary"
        )


def check_choice(flag, value, choices):
    """Refuse a value that is none of the names in ``choices``."""
    if value not in choices:
        raise ValueError(f"{flag} is one of {', '.join(choices)}, not {value}")
