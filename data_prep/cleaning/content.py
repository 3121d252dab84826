"""Filters by what the text is: its language and script, its numbers, copies, repetitions."""

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

import regex

from data_prep.cleaning.kinds import Filter
from data_prep.cleaning.lengths import SideFilter
from data_prep.cleaning.repairs import broken_part
from data_prep.languages import (
    SCRIPTS,
    accepted_codes,
    base_code,
    letters_of,
    other_languages,
)
from data_prep.named_steps import NamedStep, option
from data_prep.words import copied_share, repeated_more

ANY = "any"  # of a side that is not judged

# -- language and script -------------------------------------------------------------------


@dataclass(frozen=True)
class Language(Filter):
    """drops a pair with a side in another language (py3langid), swapped sides among them. What may
    well be in its own language stays"""

    name: ClassVar[str] = "language"
    source: str = option(
        None, "codes that may be found, joined by +, or any; unset: the source language"
    )
    target: str = option(None, "the same for the target")
    min: int = option(20, "bytes of letters that a side must have to be judged (Latin 1 each, "
                          "Cyrillic 2, Chinese 3)")  # fmt: skip
    confidence: float = option(0.5, "least probability of the other language")

    def check(self, context):
        try:
            self._accepted(context)
        except ValueError as error:
            raise ValueError(
                f"step language: {error}. Say source=… or target=… for the nearest, or leave the "
                f"step out"
            ) from None
        if not 0 <= self.confidence <= 1:
            self._refuse("confidence", self.confidence, "a share from 0 to 1")

    def _accepted(self, context):
        sides = zip((self.source, self.target), context.langs, strict=True)
        return [
            None if codes == ANY else accepted_codes(*(codes or lang).split("+"))
            for codes, lang in sides
        ]

    def why(self, src, tgt, context):
        found = [
            other_languages(texts, codes, self.min, self.confidence) if codes
            else [None] * len(texts)
            for texts, codes in zip((src, tgt), self._accepted(context), strict=True)
        ]  # fmt: skip
        return [
            f"source: {source}" if source else target and f"target: {target}"
            for source, target in zip(*found, strict=True)
        ]


@dataclass(frozen=True)
class Script(Filter):
    """drops a pair with a side whose letters are mostly not of the script of its language"""

    name: ClassVar[str] = "script"
    min: float = option(0.3, "least share of letters in the script, of all letters of the side")
    source: str = option(
        None, "scripts, joined by +, or any; unset: those of the source language"
    )
    target: str = option(None, "the same for the target")

    def check(self, context):
        if not 0 <= self.min <= 1:
            self._refuse("min", self.min, "a share from 0 to 1")
        self._scripts(context)

    def _scripts(self, context):
        """The scripts of each side; None where it is not judged."""
        found = []
        for side, lang in zip(("source", "target"), context.langs, strict=True):
            given = getattr(self, side)
            if not given and base_code(lang) not in SCRIPTS:
                raise ValueError(
                    f"step script: the script of {lang!r} is unknown; say {side}=…, for example "
                    f"{side}=Latin or {side}={ANY}, or leave the step out"
                )
            scripts = tuple(given.split("+")) if given else SCRIPTS[base_code(lang)]
            found.append(None if given == ANY else scripts)
            try:
                letters_of("", found[-1])
            except regex.error:
                self._refuse(side, given, "names of scripts as in Latin+Cyrillic")
        return found

    def why(self, src, tgt, context):
        source, target = self._scripts(context)
        return [
            source and self._why("source", one, source)
            or target and self._why("target", other, target)
            for one, other in zip(src, tgt, strict=True)
        ]

    def _why(self, side, text, scripts):
        if "Latin" in scripts and text.isascii():
            return None
        expected = letters_of(text, scripts)
        if expected >= len(text) * self.min or expected >= (letters := letters_of(text)) * self.min:
            return None
        return f"{side} is {expected / letters:.0%} {' or '.join(scripts)}"


@dataclass(frozen=True)
class Letters(SideFilter):
    """drops a pair with a side that is mostly figures and signs: tables, formulas, code"""

    name: ClassVar[str] = "letters"
    min: float = option(0.3, "least share of letters, of all characters but spaces")

    def check(self, context):
        if not 0 <= self.min <= 1:
            self._refuse("min", self.min, "a share from 0 to 1")

    def _why(self, side, text):
        letters = letters_of(text)
        characters = len(text) - text.count(" ")
        if letters >= characters * self.min:
            return None
        return f"{side} is {letters / characters:.0%} letters"


@dataclass(frozen=True)
class Mojibake(SideFilter):
    """drops a pair with text that was read in a wrong encoding and that the step unicode could
    not repair: characters were lost"""

    name: ClassVar[str] = "mojibake"

    def _why(self, side, text):
        broken = broken_part(text)
        return f"{side} has {broken!r}" if broken else None


# -- numbers -------------------------------------------------------------------------------

