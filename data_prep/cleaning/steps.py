"""The cleaning steps by name, and those that a pair of languages gets by default."""

from data_prep.cleaning.chinese import Chinese, ChineseScript, script_of_code
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
from data_prep.languages import SCRIPTS, base_code, known_language
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
    """Descriptions of the steps that suit a pair of languages, in order.

    Repairs come first: entities may hide a wrong encoding, and that invisible characters. The
    quick filters stand before the slow, those that measure the corpus after those that judge a
    pair by itself.
    """
    langs = {"source": src_lang, "target": tgt_lang}
    known = {side: base_code(lang) in SCRIPTS for side, lang in langs.items()}
    identified = {side: known_language(lang) for side, lang in langs.items()}
    chinese = [
        f"chinese:to={script}" for lang in langs.values() if (script := script_of_code(lang))
    ]
    # a Chinese character says as much as two or three of the letters of a name beside it
    dense = any("Han" in SCRIPTS.get(base_code(lang), ()) for lang in langs.values())
    script = ["min=0.15"] if dense else []
    return [
        "html", "unicode", "controls", "whitespace", *chinese[:1],
        "empty", "length", "word-length", "letters", *_for_known("script", known, script),
        "mojibake",
        "numbers", "copy", "repetition", *_for_known("language", identified, []),
        "length-ratio", "word-ratio", "duplicate",
    ]  # fmt: skip


def _for_known(name, known, options):
    """A step that judges each side, for those sides that are known; none if there is none."""
    unknown = [f"{side}=any" for side, is_known in known.items() if not is_known]
    if len(unknown) == len(known):
        return []
    settings = ",".join([*options, *unknown])
    return [f"{name}:{settings}" if settings else name]


def explain_steps():
    """All steps and their options as text for people."""
    kinds = {"Repairs": Repair, "Filters": Filter, "Filters by the rest of the corpus": Corpus}
    return steps_help(
        {
            title: [step for step in STEPS.values() if issubclass(step, kind)]
            for title, kind in kinds.items()
        }
    )
