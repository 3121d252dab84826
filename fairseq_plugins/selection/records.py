"""The lines that selection reads: source, candidates and reference, read in step."""

from pathlib import Path
from typing import NamedTuple

from data_prep.files import plain_name, read_lines
from fairseq_plugins.generation.nbest import Candidate, is_nbest, read_nbest

LEDGER_HEADER = ["line", "what", "action", "pieces"]  # of dad-generate


class Record(NamedTuple):
    """A source line on its way to the student.

    Attributes:
        number: its line number, from 1.
        source: its text.
        reference: the reference; None where there are no references.
        candidates: translations that are still in play, best first; none after a rejection.
    """

    number: int
    source: str
    reference: str | None
    candidates: list


def read_records(source, candidates, references=None):
    """Yield the :class:`Record` of each line, the files read in step.

    Args:
        source: text.
        candidates: n-best file, or text with one translation a line.
        references: text, or None.

    Raises:
        ValueError: a file ends before the others, or is damaged; names file and line.
    """
    end = object()
    translations = (
        read_nbest(candidates)
        if is_nbest(candidates)
        else ([Candidate(text)] for text in read_lines(candidates))
    )
    paths, sides = [source, candidates], [read_lines(source), translations]
    if references is not None:
        paths.append(references)
        sides.append(read_lines(references))
    number = 0
    while True:
        number += 1
        found = [next(lines, end) for lines in sides]
        missing = [path for path, line in zip(paths, found, strict=True) if line is end]
        if len(missing) == len(paths):
            return
        if missing:
            there = next(path for path, line in zip(paths, found, strict=True) if line is not end)
            raise ValueError(
                f"{missing[0]} ends after line {number - 1:,}, but {there} goes on; "
                f"line N of each file belongs to line N of {source}"
            )
        line, texts, *reference = found
        yield Record(number, line, reference[0] if reference else None, texts)


def decode_ledger(candidates):
    """Where dad-generate writes the ledger of an output or n-best file."""
    name = plain_name(candidates).removesuffix(".nbest")
    return Path(candidates).with_name(f"{name}.ledger.tsv")


def dropped_in_decoding(ledger):
    """Line numbers, from 1, that dad-generate's ledger calls dropped; a set.

    Raises:
        ValueError: the file is not such a ledger; names the line.
    """
    dropped = set()
    for place, line in enumerate(read_lines(ledger), start=1):
        fields = line.split("\t")
        if place == 1 and fields == LEDGER_HEADER:
            continue
        if place == 1 or len(fields) != len(LEDGER_HEADER) or not fields[0].isdecimal():
            raise ValueError(
                f"{ledger}, line {place}: expected the columns {' '.join(LEDGER_HEADER)} of "
                f"dad-generate, found {line[:80]!r}; decode again, or move the file away"
            )
        if fields[2] == "dropped":
            dropped.add(int(fields[0]))
    return dropped
