"""Keep what is needed to use a model: weights, settings, vocabulary.

A training checkpoint also holds the optimiser (twice the size of the weights), times
and this machine's paths. The MODEL folder holds none of these, so the same training
in another place, or interrupted and resumed, gives the same bytes. Low-rank updates (LoRA)
are merged into the weights. fairseq-generate, fairseq-train --finetune-from-model and
CTranslate2's converter read its model.pt.

Several checkpoints of one training become one model, the average of their parameters: name
them, or let the last or the best ones of its folder be taken (fairseq-train keeps them with
--keep-last-epochs N or --keep-best-checkpoints N; train.sh --average does all of it).

A model.safetensors, which dad-export --safetensors makes, is a checkpoint too: from it comes the
same MODEL folder again, without unpickling anything.

Examples:
    dad-keep-weights --checkpoint run/checkpoint_best.pt --vocabulary prepared --out teacher/general
    dad-keep-weights --checkpoints run --average last:5 --vocabulary prepared --out teacher/general
    dad-keep-weights --checkpoint shipped/model.safetensors --vocabulary shipped --out model
"""

import argparse
import dataclasses
import sys
import time
from collections import OrderedDict
from pathlib import Path

import torch
from fairseq.criterions import CRITERION_REGISTRY
from fairseq.criterions.label_smoothed_cross_entropy import (
    LabelSmoothedCrossEntropyCriterion,
    LabelSmoothedCrossEntropyCriterionConfig,
)

from data_prep.command import parser, run
from data_prep.files import write_whole_folder
from data_prep.manifest import write_manifest
from data_prep.vocabulary import read_vocabulary
from fairseq_plugins.checkpoints import check_finite, check_vocabulary, vocabulary_of
from fairseq_plugins.export.average import average, choose_checkpoints, distinct, updates_of
from fairseq_plugins.export.safe_weights import SUFFIX, read_safetensors
from fairseq_plugins.generation.models import WEIGHTS, add_checkpoint_flags
from fairseq_plugins.models.lora import merged

PROG = "dad-keep-weights"

EMBEDDINGS = ("embed_tokens", "embed_positions", "output_projection")  # in names of weights

# settings that say nothing about the model that is kept, and what stands there instead
NEUTRAL = {
    # a place or a process of one run
    "data": ".",  # the dictionaries lie beside model.pt
    "save_dir": "checkpoints",
    "restore_file": "checkpoint_last.pt",
    "finetune_from_model": None,
    "path": None,
    "decode_with": None,
    "mixture": None,
    "teacher_cache": None,
    "anchor": None,
    "fisher": None,
    "domain_tags": None,
    "valid_domains": None,
    "replay": None,
    "general_valid": None,
    "user_dir": None,
    "results_path": None,
    "log_file": None,
    "tensorboard_logdir": None,
    "wandb_project": None,
    "aim_repo": None,
    "aim_run_hash": None,
    "plasma_path": "/tmp/plasma",
    "distributed_init_method": None,
    "distributed_port": -1,
    "device_id": 0,
    "trust_checkpoint": False,
    "allow_unknown_vocabulary": False,
    # of how the weights came about
    "init_from_teacher": None,
    "freeze": None,
    # merged into the weights
    "lora_rank": 0,
    "lora_alpha": None,
    "lora_layers": None,
}