_DIGITS = re.compile(r"\d+")
_NOT_DIGITS = re.compile(r"\D+")
_THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?:[ .,'’]\d{3}(?!\d))+")
_DECIMAL = re.compile(r"\d+(?:[.,]\d+)*")
_HAN_NUMBER = re.compile("[〇零一二两兩三四五六七八九十百千万萬亿億]")
_TWELVE_HOURS = re.compile(r"\b[Pp]\.? ?[Mm]\b|下午|晚上|午后")


@dataclass(frozen=True)
class Numbers(Filter):
    """drops a pair whose sides have different numbers. Separators, order, leading zeros and units
    do not matter (1.000,5 = 1,000.5; 05.12. = 12/5; 130万 = 1.3 million; '90s = 1990s; 15:00 =
    3 p.m.). A number of one or two figures, but for zeros at its end, may be a word on the other
    side, and any may beside Chinese numerals"""

    name: ClassVar[str] = "numbers"
    max: float = option(0.5, "largest share of all numbers that may be missing on the other side")

    def check(self, context):
        if not 0 <= self.max <= 1:
            self._refuse("max", self.max, "a share from 0 to 1")

    def why(self, src, tgt, context):
        return [
            self._why(source, target) if _DIGITS.search(source) or _DIGITS.search(target) else None
            for source, target in zip(src, tgt, strict=True)
        ]

    def _why(self, source, target):
        readings = []
        for numbers in (_by_thousands, _by_figures, _by_magnitude):
            found, other = numbers(source), numbers(target)
            missing = _missing(found, other, source, target)
            if _count(*missing) <= self.max * _count(found, other):
                return None
            readings.append(missing)
        source, target = (", ".join([*side][:3]) or "none" for side in readings[0])
        return f"source {source}, target {target}"


def _by_figures(text):
    return Counter(map(_plain, _DIGITS.findall(text)))


def _by_thousands(text):
    return _by_figures(_THOUSANDS.sub(_joined, text))


def _by_magnitude(text):
    return Counter(
        _plain(_joined(number)).rstrip("0") or "0"
        for number in _DECIMAL.finditer(_THOUSANDS.sub(_joined, text))
    )


def _joined(number):
    return _NOT_DIGITS.sub("", number[0])


def _plain(digits):
    if not digits.isascii():
        digits = "".join(str(unicodedata.digit(digit)) for digit in digits)
    return digits.lstrip("0") or "0"


def _missing(found, other, source, target):
    """Numbers of each side that the other has in no form, two Counters."""
    missing = [found - other, other - found]
    if all(missing):
        hours = _TWELVE_HOURS.search(source) or _TWELVE_HOURS.search(target)
        for one, another in (missing, missing[::-1]):
            _pair_off(one, another, hours)
    if all(missing):
        return missing
    # what one side alone has may be in words on the other
    if _HAN_NUMBER.search(target if missing[0] else source):
        return [Counter(), Counter()]
    return [
        Counter({number: times for number, times in side.items() if len(number.rstrip("0")) > 2})
        for side in missing
    ]


def _pair_off(short, long, hours):
    """Take from both what says the same: 90 and 1990, the 19th century and 1800, 15 h and 3 p.m."""
    for number in [number for number in short if len(number) <= 2]:
        forms = [year for year in long if len(year) == 4 and year.endswith(number.zfill(2))]
        forms.append(f"{int(number) - 1}00")
        if hours:
            forms.append(str(int(number) - 12))
        for form in forms:
            if long[form] > 0:
                short[number] -= 1
                long[form] -= 1
                break
    for side in (short, long):
        side += Counter()  # without those that are used up


def _count(*sides):
    return sum(side.total() for side in sides)


# -- copies and loops ----------------------------------------------------------------------


@dataclass(frozen=True)
class CopyLimits(NamedStep):
    """Options of a step that looks for what was not translated."""

    max: float = option(0.8, "largest share of the target's words that may stand in the source")
    words: int = option(4, "shorter targets are not judged; words without a letter do not count")

    def check(self, context):
        if not 0 <= self.max <= 1:
            self._refuse("max", self.max, "a share from 0 to 1")
        if self.words < 1:
            self._refuse("words", self.words, "1 or more")


@dataclass(frozen=True)
class Copy(CopyLimits, Filter):
    """drops a pair whose target's words stand in the source: it was not translated"""

    name: ClassVar[str] = "copy"

    def why(self, src, tgt, context):
        shares = (
            copied_share(source, target, self.max, self.words)
            for source, target in zip(src, tgt, strict=True)
        )
        return [None if share is None else f"{share:.0%} of the words" for share in shares]


@dataclass(frozen=True)
class RepetitionLimit(NamedStep):
    """Option of a step that looks for loops."""

    max: int = option(4, "how often 1 to 8 words in a row may follow themselves, the first counted")

    def check(self, context):
        if self.max < 1:
            self._refuse("max", self.max, "1 or more")


@dataclass(frozen=True)
class Repetition(RepetitionLimit, Filter):
    """drops a pair with a side that says the same words many times in a row, unless the other
    side does"""

    name: ClassVar[str] = "repetition"

    def why(self, src, tgt, context):
        return [
            repeated_more(source, self.max, target) or repeated_more(target, self.max, source)
            for source, target in zip(src, tgt, strict=True)
        ]
