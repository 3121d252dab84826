"""A student that starts from its teacher's weights: ``--init-from-teacher``.

Layers of the teacher are copied into a student of the same width with fewer layers; embeddings,
last norms and output projection come along. Taking every other layer is what Sanh et al. (2019)
do for DistilBERT, https://arxiv.org/abs/1910.01108; Shleifer & Rush (2020), "Pre-trained
Summarization Distillation", https://arxiv.org/abs/2010.13002, take layers that are as far apart
as can be, and find it a strong start for models that generate text.
"""

import logging
import re
from typing import NamedTuple

from fairseq_plugins.checkpoints import check_vocabulary
from fairseq_plugins.generation import fairseq_backend
from fairseq_plugins.generation.models import ModelFolder, open_model

logger = logging.getLogger(__name__)

# which of the teacher's layers the student's n layers are, out of `total`, counted from 0
STRATEGIES = {
    "first": lambda n, total: list(range(n)),
    # spread evenly, the first one always among them: 6 → 3 is 0, 2, 4; 6 → 1 is 0; 6 → 4 is
    # 0, 1, 3, 4
    "every-other": lambda n, total: [number * total // n for number in range(n)],
}


class InitialTeacher(NamedTuple):
    """A teacher found fit to be copied from, as far as can be told without its weights."""

    strategy: str
    folder: ModelFolder


def open_initial_teacher(text, vocabulary, trust=False, allow_unknown_vocabulary=False):
    """``InitialTeacher`` of the option's value ``STRATEGY=MODEL``.

    Args:
        text: such as ``every-other=teacher/general``.
        vocabulary: that of the student's data.
        trust, allow_unknown_vocabulary: see ``open_model``.

    Raises:
        FileNotFoundError: there is no such model.
        ValueError: the strategy is unknown, or the vocabulary is another one.
    """
    strategy, _, path = text.partition("=")
    if strategy not in STRATEGIES or not path:
        raise ValueError(
            f"--init-from-teacher is {' or '.join(f'{name}=MODEL' for name in STRATEGIES)}, "
            f"not {text!r}"
        )
    folder = open_model(path, trust=trust, allow_unknown_vocabulary=allow_unknown_vocabulary)
    if folder.exported:
        raise ValueError(
            f"--init-from-teacher: {path} is an exported model; name the MODEL folder, "
            f"which holds model.pt"
        )
    check_vocabulary(folder.weights, folder.vocabulary.files, vocabulary.files, vocabulary.folder)
    return InitialTeacher(strategy, folder)


def initialise(network, teacher, trust=False):
    """Copy the teacher's weights into the student ``network``.

    With as many layers as the teacher's, the student then computes what the teacher computes.

    Args:
        network: fairseq transformer.
        teacher: ``InitialTeacher``.
        trust: unpickle whatever its checkpoint holds.

    Raises:
        ValueError: their shapes differ in more than depth, or the student is deeper.
    """
    (source,), _ = fairseq_backend.load_models([teacher.folder], trust=trust)
    copied = {}
    for side in ("encoder", "decoder"):
        ours, theirs = getattr(network, side), getattr(source, side)
        _check_shapes(side, ours, theirs, teacher.folder.path)
        numbers = STRATEGIES[teacher.strategy](len(ours.layers), len(theirs.layers))
        copied[side] = numbers
        logger.info(
            f"{side} layers of the student start as layers {', '.join(map(str, numbers))} (from 0) "
            f"of {teacher.folder.path}'s {len(theirs.layers)}"
        )
    tied, tied_in_teacher = (
        model.encoder.embed_tokens.weight is model.decoder.embed_tokens.weight
        for model in (network, source)
    )
    if tied and not tied_in_teacher:
        raise ValueError(
            f"--init-from-teacher: {teacher.folder.path} has separate embeddings for source and "
            f"target, and the student one matrix for both (--share-all-embeddings)"
        )
    weights = source.state_dict()
    network.load_state_dict({name: weights[_origin(name, copied)] for name in network.state_dict()})


def _origin(name, copied):
    """Name in the teacher of what becomes ``name`` in the student."""
    layer = re.match(r"(encoder|decoder)\.layers\.(\d+)\.(.+)", name)
    if layer is None:
        return name
    side, number, rest = layer.groups()
    return f"{side}.layers.{copied[side][int(number)]}.{rest}"


def _check_shapes(side, ours, theirs, path):
    student, teacher = _shape(ours), _shape(theirs)
    differing = [
        name for name in student | teacher if student.get(name) != teacher.get(name)
    ]
    if differing:
        words = [
            f"{name} {student.get(name, 'missing')} in the student, "
            f"{teacher.get(name, 'missing')} in {path}"
            for name in differing[:3]  # a width is in the shape of every weight too
        ]
        raise ValueError(
            f"--init-from-teacher copies layers, so student and teacher may differ in depth alone, "
            f"but the {side}s differ: {'; '.join(words)}; choose another --arch, or leave "
            f"--init-from-teacher out"
        )
    if len(ours.layers) > len(theirs.layers):
        raise ValueError(
            f"--init-from-teacher: the student's {side} has {len(ours.layers)} layers, that of "
            f"{path} has {len(theirs.layers)}; a student is no deeper than its teacher"
        )


def _shape(part):
    """What has to be equal in student and teacher, by name; the telling names come first."""
    layer = part.layers[0]
    outside = {
        name: weight for name, weight in part.named_parameters() if not name.startswith("layers.")
    }
    return {
        "width": part.embed_tokens.embedding_dim,
        "feed-forward width": layer.fc1.out_features,
        "heads": layer.self_attn.num_heads,
        "pre-norm": layer.normalize_before,
        "activation": layer.activation_fn.__name__,
        "scale of embeddings": part.embed_scale,
        # of tied weights only one has a name, so this says too what is tied
        **{
            name: tuple(weight.shape)
            for name, weight in [*outside.items(), *layer.named_parameters(prefix="layers.0")]
        },
    }
