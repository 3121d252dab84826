"""N-best files: several candidate translations for every source line, in the format of Moses.

One candidate a line, best first, fields separated by `` ||| ``::

    0 ||| Das ist gut . ||| logprob= -2.3104 pieces= 5 ||| -0.462080

The number is that of the source line, from 0, as Moses, Marian and fairseq count; then the
detokenised text, its log-probability (nats, end of sentence included) with its number of
pieces (end of sentence included), and the log-probability per piece. Every source line has
the same number of candidates; a line that was not decoded has empty ones.
"""

import re
from pathlib import Path
from typing import NamedTuple

from data_prep.files import read_lines

_FIELDS = re.compile(r"(\d+) \|\|\| (.*) \|\|\| logprob= (\S+) pieces= (\d+) \|\|\| (\S+)")


class Candidate(NamedTuple):
    """A translation, its log-probability in nats and its pieces, end of sentence included."""

    text: str
    log_prob: float = 0.0
    pieces: int = 0

    @property
    def normalised(self):
        """Log-probability per piece; 0 for a candidate that was not decoded."""
        return self.log_prob / self.pieces if self.pieces else 0.0


def format_candidates(number, candidates):
    """The lines, each with its line feed, of source line ``number`` (from 0)."""
    return "".join(
        f"{number} ||| {text} ||| logprob= {log_prob:.4f} pieces= {pieces} ||| "
        f"{log_prob / pieces if pieces else 0.0:.6f}\n"
        for text, log_prob, pieces in candidates
    )


def is_nbest(path):
    """Whether the first line of a text file, plain or packed, is that of an n-best file."""
    return any(_FIELDS.fullmatch(line) is not None for line in _first(read_lines(path)))


def read_nbest(path):
    """Yield the candidates of each source line in turn, a list of :class:`Candidate`.

    Raises:
        ValueError: a line is not in the format, source lines are missing or out of order, or
            one has another number of candidates than the first; names file and line.
    """
    path = Path(path)
    expected, candidates, current = None, [], 0

    def complete(place):
        nonlocal expected
        expected = len(candidates) if expected is None else expected
        if len(candidates) != expected:
            raise ValueError(
                f"{path}, before line {place:,}: source line {current} (from 0) has "
                f"{len(candidates)} candidates, line 0 has {expected}; the file was cut or "
                f"edited, make it again"
            )

    place = 0
    for place, line in enumerate(read_lines(path), start=1):
        fields = _FIELDS.fullmatch(line)
        if fields is None:
            raise ValueError(
                f"{path}, line {place:,}: expected 'NUMBER ||| TEXT ||| logprob= X pieces= N "
                f"||| X', found {line[:80]!r}"
            )
        number, text, log_prob, pieces, _ = fields.groups()
        if int(number) != current:
            due = current + bool(candidates)
            if int(number) != due:
                raise ValueError(
                    f"{path}, line {place:,}: source line {number} where {due} was expected; "
                    f"an n-best file has every line, from 0 and in order"
                )
            complete(place)
            yield candidates
            candidates, current = [], int(number)
        try:
            candidates.append(Candidate(text, float(log_prob), int(pieces)))
        except ValueError:
            raise ValueError(f"{path}, line {place:,}: {log_prob} is not a number") from None
    if candidates:
        complete(place + 1)
        yield candidates


def _first(lines):
    for line in lines:
        yield line
        return
