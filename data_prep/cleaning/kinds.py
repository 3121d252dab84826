"""Kinds of cleaning steps: what a step is asked, and what it answers.

A step is asked about a batch of pairs at a time. Its answer depends on that batch and on its
options alone, never on what came before, so that batches may go to any worker in any order.
Only a ``Corpus`` step judges a pair by the others.
"""

import abc
from dataclasses import dataclass

from data_prep.named_steps import NamedStep

ROUNDS = 50  # of repairs, far more than any text needs that nobody made for the purpose


@dataclass(frozen=True)
class Context:
    """What a step may know of the run.

    Attributes:
        langs: source and target language.
    """

    langs: tuple


@dataclass(frozen=True)
class CleaningStep(NamedStep):
    """What every cleaning step has besides a name and options."""

    def check(self, context):
        """Refuse, before anything is read, what cannot work."""


@dataclass(frozen=True)
class Repair(CleaningStep, abc.ABC):
    """A step that changes text and drops nothing; done twice, it does no more than once."""

    @abc.abstractmethod
    def repair(self, texts, lang):
        """The lines of one side, as many out as in."""


def repair_all(repairs, texts, lang):
    """(lines after the repairs, for each repair the set of lines that it changed).

    What one has repaired may show what another repairs: &#195;&#169; is Ã©, and that is é. So all
    are done again, on lines that changed, until nothing changes.
    """
    texts = list(texts)
    changed = [set() for _ in repairs]
    places = range(len(texts))
    for _ in range(ROUNDS):
        before = now = [texts[place] for place in places]
        for repair, its in zip(repairs, changed, strict=True):
            found = repair.repair(now, lang)
            if found != now:
                its.update(
                    place for place, one, other in zip(places, now, found, strict=True)
                    if one != other
                )  # fmt: skip
            now = found
        if now == before:
            break
        for place, text in zip(places, now, strict=True):
            texts[place] = text
        places = [place for place, one, other in zip(places, before, now, strict=True)
                  if one != other]  # fmt: skip
    return texts, changed


@dataclass(frozen=True)
class Filter(CleaningStep, abc.ABC):
    """A step that judges pairs and changes nothing."""

    @abc.abstractmethod
    def why(self, src, tgt, context):
        """Why each pair must go, a few words with the value; None where it may stay.

        Args:
            src, tgt: two lists of lines, equally long.
        """


@dataclass(frozen=True)
class Measured(Filter):
    """A filter that needs a number from every pair of the corpus before it judges any."""

    def settled(self):
        """What the judgement rests on, where it is known without measuring; else None."""
        return None

    @abc.abstractmethod
    def measure(self, src, tgt):
        """A number for each pair, an array; NaN where a pair says nothing."""

    @abc.abstractmethod
    def settle(self, values, counts=None):
        """What the judgement rests on; a float.

        Args:
            values: numbers from ``measure``, of all pairs; NaN among them do not count.
            counts: how many pairs have each of ``values``; one each by default.
        """

    @abc.abstractmethod
    def why(self, src, tgt, context, settled):
        """Why each pair must go, given what ``settle`` found; None where it may stay."""

    @abc.abstractmethod
    def account(self, settled):
        """What the ledger tells of it, a dictionary."""


@dataclass(frozen=True)
class Corpus(CleaningStep):
    """A filter that judges a pair by the other pairs of the corpus."""
