"""The ledger of a selection: where every line that was read has gone."""

from dataclasses import dataclass, field

from tabulate import tabulate

from data_prep.cleaning.ledger import EXAMPLES, make_example


@dataclass
class Tally:
    """What one step did to the lines that reached it. Tallies of batches can be added.

    Attributes:
        step: its description.
        read, kept: lines that came and that went on.
        candidates_read, candidates_kept: their candidates.
        changed: lines whose best candidate is not the one that stood first (choosing steps).
        gain: sum over lines of how much better it is than that (choosing steps).
        examples: of rejected lines, the first few.
        notes: further entries of the record, such as a measured limit.
    """

    step: str
    read: int = 0
    kept: int = 0
    candidates_read: int = 0
    candidates_kept: int = 0
    changed: int = 0
    gain: float = 0.0
    examples: list = field(default_factory=list)
    notes: dict = field(default_factory=dict)

    def judge(self, record, whys):
        """Count a line and return it with the candidates that may stay.

        Args:
            record: line with candidates.
            whys: for each candidate why it must go, or None.
        """
        kept = [
            candidate
            for candidate, why in zip(record.candidates, whys, strict=True)
            if why is None
        ]
        self.pass_on(record, kept)
        if not kept and len(self.examples) < EXAMPLES:
            first = record.candidates[0].text
            self.examples.append(make_example(record.number, record.source, first, whys[0]))
        return record._replace(candidates=kept)

    def pass_on(self, record, kept):
        """Count a line of which the candidates ``kept`` stay."""
        self.read += 1
        self.kept += bool(kept)
        self.candidates_read += len(record.candidates)
        self.candidates_kept += len(kept)

    def add(self, other):
        """Count what ``other``, the same step's tally of later lines, has counted."""
        for name in ("read", "kept", "candidates_read", "candidates_kept", "changed", "gain"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.examples = [*self.examples, *other.examples][:EXAMPLES]


def make_ledger(lines, tallies, rejected, pairs):
    """The ledger as a dictionary, checked to account for every line.

    Args:
        lines: number of lines read.
        tallies: ``Tally`` of each step, in order.
        rejected: {"dropped", "reference"}: what became of rejected lines.
        pairs: {origin: pairs written}.
    """
    reached = lines
    steps = []
    for tally in tallies:
        assert tally.read == reached, f"{tally.read} of {reached} lines came to {tally.step}"
        reached = tally.kept
        entry = {
            "step": tally.step,
            "read": tally.read,
            "kept": tally.kept,
            "rejected": tally.read - tally.kept,
            "share": round((tally.read - tally.kept) / lines, 6),
            "candidates_read": tally.candidates_read,
            "candidates_kept": tally.candidates_kept,
            **tally.notes,
        }
        if "ranked_by" in tally.notes:
            entry["changed"] = tally.changed
            entry["mean_gain"] = round(tally.gain / tally.read, 4) if tally.read else 0.0
        steps.append({**entry, "examples": tally.examples})
    assert reached + sum(rejected.values()) == lines, f"{reached} + {rejected} are not {lines}"
    assert reached + sum(step["rejected"] for step in steps) == lines
    shares = round(reached / lines, 6) + sum(step["share"] for step in steps)
    assert abs(shares - 1) < 1e-6 * (len(steps) + 1), f"the shares sum to {shares}, not 1"
    return {
        "read": lines,
        "kept": reached,
        "kept_share": round(reached / lines, 6),
        "rejected": rejected,
        "steps": steps,
        "pairs": pairs,
    }


def table(ledger):
    """The ledger as text for people; the shares are of all lines and sum to 100 %."""
    lines = ledger["read"]
    rows = []
    for step in ledger["steps"]:
        choice = "mean_gain" in step
        rows.append(
            [
                step["step"], f"{step['read']:,}", f"{step['rejected']:,}",
                f"{100 * step['rejected'] / lines:.2f} %",
                f"{step['changed']:,}" if choice else "",
                f"{step['mean_gain']:+.3f} {step['ranked_by'].split('|')[0]}" if choice else "",
            ]
        )  # fmt: skip
    rows.append(["kept", f"{ledger['kept']:,}", "", f"{100 * ledger['kept'] / lines:.2f} %"])
    headers = ["step", "lines", "rejected", "share", "changed", "mean gain"]
    text = tabulate(
        rows, headers, tablefmt="simple", disable_numparse=True,
        colalign=("left", "right", "right", "right", "right", "right"),
    )  # fmt: skip
    pairs = ", ".join(f"{count:,} {origin}" for origin, count in ledger["pairs"].items())
    fell_back, dropped = ledger["rejected"]["reference"], ledger["rejected"]["dropped"]
    return (
        f"{text}\n\nrejected lines: {dropped:,} dropped, {fell_back:,} fell back to the reference\n"
        f"pairs written: {sum(ledger['pairs'].values()):,} ({pairs})"
    )
