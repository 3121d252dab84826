"""fairseq plugin: distil, adapt, distil. Importing registers and does nothing else.

Where a model is only used, fairseq and PyTorch may be missing: then there is nothing to register
with, and what reads exported models works without them.
"""

import importlib.util
import logging
import warnings

if importlib.util.find_spec("fairseq"):
    # what users cannot mend: fairseq's import advises them to install a package for speech, and its
    # decoder hands PyTorch masks of two types
    logging.getLogger("fairseq.tasks.text_to_speech").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message="Support for mismatched key_padding_mask")

    from fairseq_plugins import criterions, models, tasks  # noqa: F401  importing registers
    from fairseq_plugins.checkpoints import allow_safe_globals

    # registration for PyTorch: which types a fairseq checkpoint may hold
    allow_safe_globals()
