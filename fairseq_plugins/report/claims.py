"""What the paper claims (Gordon & Duh 2020), and whether a run bears it out.

``check`` returns a dictionary for each claim and size:

  key, size     of ``CLAIMS``, and of the students
  title, paper  the claim in words
  words         what is compared
  main          the comparison that decides; null while it cannot be made
  others        further comparisons that speak of the same claim
  says          ``AS_IN_PAPER``, ``NOT_AS_IN_PAPER``, ``WITHIN_NOISE`` or ``CANNOT_TELL``
  why           the reason in words, '' where ``says`` is enough
"""

from dataclasses import dataclass

from fairseq_plugins.report.choice import DEV, choose
from fairseq_plugins.report.comparisons import NOT_TESTED, SIGNIFICANT, WITHIN_NOISE, bleu
from fairseq_plugins.report.grid import FROM_NOTHING, ONE_DISTILLATION, STARTS

AS_IN_PAPER, NOT_AS_IN_PAPER = "as in the paper", "not as in the paper"
CANNOT_TELL = "cannot tell"

SAME_TARGETS = (("4", "1"), ("7", "1"), ("5", "2"), ("8", "2"), ("6", "3"), ("9", "3"))


@dataclass(frozen=True)
class Claim:
    """A difference that the paper found: ``low`` to ``high`` BLEU."""

    key: str
    title: str
    paper: str
    low: float
    high: float


ADAPTING = Claim(
    "adapting", "Adapting against not adapting", "adapting gains 2 to 10 BLEU", 2, 10
)
SECOND_DISTILLATION = Claim(
    "second distillation", "Distilling a second time",
    "the second distillation, with an adapted teacher, adds 0 to 2 BLEU", 0, 2,
)  # fmt: skip


def check(grid, groups):
    """Every claim for every size of students; see the module's docstring.

    Args:
        grid: ``grid.Grid``.
        groups: {name: group}.
    """
    return [
        entry for size in grid.sizes
        for entry in (_adapting(grid, size), _second_distillation(grid, groups, size))
    ]  # fmt: skip


def judge(comparison, claim):
    """(``says``, ``why``) of a comparison."""
    if comparison is None or comparison["outcome"] == NOT_TESTED:
        return CANNOT_TELL, ""
    if comparison["outcome"] != SIGNIFICANT:
        return WITHIN_NOISE, ""
    difference = round(comparison["difference"], 1)  # as it is shown
    if difference < 0:
        return NOT_AS_IN_PAPER, "it is a loss"
    if difference < claim.low:
        return NOT_AS_IN_PAPER, f"less than the paper's {claim.low}"
    if difference > claim.high:
        return AS_IN_PAPER, f"and more than its {claim.high}"
    return AS_IN_PAPER, ""


def _adapting(grid, size):
    words = (
        "A student that starts from a general student, against one that learns the same in-domain "
        "text from nothing."
    )
    found = _comparisons(grid, SAME_TARGETS, size)
    if not any(grid.name(number, size) for number in FROM_NOTHING):
        words = (
            "No student of this run started from nothing (1, 2, 3), so the general students stand "
            "for those that are not adapted: after adapting against before."
        )
        found = _comparisons(grid, reversed(STARTS.items()), size)
    return _entry(ADAPTING, size, words, found)


def _second_distillation(grid, groups, size):
    names = {grid.name(number, size) for number in ONE_DISTILLATION} - {None}
    single = [groups[name] for name in groups if name in names and bleu(groups[name]) is not None]
    best = choose(single)
    found = _comparisons(grid, [("9", number) for number in ONE_DISTILLATION], size)
    words = "Configuration 9, against the best student of one distillation"
    if best:
        found.sort(key=lambda comparison: comparison["old"] != best["name"])
        words += f" ({best['name']}, best by the {best['by']} set"
        words += ")" if best["by"] == DEV else ", since no dev BLEU is known)"
    return _entry(SECOND_DISTILLATION, size, words + ".", found)


def _comparisons(grid, pairs, size):
    return [found for pair in pairs if (found := grid.compare(*pair, size))]


def _entry(claim, size, words, found):
    main = found[0] if found else None
    says, why = judge(main, claim)
    return {
        "key": claim.key, "size": size, "title": claim.title, "paper": claim.paper, "words": words,
        "main": main, "others": found[1:], "says": says, "why": why,
    }  # fmt: skip
