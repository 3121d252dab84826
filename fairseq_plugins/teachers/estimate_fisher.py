"""Estimate how much the general domain needs each weight of a model, for --ewc-weight.

Elastic weight consolidation (Kirkpatrick et al. 2017; for machine translation Thompson et
al. 2019) adapts a model and holds each of its weights the more firmly, the more the
general domain depends on it. That is measured by the diagonal of the Fisher information:
squared gradients of sentences of general-domain text, added up, over target tokens.

MODEL is the general model, DATA the prepared folder of what it was trained on (or of a
sample of it). Every sentence takes one pass forward and one backward, by itself.

OUT holds the Fisher information and the fingerprints of weights and vocabulary, by which
it is refused for any other model. It is per target token, in nats, so --ewc-weight 1
counts a loss on the general domain, as far as OUT can foresee it, like one on the new domain.

Killed at any moment, the same command goes on from what OUT.part holds, at most a minute
older, and ends with the same bytes.

Example:
  dad-estimate-fisher --model teacher/general --data corpora/general/prepared \\
      --samples 1000 --out teacher/general.fisher.pt
"""

import os
import random
import sys
import time
from pathlib import Path

import torch
from fairseq.tasks.translation import load_langpair_dataset
from fairseq.utils import move_to_cuda
from tqdm import tqdm

from data_prep.command import parser, run
from data_prep.files import sha256
from data_prep.manifest import manifest_path, read_json, write_manifest
from data_prep.vocabulary import read_vocabulary
from fairseq_plugins.checkpoints import (
    check_vocabulary,
    load_checkpoint,
    load_tensors,
    weights_fingerprint,
)
from fairseq_plugins.generation.backends import DEVICES
from fairseq_plugins.generation.fairseq_backend import load_models, positions_of, quiet
from fairseq_plugins.generation.models import add_checkpoint_flags, open_model
from fairseq_plugins.shared_folder import is_made
from fairseq_plugins.teachers.fisher import LABELS, FisherSum, sentence_seed, squared_gradients

PROG = "dad-estimate-fisher"
SECONDS_BETWEEN_SAVES = 60


def estimate_fisher(
    model, data, out, *, split="train", samples=1000, labels="model", seed=1, device="auto",
    overwrite=False, trust=False, allow_unknown_vocabulary=False,
):  # fmt: skip
    """Make file ``out`` with the Fisher information of a model; return its manifest.

    Args:
        model: MODEL folder.
        data: PREPARED folder of general-domain text.
        out: file to make.
        split: of the prepared folder.
        samples: sentences at most, chosen by chance; 0 for all.
        labels: one of ``LABELS``, see ``squared_gradients``.
        seed: of the choice of sentences, and of the labels that are drawn.
        device: "cpu", "cuda" or "auto" (a GPU where there is one).
        overwrite: replace an ``out`` that was made otherwise.
        trust: unpickle whatever the checkpoint holds.
        allow_unknown_vocabulary: accept a checkpoint without a vocabulary fingerprint.

    Returns:
        the manifest; "counts" has sentences, tokens (of their targets), too_long
        (sentences left out because the model has no positions for them), parameters.

    Raises:
        FileNotFoundError, FileExistsError, ValueError: see the message.
    """
    started = time.monotonic()
    out = Path(out)
    device = _device(device)
    _check_wishes(out, samples, labels, seed)
    folder = open_model(model, trust, allow_unknown_vocabulary)
    if folder.exported:
        raise ValueError(f"{model} is an exported model, which has no gradients; name a MODEL "
                         f"folder, which holds model.pt")  # fmt: skip
    vocabulary = read_vocabulary(data)
    check_vocabulary(folder.weights, folder.vocabulary.files, vocabulary.files, data)
    fingerprint = weights_fingerprint(load_checkpoint(folder.weights, trust=trust)["model"])
    text = _text_files(data, split, vocabulary)
    settings = {
        "model": fingerprint,
        "data": {path.name: sha256(path) for path in text},
        "split": split,
        "samples": samples,
        "labels": labels,
        "seed": seed,
    }
    if _is_done(out, settings, overwrite):
        print(f"{out} is there already, made with the same settings", file=sys.stderr)
        return read_json(manifest_path(out))
    (network,), task = load_models([folder], trust=trust)
    network.to(device)
    pairs = _pairs(task, data, split, vocabulary)
    chosen, too_long = _choose(pairs, positions_of([network]), samples, seed, data, split)
    total = _add_up(network, pairs, chosen, _Part(out, settings), labels, seed)
    fisher = total.per_token()
    counts = {
        "sentences": total.done,
        "tokens": total.tokens,
        "too_long": too_long,
        "parameters": sum(values.numel() for values in fisher.values()),
    }
    _write(
        out,
        {
            "fisher": fisher,
            "model": fingerprint,
            "vocabulary": dict(vocabulary.files),
            "settings": settings,
            "counts": counts,
        },
    )
    _Part(out, settings).remove()
    write_manifest(
        out, settings=settings, inputs=[folder.weights, *text], counts=counts, seed=seed,
        seconds=time.monotonic() - started, outputs={out.name: sha256(out)},
    )  # fmt: skip
    return read_json(manifest_path(out))


