"""Hand over a model that exists: checked, and put where a training of ours would have put it.

PLACE is a MODEL folder, a fairseq checkpoint, or a model.safetensors of dad-export. OUT becomes
the same MODEL folder that dad-keep-weights makes: model.pt, the vocabulary, a manifest with
the place and the SHA-256 of what was taken. The same PLACE gives the same bytes.

Refused, before anything is written, is a model
  cut short, or with NaN or infinity in its weights
  that needs more than data to be loaded (--trust-checkpoint, if you know its maker)
  of another vocabulary, by the SHA-256 of all its files
  without such a fingerprint, as stock fairseq's are. With --allow-unknown-vocabulary the number
    of its pieces must be right at least, and so must dictionaries that lie beside it or in the
    folder that it was trained on
  of another pair of languages, or the other direction
  that has not the shape of --size: layers, widths, heads, ties, where norms stand. Without
    --size it is good to decode with; to be trained on it needs one

With --continue it is a training that is handed over: CHECKPOINT with its optimiser, schedule and
position becomes the file that fairseq-train goes on from. After -- stand the words of that
fairseq-train, by which it is checked: besides the above, whether it has an optimiser at all, the
same criterion, optimiser and precision, and updates left. The best score so far and patience
are left behind, because the checkpoint that had it is not there.

Examples:
    dad-hand-over --model theirs/teacher --vocabulary vocabulary --size large --out teacher/general
    dad-hand-over --model theirs/checkpoint_best.pt --vocabulary vocabulary \\
        --allow-unknown-vocabulary --out teacher/general
    dad-hand-over --continue theirs/checkpoint_last.pt --out checkpoints/checkpoint_last.pt -- \\
        prepared --task sequence_distillation --arch dad_large --max-update 300000 ...
"""

import argparse
import os
import sys
import warnings
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace

import torch
from fairseq import models, options
from fairseq.criterions import CRITERION_REGISTRY
from fairseq.data import Dictionary
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.optim import OPTIMIZER_REGISTRY

import fairseq_plugins  # noqa: F401  importing registers
from data_prep.command import parser, run
from data_prep.model_sizes import PREFIX, SIZES, Size
from data_prep.vocabulary import VOCABULARY_FILE, differences, read_pieces, read_vocabulary
from fairseq_plugins.checkpoints import (
    check_finite,
    check_vocabulary,
    load_checkpoint,
    vocabulary_of,
)
from fairseq_plugins.export.average import updates_of
from fairseq_plugins.export.safe_weights import SAFE_WEIGHTS, SUFFIX, read_safetensors
from fairseq_plugins.export.weights import add_checkpoint_flags, keep_weights
from fairseq_plugins.generation.fairseq_backend import quiet
from fairseq_plugins.generation.models import EXPORTED_WEIGHTS, WEIGHTS
from fairseq_plugins.models.lora import merged

PROG = "dad-hand-over"

SPECIAL = 4  # <s>, <pad>, </s> and <unk>, which fairseq puts before the pieces of a dictionary
HALF = ("fp16", "bf16")

# fairseq's settings that make a network, the first of them those of ``Size``. Tensors alone do not
# tell heads or an activation, and weights that were not tied would be loaded one over the other
SIZE = (
    "encoder_layers", "decoder_layers", "encoder_embed_dim", "encoder_ffn_embed_dim",
    "encoder_attention_heads",
)  # fmt: skip
SHAPE = (*SIZE, "decoder_embed_dim", "decoder_ffn_embed_dim", "decoder_attention_heads")
NETWORK = (
    *SHAPE, "activation_fn", "encoder_normalize_before", "decoder_normalize_before",
    "encoder_learned_pos", "decoder_learned_pos", "no_token_positional_embeddings",
    "no_scale_embedding", "share_all_embeddings", "share_decoder_input_output_embed",
    "cross_self_attention", "no_cross_attention",
)  # fmt: skip


