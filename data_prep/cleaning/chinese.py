"""Chinese in two scripts: told apart, and written in one (OpenCC)."""

import functools
from dataclasses import dataclass
from typing import ClassVar

from data_prep.cleaning.kinds import Filter, Repair
from data_prep.languages import base_code
from data_prep.named_steps import option

CONFIGS = {"simplified": "t2s", "traditional": "s2t"}  # of OpenCC, that write each script
# what has the characters of one script that the other does not use; many are in both: 后, 里
_OTHERS_CODEC = {"simplified": "big5", "traditional": "gb2312"}


def is_chinese(lang):
    return base_code(lang) == "zh"


def script_of_code(lang):
    """The script that zh-CN, zh_Hant, zh-TW … ask for; None of zh and of other languages."""
    subtags = set(lang.replace("_", "-").lower().split("-")[1:])
    if not is_chinese(lang):
        return None
    if subtags & {"hant", "tw", "hk", "mo"}:
        return "traditional"
    return "simplified" if subtags & {"hans", "cn", "sg"} else None


@functools.lru_cache
def _converter(script):
    from opencc import OpenCC

    return OpenCC(CONFIGS[script])


@functools.lru_cache
def _marks():
    """{script: characters that are written in it and not in the other}."""
    marks = {"simplified": set(), "traditional": set()}
    for code in (*range(0x3400, 0x4DC0), *range(0x4E00, 0xA000)):
        character = chr(code)
        forms = {script: _converter(script).convert(character) for script in CONFIGS}
        for script, other in (("simplified", "traditional"), ("traditional", "simplified")):
            changes_only_there = forms[script] == character != forms[other]
            if changes_only_there and not _has(_OTHERS_CODEC[script], character):
                marks[script].add(character)
    return {script: frozenset(characters) for script, characters in marks.items()}


def _has(codec, character):
    try:
        character.encode(codec)
    except UnicodeEncodeError:
        return False
    return True


def script_marks(text, script):
    """The characters of ``text`` that are written in this script and not in the other."""
    marks = _marks()[script]
    return [] if marks.isdisjoint(text) else [letter for letter in text if letter in marks]


def _other(script):
    return "traditional" if script == "simplified" else "simplified"


@dataclass(frozen=True)
class Chinese(Repair):
    """writes Chinese in one script (OpenCC). A line without a character of the other script
    stays as it is, and so does the other language"""

    name: ClassVar[str] = "chinese"
    to: str = option("simplified", "simplified or traditional")

    def check(self, context):
        _check(self, "to", self.to, context)

    def repair(self, texts, lang):
        if not is_chinese(lang):
            return list(texts)
        other = _marks()[_other(self.to)]
        convert = _converter(self.to).convert
        return [text if other.isdisjoint(text) else convert(text) for text in texts]


@dataclass(frozen=True)
class ChineseScript(Filter):
    """drops a pair whose Chinese is in the other script: more of its characters are written only
    there than only in the one expected"""

    name: ClassVar[str] = "chinese-script"
    expected: str = option("simplified", "simplified or traditional")
    max: float = option(0.5, "largest share of the telling characters that may be of the other")

    def check(self, context):
        _check(self, "expected", self.expected, context)
        if not 0 <= self.max <= 1:
            self._refuse("max", self.max, "a share from 0 to 1")

    def why(self, src, tgt, context):
        side = next(
            side for side, lang in zip((src, tgt), context.langs, strict=True) if is_chinese(lang)
        )
        return [self._why(text) for text in side]

    def _why(self, text):
        others = script_marks(text, _other(self.expected))
        if not others:
            return None
        share = len(others) / (len(others) + len(script_marks(text, self.expected)))
        if share <= self.max:
            return None
        return f"{_other(self.expected)}: {''.join(dict.fromkeys(others))[:10]}"


def _check(step, name, script, context):
    if script not in CONFIGS:
        step._refuse(name, script, f"one of {', '.join(CONFIGS)}")
    if not any(map(is_chinese, context.langs)):
        raise ValueError(
            f"step {step.name}: neither {context.langs[0]} nor {context.langs[1]} is Chinese; "
            f"leave the step out"
        )
