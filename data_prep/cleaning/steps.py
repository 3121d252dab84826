"""The cleaning steps by name, and those that a pair of languages gets by default."""

from data_prep.cleaning.chinese import Chinese, ChineseScript
from data_prep.cleaning.content import (
    Copy,
    Language,
    Letters,
    Mojibake,
    Numbers,
    Repetition,
    Script,
)
from data_prep.cleaning.duplicates import Duplicate, NearDuplicate
from data_prep.cleaning.kinds import (
    CleaningStep,
    Context,
    Corpus,
    Filter,
    Measured,
    Repair,
)
from data_prep.cleaning.lengths import Empty, Length, LengthRatio, WordLength, WordRatio
from data_prep.cleaning.repairs import Controls, Html, Unicode, Whitespace
from data_prep.named_steps import by_name, parse_step, steps_help

__all__ = [
    "STEPS", "parse", "default_steps", "explain_steps",
    "Context", "CleaningStep", "Repair", "Filter", "Measured", "Corpus",
]  # fmt: skip

STEPS = by_name(
    Html, Unicode, Controls, Whitespace, Chinese,
    Empty, Length, WordLength, LengthRatio, WordRatio, Letters, Script, ChineseScript, Mojibake,
    Language, Numbers, Copy, Repetition,
    Duplicate, NearDuplicate,
)  # fmt: skip


def parse(text):
    """The step that ``NAME[:OPTION=VALUE[,OPTION=VALUE]]`` describes; see ``parse_step``."""
    return parse_step(text, STEPS)


def default_steps(src_lang, tgt_lang):
    """Descriptions of the steps that suit a pair of languages, in order."""
    return ["whitespace", "empty", "length", "length-ratio", "duplicate"]


def explain_steps():
    """All steps and their options as text for people."""
    kinds = {"Repairs": Repair, "Filters": Filter, "Filters by the rest of the corpus": Corpus}
    return steps_help(
        {
            title: [step for step in STEPS.values() if issubclass(step, kind)]
            for title, kind in kinds.items()
        }
    )
