"""Repairs: steps that change text and drop nothing."""

import functools
import html
import re
import unicodedata
from dataclasses import dataclass
from html.entities import html5
from typing import ClassVar

import regex

from data_prep.cleaning.kinds import ROUNDS, Repair
from data_prep.files import one_line
from data_prep.named_steps import option

# -- characters ----------------------------------------------------------------------------

# lines that ftfy would find no fault with. Most consist of nothing but these, and that is seen
# some times faster than ftfy says so
_FAULTLESS = re.compile(
    "[\x00-\x1a\x1c-\x7fäöüÖßéА-яЁё’–—…«»„“”‚‘]*"
    "|[\x00-\x1a\x1c-\x7f\u3000-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uff00-\uffef‘’“”–—…·]*"
)
# unless a quotation mark stands where it may be part of a letter
_DOUBTFUL = re.compile("[äöüÖßé][«»„“”‚‘]|[«»„“”‚‘][äöüÖßé]|[ВГРС][«»„“”‚‘][ВГРС]")


def _is_faultless(text):
    return _FAULTLESS.fullmatch(text) and not _DOUBTFUL.search(text)


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
            text if text.isascii() and "\x1b" not in text
            else unicodedata.normalize("NFC", text) if _is_faultless(text) else _mended(text)
            for text in texts
        ]  # fmt: skip


def _mended(text):
    from ftfy import fix_text
    from ftfy.badness import is_bad

    if "\x1b" in text or is_bad(text):
        text = fix_text(text, _mojibake_settings())
    return unicodedata.normalize("NFC", text)


# German and Danish quote with »ä«, which ftfy takes for a wrong encoding
_QUOTES = str.maketrans(dict.fromkeys("«»„“”‚‘’‹›", " "))


def broken_part(text):
    """What looks like a wrong encoding beyond repair in ``text``, a few characters; "" if none."""
    if text.isascii() or _is_faultless(text):
        return ""
    from ftfy.badness import BADNESS_RE

    found = re.search("\ufffd", text) or BADNESS_RE.search(text.translate(_QUOTES))
    return found[0] if found else ""


# Arabic, Persian and the scripts of India write with joiners, and so do emoji
_JOINED = r"[\p{L}\p{M}--[\p{Latin}\p{Cyrillic}\p{Greek}\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}]]"
_EMOJI = r"[\p{Extended_Pictographic}\p{Emoji_Modifier}\ufe0f]"
_NEEDED = (
    rf"(?<={_JOINED})[\u200c\u200d](?={_JOINED})"
    rf"|(?<={_EMOJI})\u200d(?=\p{{Extended_Pictographic}})"
)
# soft hyphens, zero-width and invisible characters, marks of direction, of order, tags
_UNSEEN = (
    "\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff0-\ufffc"
    "\U000e0000-\U000e007f"
)
_REMOVED = regex.compile(rf"(?:{_NEEDED})(*SKIP)(*FAIL)|[{_UNSEEN}]", regex.V1)
# controls, separators; and what has no meaning without the font or program that gave it one
_SPACED = (
    "\x00-\x1f\x7f-\x9f\u2028\u2029\ue000-\uf8ff\ufdd0-\ufdef\U000f0000-\U0010ffff"
    + "".join(chr(plane << 16 | last) for plane in range(15) for last in (0xFFFE, 0xFFFF))
)
_SPACED_RUN = re.compile(f"[{_SPACED}]+")


@dataclass(frozen=True)
class Controls(Repair):
    """removes what is not seen: soft hyphens, zero-width characters, byte-order marks, marks of
    direction. Control characters, odd line separators, and characters that only a certain font
    has, become a space. Joiners stay where Persian, the scripts of India and emoji need them"""

    name: ClassVar[str] = "controls"

    def repair(self, texts, lang):
        # none of these can be printed, but for the mark of a picture
        return [
            text if text.isprintable() and "\ufffc" not in text else self._repaired(text)
            for text in texts
        ]

    def _repaired(self, text):
        return _REMOVED.sub("", _SPACED_RUN.sub(" ", text))


@dataclass(frozen=True)
class Whitespace(Repair):
    """makes every run of white space one space, and removes it at both ends"""

    name: ClassVar[str] = "whitespace"

    def repair(self, texts, lang):
        return [one_line(text) for text in texts]


# -- mark-up -------------------------------------------------------------------------------

