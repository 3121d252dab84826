"""The registered tasks: ``sequence_distillation`` and ``domain_adaptation``."""

from fairseq_plugins.tasks import (  # noqa: F401  importing registers
    domain_adaptation,
    sequence_distillation,
)
