"""Low-rank adaptation, LoRA (Hu et al. 2021), https://arxiv.org/abs/2106.09685: ``--lora-rank``.

A weight W is held fixed and W + (alpha / r) B A is computed in its place, where B (out, r) and
A (r, in) learn. B starts at 0, so the model starts as it was. Merged, the result is an ordinary
model: nothing is slower when it is used.

Done with ``torch.nn.utils.parametrize``, because fairseq's attention hands ``q_proj.weight`` to
torch's functional attention: a layer put in place of ``q_proj``, or a hook on it, never runs.
For the same reason training computes W + (alpha / r) B A: it saves the optimiser's memory, not
arithmetic.

A checkpoint in training holds W, A, B and alpha / r under names of ``parametrize``. Networks made
by our tasks read both kinds of checkpoint, whatever they are themselves; ``merged`` makes
the ordinary kind.
"""

import logging
import math
from collections import OrderedDict

import torch
from torch import nn
from torch.nn.utils import parametrize

from fairseq_plugins.models.freezing import learning
from fairseq_plugins.models.patterns import choose

logger = logging.getLogger(__name__)

# All linear layers of encoder and decoder. The paper takes only the queries and values of
# attention; Dettmers et al. (2023), https://arxiv.org/abs/2305.14314, find that all layers are
# needed to match full training, and once merged they cost nothing.
DEFAULT_LAYERS = "attention,ffn"

_ORIGINAL = ".parametrizations.weight.original"
_UPDATE = ".parametrizations.weight.0."
_PARTS = ("lora_a", "lora_b", "scale")


class LowRankUpdate(nn.Module):
    """W → W + scale · B A.

    Args:
        weight: W, (out, in); gives shape, type and device.
        rank: r.
        scale: alpha / r.
    """

    def __init__(self, weight, rank, scale):
        super().__init__()
        out_features, in_features = weight.shape
        self.lora_a = nn.Parameter(weight.new_empty(rank, in_features))
        self.lora_b = nn.Parameter(weight.new_zeros(out_features, rank))
        self.register_buffer("scale", weight.new_tensor(scale))
        nn.init.kaiming_uniform_(self.lora_a, a=math.sqrt(5))  # as the paper's code does

    def forward(self, weight):
        return weight + self.scale * (self.lora_b @ self.lora_a)


def check_options(rank, alpha, layers):
    """Refuse values that make no sense, or have no effect.

    Raises:
        ValueError: says which.
    """
    if rank < 0:
        raise ValueError(f"--lora-rank is 0 (no LoRA) or more, not {rank}")
    for flag, value in (("--lora-alpha", alpha), ("--lora-layers", layers)):
        if value is not None and not rank:
            raise ValueError(f"{flag} {value} has no effect without --lora-rank")
    if alpha is not None and not 0 < alpha < math.inf:
        raise ValueError(f"--lora-alpha is a number above 0, not {alpha}")


def add_lora(network, rank, alpha=None, layers=None):
    """Let low-rank updates learn, and nothing else of ``network``.

    Args:
        network: fairseq model.
        rank: r, 1 or more.
        alpha: None is 2 r, so that the scale is 2 for every r.
        layers: patterns of weights, see ``patterns.choose``; None is ``DEFAULT_LAYERS``.

    Raises:
        ValueError: a pattern fits no linear layer, a chosen weight is tied to others, or the rank
            is that of a whole weight.
    """
    alpha = 2 * rank if alpha is None else alpha
    linear = {
        f"{name}.weight": module
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear)
    }
    uses = [id(weight) for _, weight in network.named_parameters(remove_duplicate=False)]
    network.requires_grad_(False)
    for name in choose(layers or DEFAULT_LAYERS, list(linear), "--lora-layers"):
        module = linear[name]
        if uses.count(id(module.weight)) > 1:
            raise ValueError(
                f"--lora-layers {layers}: {name} is tied to the embeddings, so it cannot get an "
                f"update of its own; leave it out"
            )
        if rank >= min(module.weight.shape):
            raise ValueError(
                f"--lora-rank {rank} is not low for {name}, which is "
                f"{module.out_features} x {module.in_features}; take a smaller one"
            )
        parametrize.register_parametrization(
            module, "weight", LowRankUpdate(module.weight, rank, alpha / rank)
        )
        logger.debug(f"--lora-rank {rank}: {name}")
    logger.info(f"--lora-rank {rank}: {learning(network)}")


def once_per_batch():
    """Context in which W + (alpha / r) B A is computed once, not in every step of a decoding."""
    return parametrize.cached()


def merged(weights):
    """The state of a network without LoRA that computes the same; ``weights`` if it has none.

    Args:
        weights: ``state_dict`` of a network.
    """
    result = OrderedDict()
    for name, tensor in weights.items():
        if name.endswith(_ORIGINAL):
            layer = name.removesuffix(_ORIGINAL)
            a, b, scale = (weights[layer + _UPDATE + part].float() for part in _PARTS)
            result[f"{layer}.weight"] = (tensor.float() + scale * (b @ a)).to(tensor.dtype)
        elif _UPDATE not in name:
            result[name] = tensor
    return result


def read_any_checkpoint(network):
    """Let ``network.load_state_dict`` take checkpoints with and without LoRA.

    Updates of the same shape and scale are restored. Others are merged into the weights, and
    the network's own start afresh.
    """
    network.register_load_state_dict_pre_hook(_fit)


def _fit(network, weights, prefix, *_):
    own = {name: tensor for name, tensor in network.state_dict().items() if _UPDATE in name}
    theirs = {name: tensor for name, tensor in weights.items() if _UPDATE in name}
    if _alike(own, theirs):
        return
    plain = merged(weights)
    for layer in {name.partition(_UPDATE)[0] for name in own}:
        plain[layer + _ORIGINAL] = plain.pop(f"{layer}.weight")
    weights.clear()
    weights.update({**plain, **own})


def _alike(own, theirs):
    return own.keys() == theirs.keys() and all(
        tensor.shape == theirs[name].shape
        and (not name.endswith("scale") or torch.equal(tensor.cpu(), theirs[name].cpu().to(tensor)))
        for name, tensor in own.items()
    )
