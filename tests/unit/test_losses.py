"""The laws of distillation's arithmetic."""

import math

import numpy as np
import pytest
import torch
from fairseq.criterions.label_smoothed_cross_entropy import label_smoothed_nll_loss

from fairseq_plugins import losses
from fairseq_plugins.losses import DIVERGENCES

VOCAB, TOKENS = 7, 5
KINDS = list(DIVERGENCES)


def lprobs(seed=1, dtype=torch.float64, scale=2.0, vocab=VOCAB):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(TOKENS, vocab, generator=generator, dtype=torch.float64)
    return torch.log_softmax(logits, dim=-1).to(dtype)


def listed_divergence(kind, student_logits, teacher, k, temperature=1.0, tail="bucket"):
    """Divergence over the teacher's k likeliest words, as the criterion puts it together."""
    top, words = losses.softened(teacher, temperature).topk(k)
    student = torch.log_softmax(student_logits, dim=-1)
    target = torch.zeros(len(student), dtype=torch.long)
    _, listed, _ = losses.targets_listed_and_sum(student, target, words)
    outcomes = losses.listed_outcomes(student, listed, temperature, tail)
    if tail == "renormalise":
        return DIVERGENCES[kind](losses.renormalised(top), outcomes)
    return DIVERGENCES[kind](losses.with_tail(top, student.size(-1)), outcomes)


def full_divergence(kind, student_logits, teacher, temperature=1.0):
    student = torch.log_softmax(student_logits, dim=-1)
    return DIVERGENCES[kind](
        losses.softened(teacher, temperature), losses.softened(student, temperature)
    )


# -- divergences -------------------------------------------------------------------------


def by_hand(kind, q, p):
    if kind == "forward-kl":
        return np.sum(q * np.log(q / p), axis=-1)
    if kind == "reverse-kl":
        return np.sum(p * np.log(p / q), axis=-1)
    return (by_hand("forward-kl", q, (p + q) / 2) + by_hand("forward-kl", p, (p + q) / 2)) / 2


