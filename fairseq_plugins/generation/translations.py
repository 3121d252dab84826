"""A file of translations made elsewhere, by an LLM, an API or people, as a teacher.

Three formats, told apart by what is in the file, plain, ``.gz`` or ``.zst``:

  text     a translation a line, parallel to the source
  n-best   as dad-generate writes it (``fairseq_plugins.generation.nbest``)
  JSONL    an object a line, in any order, for source lines by number (from 1) or by text:

             {"line": 17, "translation": "Das ist gut."}
             {"line": 18, "translations": ["Gut.", "Das passt."], "scores": [-0.2, -0.9]}
             {"source": "That is good.", "translation": null}

In JSONL, a source line that is missing, or whose translation is null, has failed; by text, one
translation serves every line with that text, white space aside. With ``scores``, the highest
comes first; a score is kept as the log-probability of a single piece. Other keys are ignored.
"""

import contextlib
import hashlib
import itertools
import json
import re
import tempfile
from array import array
from pathlib import Path

import numpy as np

from data_prep.files import PACKED, one_line, read_lines
from fairseq_plugins.generation.nbest import Candidate, is_nbest, read_nbest

TEXT, NBEST, JSONL = "text", "n-best", "JSONL"
LARGEST_SCORE = 1e300  # leaves out infinity and what is not a number
MARK = b"\xef\xbb\xbf"  # byte-order mark, which read_lines leaves out

_OTHER_NBEST = re.compile(r"0 \|\|\| .* \|\|\| .*")
_KEYS = ("translation", "translations")


def read_translations(path, source, candidates=None):
    """Yield the candidates of each source line in turn, a list of ``Candidate``.

    The list is empty for a line that has failed. Memory grows by a few numbers for each line,
    not by its text.

    Args:
        path: file of translations.
        source: UTF-8 text that was translated, plain, ``.gz`` or ``.zst``.
        candidates: how many each line that has not failed must have, the first of those there
            are; None: as many as there are.

    Raises (mostly before the first line is yielded):
        FileNotFoundError: a file is missing.
        ValueError: the files do not belong together, a line is not in the format, is there
            twice, or has too few candidates; names file and line.
    """
    if candidates is not None and candidates < 1:
        raise ValueError(f"the number of candidates is 1 or more, not {candidates}")
    path, source = Path(path), Path(source)
    readers = {TEXT: _read_text, NBEST: _read_nbest, JSONL: _read_jsonl}
    for number, found in readers[format_of(path)](path, source):
        if candidates is not None and 0 < len(found) < candidates:
            raise ValueError(
                f"{path}: source line {number:,} has {len(found)} "
                f"candidate{'s' * (len(found) > 1)}, {candidates} were asked for; ask for "
                f"fewer or complete the file"
            )
        yield found[:candidates]


def format_of(path):
    """One of ``TEXT``, ``NBEST`` and ``JSONL``.

    Raises:
        ValueError: the file is an n-best list of another program.
    """
    path = Path(path)
    if is_nbest(path):
        return NBEST
    lines = read_lines(path)
    first = next((line for line in lines if line.strip()), "")
    if ".jsonl" in path.suffixes or _has_translation(first):
        return JSONL
    if _OTHER_NBEST.fullmatch(first):
        raise ValueError(
            f"{path}, line 1: an n-best file of another program ({first[:80]!r}); write it as "
            f"'NUMBER ||| TEXT ||| logprob= X pieces= N ||| X' or as JSONL"
        )
    return TEXT


def _has_translation(line):
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(record, dict) and any(key in record for key in _KEYS)


# -- one reader for each format: (number of the source line from 1, candidates) --------------


def _read_text(path, source):
    for number, _, line in _in_step(path, source, read_lines(path)):
        yield number, [Candidate(one_line(line))]


def _read_nbest(path, source):
    for number, _, found in _in_step(path, source, read_nbest(path)):
        yield number, [found_one._replace(text=one_line(found_one.text)) for found_one in found]