# -- what is asked for ---------------------------------------------------------------------


def _device(wanted):
    if wanted not in ("auto", *DEVICES):
        raise ValueError(f"--device is one of auto, {', '.join(DEVICES)}, not {wanted}")
    reachable = torch.cuda.is_available()
    if wanted == "cuda" and not reachable:
        raise ValueError("--device cuda: PyTorch finds no GPU here; use --device cpu")
    return ("cuda" if reachable else "cpu") if wanted == "auto" else wanted


def _check_wishes(out, samples, labels, seed):
    if samples < 0:
        raise ValueError(f"--samples is 1 or more, or 0 for all sentences, not {samples}")
    if labels not in LABELS:
        raise ValueError(f"--labels is one of {', '.join(LABELS)}, not {labels}")
    if out.is_dir():
        raise ValueError(f"{out} is a folder; --out names the file to write")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"folder {out.parent} for {out.name} is missing; make it first")


def _text_files(data, split, vocabulary):
    src, tgt = vocabulary.source_lang, vocabulary.target_lang
    paths = [Path(data) / f"{split}.{src}-{tgt}.{lang}.{end}" for lang in (src, tgt)
             for end in ("bin", "idx")]  # fmt: skip
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(
                f"{path} is missing; --data names a folder made by python -m data_prep.binarise, "
                f"--split a part of it"
            )
    return paths


def _is_done(out, settings, overwrite):
    """Whether ``out`` is what these settings make.

    Raises:
        FileExistsError: it is something else, and may not be overwritten.
    """
    if not out.exists():
        return False
    if not manifest_path(out).exists():
        # a kill just before the end leaves our file without its manifest
        if overwrite or _settings_in(out) == settings:
            return False
        raise FileExistsError(
            f"{out} exists and has no manifest, so what made it is unknown; "
            f"pass --overwrite to replace it"
        )
    record = read_json(manifest_path(out))
    changes = _changes(record.get("settings", {}), settings)
    if not changes and record.get("outputs") != {out.name: sha256(out)}:
        changes = ["it was changed after it was made"]
    return is_made(out, changes, overwrite)


def _settings_in(path):
    try:
        found = load_tensors(path, "Fisher file")
    except ValueError:
        return None
    return found.get("settings") if isinstance(found, dict) else None


def _changes(before, now):
    """What differs between two settings, as sentences for people."""
    changes = []
    for name, value in now.items():
        if before.get(name) == value:
            continue
        if name in ("model", "data"):
            changes.append(f"the {name} changed")
        else:
            changes.append(f"--{name} was {before.get(name)}, is {value}")
    return changes


# -- sentences -----------------------------------------------------------------------------


def _pairs(task, data, split, vocabulary):
    """The sentence pairs as the model was trained to see them; none is left out or cut."""
    with quiet():
        return load_langpair_dataset(
            str(data), split,
            vocabulary.source_lang, task.source_dictionary,
            vocabulary.target_lang, task.target_dictionary,
            combine=False, dataset_impl=None, upsample_primary=1,
            left_pad_source=task.cfg.left_pad_source, left_pad_target=task.cfg.left_pad_target,
            max_source_positions=sys.maxsize, max_target_positions=sys.maxsize, shuffle=False,
        )  # fmt: skip


def _choose(pairs, positions, samples, seed, data, split):
    """(sorted numbers of the chosen sentences, how many are too long for the model)."""
    limits = positions["source"], positions["target"]
    fitting = [number for number in range(len(pairs))
               if pairs.src_sizes[number] <= limits[0] and pairs.tgt_sizes[number] <= limits[1]
              ]  # fmt: skip
    too_long = len(pairs) - len(fitting)
    if too_long:
        print(
            f"{too_long:,} of {len(pairs):,} sentences are left out: longer than the {limits} "
            f"pieces (source, target) that the model takes",
            file=sys.stderr,
        )
    if not fitting:
        raise ValueError(f"{data} has no sentence in {split} that the model can take")
    if 0 < samples < len(fitting):
        fitting = sorted(random.Random(seed).sample(fitting, samples))
    return fitting, too_long


