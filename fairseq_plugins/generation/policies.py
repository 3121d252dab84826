"""What becomes of a line that cannot be decoded as it is: policies, and a ledger of such lines."""

from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

from fairseq_plugins.generation.nbest import Candidate
from fairseq_plugins.generation.teacher import (
    EMPTY_SOURCE,
    EMPTY_TRANSLATION,
    FAILED,
    TOO_LONG,
)

CHOICES = {
    "on_empty": ("empty", "reference", "drop"),
    "on_long": ("truncate", "reference", "drop"),
    "on_fail": ("stop", "reference", "drop"),
}
# what the ledger says was done
LEFT_EMPTY, CUT, REFERENCE, DROPPED, KEPT = "left empty", "cut", "reference", "dropped", "kept"
_ACTIONS = {"empty": LEFT_EMPTY, "truncate": CUT, "reference": REFERENCE, "drop": DROPPED}

LEDGER_HEADER = "line\twhat\taction\tpieces\n"


class LedgerRow(NamedTuple):
    """A line with something special: its number (from 1), what it was, what was done about it."""

    line: int
    what: str
    action: str
    pieces: int

    def __str__(self):
        return "\t".join(map(str, self))


@dataclass(frozen=True)
class Policies:
    """What to do with special lines.

    A dropped line is empty in the output, so that every line keeps its number, and the
    ledger names it; dad-select leaves it out of the bitext.

    Args:
        on_empty: a source line without text gives an "empty" line, the "reference", or "drop".
        on_long: a line with too many pieces: "truncate" translates its beginning, "reference"
            takes the reference, "drop".
        on_fail: a line that the decoder gives up on: "stop", "reference" or "drop".

    Raises:
        ValueError: there is no such policy.
    """

    on_empty: str = "empty"
    on_long: str = "truncate"
    on_fail: str = "stop"

    def __post_init__(self):
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise ValueError(
                    f"--{name.replace('_', '-')} is {', '.join(known[:-1])} or {known[-1]}, "
                    f"not {getattr(self, name)}"
                )

    @property
    def need_references(self):
        """Whether the reference of some line may be wanted."""
        return "reference" in (self.on_empty, self.on_long, self.on_fail)

    def settle(self, shard, first_line, n_best, references=None):
        """The candidates of every line of a complete shard, and the ledger's rows.

        Args:
            shard: ``Shard``, or anything with ``candidates`` and ``special``.
            first_line: number of the shard's first line, from 1.
            n_best: candidates of every line.
            references: list of strings, one for each line, where they are needed.

        Returns:
            list of lists of ``n_best`` ``Candidate``; list of ``LedgerRow``.

        Raises:
            ValueError: the decoder gave up on a line and the policy is "stop".
        """
        settled, rows = [], []
        for index, found in enumerate(shard.candidates):
            line = first_line + index
            what, pieces = shard.special.get(index, (None, 0))
            if what is None:
                if not found[0].text:
                    rows.append(LedgerRow(line, EMPTY_TRANSLATION, KEPT, found[0].pieces))
            else:
                action = self._action(what, line)
                rows.append(LedgerRow(line, what, action, pieces))
                if action == REFERENCE:
                    found = [Candidate(references[index])] * n_best
                elif action != CUT:
                    found = [Candidate("")] * n_best
            if len(found) != n_best:
                raise ValueError(
                    f"line {line} has {len(found)} translations instead of {n_best}; ask for "
                    f"fewer with --n-best"
                )
            settled.append(found)
        return settled, rows

    def _action(self, what, line):
        policy = {
            EMPTY_SOURCE: self.on_empty, TOO_LONG: self.on_long, FAILED: self.on_fail,
        }[what]  # fmt: skip
        if policy == "stop":
            raise ValueError(
                f"the decoder gave up on line {line}; make --batch-tokens or --beam smaller if "
                f"memory was short, or go on without the line: --on-fail drop"
            )
        return _ACTIONS[policy]


def count_special(rows):
    """Counts for the manifest: what was special, and what was done, a dictionary."""
    what, actions = Counter(row.what for row in rows), Counter(row.action for row in rows)
    return {
        "empty_sources": what[EMPTY_SOURCE],
        "too_long": what[TOO_LONG],
        "failed": what[FAILED],
        "empty_outputs": what[EMPTY_TRANSLATION],
        "from_reference": actions[REFERENCE],
        "dropped": actions[DROPPED],
    }