def keep_weights(
    checkpoint, vocabulary, out, *, average_of=None, trust=False, allow_unknown_vocabulary=False,
    replace=False,
):  # fmt: skip
    """Make the MODEL folder ``out`` from training checkpoints; return its counts.

    Args:
        checkpoint: fairseq checkpoint, for example ``checkpoint_best.pt``, or a
            ``model.safetensors`` of ``dad-export``; or a list of checkpoints to average, the
            newest last; or, with ``average_of``, the folder that holds them.
        vocabulary: VOCABULARY or PREPARED folder that the model was trained with.
        out: folder to make.
        average_of: "last:N" or "best:N", see ``average.choose_checkpoints``.
        trust: unpickle whatever the checkpoint holds.
        allow_unknown_vocabulary: accept a checkpoint without a fingerprint (stock
            fairseq's) and give it that of ``vocabulary``.
        replace: an existing ``out`` gives way.

    Returns:
        dictionary: parameters (all), embedding_parameters, updates (of the newest checkpoint),
        checkpoints (that were averaged), bytes.

    Raises:
        FileNotFoundError, FileExistsError, ValueError: see the message.
    """
    started = time.monotonic()
    out = Path(out)
    if average_of:
        paths = choose_checkpoints(checkpoint, average_of, trust)
    else:
        paths = list(map(Path, checkpoint if isinstance(checkpoint, list) else [checkpoint]))
    ours = read_vocabulary(vocabulary)

    def check(path, state):
        check_vocabulary(
            path, vocabulary_of(state), ours.files, vocabulary,
            allow_unknown=allow_unknown_vocabulary,
        )  # fmt: skip

    if [path.suffix for path in paths] == [SUFFIX]:
        state = read_safetensors(paths[0])
        check(paths[0], state)
        check_finite(state["model"], paths[0])
    else:
        state = average(paths, trust, check)
    kept = weights_only_state(state, ours)
    counts = {
        **count_parameters(kept["model"]), "updates": updates_of(state), "checkpoints": len(paths),
    }  # fmt: skip
    with write_whole_folder(out, replace=replace) as part:
        with open(part / WEIGHTS, "wb") as file:
            # into an open file: torch.save(path) would write the path's name into the archive
            torch.save(kept, file)
        ours.copy_to(part)
        counts["bytes"] = (part / WEIGHTS).stat().st_size
        write_manifest(
            part,
            settings={
                "average": average_of,
                "allow_unknown_vocabulary": allow_unknown_vocabulary,
            },
            inputs=paths,
            counts=counts,
            seconds=time.monotonic() - started,
        )
    return counts


def weights_only_state(state, vocabulary):
    """A fairseq checkpoint with nothing in it but the model, as a dictionary.

    What fairseq's loaders insist on (optimiser history, iterator) says "not started".
    Equal contents give equal pickles: every container is built anew, dictionaries are
    sorted, equal strings are one object.
    """
    languages = {"source_lang": vocabulary.source_lang, "target_lang": vocabulary.target_lang}
    settings = {}
    for key in ("args", "cfg"):
        settings[key] = _neutral(state.get(key))
    if isinstance((settings["cfg"] or {}).get("criterion"), dict):
        settings["cfg"]["criterion"] = _without_teacher(settings["cfg"]["criterion"])
    for holder in (settings["args"], (settings["cfg"] or {}).get("model"),
                   (settings["cfg"] or {}).get("task")):  # fmt: skip
        if isinstance(holder, argparse.Namespace):
            vars(holder).update(languages)
        elif isinstance(holder, dict) and "source_lang" in holder:
            holder.update(languages)
    history = (state.get("optimizer_history") or [{}])[-1]
    kept = {
        **settings,
        "model": merged(state["model"]),
        "criterion": state.get("criterion"),
        "optimizer_history": [
            {
                "criterion_name": history.get("criterion_name"),
                "optimizer_name": history.get("optimizer_name"),
                "lr_scheduler_state": {},
                "num_updates": 0,
            }
        ],
        "task_state": {"vocabulary": vocabulary.files},
        "extra_state": {
            "train_iterator": {
                "version": 2, "epoch": 1, "iterations_in_epoch": 0, "shuffle": True,
            },
        },
    }  # fmt: skip
    return _canonical(kept, {})


def count_parameters(weights):
    """Number of parameters, and those of the embeddings (with the output layer) apart.

    Tied tensors count once. ``weights`` maps names to tensors, as in a checkpoint.
    """
    total, embeddings = 0, 0
    for names, tensor in distinct(weights).items():
        # fairseq saves the table of sinusoids and a version number too; nothing to learn there
        if names[0].endswith((".version", "_float_tensor", "embed_positions.weights")):
            continue
        total += tensor.numel()
        if any(part in names[0] for part in EMBEDDINGS):
            embeddings += tensor.numel()
    return {"parameters": total, "embedding_parameters": embeddings}