def _add_up(network, pairs, chosen, part, labels, seed):
    """A ``FisherSum`` of the chosen sentences, going on from what ``part`` holds."""
    total = part.read(network) or FisherSum.zeros(network)
    device = next(network.parameters()).device
    on_screen = sys.stderr.isatty()
    bar = tqdm(
        chosen[total.done :], total=len(chosen), initial=total.done, unit=" sentences",
        desc="Fisher information", mininterval=0.5 if on_screen else 30, dynamic_ncols=on_screen,
    )  # fmt: skip
    saved = time.monotonic()
    for number in bar:
        if time.monotonic() - saved >= SECONDS_BETWEEN_SAVES:
            part.store(total)
            saved = time.monotonic()
        sample = pairs.collater([pairs[number]])
        if device.type == "cuda":
            sample = move_to_cuda(sample, device)
        total.add(*squared_gradients(network, sample, labels, sentence_seed(seed, number)))
    return total


class _Part:
    """``OUT.part``: what an unfinished run has added up, and with which settings."""

    def __init__(self, out, settings):
        self.path = out.with_name(out.name + ".part")
        self._settings = settings

    def read(self, network):
        """``FisherSum`` on the device of the network, or None.

        Raises:
            ValueError: the file belongs to other settings.
        """
        if not self.path.exists():
            return None
        found = load_tensors(self.path, "unfinished Fisher file")
        changes = _changes(found["settings"], self._settings)
        if changes:
            raise ValueError(
                f"{self.path} is of an unfinished run with other settings: {'; '.join(changes)}; "
                f"remove it to start afresh, or name another --out"
            )
        print(f"{self.path}: going on after {found['done']:,} sentences", file=sys.stderr)
        devices = {name: weight.device for name, weight in network.named_parameters()}
        # copied, because the file is mapped into memory and will be replaced
        sums = {name: sums.to(devices[name], copy=True) for name, sums in found["sums"].items()}
        return FisherSum(sums, found["done"], found["tokens"])

    def store(self, total):
        _write(self.path, {"settings": self._settings, **vars(total)})

    def remove(self):
        self.path.unlink(missing_ok=True)


def _write(path, contents):
    """Write what PyTorch can save under a name that it gets when it is whole."""
    new = path.with_name(path.name + ".new")
    try:
        with open(new, "wb") as file:  # an open file: a path's name would go into the archive
            torch.save(contents, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise


# -- the command ---------------------------------------------------------------------------


def main():
    run(_main, PROG)


def _main():
    args = _arguments()
    manifest = estimate_fisher(
        args.model, args.data, args.out, split=args.split, samples=args.samples,
        labels=args.labels, seed=args.seed, device=args.device, overwrite=args.overwrite,
        trust=args.trust_checkpoint, allow_unknown_vocabulary=args.allow_unknown_vocabulary,
    )  # fmt: skip
    counts = manifest["counts"]
    print(
        f"{args.out}: {counts['parameters']:,} parameters, from {counts['sentences']:,} "
        f"sentences with {counts['tokens']:,} target tokens",
        file=sys.stderr,
    )


def _arguments():
    words = parser(__doc__, PROG)
    words.add_argument("--model", required=True, metavar="DIR", help="MODEL folder")
    words.add_argument(
        "--data", required=True, metavar="DIR", help="PREPARED folder of general-domain text"
    )
    words.add_argument("--out", required=True, metavar="FILE", help="file to make")
    words.add_argument("--split", default="train", help="part of the prepared folder to take")
    words.add_argument(
        "--samples", type=int, default=1000, metavar="N",
        help="take at most so many sentences, chosen by chance; 0 takes all",
    )  # fmt: skip
    words.add_argument(
        "--labels", choices=LABELS, default="model",
        help="what the gradients are of: labels that the model draws itself after the "
        "reference's prefix (the Fisher information), or the reference (the empirical one)",
    )  # fmt: skip
    words.add_argument("--seed", type=int, default=1, help="of all that is left to chance")
    words.add_argument(
        "--device", choices=["auto", *DEVICES], default="auto", help="auto takes a GPU if it can"
    )
    words.add_argument("--overwrite", action="store_true", help="replace an existing file")
    add_checkpoint_flags(words)
    return words.parse_args()


if __name__ == "__main__":
    main()
