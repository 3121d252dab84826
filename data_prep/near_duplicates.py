"""Near duplicates: lines that share most of their words.

Two lines are as near as the Jaccard similarity of their sets of words: words in both, divided by
words in either. Case, punctuation, character width and the order of words are ignored; each
character of a script without spaces is a word, as everywhere in this project.

The search is exact, unlike MinHash: no near line is missed and none is made up. It is the prefix
filter of Bayardo et al. 2007 (doi:10.1145/1242572.1242591): of two sets that share that much,
the rarest few words of one and of the other have a word in common, so that only these are looked
up. Most lines are settled by that, without a single comparison.
"""

import math
import re
import unicodedata
from collections import Counter

from data_prep.words import words_of

_NEITHER_LETTER_NOR_DIGIT = re.compile(r"[\W_]+")
_MARKS = re.compile("[\u0300-\u036f]+")  # what NFKC could not compose, such as Russian stress
_ROUNDING = 1e-9  # 0.7 × 10 is 7, not 7.000000000000001


def plain_words(text):
    """Words of a line, in order, with case, punctuation and character width ignored."""
    if text.isascii():
        return _NEITHER_LETTER_NOR_DIGIT.sub(" ", text.lower()).split()
    plain = _MARKS.sub("", unicodedata.normalize("NFKC", text).casefold())
    return words_of(_NEITHER_LETTER_NOR_DIGIT.sub(" ", plain))


class NearIndex:
    """Finds the nearest of some lines; its size is that of these lines."""

    def __init__(self, lines, threshold):
        """Index some lines.

        Args:
            lines: lists of words, from ``plain_words``.
            threshold: lowest similarity that is near, above 0 to 1.
        """
        self.threshold = threshold
        sets = [frozenset(words) for words in lines]
        counts = Counter(word for words in sets for word in words)
        rarest = sorted(counts, key=lambda word: (counts[word], word))
        self._rank = {word: rank for rank, word in enumerate(rarest)}
        self._sets = []
        self._lines = {}  # rank of a word: (size of the set, number of the line), sorted
        for number, words in enumerate(sets):
            ranks = sorted(map(self._rank.get, words))
            self._sets.append(frozenset(ranks))
            for rank in ranks[: self._spare(len(ranks)) + 1]:
                self._lines.setdefault(rank, []).append((len(ranks), number))

    def nearest(self, words):
        """(similarity, number of the line) of the nearest line, the first of equals; or None."""
        words = set(words)
        size = len(words)
        known = sorted(rank for rank in map(self._rank.get, words) if rank is not None)
        spare = self._spare(size) - (size - len(known))
        if spare < 0 or not known:
            return None
        shortest = size * self.threshold - _ROUNDING
        longest = size / self.threshold + _ROUNDING
        numbers = {
            number
            for rank in known[: spare + 1]
            for other, number in self._lines.get(rank, ())
            if shortest <= other <= longest
        }
        best = None
        for number in numbers:
            line = self._sets[number]
            shared = len(line.intersection(known))
            similarity = shared / (size + len(line) - shared)
            if similarity >= self.threshold - _ROUNDING:
                best = min(best or (0, 0), (-similarity, number))
        return best and (-best[0], best[1])

    def _spare(self, size):
        """How many words of a set may be missing from a set that is near."""
        return size - math.ceil(size * self.threshold - _ROUNDING)
