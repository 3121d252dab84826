"""What is lost of the general domain, and how a validation is refused."""

import math

import pytest

from fairseq_plugins.forgetting import GeneralScore, refuse


def watched(floor, start, last):
    general = GeneralScore(floor, "text")
    general.start, general.last = start, last
    return general


@pytest.mark.parametrize(
    "floor, start, last, below",
    [
        (2, 30.0, 28.0, False), (2, 30.0, 27.9, True), (2, 30.0, 33.0, False),
        (0, 30.0, 29.99, True), (0, 30.0, 30.0, False), (None, 30.0, 0.0, False),
        (2, 30.0, None, False), (2, None, None, False),
    ],
)  # fmt: skip
def test_the_floor_is_what_may_be_lost(floor, start, last, below):
    general = watched(floor, start, last)
    assert general.below_floor is below
    assert (general.reason_to_stop() is not None) is below


def test_the_reason_has_the_numbers():
    assert watched(1.5, 30.0, 28.25).reason_to_stop() == (
        "with general-domain BLEU at 28.25, 1.75 below that of the start model (30.00); "
        "--general-floor allows 1.5"
    )


def test_the_state_survives():
    general = GeneralScore(1, "text")
    general.restore(watched(2, 30.0, 28.5).state_dict(), "checkpoint_last.pt")
    assert (general.start, general.last, general.below_floor) == (30.0, 28.5, True)


@pytest.mark.parametrize("saved", [None, {}, {"text": "text", "start": None, "last": None}])
def test_a_start_that_nobody_measured_is_refused(saved):
    with pytest.raises(ValueError, match="from a run without --general-valid"):
        GeneralScore(1, "text").restore(saved, "checkpoint_last.pt")


def test_another_text_is_refused():
    with pytest.raises(ValueError, match="another --general-valid text"):
        GeneralScore(1, "other").restore(watched(1, 3.0, 3.0).state_dict(), "checkpoint_last.pt")


@pytest.mark.parametrize("maximize", [True, False])
@pytest.mark.parametrize("best", [None, 20.0])
def test_a_refused_validation_is_no_best_one_and_hides_none(maximize, best):
    """By the arithmetic of fairseq's save_checkpoint."""
    stats = {"bleu": 25.0 if maximize else 15.0, "best_bleu": 25.0}
    value = stats["bleu"]
    refuse(stats, "bleu", maximize, best)
    assert stats["refused_bleu"] == value
    best_function = max if maximize else min
    prev_best = stats["bleu"] if best is None else best
    new_best = best_function(stats["bleu"], prev_best)
    is_better = stats["bleu"] >= new_best if maximize else stats["bleu"] <= new_best
    assert not is_better
    if best is not None:
        assert new_best == best == stats["best_bleu"]
    # what comes after a refused first one is judged by itself
    after = best_function(12.0, new_best)
    assert after == (12.0 if best is None else best_function(12.0, best))


def test_nothing_else_is_altered():
    stats = {"loss": 3.0, "bleu": 25.0, "best_bleu": 25.0}
    refuse(stats, "bleu", True, 20.0)
    assert stats == {"loss": 3.0, "bleu": -math.inf, "best_bleu": 20.0, "refused_bleu": 25.0}
