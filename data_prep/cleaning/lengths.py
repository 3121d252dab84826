"""Filters by length: of each side, of words, of one side against the other."""

import abc
import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from data_prep.cleaning.kinds import Filter, Measured
from data_prep.named_steps import option
from data_prep.words import count_words, longest_word


@dataclass(frozen=True)
class SideFilter(Filter, abc.ABC):
    """A filter that judges each side by itself."""

    def why(self, src, tgt, context):
        return [
            self._why("source", source) or self._why("target", target)
            for source, target in zip(src, tgt, strict=True)
        ]

    @abc.abstractmethod
    def _why(self, side, text):
        """Why a text must not be the ``side``; None if it may."""


@dataclass(frozen=True)
class Empty(SideFilter):
    """drops a pair without text on a side"""

    name: ClassVar[str] = "empty"

    def _why(self, side, text):
        return None if text.strip() else f"no {side}"


@dataclass(frozen=True)
class Length(SideFilter):
    """drops a pair with a side that is too short or too long"""

    name: ClassVar[str] = "length"
    min: int = option(1, "fewest words; a character of a script without spaces is a word")
    max: int = option(200, "most words")

    def check(self, context):
        if self.min < 0:
            self._refuse("min", self.min, "0 or more")
        if self.max < max(self.min, 1):
            self._refuse("max", self.max, f"{max(self.min, 1)} or more")

    def _why(self, side, text):
        if self.min <= 1 and 0 < len(text) <= self.max and not text.isspace():
            return None  # a word has a character or more
        words = count_words(text)
        return None if self.min <= words <= self.max else f"{side} of {words:,} words"


@dataclass(frozen=True)
class WordLength(SideFilter):
    """drops a pair with a word that is too long to be one: encoded data, lost spaces"""

    name: ClassVar[str] = "word-length"
    max: int = option(100, "most characters between spaces")

    def check(self, context):
        if self.max < 1:
            self._refuse("max", self.max, "1 or more")

    def _why(self, side, text):
        if len(text) <= self.max:
            return None
        longest = longest_word(text)
        return None if longest <= self.max else f"{side} has a word of {longest:,} characters"


# -- one side against the other ------------------------------------------------------------

RATIO_SMOOTHING = 10  # characters
WORD_SMOOTHING = 4


def is_out_of_ratio(source, target, expected_ratio, largest):
    """Whether ``target`` is ``largest`` times longer or shorter than ``source`` makes one expect.

    Some characters are added to both lengths, since short lines vary most.
    """
    return _factor(len(source), len(target), expected_ratio, RATIO_SMOOTHING) > largest


def _factor(source, target, expected_ratio, smoothing):
    expected, found = smoothing + source * expected_ratio, smoothing + target
    return np.maximum(expected / found, found / expected)


@dataclass(frozen=True)
class Ratio(Measured):
    """A filter by the two lengths of a pair, in a unit."""

    unit: ClassVar[str]
    smoothing: ClassVar[int]
    max: float = option(3.0, "largest factor between the length found and the one expected")
    expected: float = option(None, "target length for each unit of source; unset: measured")

    def check(self, context):
        if not 1 < self.max < math.inf:
            self._refuse("max", self.max, "a factor above 1")
        if self.expected is not None and not 0 < self.expected < math.inf:
            self._refuse("expected", self.expected, "a number above 0")

    @staticmethod
    @abc.abstractmethod
    def length(text):
        """Units of a text."""

    def settled(self):
        return self.expected

    def measure(self, src, tgt):
        lengths = self._lengths(src, tgt)
        lengths[lengths == 0] = np.nan
        return np.log(lengths[1] / lengths[0])

    def _lengths(self, src, tgt):
        return np.array([list(map(self.length, side)) for side in (src, tgt)], float)

    def settle(self, values, counts=None):
        if self.expected is not None:
            return self.expected
        values = np.asarray(values, dtype=float)
        counts = np.ones(len(values)) if counts is None else np.asarray(counts)
        order = np.argsort(values)[: np.count_nonzero(~np.isnan(values))]  # NaN come last
        if not len(order):
            return 1.0
        upto = np.cumsum(counts[order])
        return round(math.exp(values[order][np.searchsorted(upto, upto[-1] / 2)]), 4)

    def why(self, src, tgt, context, settled):
        lengths = self._lengths(src, tgt)
        whys = [None] * len(src)
        for place in np.flatnonzero(_factor(*lengths, settled, self.smoothing) > self.max):
            source, target = lengths[:, place]
            whys[place] = (
                f"target of {target:,.0f} {self.unit} where {source * settled:,.0f} are expected"
            )
        return whys

    def account(self, settled):
        return {"expected_ratio": settled}


@dataclass(frozen=True)
class LengthRatio(Ratio):
    """drops a pair whose target has many more or fewer characters than this corpus makes one
    expect: the expected ratio is the corpus's own median, so it suits any pair of languages.
    10 are added to both lengths, since short lines vary most"""

    name: ClassVar[str] = "length-ratio"
    unit: ClassVar[str] = "characters"
    smoothing: ClassVar[int] = RATIO_SMOOTHING
    length = staticmethod(len)


@dataclass(frozen=True)
class WordRatio(Ratio):
    """drops a pair whose target has many more or fewer words than this corpus makes one expect,
    as length-ratio does with characters. 4 are added to both lengths"""

    name: ClassVar[str] = "word-ratio"
    unit: ClassVar[str] = "words"
    smoothing: ClassVar[int] = WORD_SMOOTHING

    @staticmethod
    def length(text):
        return count_words(text)
