"""The registered criterions: ``word_distillation`` and ``selective_distillation``."""

from fairseq_plugins.criterions import (  # noqa: F401  importing registers
    selective_distillation,
    word_distillation,
)
