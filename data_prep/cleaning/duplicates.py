"""Pairs that come again, found by hashes on disk, so that memory does not grow with the corpus.

Each pair leaves the 128-bit XXH3 hash of what is compared, and its line number: 24 bytes. They lie
in buckets by hash; a bucket is sorted by itself, so equal hashes meet. Of each group of equals the
first in the corpus stays. Verdicts go into buckets by line number and come back in order.
"""

import contextlib
import tempfile
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import regex
import xxhash

from data_prep.cleaning.kinds import Corpus
from data_prep.named_steps import option

BUCKET_PAIRS = 100_000  # sorted at once, as long as there are not more buckets than
MOST_BUCKETS = 128  # files that are open together

HASHED = np.dtype([("high", "<u8"), ("low", "<u8"), ("line", "<i8")])
REPEATED = np.dtype([("line", "<i8"), ("first", "<i8")])

_NO_LETTER = regex.compile(r"[^\p{L}\p{M}]+")


# -- the steps -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Duplicate(Corpus):
    """drops a pair that came before"""

    name: ClassVar[str] = "duplicate"
    of: str = option("pair", "what is compared: pair, source or target")

    def check(self, context):
        if self.of not in ("pair", "source", "target"):
            self._refuse("of", self.of, "pair, source or target")

    def hashes(self, src, tgt):
        """Of each pair what is compared, hashed; an array of two columns, uint64."""
        if self.of == "pair":
            texts = map("{}\n{}".format, map(self._key, src), map(self._key, tgt))
        else:
            texts = map(self._key, src if self.of == "source" else tgt)
        digests = b"".join(xxhash.xxh3_128_digest(text.encode()) for text in texts)
        return np.frombuffer(digests, dtype="<u8").reshape(-1, 2)

    def _key(self, text):
        return text


@dataclass(frozen=True)
class NearDuplicate(Duplicate):
    """drops a pair that came before when only letters count: case, punctuation, digits and
    spacing are ignored. A line without letters is compared as it is"""

    name: ClassVar[str] = "near-duplicate"

    def _key(self, text):
        return _NO_LETTER.sub("", text.casefold()) or text


# -- on disk -------------------------------------------------------------------------------


class Repeats(contextlib.ExitStack):
    """Finds lines whose hash came before.

    Args:
        folder: for nameless files.
        pairs: how many there will be at most.
    """

    def __init__(self, folder, pairs):
        super().__init__()
        self._last = 0  # line
        self._size = min(MOST_BUCKETS, pairs // BUCKET_PAIRS + 1)
        self._hashed = self.enter_context(_Buckets(folder, HASHED, self._size))
        self._repeated = self.enter_context(_Buckets(folder, REPEATED, self._size))

    def add(self, lines, hashes):
        """Take the line numbers of some pairs, which rise from call to call, and their hashes."""
        entries = np.empty(len(lines), dtype=HASHED)
        entries["high"], entries["low"], entries["line"] = hashes[:, 0], hashes[:, 1], lines
        self._last = int(lines[-1])
        self._hashed.add((hashes[:, 0] % np.uint64(self._size)).astype(np.int64), entries)

    def find(self):
        """Number of lines that repeat another; called once, after the last ``add``."""
        count = 0
        for entries in self._hashed.take():
            # stable, so equal hashes stay in the order of the corpus
            entries = entries[np.lexsort((entries["low"], entries["high"]))]
            again = np.zeros(len(entries), dtype=bool)
            again[1:] = (entries["high"][1:] == entries["high"][:-1]) & (
                entries["low"][1:] == entries["low"][:-1]
            )
            first = np.maximum.accumulate(np.where(again, 0, np.arange(len(entries))))
            repeated = np.empty(np.count_nonzero(again), dtype=REPEATED)
            repeated["line"] = entries["line"][again]
            repeated["first"] = entries["line"][first[again]]
            self._repeated.add(repeated["line"] * self._size // (self._last + 1), repeated)
            count += len(repeated)
        return count

    def up_to(self):
        """A function of a line number: (line, first line that it repeats) of those up to it.

        It is called with numbers that rise, and answers with each line once.
        """
        buckets = (np.sort(entries, order="line") for entries in self._repeated.take())
        waiting = np.empty(0, dtype=REPEATED)
        ended = False

        def up_to(line):
            nonlocal waiting, ended
            while not ended and (not len(waiting) or waiting["line"][-1] <= line):
                more = next(buckets, None)
                ended = more is None
                if not ended:
                    waiting = np.concatenate([waiting, more])
            end = np.searchsorted(waiting["line"], line, side="right")
            taken, waiting = waiting[:end].copy(), waiting[end:]
            return taken

        return up_to


class _Buckets(contextlib.ExitStack):
    """Entries of one type, put by number into nameless files."""

    def __init__(self, folder, dtype, size):
        super().__init__()
        self._dtype = dtype
        self._files = [
            self.enter_context(tempfile.TemporaryFile(dir=folder)) for _ in range(size)
        ]

    def add(self, numbers, entries):
        """Append each entry to the bucket of its number."""
        order = np.argsort(numbers, kind="stable")
        ends = np.searchsorted(numbers[order], np.arange(len(self._files) + 1))
        entries = entries[order]
        for file, begin, end in zip(self._files, ends[:-1], ends[1:], strict=True):
            if begin < end:
                file.write(entries[begin:end].tobytes())

    def take(self):
        """Yield the entries of each bucket, in the order of the numbers, and remove them."""
        for file in self._files:
            with file:
                file.seek(0)
                yield np.frombuffer(file.read(), dtype=self._dtype)

