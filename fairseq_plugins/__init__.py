"""fairseq plugin: distil, adapt, distil. Importing registers and does nothing else."""

import logging

# fairseq's import advises every user to install a package for speech
logging.getLogger("fairseq.tasks.text_to_speech").setLevel(logging.WARNING)

from fairseq_plugins import criterions, tasks  # noqa: E402, F401  importing registers
from fairseq_plugins.checkpoints import allow_safe_globals  # noqa: E402

# registration for PyTorch: which types a fairseq checkpoint may hold
allow_safe_globals()
