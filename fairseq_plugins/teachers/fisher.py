"""Fisher information of a network's weights: how much the text it was trained on needs each.

The diagonal of the Fisher information, estimated from squared gradients:

    F_i = sum over sentences s of (d log p(y_s | x_s) / d theta_i)^2  /  target tokens of all s

so F is per target token, end of sentence included. To second order, 1/2 sum F_i (delta_i)^2
is then what moving the weights by delta costs on that text, in nats per token (the KL
divergence from the network as it was): the unit of the training loss.

The square is of the gradient of one sentence, so sentences go through the network one by
one; the square of a batch's gradient is another quantity.
"""

import random

import torch

from data_prep.vocabulary import differences
from fairseq_plugins.checkpoints import load_tensors

LABELS = ("model", "reference")


def draw_labels(lprobs, generator):
    """One label for each position from the network's own distribution, (batch, time).

    The prefix before a position is that of the reference, as in training; so the squared
    gradients estimate the Fisher information itself (Kunstner et al. 2019, equation 4),
    where the labels of the text give the "empirical" one.

    Args:
        lprobs: log-probabilities, (batch, time, vocab).
        generator: ``torch.Generator`` of the CPU, so that every device draws the same.
    """
    probs = lprobs.detach().float().exp().cpu()
    drawn = torch.multinomial(probs.flatten(0, 1), 1, generator=generator)
    return drawn.view(probs.shape[:2]).to(lprobs.device)


def squared_gradients(network, sample, labels, seed):
    """({name: squared gradient of the sentence's log-probability}, its target tokens).

    Tied weights stand once, under the name of ``network.named_parameters()``.

    Args:
        network: fairseq model in evaluation mode.
        sample: batch of one sentence pair.
        labels: "reference", the target; or "model", see :func:`draw_labels`.
        seed: of the labels that are drawn.
    """
    assert sample["target"].size(0) == 1, "the square is of one sentence's gradient"
    output = network(**sample["net_input"])
    lprobs = network.get_normalized_probs(output, log_probs=True, sample=sample)
    target = sample["target"]
    if labels == "model":
        target = draw_labels(lprobs, torch.Generator().manual_seed(seed))
    log_prob = lprobs.gather(-1, target.unsqueeze(-1)).sum()
    named = {name: weight for name, weight in network.named_parameters() if weight.requires_grad}
    gradients = torch.autograd.grad(log_prob, list(named.values()), allow_unused=True)
    squares = {
        name: gradient.float().square()
        for name, gradient in zip(named, gradients, strict=True)
        if gradient is not None
    }
    return squares, target.numel()


class FisherSum:
    """Squared gradients of sentences, added up; parts of a text can be added together.

    Attributes:
        sums: {name: tensor}, float32.
        done: sentences; ``tokens``: their target tokens.
    """

    def __init__(self, sums, done=0, tokens=0):
        self.sums, self.done, self.tokens = sums, done, tokens

    @classmethod
    def zeros(cls, network):
        """Nothing added yet."""
        return cls(
            {
                name: torch.zeros_like(weight, dtype=torch.float32, requires_grad=False)
                for name, weight in network.named_parameters()
            }
        )

    def add(self, squares, tokens):
        """Add what :func:`squared_gradients` found in a sentence."""
        for name, square in squares.items():
            self.sums[name] += square
        self.done += 1
        self.tokens += tokens

    def per_token(self):
        """{name: Fisher information}, on the CPU."""
        return {name: (total / self.tokens).cpu() for name, total in self.sums.items()}


def sentence_seed(seed, number):
    """Seed of the labels of sentence ``number``, whatever else is drawn and in which order."""
    return random.Random(f"{seed} {number}").getrandbits(63)


def read_fisher(path, weights_path, fingerprint, vocabulary):
    """{name: Fisher information} of the weights with this fingerprint.

    Args:
        path: file made by dad-estimate-fisher.
        weights_path: checkpoint of the weights, for messages.
        fingerprint: their ``weights_fingerprint``.
        vocabulary: fingerprint {file name: SHA-256} of the vocabulary in use.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, holds something else, or belongs to another model.
    """
    found = load_tensors(path, "Fisher file")
    if not isinstance(found, dict) or not {"fisher", "model", "vocabulary"} <= found.keys():
        raise ValueError(f"--fisher {path} was not made by dad-estimate-fisher")
    differing = differences(vocabulary, found["vocabulary"])
    if differing:
        raise ValueError(
            f"--fisher {path} belongs to a model with another vocabulary: "
            f"{', '.join(differing)} differ{'s' if len(differing) == 1 else ''}"
        )
    if found["model"] != fingerprint:
        raise ValueError(
            f"--fisher {path} was estimated for other weights than those of {weights_path}; "
            f"estimate it again: dad-estimate-fisher --model ..."
        )
    return found["fisher"]
