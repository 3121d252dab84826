"""The formula of minimum-risk training, against its laws."""

import math

import pytest
import torch

from fairseq_plugins.losses import expected_cost


def example(sentences=3, most=4, seed=1):
    generator = torch.Generator().manual_seed(seed)
    scores = -5 * torch.rand(sentences, most, generator=generator, dtype=torch.float64)
    costs = torch.rand(sentences, most, generator=generator, dtype=torch.float64)
    missing = torch.zeros(sentences, most, dtype=torch.bool)
    missing[1, 2:] = True
    return scores.requires_grad_(), costs, missing


def gradient(scores, costs, missing, sharpness=0.7):
    (found,) = torch.autograd.grad(expected_cost(scores, costs, missing, sharpness).sum(), scores)
    return found


@pytest.mark.parametrize("sharpness", [0.005, 1.0, 3.0])
def test_it_is_the_mean_cost_under_the_sharpened_probabilities(sharpness):
    scores, costs, missing = example()
    found = expected_cost(scores, costs, missing, sharpness)
    for row, present in enumerate((4, 2, 4)):
        powers = [math.exp(score) ** sharpness for score in scores[row, :present].tolist()]
        by_hand = sum(p * c for p, c in zip(powers, costs[row].tolist())) / sum(powers)
        assert found[row].item() == pytest.approx(by_hand, abs=1e-12)


def test_its_gradient_is_right():
    scores, costs, missing = example()
    assert torch.autograd.gradcheck(lambda s: expected_cost(s, costs, missing, 1.3), scores)


def test_all_candidates_as_much_more_probable_changes_nothing():
    scores, costs, missing = example()
    shifted = scores + torch.tensor([[-400.0], [3.0], [100.0]])
    torch.testing.assert_close(
        expected_cost(shifted, costs, missing, 1.0), expected_cost(scores, costs, missing, 1.0)
    )


def test_the_order_of_the_candidates_is_irrelevant():
    scores, costs, missing = example()
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(
        expected_cost(scores[:, order], costs[:, order], missing[:, order], 1.0),
        expected_cost(scores, costs, missing, 1.0),
    )


def test_missing_candidates_add_nothing():
    scores, costs, missing = example()
    torch.testing.assert_close(
        expected_cost(scores[1:2], costs[1:2], missing[1:2], 1.0),
        expected_cost(scores[1:2, :2], costs[1:2, :2], missing[1:2, :2], 1.0),
    )
    assert not gradient(scores, costs, missing)[1, 2:].any()


def test_equal_costs_and_single_candidates_and_none_have_no_gradient():
    scores, costs, missing = example()
    costs[0] = 0.3
    missing[1, 1:] = True
    missing[2] = True
    risk = expected_cost(scores, costs, missing, 1.0)
    assert risk.tolist() == pytest.approx([0.3, costs[1, 0].item(), 0.0], abs=1e-12)
    torch.testing.assert_close(
        gradient(scores, costs, missing), torch.zeros_like(scores), atol=1e-15, rtol=0
    )


def test_a_step_against_the_gradient_favours_cheap_candidates():
    scores, costs, missing = example()
    step = -gradient(scores, costs, missing)
    for row in (0, 2):
        assert step[row, costs[row].argmin()] > 0 > step[row, costs[row].argmax()]


def test_sharpness_leads_from_the_plain_mean_to_the_most_probable():
    scores, costs, missing = example()
    flat, sharp = (expected_cost(scores, costs, missing, s) for s in (1e-9, 1e4))
    assert flat[0].item() == pytest.approx(costs[0].mean().item(), abs=1e-6)
    assert sharp[0].item() == pytest.approx(costs[0, scores[0].argmax()].item(), abs=1e-6)


def test_costs_get_no_gradient():
    scores, costs, missing = example()
    costs.requires_grad_()
    expected_cost(scores, costs, missing, 1.0).sum().backward()
    assert costs.grad is None
