"""The registered criterions: ``word_distillation``, ``anchored_adaptation`` ..."""

from fairseq_plugins.criterions import (  # noqa: F401  importing registers
    anchored_adaptation,
    selective_distillation,
    word_distillation,
)