def hand_over(
    place, vocabulary, out, *, size=None, trust=False, allow_unknown_vocabulary=False,
    replace=False,
):  # fmt: skip
    """Make the MODEL folder ``out`` from a model that exists; return the counts of its manifest.

    Args:
        place: MODEL folder, fairseq checkpoint or ``model.safetensors``.
        vocabulary: VOCABULARY or PREPARED folder of the run.
        out: folder to make.
        size: one of ``SIZES``, the shape that it must have; None: any, if it is only to decode.
        trust: unpickle whatever the checkpoint holds.
        allow_unknown_vocabulary: accept a checkpoint without a fingerprint.
        replace: an existing ``out`` gives way.

    Raises:
        FileNotFoundError, FileExistsError, ValueError: see the message.
    """
    if size is not None and size not in SIZES:
        raise ValueError(f"--size {size} is unknown; there are {', '.join(SIZES)}")
    ours = read_vocabulary(vocabulary)
    path = find_weights(place)
    state = read_safetensors(path) if path.suffix == SUFFIX else load_checkpoint(path, trust)
    _check_folder(path.parent, ours)
    check_pieces(path, state, ours, allow_unknown_vocabulary)
    if size is not None:
        words = [str(ours.folder), "--task", "translation", "--arch", PREFIX + size]
        check_network(path, state, _settings(words).model, ours, f"--size {size}")
    return keep_weights(
        path, vocabulary, out, trust=trust, allow_unknown_vocabulary=allow_unknown_vocabulary,
        replace=replace,
    )  # fmt: skip


def find_weights(place):
    """Path of the file with the weights that a user named: itself, or the one in a folder.

    Raises:
        FileNotFoundError, ValueError: there is none.
    """
    place = Path(place)
    if place.is_file():
        return place
    if not place.is_dir():
        raise FileNotFoundError(f"{place} is missing; name a model folder or a fairseq checkpoint")
    for name in (WEIGHTS, SAFE_WEIGHTS):
        if (place / name).is_file():
            return place / name
    if (place / EXPORTED_WEIGHTS).is_file():
        raise ValueError(
            f"{place} holds a model as CTranslate2 stores it ({EXPORTED_WEIGHTS}), which cannot be "
            f"trained on; name the model folder that it was made from, the one with {WEIGHTS}"
        )
    checkpoints = sorted(path.name for path in place.glob("*.pt"))
    named = f"; name one of its checkpoints: {', '.join(checkpoints[:5])}" if checkpoints else ""
    raise FileNotFoundError(f"{place} holds no {WEIGHTS}{named or ', so it is no model folder'}")


# -- is it the model that the run needs ------------------------------------------------------


def check_pieces(path, state, vocabulary, allow_unknown=False):
    """Refuse a model of another vocabulary or direction.

    Args:
        path: file of the model, named in messages.
        state: its contents.
        vocabulary: ``Vocabulary`` of the run.
        allow_unknown: accept one that has no fingerprint, if what can be seen of its
            dictionaries is right.

    Raises:
        ValueError: names what differs.
    """
    theirs = vocabulary_of(state)
    check_vocabulary(path, theirs, vocabulary.files, vocabulary.folder, allow_unknown)
    _check_languages(path, state, vocabulary)
    if theirs is None:
        _check_dictionaries(path, state, vocabulary)


def _check_folder(folder, vocabulary):
    """Refuse a folder whose own vocabulary, if it has one, is not that of the run."""
    if not (folder / VOCABULARY_FILE).is_file():
        return
    differing = differences(vocabulary.files, read_vocabulary(folder).files)
    if differing:
        raise ValueError(
            f"{folder} holds another vocabulary than {vocabulary.folder}: {', '.join(differing)} "
            f"differ{'s' if len(differing) == 1 else ''}; hand over its vocabulary, too, and let "
            f"all be prepared with it (python -m data_prep.vocabulary --from-folder {folder})"
        )


