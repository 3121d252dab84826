"""A model as ``model.safetensors``: weights that any tool can read and no file can misuse.

The format (https://github.com/huggingface/safetensors) holds tensors by name and a text beside
them, and nothing that could run. Tensors that are tied in the network stand there once. The text
is JSON under ``METADATA``; a single entry, because the library writes several in any order:

  format       what this is, with the version of the text
  order        names of all tensors, in the order of the layers
  tied         {name left out: name of the tensor that it is}
  settings     those of the network and its task, as fairseq keeps them in a checkpoint
  vocabulary   {file: SHA-256}, the fingerprint of the vocabulary
"""

import argparse
import json
from collections import OrderedDict
from pathlib import Path

from fairseq_plugins.export.average import distinct

SUFFIX = ".safetensors"
SAFE_WEIGHTS = "model" + SUFFIX
METADATA = "distill-adapt-distill"
FORMAT = "fairseq transformer, 1"


def write_safetensors(path, state):
    """Write a weights-only checkpoint (of ``weights.weights_only_state``) to ``path``.

    Equal checkpoints give equal bytes.
    """
    from safetensors.torch import save

    kept, tied = {}, {}
    for (name, *others), tensor in distinct(state["model"]).items():
        kept[name] = tensor.contiguous()
        tied.update(dict.fromkeys(others, name))
    record = {
        "format": FORMAT,
        "tied": tied,
        "order": list(state["model"]),
        "settings": {key: state[key] for key in state if key not in ("model", "task_state")},
        "vocabulary": state["task_state"]["vocabulary"],
    }
    metadata = {METADATA: json.dumps(_plain(record), ensure_ascii=False)}
    Path(path).write_bytes(save(kept, metadata))  # save_file would hide it from other users


def read_safetensors(path):
    """The checkpoint that :func:`write_safetensors` was given, as a dictionary.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or was made by another program.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing")
    try:
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get(METADATA)
            kept = {name: file.get_tensor(name) for name in file.keys()}
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or no safetensors file: {error}") from None
    record = _restored(json.loads(text)) if text else {}
    if record.get("format") != FORMAT:
        raise ValueError(
            f"{path} holds weights, but not those of a model that dad-export wrote: its metadata "
            f"say nothing of a {FORMAT!r}"
        )
    weights = OrderedDict(
        (name, kept[record["tied"].get(name, name)]) for name in record["order"]
    )
    return {
        **record["settings"], "model": weights, "task_state": {"vocabulary": record["vocabulary"]},
    }  # fmt: skip


def _plain(value):
    """The same for JSON, where a namespace or tuple is an object whose only name is its type."""
    if isinstance(value, argparse.Namespace):
        return {"argparse.Namespace": _plain(vars(value))}
    if isinstance(value, tuple):
        return {"tuple": [_plain(inner) for inner in value]}
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return value


def _restored(value):
    """What :func:`_plain` was given."""
    if isinstance(value, dict):
        inner = {key: _restored(entry) for key, entry in value.items()}
        if inner.keys() == {"argparse.Namespace"}:
            return argparse.Namespace(**inner["argparse.Namespace"])
        return tuple(inner["tuple"]) if inner.keys() == {"tuple"} else inner
    if isinstance(value, list):
        return [_restored(entry) for entry in value]
    return value
