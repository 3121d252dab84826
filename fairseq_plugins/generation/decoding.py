"""How a set of sentences is decoded, whatever decodes it: settings, batches, lengths, results."""

import bisect
import hashlib
from dataclasses import dataclass
from typing import NamedTuple

DEFAULT_BEAM = 5
MAX_SOURCE_PIECES = 250

# Sentences of one class share a length limit, so the limit does not depend on who else is
# in the batch. fairseq and CTranslate2 know one limit per batch only.
LENGTH_CLASSES = (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)


class Hypothesis(NamedTuple):
    """A translation in pieces.

    ``log_prob`` is in nats, as the decoder computes it: CTranslate2 shares the probability of
    what may not come (the unknown piece, an end before the first piece) out among the rest,
    fairseq does not. ``length`` counts the pieces that it is the sum over, so the end of sentence
    is included where there is one.
    """

    pieces: list
    log_prob: float
    length: int


class DecodingFailed(Exception):
    """The decoder gave up on a batch, for example because memory was short."""


@dataclass(frozen=True)
class Sampling:
    """Translations drawn from the model's distribution instead of searched for.

    Args:
        top_k: draw from so many of the most probable pieces; 0: from all.
        top_p: draw from the fewest pieces that have this much probability together, 0 to 1.
        temperature: above 1 flattens the distribution, below 1 sharpens it.
        seed: equal seeds draw equal translations.

    Raises:
        ValueError: a number is out of its range.
    """

    top_k: int = 0
    top_p: float = 1.0
    temperature: float = 1.0
    seed: int = 1

    def __post_init__(self):
        if self.top_k < 0:
            raise ValueError(f"--top-k is 0 or more, not {self.top_k}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"--top-p is above 0 and at most 1, not {self.top_p}")
        if not self.temperature > 0:
            raise ValueError(f"--temperature is above 0, not {self.temperature}")

    def shard_seed(self, number):
        """Seed of a shard, a number below 2³¹ that depends on the seed and the shard alone."""
        digest = hashlib.sha256(f"{self.seed} {number}".encode()).digest()
        return int.from_bytes(digest[:4], "big") >> 1


@dataclass(frozen=True)
class Decoding:
    """Settings of the search.

    Args:
        beam: hypotheses kept at each step, 1 is greedy.
        length_penalty: exponent of the length by which a score is divided.
        max_length: most pieces of a translation; None: see :meth:`length_limit`.
        batch_tokens: most source pieces in a batch, padding included.
        n_best: translations of each sentence, best first; at most ``beam`` when searching.
        sampling: ``Sampling``, or None to search.
    """

    beam: int = 5
    length_penalty: float = 1.0
    max_length: int | None = None
    batch_tokens: int = 1024
    n_best: int = 1
    sampling: Sampling | None = None

    def length_limit(self, pieces, positions):
        """Most pieces of a translation of ``pieces`` source pieces.

        Twice the source's class (8, 16, 32 ... pieces) and 10 more: at least
        2 × source + 10, at most what the model has positions for.
        """
        generous = 2 * length_class(pieces) + 10
        return min(self.max_length or generous, positions - 1)

    def batches(self, sentences):
        """Lists of indices into ``sentences`` (lists of pieces), longest first, alike in length.

        Every index comes once. A batch's sentences belong to one length class, and their
        padded size, end of sentence included, stays within ``batch_tokens`` unless a
        single sentence is longer.
        """
        batch, longest, shortest = [], 0, 0
        lengths = [len(sentence) for sentence in sentences]
        for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
            full = (len(batch) + 1) * (longest + 1) > self.batch_tokens
            if batch and (full or lengths[index] < shortest):
                yield batch
                batch = []
            if not batch:
                longest = lengths[index]
                shortest = _shortest_alike(longest)
            batch.append(index)
        if batch:
            yield batch


def beam_for(wanted, n_best):
    """The beam that was asked for, or one that finds ``n_best`` translations.

    Raises:
        ValueError: the beam finds fewer.
    """
    if wanted is None:
        return max(DEFAULT_BEAM, n_best)
    if wanted < n_best:
        raise ValueError(
            f"--beam {wanted} finds {wanted} translations, not the {n_best} of --n-best"
        )
    return wanted


def longest_source(wanted, positions):
    """Most pieces of a source line that are read: what was asked for, or 250 where they fit.

    Args:
        wanted: ``--max-source-pieces`` or None.
        positions: of the model, end of sentence included.

    Raises:
        ValueError: the model cannot read so many.
    """
    limit = positions - 1  # one is for the end of sentence
    if wanted is None:
        return min(MAX_SOURCE_PIECES, limit)
    if wanted > limit:
        raise ValueError(
            f"--max-source-pieces {wanted} is more than the {limit} the model can read"
        )
    return wanted


def check_numbers(**numbers):
    """Refuse settings below 1, by the names of their flags; None was not set."""
    for name, value in numbers.items():
        if value is not None and value < 1:
            raise ValueError(f"--{name.replace('_', '-')} is 1 or more, not {value}")


def _shortest_alike(pieces):
    """The fewest pieces of the same class as ``pieces``."""
    position = bisect.bisect_left(LENGTH_CLASSES, pieces)
    return LENGTH_CLASSES[position - 1] + 1 if position else 0


def length_class(pieces):
    """The smallest of ``LENGTH_CLASSES`` that holds that many pieces."""
    return LENGTH_CLASSES[bisect.bisect_left(LENGTH_CLASSES, pieces)]