def _check_languages(path, state, vocabulary):
    """Refuse a model that translates between other languages, as far as it says so.

    The fingerprint cannot tell: a joint vocabulary is the same in both directions.
    """
    task = _task_settings(state)
    theirs = task.get("source_lang"), task.get("target_lang")
    if None not in theirs and theirs != vocabulary.langs:
        raise ValueError(
            f"{path} translates {' → '.join(theirs)}, not {' → '.join(vocabulary.langs)}; "
            "name a model of that direction"
        )


def _check_dictionaries(path, state, vocabulary):
    """Refuse a stock model whose dictionaries, as far as they can be seen, are not the run's."""
    for side, lang in zip(("encoder", "decoder"), vocabulary.langs, strict=True):
        ours = list(read_pieces(vocabulary.dictionary(lang)))
        name = f"{side}.embed_tokens.weight"
        rows = len(state["model"][name]) if name in state["model"] else None
        if rows not in (None, len(ours) + SPECIAL):
            raise ValueError(
                f"{path} has {rows:,} embeddings for {lang} ({name}), and "
                f"{vocabulary.dictionary(lang)} has {len(ours):,} pieces, which with fairseq's "
                f"{SPECIAL} own makes {len(ours) + SPECIAL:,}; hand over the vocabulary that the "
                f"model was trained with"
            )
    # counts of pieces say how often they were seen, which no model depends on
    for folder in _folders_of_dictionaries(path, state):
        for lang in vocabulary.langs:
            file = vocabulary.dictionary(lang)
            if (folder / file.name).is_file():
                _check_same_pieces(folder / file.name, file)
    if not any(_folders_of_dictionaries(path, state)):
        print(
            f"{path}: no dictionary lies beside it, so only the number of its pieces was compared",
            file=sys.stderr,
        )


def _folders_of_dictionaries(path, state):
    """Folders in which dictionaries of a checkpoint may lie: its own, and that of its data."""
    data = str(_task_settings(state).get("data") or "").split(os.pathsep)[0]
    folders = [path.parent, *([Path(data)] if os.path.isabs(data) else [])]
    return [folder for folder in folders if any(folder.glob("dict.*.txt"))]


def _check_same_pieces(theirs, ours):
    theirs_pieces, our_pieces = list(read_pieces(theirs)), list(read_pieces(ours))
    for number, (their, our) in enumerate(zip(theirs_pieces, our_pieces), start=1):
        if their != our:
            raise ValueError(
                f"{theirs}, line {number:,}: {their!r}, where {ours} has {our!r}; the model was "
                f"trained with another vocabulary, hand over that one"
            )
    if len(theirs_pieces) != len(our_pieces):
        raise ValueError(
            f"{theirs} has {len(theirs_pieces):,} pieces, {ours} {len(our_pieces):,}; the model "
            f"was trained with another vocabulary, hand over that one"
        )


def check_network(path, state, wanted, vocabulary, asked):
    """Refuse a model whose weights would not fit a network, or fit and mean something else.

    Args:
        path: file of the model, named in messages.
        state: its contents.
        wanted: fairseq's settings of the network.
        vocabulary: ``Vocabulary`` of the run.
        asked: how the user asked for that network, for messages.

    Raises:
        ValueError: names the first difference.
    """
    src, tgt = (Dictionary.load(str(vocabulary.dictionary(lang))) for lang in vocabulary.langs)
    with torch.device("meta"), quiet():  # shapes alone, no memory
        network = models.build_model(
            wanted, SimpleNamespace(source_dictionary=src, target_dictionary=tgt)
        )
    # building settles what follows from other settings
    theirs, ours = _model_settings(state), vars(wanted)
    different = [
        name for name in NETWORK if name in theirs and name in ours and theirs[name] != ours[name]
    ]
    if different:
        name = different[0]
        raise ValueError(
            f"{path} is no network of {asked}: {name} is {theirs[name]}, not {ours[name]}; "
            f"{_advice(theirs, set(different) <= set(SHAPE))}"
        )
    weights = OrderedDict(merged(state["model"]))
    network.upgrade_state_dict(weights)  # what older versions of fairseq named otherwise
    found, expected = _shapes(weights), _shapes(network.state_dict())
    strange = sorted(found.keys() ^ expected.keys())
    if strange:
        what = "it has" if strange[0] in found else "it lacks"
        more = f" and {len(strange) - 1:,} more" if len(strange) > 1 else ""
        raise ValueError(
            f"{path} is no network of {asked}: {what} {strange[0]}{more}; {_advice(theirs, False)}"
        )
    for name, shape in expected.items():
        if found[name] != shape:
            theirs_shape, ours_shape = (" x ".join(map(str, s)) for s in (found[name], shape))
            raise ValueError(
                f"{path} is no network of {asked}: {name} is {theirs_shape}, not {ours_shape}; "
                f"{_advice(theirs, False)}"
            )