def _in_step(path, source, found):
    """(number, source line, its item of ``found``), for as many as there are of both."""
    end = object()
    lines, found = read_lines(source), iter(found)
    pairs = itertools.zip_longest(lines, found, fillvalue=end)
    for number, (line, item) in enumerate(pairs, start=1):
        if line is end or item is end:
            shorter, longer = (source, path) if line is end else (path, source)
            rest = sum(1 for _ in (found if line is end else lines))
            raise ValueError(
                f"{path} and {source} stop being parallel at line {number:,}: {shorter} has "
                f"only {number - 1:,} lines, {longer} has {number + rest:,}"
            )
        yield number, line, item


def check_same_source(made_from, source):
    """Refuse translations of another text; both are read in step.

    Args:
        made_from: the text that was translated elsewhere.
        source: the text that it should be, line by line. What decoding sees alike is the same:
            white space and forms of Unicode do not count.

    Raises:
        ValueError: names the first line that differs, or both numbers of lines.
    """
    for number, line, theirs in _in_step(made_from, source, read_lines(made_from)):
        if one_line(theirs) != one_line(line):
            raise ValueError(
                f"{made_from}, line {number:,}: {theirs[:80]!r}, where {source} has "
                f"{line[:80]!r}; the translations were made of another version of the text: "
                f"translate it again, or hand over those of this text"
            )


def _read_jsonl(path, source):
    with _seekable(path) as (lines, file):
        index = _Index(path, lines)
        index.find(source)
        for number, line in enumerate(read_lines(source), start=1):
            place = index.place_of(number)
            if place is None:
                yield number, []
                continue
            file.seek(index.offsets[place])
            at = f"{path}, line {index.numbers[place]:,}"
            record = _parse(file.readline(), at)
            if "source" in record and one_line(record["source"]) != one_line(line):
                raise ValueError(
                    f"{at}: its source is not that of line {number:,} of {source}: "
                    f"{record['source'][:80]!r}; was it made from another version of the text?"
                )
            yield number, _candidates_of(record, at)


@contextlib.contextmanager
def _seekable(path):
    """(iterator of (offset, line), file in which to seek these offsets), decompressed."""
    if path.suffix not in PACKED:
        with open(path, "rb") as file:
            offset = len(MARK) if file.read(len(MARK)) == MARK else 0
            yield _with_offsets(read_lines(path), offset), file
        return
    # going back in compressed data means reading it from the start
    with tempfile.TemporaryFile() as file:
        yield _copied(read_lines(path), file), file


def _with_offsets(lines, offset):
    for line in lines:
        yield offset, line
        offset += len(line.encode("utf-8")) + 1


def _copied(lines, file):
    for offset, line in _with_offsets(lines, 0):
        file.write(line.encode("utf-8") + b"\n")
        yield offset, line
    file.flush()


