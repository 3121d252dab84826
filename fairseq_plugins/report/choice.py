"""Which student to ship: the dev set chooses, so that the test set can judge (contract 5)."""

from collections import Counter

from fairseq_plugins.report.comparisons import bleu

DEV, TEST = "dev", "test"


def choose(students):
    """The student that the dev set chooses, and what stands in the way of that.

    Args:
        students: groups (see ``groups.grouped``) of one domain.

    Returns:
        {"name", "by": ``DEV``; or ``TEST`` where no student has a dev BLEU, "dev": its dev BLEU
        or None, "left_out": names of students whose dev BLEU is not known or of another dev set};
        None where no student has a score.
    """
    sets = Counter(student["dev"]["set"] for student in students if student["dev"])
    if not sets:
        best = max((entry for entry in students if bleu(entry) is not None), key=bleu, default=None)
        if best is None:
            return None
        return {"name": best["name"], "by": TEST, "dev": None, "left_out": []}
    shared = sets.most_common(1)[0][0]
    able = [student for student in students if student["dev"] and student["dev"]["set"] == shared]
    best = max(able, key=lambda student: student["dev"]["bleu"])
    left_out = [student["name"] for student in students if student not in able]
    return {"name": best["name"], "by": DEV, "dev": best["dev"]["bleu"], "left_out": left_out}


def choose_row(rows):
    """The row of a group that is shipped: of its seeds the one with the highest dev BLEU.

    Args:
        rows: of one group. Without dev BLEU the first is taken: no seed is better
            than another that way, and the test set has no say.
    """
    known = [row for row in rows if row["dev"]]
    return max(known, key=lambda row: row["dev"]["bleu"]) if known else rows[0]


def by_size(students):
    """{size: what ``choose`` says among the students of it}, in the order of the table."""
    sizes = dict.fromkeys(student["size"] for student in students)
    return {
        size: choose([student for student in students if student["size"] == size])
        for size in sizes
    }
