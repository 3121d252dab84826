"""Formulas of the criterions: plain functions of tensors."""

import torch

# -- minimum risk ----------------------------------------------------------------------------


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
