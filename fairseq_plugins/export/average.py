"""One model out of several checkpoints of a training: the average of their parameters.

The average is often as good as an ensemble of them, at the price of one model
(Junczys-Dowmunt et al. 2016, https://aclanthology.org/W16-2316; the last 5 to 20 checkpoints in
Vaswani et al. 2017, https://arxiv.org/abs/1706.03762). It makes sense for checkpoints of one
training, or of trainings that began with the same weights: others lie too far apart.
"""

import argparse
import re
import sys
from collections import OrderedDict
from pathlib import Path

from fairseq_plugins.checkpoints import check_finite, load_checkpoint
from fairseq_plugins.models.lora import merged

CHOICES = ("last", "best")
# as fairseq names them: the end of an epoch, a save within one, and one of the best so far
_OF_TRAINING = re.compile(r"checkpoint(?:\d+|_\d+_\d+|_last)\.pt")
_BEST = re.compile(r"checkpoint\.best_(?P<metric>.+)_(?P<value>-?\d+\.?\d*)\.pt")
_KEEP = {"last": "--keep-last-epochs", "best": "--keep-best-checkpoints"}


def choose_checkpoints(folder, wish, trust=False):
    """Paths of the last or best checkpoints in a training's folder, the newest last.

    Args:
        folder: fairseq-train's ``--save-dir``.
        wish: "last:N", those with the most updates, or "best:N", those with the best value of
            the metric that fairseq chose by and wrote into their names.
        trust: unpickle whatever a checkpoint holds.

    A short training may have fewer, which is said on stderr.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it holds none; or ``wish`` is neither.
    """
    folder = Path(folder)
    which, _, number = wish.partition(":")
    if which not in CHOICES or not number.isdecimal() or int(number) < 1:
        raise ValueError(f"--average is last:N or best:N, for example last:5, not {wish!r}")
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}, the folder of the checkpoints, is missing")
    found = (_last if which == "last" else _best)(folder, trust)
    if not found:
        raise ValueError(
            f"{folder} holds no checkpoint for --average {wish}: fairseq-train keeps them with "
            f"{_KEEP[which]} {number}"
        )
    if len(found) < int(number):
        print(f"{folder} holds {len(found)} checkpoint(s) for --average {wish}; all are taken",
              file=sys.stderr)  # fmt: skip
    return [path for _, path in sorted(found[: int(number)])]


def _last(folder, trust):
    """[(updates, path)], most updates first; the copies of a checkpoint count once."""
    found = {}
    for path in sorted(folder.iterdir()):
        if _OF_TRAINING.fullmatch(path.name):
            found.setdefault(updates_of(load_checkpoint(path, trust=trust)), path)
    return sorted(found.items(), reverse=True)


def _best(folder, trust):
    """[(updates, path)], the best value first; of equal ones the newer."""
    found = []
    for path in sorted(folder.iterdir()):
        named = _BEST.fullmatch(path.name)
        if named:
            state = load_checkpoint(path, trust=trust)
            settings = _group(state, "checkpoint")
            if named["metric"] != settings.get("best_checkpoint_metric", named["metric"]):
                raise ValueError(
                    f"{path} is named for {named['metric']}, but its training chose by "
                    f"{settings['best_checkpoint_metric']}"
                )
            sign = 1 if settings.get("maximize_best_checkpoint_metric") else -1
            found.append((sign * float(named["value"]), updates_of(state), path))
    return [(updates, path) for _, updates, path in sorted(found, reverse=True)]


