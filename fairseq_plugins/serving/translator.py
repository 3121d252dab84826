"""An exported model, loaded once and ready: lines of text in, candidate translations out.

Needs neither fairseq nor PyTorch.
"""

import time
from dataclasses import dataclass
from pathlib import Path

from data_prep.manifest import manifest_path, read_json
from fairseq_plugins.generation.backends import choose, workers_and_threads
from fairseq_plugins.generation.converted import open_exported
from fairseq_plugins.generation.decoding import Decoding, DecodingFailed, longest_source
from fairseq_plugins.generation.policies import Policies
from fairseq_plugins.generation.teacher import FAILED, TOO_LONG, Teacher, decode


class Translator:
    """Translates with one model.

    Attributes:
        path: its folder.
        languages: (source, target) codes, or (None, None) for a model that does not say.
        bytes, parameters: its size; parameters None where its maker did not count them.
        workers: batches decoded at the same time.
        longest: most pieces of a line that are read.

    Args:
        path: EXPORTED or CONVERTED folder.
        device, compute_type, workers, threads: see ``choose`` and ``workers_and_threads``.
        batch_tokens: most source pieces in a batch; None: what suits the device.
        max_source_pieces: of a longer line the beginning is read; None: 250, or what fits.
        conventions: for a CONVERTED folder, see ``open_converted``.

    Raises:
        FileNotFoundError, ValueError: see ``open_exported``, ``choose`` and CTranslate2Backend.
    """

    def __init__(self, path, *, device="auto", compute_type=None, workers=None, threads=None,
                 batch_tokens=None, max_source_pieces=None, **conventions):  # fmt: skip
        model = open_exported(path, **conventions)
        choice = choose([model], device=device, compute_type=compute_type)
        self.workers, threads = workers_and_threads(choice, workers, threads)
        self._batch_tokens = batch_tokens or choice.default_batch_tokens
        self._backend = choice.load(Decoding(), workers=self.workers, threads=threads)
        self._codec = model.codec()
        self.longest = longest_source(max_source_pieces, self._backend.source_positions)
        self.path = Path(path)
        vocabulary = getattr(model, "vocabulary", None)  # what others converted has no languages
        self.languages = vocabulary.langs if vocabulary else (None, None)
        self.bytes, self.parameters = _size(model)

    def teacher(self, beam, n_best=1):
        """A ``Teacher`` that cuts long lines and searches with this beam."""
        decoding = Decoding(beam=beam, n_best=n_best, batch_tokens=self._batch_tokens)
        return Teacher(
            self._codec, self._backend.searching(decoding), decoding, longest=self.longest, cut=True
        )

    def translate(self, lines, beam, n_best=1, deadline=None):
        """A :class:`Translated` of a few lines.

        Args:
            lines: list of str.
            beam, n_best: see ``Decoding``.
            deadline: on the clock of ``time.monotonic``; None: however long it takes.

        Raises:
            TooSlow: the deadline passed.
            DecodingFailed: the decoder gave up on a line.
        """
        started = time.monotonic()
        shard = self.teacher(beam, n_best).shard(0, lines)
        for _ in decode(
            [shard], workers=self.workers,
            should_stop=lambda: deadline is not None and time.monotonic() > deadline,
        ):  # fmt: skip
            pass  # the shard keeps its translations
        if not shard.complete:
            raise TooSlow
        candidates, rows = Policies(on_fail="drop").settle(shard, 1, n_best)
        if any(row.what == FAILED for row in rows):
            raise DecodingFailed
        cut = {row.line - 1 for row in rows if row.what == TOO_LONG}
        return Translated(candidates, cut, time.monotonic() - started, shard.tokens)


@dataclass(frozen=True)
class Translated:
    """What came of a few lines.

    Attributes:
        candidates: of each line, a list of ``Candidate``, best first.
        cut: set of the indices of the lines of which only the beginning was translated.
        seconds: text to text.
        pieces: of the best translations, ends of sentences included.
    """

    candidates: list
    cut: set
    seconds: float
    pieces: int


class TooSlow(Exception):
    """A deadline passed before the last line was translated."""


def _size(model):
    """(bytes, parameters or None): of an EXPORTED folder what its manifest says."""
    counts = {}
    if manifest_path(model.path).is_file():
        counts = read_json(manifest_path(model.path)).get("counts", {})
    return counts.get("bytes") or model.weights.stat().st_size, counts.get("parameters")
