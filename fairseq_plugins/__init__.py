"""fairseq plugin: distil, adapt, distil. Importing registers and does nothing else.

fairseq and PyTorch take seconds to import, and most commands need neither. So the tasks, criterions
and architectures are registered at once where fairseq is there already, as in its trainer
(``--user-dir``), and else in the moment when something imports it. Whoever can ask fairseq for them
finds them.

Where a model is only used, fairseq and PyTorch may be missing: then there is nothing to register
with, and what reads exported models works without them.
"""

import logging
import sys
import warnings


def _register():
    # what users cannot mend: fairseq's decoder hands PyTorch masks of two types
    warnings.filterwarnings("ignore", message="Support for mismatched key_padding_mask")

    from fairseq_plugins import criterions, models, tasks  # noqa: F401  importing registers
    from fairseq_plugins.checkpoints import allow_safe_globals

    # registration for PyTorch: which types a fairseq checkpoint may hold
    allow_safe_globals()


class _RegisterAfterFairseq:
    """Finder on ``sys.meta_path`` that registers as soon as fairseq has been imported."""

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name != "fairseq":
            return None
        others = [finder for finder in sys.meta_path if finder is not cls]
        found = (finder.find_spec(name, path, target) for finder in others)
        spec = next(filter(None, found), None)
        if spec is not None:
            execute = spec.loader.exec_module

            def execute_and_register(module):
                execute(module)
                sys.meta_path.remove(cls)
                _register()

            spec.loader.exec_module = execute_and_register
        return spec


# fairseq's import advises users to install a package for speech
logging.getLogger("fairseq.tasks.text_to_speech").setLevel(logging.WARNING)
if sys.modules.get("fairseq"):  # None where it is not to be imported
    _register()
else:
    sys.meta_path.insert(0, _RegisterAfterFairseq)