def average(paths, trust=False, check=lambda path, state: None):
    """Contents of the last of some checkpoints, with the average of the weights of all.

    Sums are taken in float64, so the order does not matter, and memory holds one checkpoint and
    one sum, however many there are. Floating-point tensors keep their type; integers, which
    count something, are the last one's. Low-rank updates are merged first, because the average
    of factors is not that of their products.

    Args:
        paths: checkpoints, the newest last.
        trust: unpickle whatever they hold.
        check: called with path and contents of each before it is used.

    Raises:
        ValueError: a path comes twice, or a checkpoint has NaN, other names, shapes, types or
            settings of the model than the first; names what differs.
    """
    twice = [path for path in paths if paths.count(path) > 1]
    if twice:
        raise ValueError(f"{twice[0]} is named twice; a checkpoint counts once in an average")
    sums, first = {}, None
    for path in paths:
        state = load_checkpoint(path, trust=trust)
        check(path, state)
        weights = merged(state["model"])
        check_finite(weights, path)
        if first is None:
            first = state, weights
        else:
            _check_alike(paths[0], *first, path, state, weights)
        if len(paths) == 1:
            return {**state, "model": weights}
        for names, tensor in distinct(weights).items():
            if tensor.is_floating_point():
                sums[names] = sums[names].add_(tensor) if names in sums else tensor.double()
    averaged = OrderedDict(weights)  # in the order of the layers
    for names, tensor in distinct(weights).items():
        if tensor.is_floating_point():
            mean = (sums.pop(names) / len(paths)).to(tensor.dtype)
            averaged.update(dict.fromkeys(names, mean))
    return {**state, "model": averaged}


def updates_of(state):
    """Number of updates after which a loaded checkpoint was saved, or None."""
    return (state.get("optimizer_history") or [{}])[-1].get("num_updates")


def distinct(weights):
    """{names: tensor}: tied tensors once, under the tuple of all their names."""
    names, tensors = {}, {}
    for name, tensor in weights.items():
        place = (tensor.untyped_storage().data_ptr(), tensor.storage_offset(), tensor.shape)
        names.setdefault(place, []).append(name)
        tensors[place] = tensor
    return {tuple(names[place]): tensor for place, tensor in tensors.items()}


def _check_alike(first_path, first_state, first, path, state, weights):
    if tuple(distinct(first)) != tuple(distinct(weights)):
        strange = sorted(first.keys() ^ weights.keys()) or ["ties between tensors"]
        raise ValueError(
            f"{first_path} and {path} are different networks ({', '.join(strange[:3])}); only "
            f"checkpoints of one architecture can be averaged"
        )
    for name, tensor in first.items():
        ours, theirs = ((t.dtype, tuple(t.shape)) for t in (tensor, weights[name]))
        if ours != theirs:
            raise ValueError(
                f"{name} is {_words(*ours)} in {first_path}, but {_words(*theirs)} in {path}; only "
                f"checkpoints of one architecture can be averaged"
            )
    ours, theirs = _model_settings(first_state), _model_settings(state)
    different = sorted(
        name for name in ours.keys() & theirs.keys() if ours[name] != theirs[name]
    )
    if different:
        name = different[0]
        raise ValueError(
            f"{first_path} was trained with {name} {ours[name]}, {path} with {theirs[name]}; only "
            f"checkpoints of one architecture can be averaged"
        )


def _words(dtype, shape):
    return f"{str(dtype).removeprefix('torch.')} {' x '.join(map(str, shape))}"


# of the training, not of the network, wherever fairseq puts them; so are rates of dropout
_NOT_OF_THE_NETWORK = re.compile(
    r"data|no_seed_provided|.*dropout|.*layerdrop|freeze|init_from_teacher|lora_.*"
)


def _model_settings(state):
    """Settings that shape the network: those of the model that no other group of fairseq's has."""
    settings = vars(state["args"]) if state.get("args") else _group(state, "model")
    others = {
        name
        for group, values in (state.get("cfg") or {}).items()
        if group != "model" and isinstance(values, dict)
        for name in values
    }
    return {
        name: value
        for name, value in settings.items()
        if name not in others and not _NOT_OF_THE_NETWORK.fullmatch(name)
    }


def _group(state, name):
    group = (state.get("cfg") or {}).get(name) or {}
    return vars(group) if isinstance(group, argparse.Namespace) else group
