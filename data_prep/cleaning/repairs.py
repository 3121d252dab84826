"""Repairs: steps that change text and drop nothing."""

import functools
import html
import re
import unicodedata
from dataclasses import dataclass
from typing import ClassVar

import regex

from data_prep.cleaning.kinds import Repair
from data_prep.files import one_line
from data_prep.named_steps import option

# -- characters ----------------------------------------------------------------------------

# what ftfy would find no fault with: no two of these in a row look like a wrong encoding. Most
# lines consist of nothing else, and this is asked some times faster than ftfy
_FAULTLESS = re.compile(
    "[\x00-\x1a\x1c-\x7fäöüÖßéА-яЁё’–—…]*"
    "|[\x00-\x1a\x1c-\x7f\u3000-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uff00-\uffef‘’“”–—…·]*"
)


@functools.lru_cache
def _mojibake_settings():
    from ftfy import TextFixerConfig

    # only what is broken is mended: quotes, ligatures and full-width punctuation are the
    # writer's; entities and control characters have steps of their own
    return TextFixerConfig(
        unescape_html=False, fix_latin_ligatures=False, fix_character_width=False,
        uncurl_quotes=False, fix_line_breaks=False, remove_control_chars=False,
        normalization="NFC", explain=False,
    )  # fmt: skip


@dataclass(frozen=True)
class Unicode(Repair):
    """repairs text that was read in a wrong encoding (schÃ¶n, РїСЂРёРІРµС‚) with ftfy, and composes
    letters and accents (NFC). Quotes, ligatures and full-width punctuation stay"""

    name: ClassVar[str] = "unicode"

    def repair(self, texts, lang):
        return [
            unicodedata.normalize("NFC", text) if _FAULTLESS.fullmatch(text) else _mended(text)
            for text in texts
        ]


def _mended(text):
    from ftfy import fix_text
    from ftfy.badness import is_bad

    if "\x1b" in text or is_bad(text):
        text = fix_text(text, _mojibake_settings())
    return unicodedata.normalize("NFC", text)


def is_broken(text):
    """The characters of ``text`` that look like a wrong encoding beyond repair; "" if none."""
    if text.isascii() or _FAULTLESS.fullmatch(text):
        return ""
    from ftfy.badness import BADNESS_RE

    found = _LOST.search(text) or BADNESS_RE.search(text)
    return found[0] if found else ""


_LOST = re.compile("\ufffd")

# Arabic, Persian and the scripts of India write with joiners, and so do emoji
_JOINED = r"[\p{L}\p{M}--[\p{Latin}\p{Cyrillic}\p{Greek}\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}]]"
_EMOJI = r"[\p{Extended_Pictographic}\p{Emoji_Modifier}\ufe0f]"
_NEEDED = (
    rf"(?<={_JOINED}|{_JOINED}\u200d)[\u200c\u200d](?={_JOINED})"
    rf"|(?<={_EMOJI})\u200d(?=\p{{Extended_Pictographic}})"
)
_INVISIBLE = regex.compile(
    rf"(?:{_NEEDED})(*SKIP)(*FAIL)"
    # soft hyphens, zero-width and invisible characters, marks of direction, of order, tags
    r"|[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    r"\u3164\ufeff\uffa0\ufff0-\ufffb\U000e0000-\U000e007f]",
    regex.V1,
)
_SPACE_LIKE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
# of no meaning without the font or program that gave them one
_PRIVATE = re.compile(
    "[\ue000-\uf8ff\U000f0000-\U0010ffff\ufdd0-\ufdef"
    + "".join(chr(plane << 16 | last) for plane in range(15) for last in (0xFFFE, 0xFFFF))
    + "]+"
)
_BEYOND_LATIN = re.compile("[^\x20-\x7e\xa0-\xac\xae-\u02ff]")


@dataclass(frozen=True)
class Controls(Repair):
    """removes what is not seen: soft hyphens, zero-width characters, byte-order marks, marks of
    direction. Control characters, odd line separators, and characters that only a certain font
    has, become a space. Joiners stay where Persian, the scripts of India and emoji need them"""

    name: ClassVar[str] = "controls"

    def repair(self, texts, lang):
        return [self._repaired(text) for text in texts]

    def _repaired(self, text):
        if text.isascii() and text.isprintable() or not _BEYOND_LATIN.search(text):
            return text
        text = _PRIVATE.sub(" ", _SPACE_LIKE.sub(" ", text))
        # what is removed may have stood beside another
        while text != (text := _INVISIBLE.sub("", text)):
            pass
        return text


