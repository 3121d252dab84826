"""What became of single lines of a corpus, told from what a finished cleaning left behind."""

import contextlib
import itertools
import re
import unicodedata
from pathlib import Path
from typing import NamedTuple

from data_prep.cleaning.blocks import find_shards, read_blocks
from data_prep.cleaning.engine import HeldOutOverlap
from data_prep.cleaning.kinds import Repair, repair_all
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
    text = Path(text or _found(settings["in"], out))
    if not text.is_dir():
        raise FileNotFoundError(f"{text}, which {out} was made of, is not here; name it with --in")
    shards = find_shards(text, "train", langs)
    _check_unchanged(shards, out, manifest["inputs"])
    fates = _fates(out, set(numbers))
    also = {int(found[1]) for fate in fates.values()
            if fate.dropped and (found := _REPEATS.fullmatch(fate.why))}  # fmt: skip
    raw, pairs = _raw(shards, {*numbers, *also}, settings["max_line_bytes"])
    for number in numbers:
        if number not in raw:
            raise ValueError(f"--explain {number}: the corpus has lines 1 to {pairs:,}")
    steps = settings["steps"]
    for number in numbers:
        yield from _story(number, fates.get(number), raw, langs, steps, out)


def _found(path, out):
    """``path`` as it was named when ``out`` was made: from here, or from a folder above ``out``."""
    places = [Path(path), *(folder / path for folder in out.resolve().parents)]
    return next((place for place in places if place.exists()), places[0])


class _Fate(NamedTuple):
    """Where a line has gone.

    Attributes:
        dropped: the step that dropped it, or None.
        why: in its words.
        place: number of the line in train, from 1, where it was kept.
    """

    dropped: str | None = None
    why: str | None = None
    place: int | None = None


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


def _fates(out, numbers):
    """{number: ``_Fate``} of lines that were read."""
    fates = {}
    for row in read_lines(out / DROPPED):
        number, step, why = row.split("\t")
        if number.isdigit() and int(number) in numbers:
            fates[int(number)] = _Fate(step, why)
    for place, number in enumerate(read_lines(out / "train.lines"), start=1):
        if int(number) in numbers:
            fates[int(number)] = _Fate(place=place)
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


def _story(number, fate, raw, langs, steps, out):
    if fate is None:
        yield f"line {number}: not taken, since --lines took a part of the corpus"
    elif fate.dropped:
        yield f"line {number}: dropped by {fate.dropped}: {fate.why}"
    else:
        yield f"line {number}: kept, line {fate.place} of train"
    for side, lang in enumerate(langs):
        path, line, data = raw[number][side]
        yield f"  {lang}  {path}:{line}"
        yield f"      {_shown(data)}"
        for names, text in _repairs(data, lang, fate, steps):
            yield f"      {names}: {_shown(text)}"
    if fate and fate.dropped:
        if found := _REPEATS.fullmatch(fate.why):
            first = int(found[1])
            yield f"  line {first}, the first of its kind"
            for lang, (_, _, data) in zip(langs, raw[first], strict=True):
                yield f"  {lang}  {_shown(data)}"
        if (found := _PLACE.fullmatch(fate.why)) and _found(found[1], out).is_file():
            path = _found(found[1], out)
            for line, held_out in enumerate(read_lines(path), start=1):
                if line == int(found[2]):
                    yield f"  held out  {path}:{line}"
                    yield f"      {_shown(held_out)}"
                    break


def _repairs(data, lang, fate, steps):
    """(names of repairs that change one side, text after them), up to the step that dropped it."""
    if fate is None or fate.dropped and fate.dropped not in {*steps, HeldOutOverlap.name}:
        return
    text = data.decode("utf-8")
    done = steps[: steps.index(fate.dropped)] if fate.dropped in steps else steps
    steps = map(parse, done)
    for repairs, group in itertools.groupby(steps, lambda step: isinstance(step, Repair)):
        if repairs:
            group = list(group)
            (text,), changed = repair_all(group, [text], lang)
            names = [step.name for step, places in zip(group, changed, strict=True) if places]
            if names:
                yield ", ".join(names), text


def _shown(line):
    """A line in quotes, with what cannot be seen written out, combining marks among it.

    Bytes are shown as text, where they are UTF-8.
    """
    if isinstance(line, bytes):
        with contextlib.suppress(UnicodeDecodeError):
            line = line.decode("utf-8")
    shown = "".join(
        f"\\u{ord(character):04x}" if unicodedata.combining(character) else character
        for character in repr(line[:MOST_CHARACTERS])
    )
    more = len(line) - MOST_CHARACTERS
    return shown if more <= 0 else f"{shown} and {more:,} more"
