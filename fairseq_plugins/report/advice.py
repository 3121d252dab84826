"""Advice for the next run: questions that a grid answers, and what either answer means.

``advise`` returns [{"key", "size", "answer", "title", "text", "evidence": [comparisons]}], with
answer ``GAIN``, ``NO_GAIN`` or ``UNCLEAR``; size is null where it does not matter.
"""

from dataclasses import dataclass

from fairseq_plugins.report.comparisons import NOT_TESTED, is_gain, is_loss
from fairseq_plugins.report.grid import ADAPTED_TEACHER, TEACHER

WORTH = 0.5  # BLEU; a difference within noise from which on it is not called nothing

GAIN, NO_GAIN, UNCLEAR = "gain", "no gain", "unclear"

THRESHOLD = (
    f"A step is worth its cost if its gain is significant, and not if it is within noise and below "
    f"{WORTH} BLEU, or a loss. Within noise but {WORTH} BLEU or more is neither: more seeds or "
    "more test sentences would tell."
)


@dataclass(frozen=True)
class Question:
    """Whether something pays.

    Attributes:
        key: its name.
        pairs: (new, old) configurations that answer it; all of them that can tell must agree.
        gain, no_gain: (title, text) of the advice.
        unclear: title while nobody can tell.
    """

    key: str
    pairs: tuple
    gain: tuple
    no_gain: tuple
    unclear: str

    @property
    def is_of_teachers(self):
        """Whether the size of the students does not matter."""
        return all(name in (TEACHER, ADAPTED_TEACHER) for pair in self.pairs for name in pair)


QUESTIONS = (
    Question(
        "adapt the teacher", ((ADAPTED_TEACHER, TEACHER),),
        gain=("Adapting the teacher pays",
              "Keep it: what it translates in the domain is worth learning."),
        no_gain=("The teacher did not improve by adapting: stop",
                 "A teacher that knows no more about the domain has nothing to teach there. Look "
                 "at the in-domain text and at the learning rate of its adaptation before you "
                 "distil again."),
        unclear="Whether adapting the teacher pays cannot be told",
    ),
    Question(
        "start from a general student", (("4", "1"),),
        gain=("Start from a general student",
              "Students that start from nothing (1, 2, 3) can be left out."),
        no_gain=("Starting from nothing is enough",
                 "A general student to start from bought nothing: train on the in-domain text "
                 "alone (1), which needs neither general training nor general decoding."),
        unclear="Whether a general student to start from pays cannot be told",
    ),
    Question(
        "distil the general data", (("7", "4"),),
        gain=("Distil the general data",
              "The student starts better from the general teacher's output (7) than from "
              "references (4)."),
        no_gain=("Skip the general distillation",
                 "Your student is large enough, or starts well enough, without it: 4 needs no "
                 "decoding of the general text, the longest decoding of all."),
        unclear="Whether distilling the general data pays cannot be told",
    ),
    Question(
        "adapt the in-domain teacher", (("9", "8"), ("6", "5"), ("3", "2")),
        gain=("An in-domain teacher from scratch is not enough",
              "Adapt the general teacher (3, 6, 9); leave out 2, 5 and 8."),
        no_gain=("An in-domain teacher from scratch is enough",
                 "What the adapted teacher teaches (3, 6, 9) is no better than what one trained "
                 "on the domain alone does (2, 5, 8)."),
        unclear="Whether an in-domain teacher from scratch is enough cannot be told",
    ),
    Question(
        "distil again", (("9", "7"),),
        gain=("The second distillation pays",
              "9 is worth the adapted teacher and its decoding of the in-domain text."),
        no_gain=("The second distillation did not pay: 7 does without it",
                 "7 learns in-domain references, so it needs no adapted teacher and no second "
                 "decoding."),
        unclear="Whether the second distillation pays cannot be told",
    ),
)  # fmt: skip


def advise(grid):
    """What a run's comparisons advise, for each size of students; see the module's docstring.

    Args:
        grid: ``grid.Grid``, or what has its ``sizes`` and ``compare``.
    """
    found = []
    for question in QUESTIONS:
        for size in [None] if question.is_of_teachers else grid.sizes:
            evidence = [known for pair in question.pairs if (known := grid.compare(*pair, size))]
            if not evidence:
                continue
            answer = weigh(evidence)
            title, text = {
                GAIN: question.gain, NO_GAIN: question.no_gain,
                UNCLEAR: (question.unclear, ""),
            }[answer]  # fmt: skip
            found.append({"key": question.key, "size": size, "answer": answer, "title": title,
                          "text": text, "evidence": evidence})  # fmt: skip
    return found


def weigh(evidence):
    """The answer that all comparisons which can tell agree on, else ``UNCLEAR``."""
    answers = {answer for entry in evidence if (answer := _answer(entry)) != UNCLEAR}
    return answers.pop() if len(answers) == 1 else UNCLEAR


def _answer(comparison):
    if is_gain(comparison):
        return GAIN
    if comparison["outcome"] == NOT_TESTED:
        return UNCLEAR
    return NO_GAIN if is_loss(comparison) or comparison["difference"] < WORTH else UNCLEAR
