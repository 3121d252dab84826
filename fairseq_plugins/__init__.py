"""fairseq plugin: distil, adapt, distil. Importing registers and does nothing else."""

import logging
import warnings

# what users cannot mend: fairseq's import advises them to install a package for speech, and its
# decoder hands PyTorch masks of two types
logging.getLogger("fairseq.tasks.text_to_speech").setLevel(logging.WARNING)
warnings.filterwarnings("ignore", message="Support for mismatched key_padding_mask")

from fairseq_plugins import criterions, models, tasks  # noqa: E402, F401  importing registers
from fairseq_plugins.checkpoints import allow_safe_globals  # noqa: E402

# registration for PyTorch: which types a fairseq checkpoint may hold
allow_safe_globals()
