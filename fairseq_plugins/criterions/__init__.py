"""The registered criterions. fairseq looks into ``tasks/`` by itself, but not in here."""

from fairseq_plugins.criterions import minimum_risk  # noqa: F401  importing registers
