"""The registered criterions: each module holds one."""

from fairseq_plugins.criterions import (  # noqa: F401  importing registers
    anchored_adaptation,
    minimum_risk,
    selective_distillation,
    word_distillation,
)
