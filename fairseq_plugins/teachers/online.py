"""Teacher networks that read the student's own batches: loaded once, frozen, never saved.

They are plain attributes, not submodules, of whoever holds them: fairseq would otherwise
train them, save them in every checkpoint and hand them to distributed training.
"""

import math
from pathlib import Path

import torch
from fairseq import checkpoint_utils, models
from fairseq.dataclass.utils import convert_namespace_to_omegaconf

from fairseq_plugins.checkpoints import check_vocabulary, load_checkpoint, vocabulary_of
from fairseq_plugins.generation import fairseq_backend
from fairseq_plugins.generation.models import open_model
from fairseq_plugins.models.lora import merged


def load_teachers(paths, task, dtype=torch.float32):
    """Frozen networks in evaluation mode on the CPU, a list.

    Args:
        paths: MODEL folders or fairseq checkpoints.
        task: ``SequenceDistillationTask`` of the student; names the vocabulary.
        dtype: of the weights.

    Raises:
        FileNotFoundError: a file or folder is missing.
        ValueError: a teacher has another vocabulary, takes shorter sentences than the
            student, or is refused as a checkpoint. The weights are not built before the
            vocabulary of every teacher has been checked.
    """
    weights = [_checked_weights(Path(path), task) for path in paths]
    return [_load(path, task, dtype) for path in weights]


def teacher_lprobs(networks, net_input, temperature=1.0):
    """Natural-log probabilities of the teacher, (batch, time, vocab), float32, no gradient.

    Each network's distribution is softened to softmax(logits / temperature); the
    probabilities of an ensemble are averaged after that.

    Args:
        networks: from :func:`load_teachers`.
        net_input: of a batch, on the device of the networks.
        temperature: more than 0.
    """
    with torch.no_grad():
        found = []
        for network in networks:
            lprobs = network.get_normalized_probs(network(**net_input), log_probs=True).float()
            if temperature != 1:
                lprobs = torch.log_softmax(lprobs / temperature, dim=-1)
            found.append(lprobs)
        if len(found) == 1:
            return found[0]
        return torch.stack(found).logsumexp(dim=0) - math.log(len(found))


PRECISIONS = {"same": None, "fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class OnlineTeacher:
    """One teacher or an ensemble, run on each batch of the student, on its device.

    Args:
        paths: MODEL folders or fairseq checkpoints.
        task: ``SequenceDistillationTask`` of the student.
        temperature: of the distribution.
        precision: a key of ``PRECISIONS``; "same" is that of the student, autocast included.
    """

    def __init__(self, paths, task, temperature=1.0, precision="same"):
        self._dtype = PRECISIONS[precision]
        self._networks = load_teachers(paths, task, self._dtype or torch.float32)
        self._temperature = temperature

    def lprobs(self, net_input, student):
        """Natural-log probabilities, (batch, time, vocab), float32, no gradient.

        Args:
            net_input: of a batch, on the student's device.
            student: the network in training.
        """
        weight = next(student.parameters())
        dtype = self._dtype or weight.dtype
        for network in self._networks:
            first = next(network.parameters())
            if (first.device, first.dtype) != (weight.device, dtype):  # at the first batch
                network.to(weight.device, dtype)
        if self._dtype is None:
            return teacher_lprobs(self._networks, net_input, self._temperature)
        with torch.autocast(weight.device.type, enabled=False):
            return teacher_lprobs(self._networks, net_input, self._temperature)


def _checked_weights(path, task):
    """The checkpoint file that ``path`` stands for, if its vocabulary is the task's."""
    trust, allow_unknown = task.cfg.trust_checkpoint, task.cfg.allow_unknown_vocabulary
    if path.is_dir():
        folder = open_model(path, trust=trust, allow_unknown_vocabulary=True)
        if folder.exported:
            raise ValueError(
                f"{path} is an exported model, which gives translations but no distribution "
                f"over the vocabulary; name the MODEL folder it was made from"
            )
        path = folder.weights
    state = load_checkpoint(path, trust=trust)
    try:
        check_vocabulary(
            path, vocabulary_of(state), task.vocabulary.files, task.data_folder,
            allow_unknown=allow_unknown,
        )  # fmt: skip
    except ValueError as error:
        raise ValueError(
            f"{error}; or distil by whole sentences (dad-generate), "
            f"which works across vocabularies"
        ) from None
    return path


def _load(path, task, dtype):
    with fairseq_backend.quiet():
        state = checkpoint_utils.load_checkpoint_to_cpu(str(path))
        cfg = state["cfg"] or convert_namespace_to_omegaconf(state["args"])
        # not through task.build_model, which also makes the student's decoders for validation
        network = models.build_model(cfg.model, task, from_checkpoint=True)
    network.load_state_dict(merged(state["model"]), strict=True, model_cfg=cfg.model)
    for side, theirs, ours in zip(
        ("source", "target"), network.max_positions(), task.max_positions(), strict=True
    ):
        if theirs < ours:
            raise ValueError(
                f"teacher {path} takes {theirs:,} {side} pieces, fewer than the student; "
                f"pass --max-{side}-positions {theirs}"
            )
    return network.to(dtype).eval().requires_grad_(False)
