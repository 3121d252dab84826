"""The registered criterions: each module holds one."""

# first, because it registers: a module of ours that is half imported could not be used
import fairseq  # noqa: F401

from fairseq_plugins.criterions import (  # noqa: F401  importing registers
    anchored_adaptation,
    minimum_risk,
    selective_distillation,
    word_distillation,
)