def _without_teacher(criterion):
    """Settings of the criterion by which the model can be measured where its teacher is not."""
    registered = CRITERION_REGISTRY.get(criterion.get("_name"))
    plain = LabelSmoothedCrossEntropyCriterion
    if registered is None or registered is plain or not issubclass(registered, plain):
        return criterion
    names = {field.name for field in dataclasses.fields(LabelSmoothedCrossEntropyCriterionConfig)}
    kept = {name: value for name, value in criterion.items() if name in names}
    return {**kept, "_name": "label_smoothed_cross_entropy"}


def _neutral(value, name=None):
    """Settings without the paths of one run; unknown ones that hold a path are left out."""
    if name in NEUTRAL:
        return NEUTRAL[name]
    if isinstance(value, argparse.Namespace):
        return argparse.Namespace(**_neutral(vars(value)))
    if isinstance(value, dict):
        return {
            key: _neutral(inner, key)
            for key, inner in value.items()
            if key in NEUTRAL or not (isinstance(inner, str) and "/" in inner)
        }
    return value


def _canonical(value, copies):
    """The same value, built anew in one fixed way; ``copies`` keeps tied tensors tied."""
    if isinstance(value, torch.Tensor):
        identity = (
            value.untyped_storage().data_ptr(), value.storage_offset(), value.shape,
            value.stride(), value.dtype,
        )  # fmt: skip
        if identity not in copies:
            copies[identity] = value.detach().clone().contiguous()
        return copies[identity]
    if isinstance(value, str):
        return sys.intern(value)
    if isinstance(value, argparse.Namespace):
        return argparse.Namespace(**_canonical(vars(value), copies))
    if isinstance(value, OrderedDict):  # the weights: in the order of the layers
        return OrderedDict((sys.intern(k), _canonical(v, copies)) for k, v in value.items())
    if isinstance(value, dict):
        return {
            _canonical(key, copies): _canonical(value[key], copies)
            for key in sorted(value, key=str)
        }
    if isinstance(value, (list, tuple)):
        return type(value)([_canonical(inner, copies) for inner in value])
    return value


def main():
    run(_main, PROG)


def _main():
    args = _arguments()
    if bool(args.checkpoints) != bool(args.average):
        raise ValueError(
            "--average chooses among the checkpoints of a folder: name it with --checkpoints"
            if args.average else
            "--checkpoints names a folder: say with --average, such as last:5, which of its "
            "checkpoints to take"
        )  # fmt: skip
    counts = keep_weights(
        args.checkpoints or args.checkpoint, args.vocabulary, args.out,
        average_of=args.average, trust=args.trust_checkpoint,
        allow_unknown_vocabulary=args.allow_unknown_vocabulary,
        replace=args.overwrite,
    )  # fmt: skip
    averaged = f"average of {counts['checkpoints']} checkpoints, "
    print(
        f"{args.out}: {averaged if counts['checkpoints'] > 1 else ''}"
        f"{counts['parameters']:,} parameters "
        f"({counts['embedding_parameters']:,} of them embeddings), "
        f"{counts['bytes'] / 1e6:.1f} MB",
        file=sys.stderr,
    )


def _arguments():
    words = parser(__doc__, PROG)
    source = words.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--checkpoint", action="append", metavar="FILE",
        help="training checkpoint; named several times, with the newest last: their average",
    )  # fmt: skip
    source.add_argument("--checkpoints", metavar="DIR", help="folder of a training's checkpoints")
    words.add_argument(
        "--average", metavar="WHICH",
        help="of --checkpoints: last:5 for the 5 with the most updates, best:3 for the 3 best by "
        "the metric that the training chose by",
    )  # fmt: skip
    words.add_argument(
        "--vocabulary", required=True, metavar="DIR",
        help="folder of the vocabulary or of the prepared data it was trained on",
    )  # fmt: skip
    words.add_argument("--out", required=True, metavar="DIR", help="MODEL folder to make")
    words.add_argument("--overwrite", action="store_true", help="replace an existing folder")
    add_checkpoint_flags(words)
    return words.parse_args()


if __name__ == "__main__":
    main()
