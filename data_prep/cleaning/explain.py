"""What became of single lines of a corpus, told from what a finished cleaning left behind."""

import re
import unicodedata
from pathlib import Path

from data_prep.cleaning.blocks import find_shards, read_blocks
from data_prep.cleaning.kinds import Repair
from data_prep.cleaning.ledger import DROPPED
from data_prep.cleaning.steps import parse
from data_prep.files import read_lines, sha256
from data_prep.manifest import manifest_path, read_manifest

MOST_CHARACTERS = 2000  # that are shown of a line

_REPEATS = re.compile(r"repeats line (\d+)")
_PLACE = re.compile(r"(?:source|target) is (?:\S+ similar to )?(.+):(\d+)")


def explain(out, numbers, text=None):
    """Yield lines of text that tell what became of some lines of the input.

    Args:
        out: finished text folder.
        numbers: of the lines, from 1.
        text: raw folder; None: where it was.

    Raises:
        FileNotFoundError: ``out`` or the raw folder is not there.
        ValueError: the raw files are not those that ``out`` was made of, or a number is not one of
            theirs.
    """
    out = Path(out)
    if not (out / DROPPED).is_file():
        raise FileNotFoundError(f"{out} is not a folder that data_prep.clean has finished")
    manifest = read_manifest(out)
    settings = manifest["settings"]
    langs = settings["source_lang"], settings["target_lang"]
    shards = find_shards(text or settings["in"], "train", langs)
    _check_unchanged(shards, out, manifest["inputs"])
    fates = _fates(out, langs, set(numbers))
    also = {int(found[1]) for fate in fates.values()
            if fate.dropped and (found := _REPEATS.fullmatch(fate.why))}  # fmt: skip
    raw, pairs = _raw(shards, {*numbers, *also}, settings["max_line_bytes"])
    for number in numbers:
        if number not in raw:
            raise ValueError(f"--explain {number}: the corpus has lines 1 to {pairs:,}")
    steps = settings["steps"]
    for number in numbers:
        yield from _story(number, fates.get(number), raw, langs, steps)


class _Fate:
    """Where a line has gone.

    Attributes:
        dropped: the step that dropped it, or None.
        why: in its words.
        place: number of the line in train, from 1, where it was kept.
        written: both sides of that.
    """

    def __init__(self, dropped=None, why=None, place=None):
        self.dropped, self.why, self.place, self.written = dropped, why, place, []


def _check_unchanged(shards, out, inputs):
    known = {Path(path).name: digest for path, digest in inputs.items()
             if Path(path).name.startswith("train.")}  # fmt: skip
    paths = [path for pair in shards for path in pair]
    if {path.name for path in paths} != set(known):
        raise ValueError(
            f"{paths[0].parent} has {', '.join(path.name for path in paths)}, but {out} was made "
            f"of {', '.join(known)}; name the folder with --in"
        )
    for path in paths:
        if sha256(path) != known[path.name]:
            raise ValueError(
                f"{path} has changed since {out} was made of it (its SHA-256 is not the one in "
                f"{manifest_path(out)}); clean again, or name the old folder with --in"
            )


def _fates(out, langs, numbers):
    """{number: ``_Fate``} of lines that were read."""
    fates = {}
    for row in read_lines(out / DROPPED):
        number, step, why = row.split("\t")
        if number.isdigit() and int(number) in numbers:
            fates[int(number)] = _Fate(step, why)
    for place, number in enumerate(read_lines(out / "train.lines"), start=1):
        if int(number) in numbers:
            fates[int(number)] = _Fate(place=place)
    by_place = {fate.place: fate for fate in fates.values() if fate.place}
    for lang in langs if by_place else ():
        for place, line in enumerate(read_lines(out / f"train.{lang}"), start=1):
            if place in by_place:
                by_place[place].written.append(line)
    return fates


def _raw(shards, numbers, longest):
    """({number: both sides as (path, line in it, bytes)}, lines that were gone through)."""
    raw, before = {}, 0
    for paths in shards:
        lines = 0
        for block in read_blocks([paths], longest):
            lines += block.lines
            here = [n for n in numbers if block.first <= n - before < block.first + block.lines]
            for number in here:
                line = number - before
                raw[number] = [
                    (path, line, side.split(b"\n")[line - block.first])
                    for path, side in zip(paths, (block.src, block.tgt), strict=True)
                ]
            if len(raw) == len(numbers):
                return raw, before + lines
        before += lines
    return raw, before


def _story(number, fate, raw, langs, steps):
    if fate is None:
        yield f"line {number}: not taken, since --lines took a part of the corpus"
    elif fate.dropped:
        yield f"line {number}: dropped by {fate.dropped}: {fate.why}"
    else:
        yield f"line {number}: kept, line {fate.place} of train"
    for side, lang in enumerate(langs):
        path, line, data = raw[number][side]
        yield f"  {lang}  {path}:{line}"
        yield f"      {_shown(data.decode('utf-8', 'backslashreplace'))}"
        text = None
        for step, text in _repairs(data, lang, fate, steps):
            yield f"      {step}: {_shown(text)}"
        if fate and fate.place and fate.written[side] != (text or data.decode("utf-8")):
            yield f"      written: {_shown(fate.written[side])}"
    if fate and fate.dropped:
        if found := _REPEATS.fullmatch(fate.why):
            first = int(found[1])
            yield f"  line {first}, the first of its kind"
            for lang, (_, _, data) in zip(langs, raw[first], strict=True):
                yield f"  {lang}  {_shown(data.decode('utf-8', 'backslashreplace'))}"
        if (found := _PLACE.fullmatch(fate.why)) and Path(found[1]).is_file():
            for line, held_out in enumerate(read_lines(found[1]), start=1):
                if line == int(found[2]):
                    yield f"  held out  {found[1]}:{line}"
                    yield f"      {_shown(held_out)}"
                    break


def _repairs(data, lang, fate, steps):
    """(step, text after it) of each repair that changes one side, before it was dropped."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return
    if fate is None or fate.dropped and fate.dropped not in {*steps, "held-out"}:
        return
    for description in steps:
        if fate.dropped == description:
            return
        step = parse(description)
        if isinstance(step, Repair):
            (repaired,) = step.repair([text], lang)
            if repaired != text:
                yield step.name, repaired
            text = repaired


def _shown(text):
    """``text`` in quotes, with what cannot be seen written out, combining marks among it."""
    shown = "".join(
        f"\\u{ord(character):04x}" if unicodedata.combining(character) else character
        for character in repr(text[:MOST_CHARACTERS])
    )
    more = len(text) - MOST_CHARACTERS
    return shown if more <= 0 else f"{shown} and {more:,} more characters"
