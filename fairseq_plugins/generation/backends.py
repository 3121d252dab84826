"""Which backend decodes, on which device, in which arithmetic."""

from dataclasses import dataclass

import torch

from fairseq_plugins.checkpoints import load_checkpoint
from fairseq_plugins.generation.models import EXPORTED_WEIGHTS

BACKENDS = ("ctranslate2", "fairseq")
DEVICES = ("cpu", "cuda")
COMPUTE_TYPES = ("int8", "int8_float16", "float16", "float32")
AS_SAVED = "default"  # CTranslate2's word for the type that a model was saved with


@dataclass(frozen=True)
class Choice:
    """A backend that can decode these models, not yet loaded."""

    name: str
    device: str
    compute_type: str
    models: list
    trust: bool

    @property
    def default_batch_tokens(self):
        return _module(self.name).DEFAULT_BATCH_TOKENS[self.device]

    def load(self, work_folder, decoding, *, workers, threads):
        """The backend, ready to ``submit``. A MODEL folder is converted once per work folder."""
        settings = {"device": self.device, "compute_type": self.compute_type}
        if self.name == "fairseq":
            return _module("fairseq").FairseqBackend(
                self.models, decoding, threads=workers * threads, trust=self.trust, **settings
            )
        (model,) = self.models
        folder = model.path
        if not model.exported:
            from fairseq_plugins.export.conversion import convert

            folder = work_folder / "exported"
            if not folder.exists():
                convert(model, folder, self.compute_type, trust=self.trust)
        return _module("ctranslate2").CTranslate2Backend(
            folder, decoding, workers=workers, threads=threads, **settings
        )


def choose(models, *, backend="auto", device="auto", compute_type=None, trust=False):
    """The ``Choice`` for these models.

    Args:
        models: list of ``ModelFolder`` that may decode together.
        backend: one of ``BACKENDS`` or "auto".
        device: one of ``DEVICES`` or "auto".
        compute_type: one of ``COMPUTE_TYPES`` or None.
        trust: unpickle whatever checkpoints hold.

    Raises:
        ValueError: the wishes do not go together, or this machine cannot fulfil them.
    """
    for flag, value, known in (
        ("--backend", backend, ("auto", *BACKENDS)),
        ("--device", device, ("auto", *DEVICES)),
        ("--compute-type", compute_type, (None, *COMPUTE_TYPES)),
    ):
        if value not in known:
            raise ValueError(f"{flag} is one of {', '.join(map(str, known))}, not {value}")
    exported = models[0].exported
    if backend == "fairseq" and exported:
        raise ValueError(
            f"{models[0].path} holds CTranslate2's {EXPORTED_WEIGHTS}, which fairseq cannot read; "
            f"name a MODEL folder or leave --backend out"
        )
    if backend == "ctranslate2" and len(models) > 1:
        raise ValueError("CTranslate2 has no ensembles; decode several models with fairseq")
    if backend == "auto":
        backend = "ctranslate2" if exported or _convertible(models, trust) else "fairseq"
        if device != "cpu" and not exported and torch.cuda.is_available() and not _gpus():
            backend = "fairseq"  # PyTorch reaches this GPU, CTranslate2's libraries do not
    reachable = _gpus() if backend == "ctranslate2" else torch.cuda.is_available()
    if device == "cuda" and not reachable:
        raise ValueError(f"--device cuda: {backend} finds no GPU here; use --device cpu")
    if device == "auto":
        device = "cuda" if reachable else "cpu"
    if compute_type is None:
        compute_type = AS_SAVED if exported else {"cpu": "float32", "cuda": "float16"}[device]
    if backend == "fairseq" and compute_type.startswith("int8"):
        raise ValueError(f"fairseq computes in float32 or float16, not {compute_type}")
    if device == "cpu" and "float16" in compute_type:
        raise ValueError(f"--compute-type {compute_type} is for GPUs; on CPU take float32 or int8")
    return Choice(backend, device, compute_type, models, trust)


def _convertible(models, trust):
    if len(models) > 1:
        return False
    from fairseq_plugins.export.conversion import check_convertible

    try:
        check_convertible(models[0], load_checkpoint(models[0].weights, trust=trust))
    except ValueError:
        return False
    return True


def _gpus():
    return _module("ctranslate2").gpu_count()


def _module(name):
    # each backend is imported only when it is used
    if name == "fairseq":
        from fairseq_plugins.generation import fairseq_backend

        return fairseq_backend
    from fairseq_plugins.generation import ctranslate2_backend

    return ctranslate2_backend
