"""A teacher: lines of text in, candidate translations of each out, whatever computes them.

Between text and backend: subwords, batches within a shard, what cannot be decoded, and
as many batches under way at once as keep every worker busy.
"""

import itertools
import math
import time
from collections import deque

from fairseq_plugins.generation.decoding import DecodingFailed
from fairseq_plugins.generation.nbest import Candidate

# what can be special about a source line
EMPTY_SOURCE, TOO_LONG, FAILED, EMPTY_TRANSLATION = (
    "empty source", "too long", "failed", "empty translation",
)  # fmt: skip

BATCHES_PER_WORKER = (2, 16)  # under way at once, fewest and most
SECONDS_AHEAD = 1.0  # of work under way, between those


class Teacher:
    """Decodes shards of text.

    Args:
        codec: has ``encode_batch(lines)``, piece lists, ``cut(pieces, longest)``, and
            ``decode_batch(sentences)``, the text of piece lists, one line each.
        backend: has ``session(seed)``, see ``CTranslate2Backend``.
        decoding: ``Decoding``.
        longest: most pieces of a source line.
        cut: whether a longer line is translated as far as that; otherwise it is not decoded.
    """

    def __init__(self, codec, backend, decoding, *, longest, cut):
        self.codec, self.backend, self.decoding = codec, backend, decoding
        self.longest, self.cut = longest, cut

    def shard(self, number, lines, known=None):
        """A ``Shard`` of these lines; ``known`` is what an interrupted run kept of it."""
        if self.decoding.sampling:
            known = None  # what is drawn depends on what was drawn before in the shard
        return Shard(self, number, lines, known)


class Shard:
    """Lines that are decoded and stored together.

    ``candidates`` has a list of ``Candidate`` for every line, best first: empty for a line
    that is not decoded, None for one that is still to be decoded. ``special`` tells of the
    lines with something special what it is and how many pieces they have.
    """

    def __init__(self, teacher, number, lines, known):
        self.number, self.started, self.special = number, time.monotonic(), {}
        self._teacher = teacher
        self._sentences = teacher.codec.encode_batch([line.strip() for line in lines])
        self.candidates = [None] * len(lines)
        for index, pieces in enumerate(self._sentences):
            if not pieces:
                self.special[index] = (EMPTY_SOURCE, 0)
                self.candidates[index] = []
            elif len(pieces) > teacher.longest:
                self.special[index] = (TOO_LONG, len(pieces))
                self._sentences[index] = teacher.codec.cut(pieces, teacher.longest)
                if not teacher.cut:
                    self.candidates[index] = []
        to_decode = [index for index, found in enumerate(self.candidates) if found is None]
        chosen = [self._sentences[index] for index in to_decode]
        # the same batches as in a run that was not interrupted, hence the same bytes
        batches = [[to_decode[i] for i in batch] for batch in teacher.decoding.batches(chosen)]
        if known is not None:
            for index, found in enumerate(known):
                if self.candidates[index] is None and found is not None:
                    self.candidates[index] = [Candidate(*fields) for fields in found]
        self._batches = deque(
            batch for batch in batches if any(self.candidates[i] is None for i in batch)
        )
        self._session = None
        self.tokens = 0

    @property
    def waiting(self):
        """Whether there are batches that were not begun."""
        return bool(self._batches)

    @property
    def complete(self):
        """Whether every line that is to be decoded has been."""
        return all(found is not None for found in self.candidates)

    def begin_batch(self):
        """Start on the next batch; returns what :meth:`finish_batch` takes."""
        if self._session is None:
            sampling = self._teacher.decoding.sampling
            seed = sampling.shard_seed(self.number) if sampling else 0
            self._session = self._teacher.backend.session(seed)
        batch = self._batches.popleft()
        try:
            return batch, self._session.begin([self._sentences[index] for index in batch])
        except DecodingFailed as error:
            return batch, _raising(error)

    def finish_batch(self, batch, wait):
        """Wait for a batch and keep its translations."""
        try:
            decoded = wait()
        except DecodingFailed:
            decoded = [self._alone(index) for index in batch]
        decoded = [self._best_first(hypotheses) for hypotheses in decoded]
        # in one call, because the subword model takes more time for a call than for a sentence
        texts = iter(
            self._teacher.codec.decode_batch(
                [hypothesis.pieces for hypotheses in decoded for hypothesis in hypotheses or ()]
            )
        )
        for index, hypotheses in zip(batch, decoded, strict=True):
            self._keep(index, hypotheses, texts)

    def _alone(self, index):
        """Translations of one sentence of a batch that failed; None where it fails again."""
        try:
            (hypotheses,) = self._session.begin([self._sentences[index]])()
        except DecodingFailed:
            return None
        return hypotheses

    def _best_first(self, hypotheses):
        if hypotheses is None or self._teacher.decoding.sampling is None:
            return hypotheses
        # the decoders return samples in any order
        return sorted(hypotheses, key=lambda h: -h.log_prob / max(h.length, 1))

    def _keep(self, index, hypotheses, texts):
        if hypotheses is None:
            self.special[index] = (FAILED, len(self._sentences[index]))
            self.candidates[index] = []
            return
        self.tokens += hypotheses[0].length
        self.candidates[index] = [
            Candidate(next(texts), log_prob, length) for _, log_prob, length in hypotheses
        ]


def decode(shards, *, workers, at_once=1, should_stop=lambda: False, advance=lambda done: None):
    """Decode shards, and yield each when it is complete.

    Args:
        shards: iterable of ``Shard``; taken one by one, as there is need of work.
        workers: batches that the backend decodes at the same time.
        at_once: shards that are begun side by side.
        should_stop: when it says so, no batch is begun any more, those under way are
            finished, and the shards that this leaves incomplete are yielded last.
        advance: called with the number of sentences that were finished.
    """
    shards, begun, under_way = iter(shards), [], deque()
    window = _Window(workers)
    while True:
        while len(under_way) < window.size and not should_stop():
            if len(begun) < at_once:
                shard = next(shards, None)
                if shard is not None and not shard.waiting:
                    advance(len(shard.candidates))
                    yield shard
                    continue
                if shard is not None:
                    # lines that need no decoding, or were decoded before
                    advance(sum(found is not None for found in shard.candidates))
                    begun.append(shard)
            if not begun:
                break
            shard = begun.pop(0)
            under_way.append((shard, *shard.begin_batch()))
            if shard.waiting:
                begun.append(shard)
        if not under_way:
            break
        shard, batch, wait = under_way.popleft()
        missing = sum(shard.candidates[index] is None for index in batch)
        shard.finish_batch(batch, wait)
        window.note_batch()
        advance(missing)
        if shard.complete:
            yield shard
    yield from begun


class _Window:
    """How many batches are under way: enough for a second, so that a stop takes little more."""

    def __init__(self, workers):
        self._workers = workers
        self._started, self._batches = time.monotonic(), itertools.count(1)
        self.size = BATCHES_PER_WORKER[0] * workers

    def note_batch(self):
        mean_seconds = max((time.monotonic() - self._started) / next(self._batches), 1e-6)
        fewest, most = (number * self._workers for number in BATCHES_PER_WORKER)
        self.size = min(max(math.ceil(SECONDS_AHEAD / mean_seconds), fewest), most)


def _raising(error):
    def wait():
        raise error

    return wait