# escaped once or more; also as tokenisers leave them, with spaces inside
_ESCAPED_AGAIN = re.compile("&(?:amp;|#38;|#[xX]26;)+(?=#?[a-zA-Z0-9]+;)")
_ENTITY = re.compile(
    r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[a-zA-Z][a-zA-Z0-9]{1,31});"
    r"|& ?(?:amp|quot|apos|lt|gt|nbsp|# ?[0-9]{2,5}) ;"
)
_INLINE = "b i u em strong a span font sub sup small big tt img".split()
_BLOCK = """
    br p div hr li ul ol dl dt dd h1 h2 h3 h4 h5 h6 table tbody thead tr td th center blockquote pre
""".split()
# names that may be a word of a manual's example, <title>, and those of translation memories
_WORDLIKE = """
    abbr address body button cite code del form head html input ins label link mark meta nav object
    option q s script section select strike style textarea title ruby rt rb
    bpt ept ph it hi g x bx ex mrk seg tuv tu ut
""".split()
_BREAKS = {"br", "hr", "p"}  # never closed, or not in the same line
_HIDDEN = {"script", "style"}  # what stands between is no text
_NAME = "|".join(sorted({*_INLINE, *_BLOCK, *_WORDLIKE}, key=len, reverse=True))
_TAG = re.compile(
    rf"<(?P<closes>/?)(?P<name>{_NAME})"
    r"""(?P<attributes>(?:\s+[a-z][\w:-]*\s*=\s*(?:"[^"<>]*"|'[^'<>]*'|[^\s"'<>]+))*)"""
    r"\s*(?P<ends>/?)>"
    r"|<!--(?:(?!<!--|-->).)*-->|<!doctype\b[^<>]*>",
    re.IGNORECASE,
)
# a line may begin or end within a tag
_CUT = re.compile(
    r"""^[^<>"]*(?:\b(?:href|src|class|style|target|rel|width|height|align|alt|id)\s*="""
    r"""\s*"[^"<>]*"\s*)+/?>"""
    rf"""|<(?:{"|".join([*_INLINE, *_BLOCK])})\s+[a-z-]+\s*=\s*["'][^<>]*$""",
    re.IGNORECASE,
)
_SUBTITLE_CODE = re.compile(
    r"\{\\(?:an?[0-9]+|[ibus][01]|(?:pos|move|fade?|fr[xyz]?|fs|fn|[1-4]?c|bord|shad)[^{}\s]*)\}"
)
TAGS = ("strip", "keep")


@dataclass(frozen=True)
class Html(Repair):
    """turns entities into characters (&amp;lt; too, escaped twice), and strips tags of HTML,
    subtitles and translation memories, whole or cut. A tag goes that is closed, has attributes,
    breaks a line, or stands at an end of the line; collect<B>(), x < y > z, <3, <unk>, %s and
    <file> stay"""

    name: ClassVar[str] = "html"
    tags: str = option("strip", "strip or keep; keep for text about HTML")

    def check(self, context):
        if self.tags not in TAGS:
            self._refuse("tags", self.tags, f"one of {', '.join(TAGS)}")

    def repair(self, texts, lang):
        return [
            self._repaired(text) if "&" in text or "<" in text or ">" in text or "{" in text
            else text
            for text in texts
        ]  # fmt: skip

    def _repaired(self, text):
        for _ in range(ROUNDS):  # what is unescaped or stripped may leave an entity or a tag
            before = text
            text = _ENTITY.sub(_character, _ESCAPED_AGAIN.sub("&", text))
            if self.tags == "strip":
                text = _CUT.sub(" ", _without_tags(_SUBTITLE_CODE.sub(" ", text)))
            if text == before:
                break
        return text


def _character(entity):
    text = entity[0].replace(" ", "")
    # of names a browser would also take one that only begins so: &notit;
    found = html.unescape(text) if text[1] == "#" else html5.get(text[1:], text)
    if found.isspace():
        return " "  # a line feed would end the line
    # of a number that is no character nothing is left, or U+FFFD
    return found if found and found != "\ufffd" else entity[0]


def _without_tags(text):
    tags = list(_TAG.finditer(text))
    if not tags:
        return text
    gone = list(_at_ends(text, tags))  # (start, end, what stands there instead)
    opened = {}  # name: tags that wait for their end
    for tag in tags:
        name = (tag["name"] or "").lower()
        space = "" if name in _INLINE else " "
        if not tag["closes"]:
            if name in _BREAKS or tag["attributes"] or tag["ends"]:
                gone.append((*tag.span(), space))
            opened.setdefault(name, []).append(tag)
        elif opened.get(name):
            start = opened[name].pop()
            if name in _HIDDEN:
                gone.append((start.start(), tag.end(), space))
            else:
                gone += [(*start.span(), space), (*tag.span(), space)]
    pieces, at = [], 0
    for start, end, space in sorted(gone, key=lambda part: (part[0], -part[1])):
        if start >= at:
            pieces += [text[at:start], space]
            at = end
    return "".join([*pieces, text[at:]])


def _at_ends(text, tags):
    """Tags, as in ``_without_tags``, that the text begins and ends with."""
    at = 0
    for tag in tags:
        if text[at : tag.start()].strip() or _is_example(tag):
            break
        at = tag.end()
        yield (*tag.span(), " ")
    at = len(text)
    for tag in reversed(tags):
        if text[tag.end() : at].strip() or _is_example(tag):
            break
        at = tag.start()
        yield (*tag.span(), " ")


def _is_example(tag):
    return tag["name"] and tag["name"].lower() in _WORDLIKE and not tag["closes"]
