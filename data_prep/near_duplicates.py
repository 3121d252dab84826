"""Near duplicates: lines that share most of their words.

Two lines are as near as the Jaccard similarity of their sets of words: words in both, divided by
words in either. Case, punctuation, character width and the order of words are ignored; each
character of a script without spaces is a word, as everywhere in this project.

The search is exact, unlike MinHash: no near line is missed and none is made up. It is the prefix
filter of Bayardo et al. 2007 (doi:10.1145/1242572.1242591): of two sets that share that much,
the rarest few words of one and the rarest few of the other have a word in common, so only these
are looked up. What is found so is compared by 128 bits first, each of which stands for some words;
most lines are settled before any words are compared.
"""

import math
import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections import Counter

from data_prep.words import words_of

_NEITHER_LETTER_NOR_DIGIT = re.compile(r"[\W_]+")
# don't is one word; a Russian stress is a mark that NFKC does not compose
_INSIDE_WORDS = re.compile("['’\u0300-\u036f]+")
_PERHAPS_SPACELESS = re.compile("[\u0e00-\U0010ffff]")  # words_of is slower than str.split
_BITS = 128  # 64 let through more to be compared, 256 take longer
_ROUNDING = 1e-9  # 0.7 × 10 is 7, not 7.000000000000001


def plain_words(text):
    """Words of a line, in order, with case, punctuation and character width ignored."""
    if text.isascii():
        return _NEITHER_LETTER_NOR_DIGIT.sub(" ", text.lower().replace("'", "")).split()
    text = unicodedata.normalize("NFKC", text).casefold()
    text = _NEITHER_LETTER_NOR_DIGIT.sub(" ", _INSIDE_WORDS.sub("", text))
    return words_of(text) if _PERHAPS_SPACELESS.search(text) else text.split()


class NearIndex:
    """Finds the nearest of some lines; its size is that of these lines."""

    def __init__(self, lines, threshold, least):
        """Index some lines.

        Args:
            lines: lists of words, from ``plain_words``.
            threshold: lowest similarity that is near, above 0 to 1.
            least: a line of fewer different words is near to none.
        """
        self.threshold = threshold
        self.least = least
        sets = [frozenset(words) for words in lines]
        counts = Counter(word for words in sets for word in words)
        rarest = sorted(counts, key=lambda word: (counts[word], word))
        self._rank = {word: rank for rank, word in enumerate(rarest)}
        self._sets = [frozenset(map(self._rank.get, words)) for words in sets]
        self._lacking = [~_bits(ranks) for ranks in self._sets]
        self._found_by = {}  # rank of a word: sizes of sets, ascending, and numbers of their lines
        for number in sorted(range(len(sets)), key=lambda number: len(sets[number])):
            size = len(sets[number])
            if size >= least:
                for rank in sorted(self._sets[number])[: self._spare(size) + 1]:
                    sizes, numbers = self._found_by.setdefault(rank, ([], []))
                    sizes.append(size)
                    numbers.append(number)

    def nearest(self, words):
        """(similarity, number of the line) of the nearest line, the first of equals; or None."""
        words = set(words)
        size = len(words)
        if size < self.least:
            return None
        known = sorted(rank for rank in map(self._rank.get, words) if rank is not None)
        spare = self._spare(size) - (size - len(known))
        if spare < 0:
            return None
        numbers = set()
        for rank in known[: spare + 1]:
            if rank in self._found_by:
                sizes, found = self._found_by[rank]
                first = bisect_left(sizes, size * self.threshold - _ROUNDING)
                last = bisect_right(sizes, size / self.threshold + _ROUNDING)
                numbers.update(found[first:last])
        if not numbers:
            return None
        best = None
        bits = _bits(known)
        for number in numbers:
            if (bits & self._lacking[number]).bit_count() > spare:
                continue
            line = self._sets[number]
            shared = len(line.intersection(known))
            similarity = shared / (size + len(line) - shared)
            if similarity >= self.threshold - _ROUNDING:
                best = min(best or (0, 0), (-similarity, number))
        return best and (-best[0], best[1])

    def _spare(self, size):
        """How many words of a set may be missing from a set that is near."""
        return size - math.ceil(size * self.threshold - _ROUNDING)


def _bits(ranks):
    bits = 0
    for rank in ranks:
        bits |= 1 << rank % _BITS
    return bits
