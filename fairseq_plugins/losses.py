"""The arithmetic of distillation: plain functions of tensors, natural logarithms, no fairseq.

A distribution is a tensor of log-probabilities whose last axis runs over *outcomes*: the
whole vocabulary, or what :func:`renormalised` or :func:`with_tail` makes of k of its words.
Every result is per token; the teacher's side is constant, it never gets a gradient.
"""

import math

import torch
from torch import Tensor

# teacher log-probabilities below this count as this (4e-44), so that no term is infinite
LOWEST_LPROB = -100.0


# -- divergences -------------------------------------------------------------------------


def forward_kl(teacher_lprobs, student_lprobs):
    """D(q‖p) = Σ q (log q − log p), teacher q, student p; nats, 0 or more.

    The student must cover whatever the teacher finds possible; its gradient is that of the
    cross-entropy to the teacher (Kim & Rush 2016, https://arxiv.org/abs/1606.07947, eq. 4).

    Args:
        teacher_lprobs: log q, (..., outcomes).
        student_lprobs: log p, (..., outcomes).

    Returns:
        Tensor of shape (...).
    """
    teacher_lprobs = _constant(teacher_lprobs)
    return (teacher_lprobs.exp() * (teacher_lprobs - student_lprobs)).sum(dim=-1)


def reverse_kl(teacher_lprobs, student_lprobs):
    """D(p‖q) = Σ p (log p − log q), teacher q, student p; nats, 0 or more.

    The student may leave out what it cannot cover. Shapes as :func:`forward_kl`.
    """
    teacher_lprobs = _constant(teacher_lprobs)
    return (student_lprobs.exp() * (student_lprobs - teacher_lprobs)).sum(dim=-1)


def jensen_shannon(teacher_lprobs, student_lprobs):
    """½ D(q‖m) + ½ D(p‖m) with m = (p + q)/2; nats, from 0 to log 2.

    Symmetric and bounded, so a token cannot dominate a batch. Shapes as :func:`forward_kl`.
    """
    teacher_lprobs = _constant(teacher_lprobs)
    middle = torch.logaddexp(teacher_lprobs, student_lprobs) - math.log(2)
    per_outcome = teacher_lprobs.exp() * (teacher_lprobs - middle)
    per_outcome = per_outcome + student_lprobs.exp() * (student_lprobs - middle)
    return per_outcome.sum(dim=-1) / 2


DIVERGENCES = {
    "forward-kl": forward_kl,
    "reverse-kl": reverse_kl,
    "jensen-shannon": jensen_shannon,
}


def _constant(teacher_lprobs):
    return teacher_lprobs.detach().clamp(min=LOWEST_LPROB)


# -- outcomes ----------------------------------------------------------------------------


def softened(lprobs, temperature):
    """Log-probabilities of softmax(logits / temperature), from those at temperature 1.

    Args:
        lprobs: (..., vocab).
        temperature: more than 0; 1 gives ``lprobs`` back.
    """
    if temperature == 1:
        return lprobs
    return torch.log_softmax(lprobs / temperature, dim=-1)


def renormalised(lprobs):
    """The distribution among the k listed words alone, (..., k): they sum to 1."""
    return torch.log_softmax(lprobs, dim=-1)


def with_tail(lprobs, vocab):
    """Listed words and, as the last outcome, all others together: log(1 − Σ p), (..., k + 1).

    Where all ``vocab`` words are listed nothing is left, and ``lprobs`` comes back as it is.
    A tail below 8 units in the last place (1e-6 in float32) cannot be told from rounding and
    counts as that much, without a gradient of its own.
    """
    if lprobs.size(-1) == vocab:
        return lprobs
    smallest = 8 * torch.finfo(lprobs.dtype).eps
    listed = lprobs.logsumexp(dim=-1, keepdim=True).clamp(max=-smallest)  # log Σ p
    return torch.cat([lprobs, torch.log(-torch.expm1(listed))], dim=-1)


