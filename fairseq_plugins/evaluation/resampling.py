"""sacreBLEU's intervals and paired tests on statistics that are there already.

sacreBLEU draws all resamples of a test set at once: at 1 M sentences that is 8 GB of indices and
tens of GB of statistics. Here the same resamples are drawn a few at a time, from the same seed
and in the same order; scores, interval and p-value are computed by sacreBLEU's own functions. So
the figures are those of ``corpus_score(n_bootstrap=...)`` and of ``PairedTest``; the tests of this
module hold both side by side.
"""

import os

import numpy as np
from sacrebleu.significance import _compute_p_value, estimate_ci

RESAMPLES = 1000  # of the bootstrap
TRIALS = 10_000  # of approximate randomisation
AT_ONCE = 4_000_000  # weights of sentences in memory
DIGITS = 9
BITS = 1 << 16  # drawn together; numpy throws away what is left of 32
BLOCK = 5_000  # sentences, at least, that are summed together


class Rows:
    """sacreBLEU's statistics of every sentence, in batches, each in the smallest type that fits.

    ``BLEU`` has 10 numbers a sentence, ``chrF`` 18, ``TER`` 2; as a rule they need 2 bytes each.
    """

    def __init__(self, batches=()):
        self.batches = []
        for batch in batches:
            self.add(batch)

    def add(self, rows):
        """Append the statistics of some sentences, (sentences, numbers)."""
        rows = np.asarray(rows)
        small = rows.astype(np.uint16)
        # TER's average length of several references is no whole number
        rows = small if np.array_equal(small, rows) else rows.astype(np.float64)
        if self.batches and len(self.batches[-1]) < BLOCK:
            rows = np.concatenate([self.batches.pop(), rows])
        self.batches.append(rows)

    def __len__(self):
        return sum(map(len, self.batches))

    def __iter__(self):
        for batch in self.batches:
            yield from batch

    def sum(self):
        """Statistics of the corpus, (numbers,), float64."""
        return sum(batch.sum(axis=0, dtype=np.float64) for batch in self.batches)

    def weighted(self, weights):
        """Statistics of resampled corpora, (samples, numbers), for weights (samples, sentences)."""
        first, total = 0, 0
        for batch in self.batches:
            # whole numbers below 2 ** 24 are exact in float32, and sums of a batch stay below
            exact = np.float32 if batch.dtype == np.uint16 else np.float64
            part = weights[:, first : first + len(batch)].astype(exact) @ batch.astype(exact)
            total = total + part.astype(np.float64)
            first += len(batch)
        return total


def corpus_score(metric, rows):
    """sacreBLEU's score object of a corpus."""
    total = rows.sum()
    whole = all(batch.dtype == np.uint16 for batch in rows.batches)
    return metric._compute_score_from_stats([int(n) if whole else float(n) for n in total])


def bootstrap(metric, rows, resamples=RESAMPLES):
    """(mean, half width) of a score's 95 % interval (Koehn 2004), as sacreBLEU computes it."""
    scores = [_score(metric, summed)
              for (summed,) in _resampled([rows], resamples)]  # fmt: skip
    mean, interval = estimate_ci(np.array(scores))
    return float(mean), float(interval)


def paired_test(metric, baseline, rows, kind="bs"):
    """Probability that two systems differ as much by chance.

    Args:
        baseline, rows: statistics of the same sentences of two systems.
        kind: ``bs``, paired bootstrap (Koehn 2004), or ``ar``, approximate randomisation (Riezler
            & Maxwell 2005); two-sided.

    Returns:
        1.0 where the scores are equal: sacreBLEU counts the differences above the one observed, so
        that none at all would look significant.
    """
    difference = abs(corpus_score(metric, rows).score - corpus_score(metric, baseline).score)
    if not difference:
        return 1.0
    draw = _resampled if kind == "bs" else _exchanged
    differences = np.abs([
        _score(metric, one) - _score(metric, other)
        for one, other in draw([rows, baseline], RESAMPLES if kind == "bs" else TRIALS)
    ])  # fmt: skip
    if kind == "bs":
        differences = differences - differences.mean()
    # a tie is no difference above the one observed, whatever the last digits of fractions are
    return float(_compute_p_value(differences.round(DIGITS), round(difference, DIGITS)))


def seed():
    """sacreBLEU's seed as signatures show it: 12345, or what ``SACREBLEU_SEED`` says."""
    return os.environ.get("SACREBLEU_SEED", "12345").lower()


def paired_signature(metric, kind):
    """Signature of a metric with what a paired test drew."""
    signature = metric.get_signature()
    signature.update(kind, RESAMPLES if kind == "bs" else TRIALS)
    signature.update("seed", seed())
    return str(signature)


def _random():
    return np.random.default_rng(None if seed() == "none" else int(seed()))


def _score(metric, summed):
    return metric._compute_score_from_stats(summed.copy()).score


def _resampled(systems, number):
    """Statistics of so many corpora drawn with replacement, one of each system at a time."""
    random, lines = _random(), len(systems[0])
    for first in range(0, number, step := _step(lines)):
        weights = np.empty((min(step, number - first), lines), dtype=np.float32)
        for row in weights:
            row[:] = np.bincount(random.choice(lines, size=lines), minlength=lines)
        yield from zip(*(rows.weighted(weights) for rows in systems), strict=True)


def _exchanged(systems, number):
    """Statistics of so many pairs of corpora between which sentences were exchanged by chance."""
    lines = len(systems[0])
    one, other = systems
    both = one.sum() + other.sum()
    coins = _coins(lines)
    for first in range(0, number, step := _step(lines)):
        chosen = np.empty((min(step, number - first), lines), dtype=np.float32)
        for row in chosen:
            row[:] = next(coins)
        mixed = other.weighted(chosen) + one.weighted(1 - chosen)
        yield from zip(mixed, both - mixed, strict=True)


def _coins(number):
    """Yield rows of so many random bits, the same as of one large draw."""
    random, left = _random(), np.empty(0, dtype=bool)
    while True:
        while len(left) < number:
            left = np.concatenate([left, random.integers(2, size=BITS, dtype=bool)])
        yield left[:number]
        left = left[number:]


def _step(lines):
    return max(1, AT_ONCE // lines)
