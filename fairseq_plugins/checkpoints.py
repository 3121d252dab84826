"""Checkpoints are data, not programs.

PyTorch reads a checkpoint by unpickling, and a pickle can run anything. Since
torch 2.6 it reads only tensors and plain containers unless told otherwise; a
fairseq checkpoint also holds the few types of ``SAFE_GLOBALS``, which only store
values. ``fairseq_plugins`` allows these as soon as fairseq is imported; anything else is refused
by name.

The fingerprint of the vocabulary (file name → SHA-256) travels in the task's
state, so two dictionaries of equal size cannot be confused.
"""

import argparse
import collections
import hashlib
import logging
import os
import pickle
import re
import shutil
import socket
from pathlib import Path

import numpy as np
import torch

from data_prep.vocabulary import differences

logger = logging.getLogger(__name__)

TRUST_VARIABLE = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"  # PyTorch's own switch


def _safe_globals():
    numpy_core = np._core if hasattr(np, "_core") else np.core
    dtypes = {type(np.dtype(name)) for name in ("f2", "f4", "f8", "i1", "i2", "i4", "i8",
                                                "u1", "u2", "u4", "u8", "?")}  # fmt: skip
    scalar, reconstruct = numpy_core.multiarray.scalar, numpy_core.multiarray._reconstruct
    # the same two functions under the module path of numpy 1 and of numpy 2
    named = [
        (function, f"{module}.multiarray.{name}")
        for function, name in ((scalar, "scalar"), (reconstruct, "_reconstruct"))
        for module in ("numpy.core", "numpy._core")
    ]
    plain = [argparse.Namespace, collections.OrderedDict, np.dtype, np.ndarray]
    return [*plain, *sorted(dtypes, key=lambda kind: kind.__name__), *named]


SAFE_GLOBALS = _safe_globals()


def allow_safe_globals():
    """Let ``torch.load(weights_only=True)`` accept what fairseq checkpoints hold."""
    torch.serialization.add_safe_globals(SAFE_GLOBALS)


def load_checkpoint(path, trust=False):
    """Contents of a fairseq checkpoint as a dictionary, tensors on the CPU and memory-mapped.

    Args:
        path: the checkpoint file.
        trust: unpickle whatever it holds. Only for files whose maker you know:
            such a file can run any program on this machine.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, is no fairseq checkpoint, or needs a
            type outside ``SAFE_GLOBALS`` (named in the message).
    """
    state = load_tensors(path, "checkpoint", trust)
    if not isinstance(state, dict) or "model" not in state:
        raise ValueError(f"{path} is not a fairseq checkpoint: it has no entry 'model'")
    return state


def load_tensors(path, what, trust=False):
    """Contents of a file that PyTorch wrote, tensors on the CPU and memory-mapped.

    Args:
        path: the file.
        what: what the file is to the user, for messages.
        trust: unpickle whatever it holds.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged or needs a type outside ``SAFE_GLOBALS``.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{what} {path} is missing")
    trust = trust or os.environ.get(TRUST_VARIABLE, "0") in ("1", "y", "yes", "true")
    allow_safe_globals()
    try:
        return _torch_load(path, weights_only=not trust)
    except pickle.UnpicklingError as error:
        refused = re.search(r"GLOBAL `?([\w.]+)", str(error))
        if refused is None:
            raise ValueError(f"{path} is not a {what} that PyTorch can read") from None
        raise ValueError(
            f"{path} needs the type {refused[1]}, which can run code when it is loaded; refused. "
            f"If you know who made the file, pass --trust-checkpoint "
            f"(or set {TRUST_VARIABLE}=1)"
        ) from None
    except PermissionError:
        raise
    except (RuntimeError, EOFError, AttributeError, ImportError, LookupError, OSError, TypeError,
            ValueError) as error:  # fmt: skip  # what reading a text or a torn file may raise
        # of PyTorch's text the first sentence; more are guesses at how it came about
        reason = (str(error) or type(error).__name__).splitlines()[0].partition(". ")[0]
        raise ValueError(f"{what} {path} is damaged ({reason}); copy or make it again") from None


def _torch_load(path, weights_only):
    try:
        return torch.load(path, map_location="cpu", weights_only=weights_only, mmap=True)
    except RuntimeError as error:
        if "mmap" not in str(error):
            raise
        # files in PyTorch's format of before 1.6 cannot be mapped
        return torch.load(path, map_location="cpu", weights_only=weights_only)


def check_finite(weights, path):
    """Refuse weights that are not numbers.

    Args:
        weights: {name: tensor}.
        path: their file, named in the message.

    Raises:
        ValueError: a tensor holds NaN or infinity; names it.
    """
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise ValueError(
                f"{path} holds NaN or infinity in {name}: its training diverged; take an earlier "
                f"checkpoint, or train again with a lower learning rate or a longer warm-up"
            )


def weights_fingerprint(weights):
    """SHA-256 of the names, types, shapes and values in a {name: tensor}, in any order.

    It is the same for a training checkpoint and for the MODEL folder made from it.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        # as bytes, because numpy has no bfloat16
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def vocabulary_of(checkpoint):
    """Fingerprint {file name: SHA-256} that a loaded checkpoint carries, or None."""
    return (checkpoint.get("task_state") or {}).get("vocabulary")


