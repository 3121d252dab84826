"""Proposals for adapting: limits, directions, and what fairseq-train accepts of them."""

import numpy as np
import pytest

from fairseq_plugins.data.mixture import slices_per_pass
from fairseq_plugins.proposals import explain, fraction, propose, updates_in_pass

SIZES = [1, 7, 50, 200, 1000, 4000, 30_000, 1_000_000]  # updates in a pass


@pytest.mark.parametrize("updates", SIZES)
def test_validations_come_at_sensible_distances(updates):
    proposal = propose(updates * 100, updates)
    between = updates / proposal.slices
    assert between <= 1010
    assert between >= 99 or proposal.slices == 1
    assert proposal.slices <= 4 or between > 990  # no more than four in a pass unless it is long


@pytest.mark.parametrize("updates", SIZES)
def test_what_is_printed_is_what_fairseq_train_takes(updates):
    proposal = propose(updates * 100, updates)
    flags = dict(line.split("  #")[0].split() for line in explain(proposal))
    if proposal.slices <= 100:
        assert slices_per_pass(float(flags["--epoch-fraction"])) == proposal.slices
    assert float(flags["--lr"]) == proposal.lr
    assert int(flags["--max-update"]) == 30 * updates and int(flags["--patience"]) == 10


def test_rates_are_the_papers_and_less_for_less_text():
    rates = [propose(1, updates).lr for updates in SIZES]
    assert rates == sorted(rates) and rates[0] == 5e-5 and rates[-1] == 2e-4
    assert propose(1, 1000).lr == 2e-4 and propose(1, 250).lr == 1e-4


def test_the_papers_trap_is_avoided():
    """5,000 updates between validations on sets of 1,000 updates a pass."""
    assert propose(1, 1000).slices == 4


def test_updates_are_counted_from_what_limits_a_batch():
    sizes = [np.array([[10, 20]] * 100), np.array([[40, 30]] * 50)]
    assert updates_in_pass(sizes, [1, 1], 400, None, 1, 1) == (2000 + 2000) / 400
    assert updates_in_pass(sizes, [1, 2], 400, None, 1, 1) == (2000 + 4000) / 400
    assert updates_in_pass(sizes, [1, 1], 400, None, 2, 5) == 1
    assert updates_in_pass(sizes, [1, 1], None, 10, 1, 1) == 15
    assert updates_in_pass(sizes, [1, 1], 400, 10, 1, 1) == 15
    assert updates_in_pass(sizes, [1, 1], 399, None, 1, 1) == 11


def test_a_fraction_is_short():
    assert [fraction(n) for n in (1, 2, 3, 4, 30)] == ["1", "0.5", "0.3333", "0.25", "0.03333"]
