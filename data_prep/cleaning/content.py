"""Filters by what the text is: its language and script, its numbers, copies, repetitions."""

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

from data_prep.cleaning.kinds import Filter
from data_prep.cleaning.lengths import SideFilter
from data_prep.cleaning.repairs import is_broken
from data_prep.languages import (
    SCRIPTS,
    accepted_codes,
    base_code,
    letters_in,
    other_languages,
)
from data_prep.named_steps import option
from data_prep.words import copied_share, repeated_more

# -- language and script -------------------------------------------------------------------


@dataclass(frozen=True)
class Language(Filter):
    """drops a pair with a side in another language (py3langid), swapped sides among them"""

    name: ClassVar[str] = "language"
    source: str = option(None, "codes that may be found, joined by +; unset: the source language")
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
        return [accepted_codes(*(codes or lang).split("+")) for codes, lang in sides]

    def why(self, src, tgt, context):
        found = [
            other_languages(texts, codes, self.min, self.confidence)
            for texts, codes in zip((src, tgt), self._accepted(context), strict=True)
        ]
        return [
            f"source: {source}" if source else target and f"target: {target}"
            for source, target in zip(*found, strict=True)
        ]


@dataclass(frozen=True)
class Script(Filter):
    """drops a pair with a side whose letters are mostly not of the script of its language"""

    name: ClassVar[str] = "script"
    min: float = option(0.3, "least share of letters in the script, of all letters of the side")
    source: str = option(None, "scripts, joined by +; unset: those of the source language")
    target: str = option(None, "the same for the target")

    def check(self, context):
        if not 0 <= self.min <= 1:
            self._refuse("min", self.min, "a share from 0 to 1")
        for side, lang in zip(("source", "target"), context.langs, strict=True):
            scripts = getattr(self, side)
            if not scripts and base_code(lang) not in SCRIPTS:
                raise ValueError(
                    f"step script: the script of {lang!r} is unknown; say {side}=…, for example "
                    f"{side}=Latin, or leave the step out"
                )
            if scripts:
                try:
                    letters_in("й", tuple(scripts.split("+")))
                except ValueError:
                    self._refuse(side, scripts, "names of scripts, as in Latin+Cyrillic")

    def why(self, src, tgt, context):
        source, target = (
            tuple(scripts.split("+")) if scripts else SCRIPTS[base_code(lang)]
            for scripts, lang in zip((self.source, self.target), context.langs, strict=True)
        )
        return [
            self._why("source", one, source) or self._why("target", other, target)
            for one, other in zip(src, tgt, strict=True)
        ]

    def _why(self, side, text, scripts):
        if "Latin" in scripts and text.isascii():
            return None
        expected, letters = letters_in(text, scripts)
        if expected >= letters * self.min:
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
        if text.isalpha():
            return None
        letters = sum(map(len, _LETTERS.findall(text)))
        characters = len(text) - text.count(" ")
        if letters >= characters * self.min:
            return None
        return f"{side} is {letters / characters:.0%} letters"


_LETTERS = re.compile(r"[^\W\d_]+")


@dataclass(frozen=True)
class Mojibake(SideFilter):
    """drops a pair with text that was read in a wrong encoding and that the step unicode could
    not repair: characters were lost"""

    name: ClassVar[str] = "mojibake"

    def _why(self, side, text):
        broken = is_broken(text)
        return f"{side} has {broken!r}" if broken else None


# -- numbers -------------------------------------------------------------------------------

_THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?:[ .,'’]\d{3})+(?!\d)")
_DIGITS = re.compile(r"\d+")
_NOT_DIGITS = re.compile(r"\D+")
_DECIMAL = re.compile(r"\d+(?:[.,]\d+)*")
# numbers in words: of those figures that only one side has, these may be
_HAN_NUMBER = re.compile("[〇零一二两兩三四五六七八九十百千万萬亿億]")


@dataclass(frozen=True)
class Numbers(Filter):
    """drops a pair whose sides have different numbers. Separators, order and leading zeros do
    not matter (1.000,5 = 1,000.5; 05.12. = 12/5); a number of one or two figures, zeros at its
    end not counted, may be a word on the other side, and so may any beside Chinese numerals"""

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
        least = None
        for numbers in (_by_thousands, _figures, _magnitudes):
            sides = numbers(source), numbers(target)
            missing = _missing(*sides, source, target)
            share = _count(missing) / _count(sides)
            if share <= self.max:
                return None
            if least is None:
                least = missing
        found, other = (", ".join([*side][:3]) or "none" for side in least)
        return f"source {found}, target {other}"


def _by_thousands(text):
    return _figures(_THOUSANDS.sub(lambda number: _NOT_DIGITS.sub("", number[0]), text))


def _figures(text):
    return Counter(map(_plain, _DIGITS.findall(text)))


def _magnitudes(text):
    """Numbers without separators and zeros at the end: 1.3 million, 130万 and 1,300,000."""
    numbers = (_NOT_DIGITS.sub("", number) for number in _DECIMAL.findall(_THOUSANDS.sub(
        lambda number: _NOT_DIGITS.sub("", number[0]), text)))  # fmt: skip
    return Counter(_plain(number).rstrip("0") or "0" for number in numbers)


def _plain(digits):
    if not digits.isascii():
        digits = "".join(str(unicodedata.digit(digit)) for digit in digits)
    return digits.lstrip("0") or "0"


def _missing(found, other, source, target):
    missing = [found - other, other - found]
    if all(missing):
        return missing
    # only one side has more: the other may say it in words
    words = target if missing[0] else source
    if _HAN_NUMBER.search(words):
        return [Counter(), Counter()]
    return [
        Counter({number: times for number, times in side.items() if len(number.rstrip("0")) > 2})
        for side in missing
    ]


def _count(sides):
    return sum(side.total() for side in sides)


# -- copies and loops ----------------------------------------------------------------------


@dataclass(frozen=True)
class Copy(Filter):
    """drops a pair whose target's words stand in the source: it was not translated"""

    name: ClassVar[str] = "copy"
    max: float = option(0.8, "largest share of the target's words that may stand in the source")
    words: int = option(4, "shorter targets are not judged; words without a letter do not count")

    def check(self, context):
        if not 0 <= self.max <= 1:
            self._refuse("max", self.max, "a share from 0 to 1")
        if self.words < 1:
            self._refuse("words", self.words, "1 or more")

    def why(self, src, tgt, context):
        shares = (
            copied_share(source, target, self.words)
            for source, target in zip(src, tgt, strict=True)
        )
        return [
            f"{share:.0%} of the words" if share is not None and share > self.max else None
            for share in shares
        ]


@dataclass(frozen=True)
class Repetition(Filter):
    """drops a pair with a side that says the same words many times in a row, unless the other
    side does"""

    name: ClassVar[str] = "repetition"
    max: int = option(4, "how often 1 to 8 words in a row may follow themselves, the first counted")

    def check(self, context):
        if self.max < 1:
            self._refuse("max", self.max, "1 or more")

    def why(self, src, tgt, context):
        return [
            repeated_more(source, self.max, target) or repeated_more(target, self.max, source)
            for source, target in zip(src, tgt, strict=True)
        ]