def _shapes(weights):
    return {
        name: tuple(tensor.shape)
        for name, tensor in weights.items()
        if not name.endswith((".version", "_float_tensor", "embed_positions.weights"))
    }


def _advice(settings, only_shape):
    """What to do about a network that is not the one asked for."""
    found = Size(*(settings.get(name) for name in SIZE))
    known = [name for name, size in SIZES.items() if size == found]
    if only_shape and known:
        return f"it has the shape of --size {known[0]}, ask for that"
    return (
        "it cannot be trained on as such a model. Hand over one that can, or, without --size, "
        "take this one to decode only"
    )


def _model_settings(state):
    """Settings of a checkpoint's network, a dictionary: old checkpoints have all in one."""
    return _plain(state.get("args") or (state.get("cfg") or {}).get("model"))


def _task_settings(state):
    return _plain(state.get("args") or (state.get("cfg") or {}).get("task"))


def _plain(settings):
    return vars(settings) if isinstance(settings, argparse.Namespace) else settings or {}


def _settings(words):
    """fairseq-train's configuration for the words of a command line."""
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # hydra's, of how fairseq calls it
        return convert_namespace_to_omegaconf(
            options.parse_args_and_arch(options.get_training_parser(), [*map(str, words)])
        )


# -- a training that goes on -------------------------------------------------------------------


def hand_over_training(checkpoint, out, words):
    """Write the checkpoint ``out``, from which fairseq-train goes on where another one was.

    Args:
        checkpoint: fairseq checkpoint with the state of its optimiser.
        out: file to write, ``checkpoint_last.pt`` in the folder of checkpoints.
        words: command line of the fairseq-train that will go on, without its first word.

    Returns:
        number of updates that the training has behind it.

    Raises:
        FileNotFoundError, FileExistsError, ValueError: see the message.
    """
    out, checkpoint = Path(out), Path(checkpoint)
    if out.exists():
        raise FileExistsError(f"{out} exists: this training has begun, so it goes on from there")
    if checkpoint.is_dir():
        raise ValueError(
            f"{checkpoint} is a folder; name the checkpoint to go on from, such as "
            f"{checkpoint / 'checkpoint_last.pt'}"
        )
    cfg = _settings(words)
    vocabulary = read_vocabulary(str(cfg.task.data).split(os.pathsep)[0])
    state = load_checkpoint(checkpoint, cfg.task.trust_checkpoint)
    check_pieces(checkpoint, state, vocabulary, cfg.task.allow_unknown_vocabulary)
    check_network(checkpoint, state, cfg.model, vocabulary, f"--arch {cfg.model.arch}")
    check_finite(state["model"], checkpoint)
    updates = _check_training(checkpoint, state, cfg)
    extra = dict(state.get("extra_state") or {})
    for name in ("best", "val_loss"):
        extra.pop(name, None)
    # of version 1 a position behind the end of an epoch, which other data or batches may bring
    # about, is the start of the next one; of version 2 it is an error
    extra["train_iterator"] = {**extra["train_iterator"], "version": 1}
    task_state = {
        name: value
        for name, value in (state.get("task_state") or {}).items() if name != "patience"
    }
    state = {
        **state, "extra_state": extra,
        "task_state": {**task_state, "vocabulary": dict(vocabulary.files)},
    }  # fmt: skip
    part = out.with_name(out.name + ".part")
    part.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.save(state, part)
        os.replace(part, out)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return updates