def listed_outcomes(lprobs, listed_lprobs, temperature, tail):
    """The student's distribution over the outcomes that k listed words make, softened.

    Args:
        lprobs: of the whole vocabulary at temperature 1, (tokens, vocab).
        listed_lprobs: those of the listed words, (tokens, k).
        temperature: more than 0.
        tail: "renormalise" for :func:`renormalised`, "bucket" for :func:`with_tail`.

    Returns:
        (tokens, k) or (tokens, k + 1).
    """
    if tail == "renormalise":
        return renormalised(listed_lprobs / temperature)
    if temperature != 1:
        normaliser = (lprobs / temperature).logsumexp(dim=-1, keepdim=True)
        listed_lprobs = listed_lprobs / temperature - normaliser
    return with_tail(listed_lprobs, lprobs.size(-1))


class _TargetsListedAndSum(torch.autograd.Function):
    """See :func:`targets_listed_and_sum`; the backward pass writes one (tokens, vocab) tensor."""

    @staticmethod
    def forward(ctx, lprobs: Tensor, target: Tensor, listed: Tensor):
        ctx.save_for_backward(target, listed)
        ctx.vocab = lprobs.size(-1)
        return (
            lprobs.gather(-1, target.unsqueeze(-1)).squeeze(-1),
            lprobs.gather(-1, listed),
            lprobs.sum(dim=-1),
        )

    @staticmethod
    def backward(ctx, grad_target, grad_listed, grad_sum):
        target, listed = ctx.saved_tensors
        grad = grad_sum.unsqueeze(-1).repeat(1, ctx.vocab)
        # in two steps, because a target may be listed too and GPUs add in any order
        grad.scatter_add_(-1, listed, grad_listed)
        grad.scatter_add_(-1, target.unsqueeze(-1), grad_target.unsqueeze(-1))
        return grad, None, None


def targets_listed_and_sum(lprobs, target, listed):
    """What a loss on few words needs of all log-probabilities, at the price of one.

    Args:
        lprobs: (tokens, vocab).
        target: word numbers, (tokens,).
        listed: word numbers, (tokens, k); a word comes once in a row, or has no gradient.

    Returns:
        The target's log-probability (tokens,), the listed words' (tokens, k), and the sum over
        the vocabulary (tokens,), which label smoothing takes.
    """
    return _TargetsListedAndSum.apply(lprobs, target, listed)


# -- the reference translation -----------------------------------------------------------


def label_smoothed_nll(target_lprobs, summed_lprobs, vocab, epsilon):
    """Label-smoothed negative log-likelihood per token, fairseq's formula, nats.

    (1 − ε − ε′) (−log p(y)) + ε′ Σ_v (−log p(v)) with ε′ = ε / (|V| − 1).

    Args:
        target_lprobs: log p(y), (tokens,).
        summed_lprobs: Σ_v log p(v), (tokens,).
        vocab: |V|.
        epsilon: ε, 0 to 1.
    """
    share = epsilon / (vocab - 1)
    return -(1.0 - epsilon - share) * target_lprobs - share * summed_lprobs


# -- which tokens count, and how much ----------------------------------------------------


def token_weights(weighting, teacher_lprobs, top_lprobs, real):
    """Weights of the tokens' teacher terms, (tokens,), of mean 1 over the real tokens.

    - ``none``: 1 everywhere;
    - ``teacher-confidence``: in proportion to the teacher's largest probability ("CWTM" of
      Furlanello et al. 2018, https://arxiv.org/abs/1805.04770): trust it where it is sure;
    - ``teacher-entropy``: in proportion to −Σ q log q: learn where it says more than one word.

    Args:
        weighting: one of the names above.
        teacher_lprobs: log q over the outcomes of the loss, (tokens, outcomes).
        top_lprobs: the teacher's largest log-probability, (tokens,).
        real: False where the target is padding, (tokens,).
    """
    if weighting == "none":
        return torch.ones_like(top_lprobs)
    if weighting == "teacher-confidence":
        weights = top_lprobs.exp()
    else:
        weights = -(teacher_lprobs.exp() * _constant(teacher_lprobs)).sum(dim=-1)
    weights = weights.clamp(min=0).masked_fill(~real, 0.0)
    mean = weights.sum() / real.sum().clamp(min=1)
    # a teacher that is sure of every word has no entropy to share out
    return torch.where(mean > 0, weights / mean.clamp(min=1e-30), torch.ones_like(weights))