@dataclass(frozen=True)
class Whitespace(Repair):
    """makes every run of white space one space, and removes it at both ends"""

    name: ClassVar[str] = "whitespace"

    def repair(self, texts, lang):
        return [one_line(text) for text in texts]


# -- mark-up -------------------------------------------------------------------------------

# also as tokenisers leave them, with spaces inside
_ENTITY = re.compile(
    r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[a-zA-Z][a-zA-Z0-9]{1,31});"
    r"|& ?(?:amp|quot|apos|lt|gt|nbsp|# ?[0-9]{2,5}) ;"
)
# what a browser would not show as text; names that are a word of a manual's examples as well
# (<title>, <code>) go only when they are closed or have attributes
_INLINE = "b|i|u|em|strong|a|span|font|sub|sup|small|big|tt|img"
_BLOCK = "br|p|div|hr|li|ul|ol|dl|dt|dd|h[1-6]|table|tbody|thead|tr|td|th|center|blockquote|pre"
_WORDLIKE = (
    "abbr|address|body|button|cite|code|del|form|head|html|input|ins|label|link|mark|meta|nav"
    "|object|option|q|s|script|section|select|strike|style|textarea|title|ruby|rt|rb"
    "|bpt|ept|ph|it|hi|g|x|bx|ex|mrk|seg|tuv|tu|ut"  # translation memories
)
_ATTRIBUTES = r"""(?:\s+[a-z][\w:-]*\s*=\s*(?:"[^"<>]*"|'[^'<>]*'|[^\s"'<>]+))"""
_GAP = re.compile(  # leaves a space
    rf"<!--.*?-->|<!\[CDATA\[|\]\]>|<(script|style)\b[^<>]*>.*?</\1\s*>|<!doctype\b[^<>]*>"
    rf"|</?(?:{_BLOCK})(?:\s*/?>|{_ATTRIBUTES}+\s*/?>)"
    r"|\{\\(?:an?[0-9]+|[ibus][01]|(?:pos|move|fade?|fr[xyz]?|fs|fn|[1-4]?c|bord|shad)"
    r"[^{}\s]*)\}",  # subtitles
    re.IGNORECASE,
)
_TAG = re.compile(
    rf"</?(?:{_INLINE})(?:\s*/?>|{_ATTRIBUTES}+\s*/?>)|<(?:{_WORDLIKE}){_ATTRIBUTES}+\s*/?>"
    rf"|<({_WORDLIKE})>(?=.*</\1\s*>)",
    re.IGNORECASE,
)
_CLOSING = re.compile(rf"</(?:{_WORDLIKE})\s*>", re.IGNORECASE)
# a line may begin or end within a tag
_CUT = re.compile(
    r"""^[^<>"]*(?:\b(?:href|src|class|style|target|rel|width|height|align|alt|id)\s*="""
    r"""\s*"[^"<>]*"\s*)+/?>"""
    rf"""|<(?:{_INLINE}|{_BLOCK})\s+[a-z-]+\s*=\s*["'][^<>]*$""",
    re.IGNORECASE,
)
TAGS = ("strip", "keep")


@dataclass(frozen=True)
class Html(Repair):
    """turns entities into characters (&amp;lt; too, escaped twice), and strips tags of HTML,
    subtitles and translation memories, whole or cut. Only known tags: x < y > z, <3, <unk>, %s
    and <file> stay"""

    name: ClassVar[str] = "html"
    tags: str = option("strip", "strip or keep; keep for text about HTML")

    def check(self, context):
        if self.tags not in TAGS:
            self._refuse("tags", self.tags, f"one of {', '.join(TAGS)}")

    def repair(self, texts, lang):
        return [
            self._repaired(text) if "&" in text or "<" in text or ">" in text or "{\\" in text
            else text
            for text in texts
        ]  # fmt: skip

    def _repaired(self, text):
        # what is unescaped or stripped may leave an entity or a tag
        while text != (text := self._once(text)):
            pass
        return text

    def _once(self, text):
        text = _ENTITY.sub(_character, text)
        if self.tags == "keep":
            return text
        text = _TAG.sub("", _GAP.sub(" ", text))
        return _CUT.sub(" ", _CLOSING.sub("", text))


def _character(entity):
    found = html.unescape(entity[0].replace(" ", ""))
    # a line feed would end the line
    return " " if found.isspace() else found
