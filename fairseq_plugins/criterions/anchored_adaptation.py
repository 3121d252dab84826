"""Criterion ``anchored_adaptation``: learn the domain, held near the general model."""

import math
from dataclasses import dataclass, field
from typing import Optional

from fairseq.criterions import register_criterion
from fairseq.criterions.label_smoothed_cross_entropy import (
    LabelSmoothedCrossEntropyCriterionConfig,
)
from fairseq.logging import metrics as fairseq_metrics
from omegaconf import II

from fairseq_plugins.criterions.word_distillation import WordDistillationCriterion, check_task
from fairseq_plugins.teachers.anchor import WeightAnchor


@dataclass
class AnchoredAdaptationConfig(LabelSmoothedCrossEntropyCriterionConfig):
    anchor: Optional[str] = field(
        default=None,
        metadata={
            "help": "the general model, MODEL folder or checkpoint; default: what "
            "--finetune-from-model names"
        },
    )
    anchor_weight: Optional[float] = field(
        default=None,
        metadata={
            "help": "share of the loss, 0 to 1, that is the cross-entropy to the general model's "
            "distribution, run beside the model or read from --teacher-cache; default: 0"
        },
    )
    anchor_l2: Optional[float] = field(
        default=None,
        metadata={
            "help": "lambda of lambda/2 * sum (weight - general weight)^2, added to the loss per "
            "token; 0 or more; default: 0"
        },
    )
    ewc_weight: Optional[float] = field(
        default=None,
        metadata={
            "help": "lambda of elastic weight consolidation: the same, each weight's square times "
            "its Fisher information (--fisher); 0 or more; default: 0"
        },
    )
    fisher: Optional[str] = field(
        default=None, metadata={"help": "file made by dad-estimate-fisher, for --ewc-weight"}
    )
    teacher_precision: str = field(
        default="same",
        metadata={
            "help": "arithmetic of the general model run beside: same (as the model that is "
            "trained), fp32, fp16 or bf16"
        },
    )
    # filled from fairseq's own flag of the same name
    finetune_from_model: Optional[str] = II("checkpoint.finetune_from_model")


