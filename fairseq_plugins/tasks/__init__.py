"""The registered tasks: ``sequence_distillation`` and ``domain_adaptation``."""

# first, because it registers: a module of ours that is half imported could not be used
import fairseq  # noqa: F401

from fairseq_plugins.tasks import (  # noqa: F401  importing registers
    domain_adaptation,
    sequence_distillation,
)
