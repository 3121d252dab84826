"""Weights that do not learn: ``--freeze``.

Which parts may stay as they are when a model is adapted: Thompson et al. (2018), "Freezing
Subnetworks to Analyze Domain Adaptation in Neural Machine Translation",
https://aclanthology.org/W18-6313/
"""

import logging

from fairseq_plugins.models.patterns import choose

logger = logging.getLogger(__name__)


def freeze(network, text):
    """Let the weights that ``text`` chooses (see ``patterns.choose``) stay as they are.

    A tied weight has several names; it is frozen when one of them is chosen.

    Raises:
        ValueError: a pattern fits nothing, or nothing is left to learn.
    """
    # with every name of a tied weight
    weights = dict(network.named_parameters(remove_duplicate=False))
    chosen = choose(text, list(weights), "--freeze")
    for name in chosen:
        weights[name].requires_grad_(False)
    if not any(weight.requires_grad for weight in weights.values()):
        raise ValueError(f"--freeze {text} freezes every weight, so nothing could be learnt")
    for name, weight in weights.items():
        if name not in chosen and not weight.requires_grad:
            logger.info(f"--freeze: {name} is frozen too, being tied to a frozen weight")
    logger.info(f"--freeze {text}: {learning(network)}")


def learning(network):
    """How many parameters learn, in words."""
    trained, total = 0, 0
    for weight in network.parameters():  # tied weights once
        total += weight.numel()
        trained += weight.numel() if weight.requires_grad else 0
    return f"{trained:,} of {total:,} parameters learn"