@register_criterion("anchored_adaptation", dataclass=AnchoredAdaptationConfig)
class AnchoredAdaptationCriterion(WordDistillationCriterion):
    """(1 - w) · label-smoothed NLL + w · KL to the general model + n · penalty of the weights.

    - w = --anchor-weight: Khayrallah et al. 2018, https://aclanthology.org/W18-2705, which is
      ``word_distillation`` with the general model as the teacher. (They write the
      cross-entropy; it differs by a constant, the general model's entropy.)
    - penalty = 1/2 Σ (λ_l2 + λ_ewc F_i) (θ_i - θ*_i)², θ* the general model's weights: elastic
      weight consolidation (Kirkpatrick et al. 2017, https://arxiv.org/abs/1612.00796, eq. 3;
      for translation Thompson et al. 2019, https://aclanthology.org/N19-1209).
    - n is the sample size, by which fairseq divides: an update sees the penalty once, whatever
      the batches, the workers and --update-freq.

    After a resume θ* is still the general model. It is no part of this module: not trained,
    not saved, not synchronised.

    Logged beside what ``word_distillation`` logs: ``anchor_penalty``, in the units of ``loss``
    (nats / log 2, per unit of sample size) and part of it, so that their difference is what
    the text contributes; ``nll_loss`` is without it.

    Raises:
        FileNotFoundError, ValueError: an option is out of range, or files do not fit.
    """

    def __init__(
        self, task, sentence_avg, label_smoothing, anchor, anchor_weight, anchor_l2, ewc_weight,
        fisher, teacher_precision, finetune_from_model, ignore_prefix_size=0,
        report_accuracy=False,
    ):  # fmt: skip
        if anchor_weight is anchor_l2 is ewc_weight is None:
            raise ValueError(
                "--criterion anchored_adaptation wants to know how firmly the model is held: "
                "--anchor-weight holds its distribution, --anchor-l2 and --ewc-weight hold its "
                "weights; 0 is adapting without an anchor"
            )
        check_task(task)
        anchor_weight, anchor_l2, ewc_weight = anchor_weight or 0, anchor_l2 or 0, ewc_weight or 0
        _check_weights(anchor_weight, anchor_l2, ewc_weight)
        if ewc_weight and not fisher:
            raise ValueError(
                "--ewc-weight needs --fisher FILE, made by dad-estimate-fisher for the general "
                "model; without one, --anchor-l2 holds every weight alike"
            )
        if fisher and not ewc_weight:
            raise ValueError("--fisher is for --ewc-weight; give both or leave both out")
        cached = bool(anchor_weight and getattr(task, "teacher_cache", None))
        if cached and anchor and not (anchor_l2 or ewc_weight):
            raise ValueError(
                "--anchor and --teacher-cache are two general models; give one of them"
            )
        named = anchor or finetune_from_model
        if not named and (anchor_l2 or ewc_weight or anchor_weight and not cached):
            raise ValueError(
                "--criterion anchored_adaptation needs the general model; name it with --anchor, "
                "or start from it with --finetune-from-model"
            )
        super().__init__(
            task, sentence_avg, label_smoothing,
            teacher=named if anchor_weight and not cached else None, teacher_weight=anchor_weight,
            divergence="forward-kl", teacher_temperature=1.0, teacher_top_k=0,
            teacher_tail="bucket", teacher_precision=teacher_precision, token_weighting="none",
            ignore_prefix_size=ignore_prefix_size, report_accuracy=report_accuracy,
        )  # fmt: skip
        self.weight_anchor = None
        if anchor_l2 or ewc_weight:
            self.weight_anchor = WeightAnchor(
                named, task, l2=anchor_l2, ewc_weight=ewc_weight, fisher=fisher
            )
            if task.network is not None:
                self.weight_anchor.check(task.network)

    def _check_source(self, task, teacher, cache, precision):
        if not self.learns_from_teacher:
            if precision != "same":
                raise ValueError(
                    f"--teacher-precision {precision} is for --anchor-weight; without it the "
                    f"general model is not run, leave the option out"
                )
            return
        if not teacher and cache.temperature != 1:
            raise ValueError(
                f"--teacher-cache was made at temperature {cache.temperature:g}, but here the "
                f"distributions are compared as they are; make it with --temperature 1"
            )
        super()._check_source(task, teacher, None if teacher else cache, precision)

    def _has_teacher(self, model, sample):
        return self.learns_from_teacher and super()._has_teacher(model, sample)

    def forward(self, model, sample, reduce=True):
        """Loss, sample size and logging output of a batch, see ``FairseqCriterion``."""
        loss, sample_size, logging_output = super().forward(model, sample, reduce)
        if self.weight_anchor is not None:
            penalty = sample_size * self.weight_anchor.penalty(model)
            # of a loss that is not summed yet, every token takes an equal part
            loss = loss + (penalty if reduce else penalty / loss.numel())
            logging_output["loss"] = loss.data
            logging_output["anchor_penalty"] = penalty.data
        return loss, sample_size, logging_output

    @classmethod
    def reduce_metrics(cls, logging_outputs):
        """Averages over batches and workers, see ``FairseqCriterion``."""
        super().reduce_metrics(logging_outputs)
        if any("anchor_penalty" in output for output in logging_outputs):
            penalty = sum(output.get("anchor_penalty", 0) for output in logging_outputs)
            sample_size = sum(output.get("sample_size", 0) for output in logging_outputs)
            fairseq_metrics.log_scalar(
                "anchor_penalty", penalty / sample_size / math.log(2), sample_size, round=5
            )


def _check_weights(anchor_weight, anchor_l2, ewc_weight):
    if not 0 <= anchor_weight <= 1:
        raise ValueError(f"--anchor-weight is a share from 0 to 1, not {anchor_weight}")
    for flag, value in (("--anchor-l2", anchor_l2), ("--ewc-weight", ewc_weight)):
        if not 0 <= value < math.inf:
            raise ValueError(f"{flag} is 0 (not held) or more, not {value}")
