"""Networks: registered architectures, how a student starts, and which of its weights learn."""

# first, because it registers: a module of ours that is half imported could not be used
import fairseq  # noqa: F401

from fairseq_plugins.models import architectures  # noqa: F401  importing registers
