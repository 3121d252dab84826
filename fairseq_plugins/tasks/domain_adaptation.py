"""Task ``domain_adaptation``: go on from a general-domain checkpoint with in-domain bitext.

Everything of ``sequence_distillation``; only weights are handed over, by fairseq's
own ``--finetune-from-model``: optimiser, schedule, data order, best score and
patience start afresh. In-domain sets are small, so a fairseq epoch is a quarter
of a pass by default, and the best point does not fall between two validations.
"""

from dataclasses import dataclass, field

from fairseq.tasks import register_task

from fairseq_plugins.tasks.sequence_distillation import (
    SequenceDistillationConfig,
    SequenceDistillationTask,
)


@dataclass
class DomainAdaptationConfig(SequenceDistillationConfig):
    epoch_fraction: float = field(
        default=0.25,
        metadata={
            "help": "length of a fairseq epoch as a share of one pass over the data (1, 0.5, 0.25 "
            "...); validation, checkpoints and --patience count such epochs"
        },
    )


@register_task("domain_adaptation", dataclass=DomainAdaptationConfig)
class DomainAdaptationTask(SequenceDistillationTask):
    """Continue a general-domain model on a domain.

    Raises:
        ValueError: training would start from nothing.
    """

    def check_start(self, cfg):
        if not cfg.finetune_from_model and cfg.restore_file == "checkpoint_last.pt":
            raise ValueError(
                "--task domain_adaptation starts from a general-domain model; name it with "
                "--finetune-from-model, or train from scratch with --task sequence_distillation"
            )
        super().check_start(cfg)
