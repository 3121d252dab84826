"""Networks: registered architectures, how a student starts, and which of its weights learn."""

from fairseq_plugins.models import architectures  # noqa: F401  importing registers