@pytest.mark.parametrize("kind", KINDS)
def test_divergences_are_those_computed_by_hand(kind):
    teacher, student = lprobs(1), lprobs(2)
    expected = by_hand(kind, np.exp(teacher.numpy()), np.exp(student.numpy()))
    np.testing.assert_allclose(DIVERGENCES[kind](teacher, student), expected, rtol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_a_student_that_equals_its_teacher_has_no_divergence_and_no_gradient(kind):
    logits = torch.randn(TOKENS, VOCAB, dtype=torch.float64, requires_grad=True)
    divergence = full_divergence(kind, logits, torch.log_softmax(logits, dim=-1))
    divergence.sum().backward()
    torch.testing.assert_close(divergence, torch.zeros_like(divergence))
    torch.testing.assert_close(logits.grad, torch.zeros_like(logits))


@pytest.mark.parametrize("kind", KINDS)
def test_the_teacher_gets_no_gradient(kind):
    teacher, student = (lprobs(seed).requires_grad_() for seed in (1, 2))
    DIVERGENCES[kind](teacher, student).sum().backward()
    assert teacher.grad is None and student.grad.abs().sum() > 0


@pytest.mark.parametrize("kind", KINDS)
def test_divergences_are_positive(kind):
    assert (DIVERGENCES[kind](lprobs(1), lprobs(2)) > 0).all()


def test_jensen_shannon_is_symmetric_and_at_most_log_2():
    apart = torch.tensor([[0.0, -90.0], [-90.0, 0.0]], dtype=torch.float64)
    one_way = losses.jensen_shannon(apart, apart.flip(0))
    torch.testing.assert_close(one_way, losses.jensen_shannon(apart.flip(0), apart))
    torch.testing.assert_close(one_way, torch.full_like(one_way, math.log(2)))


def test_forward_kl_has_the_gradient_of_the_cross_entropy():
    """d/dlogits = p − q (Kim & Rush 2016)."""
    logits = torch.randn(TOKENS, VOCAB, dtype=torch.float64, requires_grad=True)
    full_divergence("forward-kl", logits, lprobs(1)).sum().backward()
    torch.testing.assert_close(logits.grad, logits.softmax(-1).detach() - lprobs(1).exp())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", [40.0, 3000.0])
def test_extreme_logits_give_finite_losses_and_gradients(kind, scale):
    logits = (scale * lprobs(3, torch.float32)).requires_grad_()
    teacher = torch.log_softmax(scale * lprobs(4, torch.float32), dim=-1)
    for divergence in (
        full_divergence(kind, logits, teacher),
        full_divergence(kind, logits, teacher, temperature=0.1),
        listed_divergence(kind, logits, teacher, 3),
        listed_divergence(kind, logits, teacher, 3, temperature=4.0),
        listed_divergence(kind, logits, teacher, 3, tail="renormalise"),
    ):
        (gradient,) = torch.autograd.grad(divergence.sum(), logits)
        assert divergence.isfinite().all() and gradient.isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_word_that_the_teacher_rules_out_gives_a_finite_loss(kind):
    teacher = torch.tensor([[0.5, 0.5, 0.0]]).log()
    student = torch.tensor([[0.4, 0.3, 0.3]]).log().requires_grad_()
    divergence = DIVERGENCES[kind](teacher, student)
    divergence.sum().backward()
    assert divergence.isfinite().all() and student.grad.isfinite().all()
    if kind == "forward-kl":  # what is ruled out adds nothing
        expected = 0.5 * math.log(0.5 / 0.4) + 0.5 * math.log(0.5 / 0.3)
        torch.testing.assert_close(divergence, torch.tensor([expected]))


# -- top k and temperature ---------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tail", ["bucket", "renormalise"])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_all_words_listed_is_the_full_divergence(kind, tail, temperature):
    logits, teacher = 2 * lprobs(2), lprobs(1)
    torch.testing.assert_close(
        listed_divergence(kind, logits, teacher, VOCAB, temperature, tail),
        full_divergence(kind, logits, teacher, temperature),
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_the_bucket_is_the_sum_of_the_words_beyond_the_top_k(kind, temperature):
    k, logits = 3, 2 * lprobs(2)
    q = (lprobs(1) / temperature).softmax(-1).numpy()
    p = (logits / temperature).softmax(-1).numpy()
    order = np.argsort(-q, axis=-1)
    q, p = (np.take_along_axis(found, order, axis=-1) for found in (q, p))
    merged = (
        np.concatenate([found[:, :k], found[:, k:].sum(-1, keepdims=True)], -1) for found in (q, p)
    )
    np.testing.assert_allclose(
        listed_divergence(kind, logits, lprobs(1), k, temperature), by_hand(kind, *merged)
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_renormalised_words_share_everything_among_themselves(kind, temperature):
    k, logits = 3, 2 * lprobs(2)
    words = lprobs(1).topk(k).indices
    q, p = (
        (found / temperature).gather(-1, words).softmax(-1).numpy() for found in (lprobs(1), logits)
    )
    np.testing.assert_allclose(
        listed_divergence(kind, logits, lprobs(1), k, temperature, "renormalise"),
        by_hand(kind, q, p),
    )


@pytest.mark.parametrize("share", [1e-12, 1e-4, 0.3, 0.6, 1 - 1e-4])
def test_the_tail_is_what_is_left(share):
    listed = torch.tensor([[0.75, 0.25]], dtype=torch.float64).log() + math.log1p(-share)
    tail = losses.with_tail(listed, VOCAB)[0, -1].exp().item()
    assert tail == pytest.approx(share, rel=1e-3 if share == 1e-12 else 1e-9)


def test_a_tail_lost_in_rounding_is_small_and_finite():
    listed = torch.tensor([[-1e-9, -30.0], [1e-4, -20.0]])  # half precision may exceed 1
    tail = losses.with_tail(listed, VOCAB)[:, -1]
    assert (tail.exp() < 2e-6).all() and tail.isfinite().all()


def test_at_high_temperature_the_scaled_loss_is_that_of_matching_logits():
    """T² D → Σ (centred difference of logits)² / 2|V| (Hinton et al. 2015, section 2.1)."""
    student, teacher = 2 * lprobs(2), lprobs(1)
    difference = student - teacher
    difference = difference - difference.mean(-1, keepdim=True)
    expected = (difference**2).sum(-1) / (2 * VOCAB)
    for kind, share in (("forward-kl", 1), ("reverse-kl", 1), ("jensen-shannon", 0.25)):
        scaled = 1e8 * full_divergence(kind, student, teacher, temperature=1e4)
        torch.testing.assert_close(scaled, share * expected, rtol=1e-2, atol=1e-4)


def test_at_low_temperature_the_teacher_is_its_likeliest_word():
    """T D(q‖p) → how far the student's best logit is above that of the teacher's best word."""
    student, teacher = 2 * lprobs(2), lprobs(1)
    best = teacher.argmax(-1, keepdim=True)
    expected = student.amax(-1) - student.gather(-1, best).squeeze(-1)
    scaled = 1e-3 * full_divergence("forward-kl", student, teacher, temperature=1e-3)
    torch.testing.assert_close(scaled, expected, rtol=1e-3, atol=1e-3)


# -- gradients ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("tail", [None, "bucket", "renormalise"])
def test_gradients_are_right(kind, temperature, tail):
    def divergence(logits):
        if tail is None:
            return full_divergence(kind, logits, lprobs(1), temperature)
        return listed_divergence(kind, logits, lprobs(1), 3, temperature, tail)

    assert torch.autograd.gradcheck(divergence, (2 * lprobs(2)).requires_grad_())


def test_gathering_has_the_gradient_of_its_parts():
    listed = torch.tensor([[0, 3], [2, 1], [6, 5], [1, 0], [4, 2]])
    target = torch.tensor([0, 4, 6, 6, 2])  # some are listed too

    def gathered(numbers):
        return losses.targets_listed_and_sum(numbers, target, listed)

    numbers = lprobs(1).requires_grad_()
    assert torch.autograd.gradcheck(gathered, numbers)
    found_target, found_listed, summed = gathered(numbers)
    assert torch.equal(found_target, numbers.gather(-1, target[:, None])[:, 0])
    assert torch.equal(found_listed, numbers.gather(-1, listed))
    assert torch.equal(summed, numbers.sum(-1))


# -- the reference -----------------------------------------------------------------------


@pytest.mark.parametrize("epsilon", [0.0, 0.1])
def test_label_smoothing_is_fairseqs(epsilon):
    student, target = lprobs(2), torch.tensor([0, 3, 6, 6, 2])
    expected, _ = label_smoothed_nll_loss(student, target, epsilon, reduce=False)
    picked, _, summed = losses.targets_listed_and_sum(student, target, target[:, None])
    found = losses.label_smoothed_nll(picked, summed, VOCAB, epsilon)
    torch.testing.assert_close(found, expected.flatten())


# -- weights and selection ---------------------------------------------------------------

REAL = torch.tensor([True, True, False, True, True])


def weights_of(weighting, teacher=None, real=REAL):
    teacher = lprobs(1) if teacher is None else teacher
    return losses.token_weights(weighting, teacher, teacher.amax(-1), real)


@pytest.mark.parametrize("weighting", losses.TOKEN_WEIGHTINGS)
def test_token_weights_have_mean_1_over_real_tokens(weighting):
    assert weights_of(weighting)[REAL].mean().item() == pytest.approx(1)


def test_token_weights_go_by_the_teachers_top_probability_or_entropy():
    q = lprobs(1)[REAL].exp()
    top, entropy = q.amax(-1), -(q * q.log()).sum(-1)
    torch.testing.assert_close(weights_of("teacher-confidence")[REAL], top / top.mean())
    torch.testing.assert_close(weights_of("teacher-entropy")[REAL], entropy / entropy.mean())


@pytest.mark.parametrize("weighting", losses.TOKEN_WEIGHTINGS)
def test_padding_has_no_part_in_token_weights(weighting):
    other = lprobs(1)
    other[2] = torch.log_softmax(torch.arange(VOCAB).double(), -1)
    assert torch.equal(weights_of(weighting)[REAL], weights_of(weighting, other)[REAL])


def test_a_teacher_sure_of_everything_weighs_every_token_alike():
    sure = torch.full((TOKENS, VOCAB), -math.inf)
    sure[:, 0] = 0.0
    assert torch.equal(weights_of("teacher-entropy", sure), torch.ones(TOKENS))


@pytest.mark.parametrize(
    "share, chosen",
    [(0, []), (0.1, [1]), (0.25, [1]), (0.26, [1, 3]), (0.5, [1, 3]), (0.75, [0, 1, 3]),
     (1, [0, 1, 3, 4])],
)  # fmt: skip
def test_the_batch_gives_exactly_its_share_of_highest_scores(share, chosen):
    scores = torch.tensor([1.0, 3.0, 9.0, 2.0, 0.5])  # the 9 is padding
    assert losses.highest_in_batch(scores, REAL, share).nonzero().flatten().tolist() == chosen


def test_the_earlier_token_wins_a_tie():
    chosen = losses.highest_in_batch(torch.ones(5), REAL, 0.5)
    assert chosen.tolist() == [True, True, False, False, False]


def test_rounding_does_not_choose_a_token_too_many():
    scores, real = torch.arange(100.0), torch.ones(100, dtype=torch.bool)
    assert 0.07 * 100 > 7
    assert losses.highest_in_batch(scores, real, 0.07).sum() == 7
    assert losses.highest_of_pool(scores, real, 0.07, scores).sum() == 7


@pytest.mark.parametrize("share, chosen", [(0.1, [1]), (0.4, [1, 3]), (1, [0, 1, 3])])
def test_the_pool_sets_the_threshold(share, chosen):
    scores = torch.tensor([1.0, 5.0, 9.0, 2.0, 0.4])
    pool = torch.tensor([2.0, 1.0, 0.5, 5.0, 1.5])
    found = losses.highest_of_pool(scores, REAL, share, pool)
    assert found.nonzero().flatten().tolist() == chosen