def _check_training(path, state, cfg):
    """Number of updates of a training that can go on as ``cfg`` says; ValueError otherwise."""
    instead = "start from its weights alone (--init in the recipes)"
    history = (state.get("optimizer_history") or [{}])[-1]
    if not state.get("last_optimizer_state") or "train_iterator" not in (
        state.get("extra_state") or {}
    ):
        raise ValueError(
            f"{path} holds weights without the state of an optimiser, so its training cannot go "
            f"on; {instead}"
        )
    half = [name for name in HALF if cfg.common[name]]
    optimizer = OPTIMIZER_REGISTRY[cfg.optimizer._name].__name__
    for what, theirs, ours in (
        ("criterion", history.get("criterion_name"), CRITERION_REGISTRY[cfg.criterion._name]),
        ("optimiser", history.get("optimizer_name"), "FP16Optimizer" if half else optimizer),
    ):
        ours = getattr(ours, "__name__", ours)
        if theirs != ours:
            precision = "; with --precision fp16 or bf16 it is FP16Optimizer, on a GPU"
            raise ValueError(
                f"{path} was trained with the {what} {theirs}, and would go on with {ours}"
                f"{precision if 'FP16Optimizer' in (theirs, ours) else ''}; train on with the "
                f"same, or {instead}"
            )
    updates = updates_of(state)
    limit = cfg.optimization.max_update
    if 0 < limit <= updates:
        raise ValueError(
            f"{path} has {updates:,} updates behind it, and --updates is {limit:,}: nothing is "
            f"left to train; raise --updates, or take the model as it is (--use in the recipes)"
        )
    return updates


# -- the command -------------------------------------------------------------------------------


def main():
    run(_main, PROG)


def _main():
    args = _arguments()
    if args.continued:
        if not args.training:
            raise ValueError("--continue needs, after --, the words of the fairseq-train to come")
        updates = hand_over_training(args.continued, args.out, args.training)
        print(f"{args.out}: goes on after update {updates:,} of {args.continued}", file=sys.stderr)
        return
    if not args.vocabulary:
        raise ValueError("--vocabulary is missing: the folder of the run's vocabulary")
    counts = hand_over(
        args.model, args.vocabulary, args.out, size=args.size, trust=args.trust_checkpoint,
        allow_unknown_vocabulary=args.allow_unknown_vocabulary, replace=args.overwrite,
    )  # fmt: skip
    print(
        f"{args.out}: {counts['parameters']:,} parameters, taken from {args.model}",
        file=sys.stderr,
    )


def _arguments():
    words = parser(__doc__, PROG)
    source = words.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--model", metavar="PLACE", help="MODEL folder, fairseq checkpoint or model.safetensors"
    )
    source.add_argument(
        "--continue", dest="continued", metavar="CHECKPOINT",
        help="training checkpoint, with the state of its optimiser",
    )  # fmt: skip
    words.add_argument(
        "--vocabulary", metavar="DIR",
        help="with --model: vocabulary or prepared folder of the run",
    )  # fmt: skip
    words.add_argument(
        "--size", choices=list(SIZES), metavar="NAME",
        help="shape that the model must have to be trained on: " + ", ".join(SIZES),
    )  # fmt: skip
    words.add_argument(
        "--out", required=True, metavar="PLACE",
        help="MODEL folder to make; with --continue the checkpoint to write",
    )  # fmt: skip
    words.add_argument("--overwrite", action="store_true", help="replace an existing folder")
    words.add_argument(
        "training", nargs="*", metavar="WORD", help="with --continue: words of fairseq-train"
    )
    add_checkpoint_flags(words)
    return words.parse_args()


if __name__ == "__main__":
    main()
