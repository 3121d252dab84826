"""Filters: steps that judge pairs and change nothing."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from data_prep.cleaning.kinds import Filter, Measured
from data_prep.named_steps import option
from data_prep.words import count_words

RATIO_SMOOTHING = 10  # characters


@dataclass(frozen=True)
class Empty(Filter):
    """drops a pair without text on a side"""

    name: ClassVar[str] = "empty"

    def why(self, src, tgt, context):
        return [
            None if source.strip() and target.strip()
            else "no target" if source.strip() else "no source"
            for source, target in zip(src, tgt, strict=True)
        ]  # fmt: skip


@dataclass(frozen=True)
class Length(Filter):
    """drops a pair with a side that is too short or too long"""

    name: ClassVar[str] = "length"
    min: int = option(1, "fewest words; a character of a script without spaces is a word")
    max: int = option(200, "most words")

    def check(self, context):
        if self.min < 0:
            self._refuse("min", self.min, "0 or more")
        if self.max < self.min:
            self._refuse("max", self.max, f"{self.min} or more, as min is")

    def why(self, src, tgt, context):
        return [
            self._why("source", source) or self._why("target", target)
            for source, target in zip(src, tgt, strict=True)
        ]

    def _why(self, side, text):
        words = count_words(text)
        return None if self.min <= words <= self.max else f"{side} of {words:,} words"


def is_out_of_ratio(source, target, expected_ratio, largest):
    """Whether ``target`` is ``largest`` times longer or shorter than ``source`` makes one expect.

    Some characters are added to both lengths, since short lines vary most.
    """
    expected = RATIO_SMOOTHING + len(source) * expected_ratio
    found = RATIO_SMOOTHING + len(target)
    return max(expected / found, found / expected) > largest


@dataclass(frozen=True)
class LengthRatio(Measured):
    """drops a pair whose target is much longer or shorter than this corpus makes one expect:
    the expected ratio is the corpus's own median of target to source characters, so it suits
    any pair of languages"""

    name: ClassVar[str] = "length-ratio"
    max: float = option(3.0, "largest factor between the length found and the one expected")
    expected: float = option(None, "target characters for each source character; unset: measured")

    def check(self, context):
        if not 1 < self.max < math.inf:
            self._refuse("max", self.max, "a factor above 1")
        if self.expected is not None and not 0 < self.expected < math.inf:
            self._refuse("expected", self.expected, "a number above 0")

    def measure(self, src, tgt):
        lengths = np.array([[len(text) for text in side] for side in (src, tgt)], dtype=float)
        lengths[lengths == 0] = np.nan
        return np.log(lengths[1] / lengths[0])

    def settle(self, values, counts=None):
        if self.expected is not None:
            return self.expected
        values = np.asarray(values, dtype=float)
        counts = np.ones(len(values)) if counts is None else np.asarray(counts)
        order = np.argsort(values)[: np.count_nonzero(~np.isnan(values))]  # NaN come last
        if not len(order):
            return 1.0
        below = np.cumsum(counts[order])
        middle = np.searchsorted(below, below[-1] / 2)
        return round(math.exp(values[order][middle]), 4)

    def why(self, src, tgt, context, settled):
        return [
            f"target of {len(target):,} characters where {len(source) * settled:,.0f} are expected"
            if is_out_of_ratio(source, target, settled, self.max) else None
            for source, target in zip(src, tgt, strict=True)
        ]  # fmt: skip

    def account(self, settled):
        return {"expected_ratio": settled}