class _Index:
    """Where in a JSONL file the record of a source line stands.

    Attributes:
        offsets: of each record, in bytes.
        numbers: of each record, its line in the file, from 1.

    Raises:
        ValueError: a line is not a record; names it.
    """

    def __init__(self, path, lines):
        self._path = path
        self.offsets, self.numbers = array("Q"), array("Q")
        self._by_text = None
        names = array("Q")  # what names a record's source line: its number, or a digest
        for number, (offset, line) in enumerate(lines, start=1):
            if not line.strip():
                continue
            at = f"{path}, line {number:,}"
            record = _parse(line, at)
            _candidates_of(record, at)
            by_text = "line" not in record
            if self._by_text is None:
                self._by_text = by_text
            if by_text != self._by_text:
                raise ValueError(
                    f"{at}: has {'no line number' if by_text else 'a line number'}, unlike the "
                    f"lines before; name all source lines by \"line\", or all by \"source\""
                )
            names.append(_digest(record["source"]) if by_text else record["line"])
            self.offsets.append(offset)
            self.numbers.append(number)
        names = np.frombuffer(names, dtype=np.uint64)  # (records,)
        # records with the same name in the order of the file
        self._order = np.argsort(names, kind="stable")
        self._names = names[self._order]
        self._check_twice()

    def find(self, source):
        """Take the lines of ``source`` to be those that the records are about.

        Raises:
            ValueError: a record is about none of them.
        """
        self._source_names, lines = array("Q"), 0
        for lines, line in enumerate(read_lines(source), start=1):
            if self._by_text:
                self._source_names.append(_digest(line))
        if self._by_text:
            here = np.unique(np.frombuffer(self._source_names, dtype=np.uint64))
            unknown = ~np.isin(self._names, here)
        else:
            unknown = self._names > lines
        if unknown.any():
            number = min(self.numbers[place] for place in self._order[unknown])
            raise ValueError(
                f"{self._path}, line {number:,}: " + (
                    f"its source is no line of {source}" if self._by_text else
                    f"is about a line after the last of {source}, which has {lines:,}"
                ) + "; was it made from another version of the text?"
            )  # fmt: skip

    def place_of(self, line):
        """Which record is about source line ``line`` (from 1), or None."""
        name = self._source_names[line - 1] if self._by_text else line
        place = int(np.searchsorted(self._names, np.uint64(name)))
        if place == len(self._names) or self._names[place] != name:
            return None
        return int(self._order[place])

    def _check_twice(self):
        twice = np.flatnonzero(self._names[1:] == self._names[:-1])
        if twice.size:
            first, second = (
                self.numbers[self._order[place]] for place in (twice[0], twice[0] + 1)
            )
            raise ValueError(
                f"{self._path}, line {second:,}: is about the same source line as line "
                f"{first:,}; leave one of them, or give both as \"translations\""
            )


def _digest(text):
    """64 bits of a line's text, white space aside; a clash shows when the text is compared."""
    digest = hashlib.blake2b(_whole(one_line(text)).encode(), digest_size=8)
    return int.from_bytes(digest.digest(), "little")


# -- one record --------------------------------------------------------------------------


def _parse(line, at):
    """A record that names a source line; raises ValueError where it does not."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{at}: not JSON ({error})") from None
    if not isinstance(record, dict):
        raise ValueError(f"{at}: expected an object, {{...}}, found {str(line)[:80]!r}")
    number, source = record.get("line"), record.get("source")
    if "line" in record and (type(number) is not int or not 0 < number < 2**63):
        raise ValueError(f"{at}: \"line\" is a whole number, the first line is 1; not {number!r}")
    if "source" in record and not isinstance(source, str):
        raise ValueError(f"{at}: \"source\" is the text of a source line, not {source!r}")
    if "line" not in record and "source" not in record:
        raise ValueError(f"{at}: names no source line; give its \"line\", from 1, or \"source\"")
    return record


def _candidates_of(record, at):
    """Candidates of a record, best first; none for one that has failed."""
    keys = [key for key in _KEYS if key in record]
    if len(keys) != 1:
        raise ValueError(
            f"{at}: has {'both' if keys else 'neither'} \"translation\" "
            f"{'and' if keys else 'nor'} \"translations\"; give one of them, null for a "
            f"sentence that failed"
        )
    found = record[keys[0]]
    if found is None:
        return []
    texts = [found] if keys == ["translation"] else found
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError(
            f"{at}: \"{keys[0]}\" is {'a text' if keys == ['translation'] else 'a list of texts'} "
            f"or null, not {str(found)[:80]}"
        )
    texts = [one_line(_whole(text)) for text in texts]
    if record.get("scores") is None:
        return [Candidate(text) for text in texts]
    scores = record["scores"]
    if (
        not isinstance(scores, list)
        or len(scores) != len(texts)
        or not all(type(score) in (int, float) and abs(score) < LARGEST_SCORE for score in scores)
    ):
        raise ValueError(
            f"{at}: \"scores\" is a list of {len(texts)} numbers, one for each translation, not "
            f"{str(scores)[:80]}"
        )
    ranked = [Candidate(text, float(score), 1) for text, score in zip(texts, scores, strict=True)]
    return sorted(ranked, key=lambda candidate: -candidate.log_prob)


def _whole(text):
    """``text`` with U+FFFD for halves of characters, which JSON can hold and UTF-8 cannot."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