TOKEN_WEIGHTINGS = ("none", "teacher-confidence", "teacher-entropy")


def highest_in_batch(scores, real, share):
    """True at the ⌈share · n⌉ real tokens of highest score, (tokens,); the earlier wins a tie.

    Args:
        scores: (tokens,).
        real: False where the target is padding, (tokens,); n of them are True.
        share: 0 to 1.
    """
    order = scores.masked_fill(~real, -math.inf).argsort(stable=True, descending=True)
    rank = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
    # 0.07 * 100 is a little more than 7 in floating point
    wanted = torch.ceil(real.sum().double() * share - 1e-9)
    return (rank < wanted) & real


def highest_of_pool(scores, real, share, pool):
    """True at the real tokens whose score is in the highest share of ``pool``, (tokens,).

    The threshold is the ⌈share · n⌉-th highest of the n scores of the pool; a score equal to
    it is in. The share of these tokens that is chosen may be any.

    Args:
        scores: (tokens,).
        real: False where the target is padding, (tokens,).
        share: more than 0, to 1.
        pool: one or more scores to compare with, (n,).
    """
    wanted = max(1, math.ceil(len(pool) * share - 1e-9))
    threshold = pool.topk(wanted).values[-1]
    return (scores >= threshold) & real


# -- minimum risk ------------------------------------------------------------------------


def expected_cost(scores, costs, missing, sharpness):
    """Cost to be expected of each sentence, (batch,), in the unit of ``costs``: its risk.

    The expectation is over the sentence's candidates under Q(y) = p(y)^a / sum_y' p(y')^a
    (Shen et al. 2016, equations 11 and 12): a softmax of the scores times the sharpness a. 0
    without a gradient for a sentence without candidates.

    Args:
        scores: log-probabilities of the candidates, whole or by token, (batch, candidates).
        costs: of each candidate, (batch, candidates); constants.
        missing: True where a sentence has no further candidate, (batch, candidates).
        sharpness: the exponent a, above 0; towards 0 all candidates count alike, towards
            infinity the most probable one alone.
    """
    empty = missing.all(dim=-1, keepdim=True)
    logits = (sharpness * scores).masked_fill(missing, float("-inf")).masked_fill(empty, 0.0)
    probs = torch.softmax(logits, dim=-1)
    return (probs * costs.detach().masked_fill(missing, 0.0)).sum(dim=-1)


# -- anchored adaptation -----------------------------------------------------------------


def quadratic_penalty(weights, anchors, importances):
    """½ Σ m_i (θ_i − θ*_i)²: what holds weights θ near anchors θ*; nats, a scalar.

    The L2 distance where all m are alike, elastic weight consolidation where m is the Fisher
    information (Kirkpatrick et al. 2017, https://arxiv.org/abs/1612.00796, eq. 3). At θ = θ*
    the value and its gradient are 0. Computed in float32 where the weights are in less.

    Args:
        weights: tensors θ, which get the gradient.
        anchors: constants θ*, of the same shapes.
        importances: constants m, 0 or more: tensors of the same shapes or numbers.
    """
    total = 0.0
    for weight, anchor, importance in zip(weights, anchors, importances, strict=True):
        kind = torch.promote_types(weight.dtype, torch.float32)
        distance = weight.to(kind) - anchor.detach().to(kind)
        total = total + (importance * distance.square()).sum()
    return total / 2
