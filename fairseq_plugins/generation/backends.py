"""Which backend decodes, on which device, in which arithmetic.

PyTorch is imported where a model is not exported, since it may be missing where one is.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from data_prep.processes import usable_cores
from fairseq_plugins.generation.models import EXPORTED_WEIGHTS

BACKENDS = ("ctranslate2", "fairseq")
DEVICES = ("cpu", "cuda")
COMPUTE_TYPES = ("int8", "int8_float16", "float16", "float32")
AS_SAVED = "default"  # CTranslate2's word for the type that a model was saved with


@dataclass(frozen=True)
class Choice:
    """A backend that can decode these models, not yet loaded.

    ``exported`` is the folder that CTranslate2 loads; None until :meth:`prepared` made it.
    """

    name: str
    device: str
    compute_type: str
    models: list
    trust: bool
    exported: Path | None = None

    @property
    def default_batch_tokens(self):
        return _module(self.name).DEFAULT_BATCH_TOKENS[self.device]

    def prepared(self, work):
        """The same, with the model converted for CTranslate2 where it has to be.

        Args:
            work: ``WorkFolder`` that this process is in; the conversion stays there.
        """
        if self.name == "fairseq" or self.exported:
            return self
        from fairseq_plugins.export.conversion import convert

        (model,) = self.models
        with work.converting() as folder:
            if not folder.exists():
                convert(model, folder, "float32", trust=self.trust)
        return replace(self, exported=folder)

    def load(self, decoding, *, workers, threads):
        """The backend, ready to decode."""
        settings = {"device": self.device, "compute_type": self.compute_type}
        if self.name == "fairseq":
            return _module("fairseq").FairseqBackend(
                self.models, decoding, threads=workers * threads, trust=self.trust, **settings
            )
        (model,) = self.models
        return _module("ctranslate2").CTranslate2Backend(
            self.exported, decoding, workers=workers, threads=threads,
            positions=model.positions, target_prefix=model.target_prefix,
            suppressed=model.suppressed, **settings
        )  # fmt: skip

    def source_positions(self):
        """Most pieces that the model can read, end of sentence included."""
        if self.name == "fairseq":
            return _module("fairseq").source_positions(self.models, trust=self.trust)
        positions = self.models[0].positions
        return (positions or _module("ctranslate2").positions_of(self.exported))["source"]

    def compute_types(self):
        """Names of ``COMPUTE_TYPES`` that backend and machine support, the most exact first."""
        if self.name == "fairseq":
            known = {"cpu": ("float32",), "cuda": ("float16",)}[self.device]
            return known
        supported = _module("ctranslate2").compute_types(self.device)
        known = {"cpu": ("float32", "int8"), "cuda": ("float16", "int8_float16")}[self.device]
        return tuple(name for name in known if name in supported)


def choose(models, *, backend="auto", device="auto", compute_type=None, trust=False):
    """The ``Choice`` for these models.

    Args:
        models: list of ``ModelFolder`` that may decode together, or of one ``ConvertedModel``.
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
        if device != "cpu" and not exported and _pytorch_finds_gpu() and not _gpus():
            backend = "fairseq"  # PyTorch reaches this GPU, CTranslate2's libraries do not
    reachable = _gpus() if backend == "ctranslate2" else _pytorch_finds_gpu()
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
    folder = models[0].path if exported else None
    return Choice(backend, device, compute_type, models, trust, exported=folder)


def workers_and_threads(choice, workers=None, threads=None):
    """How many batches at once, and threads for each, where nothing else was asked for.

    A worker for each core that this process may use, or for each GPU that the backend takes.
    """
    if choice.device == "cuda":
        gpus = _gpus() if choice.name == "ctranslate2" else 1
        if workers and workers > gpus:
            raise ValueError(
                f"--workers {workers}: {choice.name} uses {gpus} GPU(s) here, one for each worker"
            )
        return workers or gpus, threads or 1
    cores = usable_cores()
    if workers is None:
        workers = max(cores // threads, 1) if threads else cores
    return workers, threads or 1


def _convertible(models, trust):
    if len(models) > 1:
        return False
    from fairseq_plugins.checkpoints import load_checkpoint
    from fairseq_plugins.export.conversion import check_convertible

    try:
        check_convertible(models[0], load_checkpoint(models[0].weights, trust=trust))
    except ValueError:
        return False
    return True


def _pytorch_finds_gpu():
    import torch

    return torch.cuda.is_available()


def _gpus():
    return _module("ctranslate2").gpu_count()


def _module(name):
    # each backend is imported only when it is used
    if name == "fairseq":
        from fairseq_plugins.generation import fairseq_backend

        return fairseq_backend
    from fairseq_plugins.generation import ctranslate2_backend

    return ctranslate2_backend
