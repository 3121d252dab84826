"""The ledger of a cleaning: where every line that was read has gone."""

import heapq
from dataclasses import dataclass, field

from tabulate import tabulate

from data_prep.files import write_whole

EXAMPLES = 5
EXAMPLE_CHARACTERS = 200
DROPPED = "dropped.tsv.gz"
COLUMNS = ("line", "step", "why")


@dataclass
class Tally:
    """What one step did to the pairs that reached it. Tallies of batches can be added.

    Attributes:
        read: pairs that came.
        dropped: pairs that it stopped (filters).
        repaired: pairs that it changed (repairs).
        seconds: of processor time.
        examples: of dropped pairs, the first few.
        notes: further entries of the record, such as what was measured.
    """

    read: int = 0
    dropped: int = 0
    repaired: int = 0
    seconds: float = 0.0
    examples: list = field(default_factory=list)
    notes: dict = field(default_factory=dict)

    def drop(self, number, src, tgt, why):
        """Count a pair that is dropped."""
        self.dropped += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append(make_example(number, src, tgt, why))

    def add(self, other):
        """Count what ``other``, the same step's tally of later pairs, has counted."""
        for name in ("read", "dropped", "repaired", "seconds"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.examples = [*self.examples, *other.examples][:EXAMPLES]


def make_example(number, src, tgt, why):
    """A dropped line as it stands in a ledger."""
    src, tgt = src[:EXAMPLE_CHARACTERS], tgt[:EXAMPLE_CHARACTERS]
    return {"line": number, "source": src, "target": tgt, "why": why}


def make_ledger(pairs, outcome, steps):
    """The ledger as a dictionary, checked to account for every pair.

    Args:
        pairs: in the corpus.
        outcome: ``engine.Outcome``.
        steps: description of each step, in order, and whether it is a repair.
    """
    entries = []
    reached = read = outcome.read
    for (step, repairs), tally in zip(steps, outcome.tallies, strict=True):
        assert tally.read == reached, f"{tally.read} of {reached} pairs came to {step}"
        reached -= tally.dropped
        entry = {"step": step, "read": tally.read, **tally.notes}
        if repairs:
            assert not tally.dropped, f"{step} lost {tally.dropped} pairs"
            entries.append({**entry, "repaired": tally.repaired})
        else:
            share = round(tally.dropped / read, 6)
            entries.append(
                {**entry, "dropped": tally.dropped, "share": share, "examples": tally.examples}
            )
    assert reached == outcome.kept, f"{outcome.kept} pairs were written and {reached} kept"
    return {
        "pairs_in_corpus": pairs,
        "read": read,
        "kept": outcome.kept,
        "repaired": outcome.repaired,
        "steps": entries,
    }


def table(ledger, seconds):
    """The ledger as text for people; the shares are of all pairs that were read.

    Args:
        seconds: of processor time, of each step.
    """
    rows = []
    for step, spent in zip(ledger["steps"], seconds, strict=True):
        filters = "dropped" in step
        rows.append(
            [
                step["step"], f"{step['read']:,}",
                "" if filters else f"{step['repaired']:,}",
                f"{step['dropped']:,}" if filters else "",
                _percent(step["dropped"], ledger) if filters else "",
                f"{spent:,.1f}",
            ]
        )  # fmt: skip
    rows.append(["kept", f"{ledger['kept']:,}", f"{ledger['repaired']:,}", "",
                 _percent(ledger["kept"], ledger), ""])  # fmt: skip
    headers = ["step", "pairs", "repaired", "dropped", "share", "CPU s"]
    return tabulate(
        rows, headers, tablefmt="simple", disable_numparse=True,
        colalign=("left", *["right"] * 5),
    )  # fmt: skip


def summary(ledger):
    """The ledger in a line: kept 40 of 43 (2 empty, 1 duplicate)."""
    dropped = ", ".join(
        f"{step['dropped']:,} {step['step'].partition(':')[0]}"
        for step in ledger["steps"] if step.get("dropped")
    )  # fmt: skip
    kept = f"kept {ledger['kept']:,} of {ledger['read']:,}"
    return f"{kept} ({dropped})" if dropped else kept


def _percent(pairs, ledger):
    return f"{100 * pairs / ledger['read']:.2f} %"


def write_dropped(path, files):
    """Write the table of dropped lines from files of its rows, each in the order of the lines."""
    for file in files:
        file.seek(0)
    with write_whole(path) as out:
        out.write("\t".join(COLUMNS) + "\n")
        out.flush()
        rows = heapq.merge(*files, key=lambda row: int(row[: row.index(b"\t")]))
        out.buffer.writelines(rows)