def check_vocabulary(checkpoint_path, theirs, ours, ours_from, allow_unknown=False):
    """Refuse a checkpoint that was trained with another vocabulary.

    Args:
        checkpoint_path: named in the message.
        theirs: fingerprint from the checkpoint, or None when it carries none.
        ours: fingerprint of the prepared data or model folder.
        ours_from: that folder, named in the message.
        allow_unknown: accept a checkpoint without a fingerprint.

    Raises:
        ValueError: the fingerprints differ, or there is none to compare.
    """
    if theirs is None:
        if allow_unknown:
            return
        raise ValueError(
            f"checkpoint {checkpoint_path} carries no vocabulary fingerprint, so it was not "
            f"trained by this toolkit; if you are sure that its dictionary and subwords are those "
            f"of {ours_from}, pass --allow-unknown-vocabulary"
        )
    differing = differences(ours, theirs)
    if differing:
        raise ValueError(
            f"checkpoint {checkpoint_path} was trained with another vocabulary than that of "
            f"{ours_from}: {', '.join(differing)} differ{'s' if len(differing) == 1 else ''}; "
            f"prepare the data again with the vocabulary of the checkpoint "
            f"(python -m data_prep.binarise --vocabulary ...)"
        )


def mend_last_checkpoint(last):
    """Replace a truncated ``checkpoint_last.pt`` by the file that it was being copied from.

    fairseq writes the first checkpoint of a save whole, and copies it to the other
    names, ``checkpoint_last.pt`` being the final one. A kill in mid-copy leaves that
    file short, and its model is then complete under the other name, the newest.

    Other files that a kill cut short are removed: training goes on before them, and writes them
    again where they are due.

    Raises:
        ValueError: it is damaged and no other checkpoint can be read.
    """
    others = [path for path in last.parent.glob("checkpoint*.pt") if path != last]
    if not _is_damaged(last):
        for path in filter(_is_damaged, others):
            path.unlink(missing_ok=True)  # every process of a training comes here
            logger.warning(f"{path} was cut short by a kill; removed")
        return
    for path in sorted(others, key=lambda path: path.stat().st_mtime, reverse=True):
        try:
            load_checkpoint(path)
        except ValueError:
            continue
        # every worker of a training comes here, on several machines
        part = last.with_name(f"{last.name}.{socket.gethostname()}.{os.getpid()}.part")
        shutil.copyfile(path, part)
        os.replace(part, last)
        logger.warning(f"{last} was cut short by a kill; taken anew from {path.name}")
        return
    raise ValueError(f"{last} is damaged and {last.parent} holds no other checkpoint; remove it")


def _is_damaged(path):
    try:
        load_checkpoint(path)
    except ValueError as error:
        return "damaged" in str(error)
    return False
