"""Both sides of a corpus read in step, in blocks of bytes that end where lines end.

Reading is all that one process must do for all workers, so lines are not split here: a block is
cut where as many lines have ended on one side as on the other.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_prep.files import BYTE_ORDER_MARK, DAMAGED, PACKED, find_text, open_bytes, plain_name

BLOCK_BYTES = 1 << 18  # of a side
MOST_LINES = 4096  # in a block, so that the work on short lines does not take more memory
LINE_END = ord("\n")


class Block(NamedTuple):
    """Some lines of both sides as they stand in the files, each ended by a line feed."""

    first: int  # number of the first line in the corpus, from 1
    lines: int
    src: bytes
    tgt: bytes


def find_shards(folder, split, langs):
    """[(source path, target path)]: one pair of files, or shards in the order of their names.

    Shards are called ``SPLIT.NAME.LANG``, for example ``train.00.de.gz``, with the same NAME on
    both sides; together they are one corpus.

    Raises:
        FileNotFoundError: there is neither, or a shard of one side lacks the other.
        ValueError: there are both, or a shard is there twice.
    """
    sides = [_shards_of(folder, split, lang) for lang in langs]
    if not any(sides):
        return [tuple(find_text(folder, split, lang) for lang in langs)]
    for side, other, lang in zip(sides, sides[::-1], langs[::-1], strict=True):
        for name in sorted(side.keys() - other.keys()):
            raise FileNotFoundError(
                f"{Path(folder) / f'{split}.{name}.{lang}'} is missing, beside {side[name]}"
            )
    for lang in langs:
        whole = Path(folder) / f"{split}.{lang}"
        for path in (whole, *(whole.with_name(whole.name + suffix) for suffix in PACKED)):
            if path.exists():
                first = sides[langs.index(lang)][min(sides[0])]
                raise ValueError(f"{path} and {first.name} exist; remove what is out of date")
    return [tuple(side[name] for side in sides) for name in sorted(sides[0])]


def _shards_of(folder, split, lang):
    """{name: path} of the shards of one side."""
    found = {}
    for path in sorted(Path(folder).glob(f"{split}.*.{lang}*")):
        plain = plain_name(path)
        if not plain.endswith(f".{lang}") or len(plain) <= len(f"{split}..{lang}"):
            continue
        name = plain[len(split) + 1 : -len(lang) - 1]
        if name in found:
            raise ValueError(
                f"{found[name]} and {path.name} exist; remove what is out of date"
            )
        found[name] = path
    return found


def read_blocks(shards, longest):
    """Yield the ``Block``s of a corpus.

    Args:
        shards: from ``find_shards``.
        longest: most bytes of a line; of a longer one only so much is kept that it is still
            too long.

    Raises:
        ValueError: one side ends before the other, or an archive is damaged; names the line.
    """
    first = 1
    for paths in shards:
        sides = [_Side(path, longest) for path in paths]
        begin = first
        while True:
            for side in sides:
                side.fill()
            lines = min(MOST_LINES, *(len(side.ends) for side in sides))
            if not lines:
                break
            yield Block(first, lines, *(side.take(lines) for side in sides))
            first += lines
        for side, path in zip(sides, paths, strict=True):
            if len(side.ends):
                shorter = paths[1 - sides.index(side)]
                raise ValueError(
                    f"{paths[0]} and {paths[1]} stop being parallel at line {first - begin + 1}: "
                    f"{shorter} has only {first - begin:,} lines"
                )


class _Side:
    """What has been read of one file and not yet taken.

    Attributes:
        ends: where in it each whole line ends, an array.
    """

    def __init__(self, path, longest):
        self._chunks = _whole_lines(path, longest)
        self._text = b""
        self.ends = np.array([], dtype=np.int64)

    def fill(self):
        if len(self._text) < BLOCK_BYTES:
            chunks = [self._text]
            size = len(self._text)
            while size < BLOCK_BYTES and (chunk := next(self._chunks, None)) is not None:
                chunks.append(chunk)
                size += len(chunk)
            self._text = b"".join(chunks)
        self.ends = np.flatnonzero(np.frombuffer(self._text, dtype=np.uint8) == LINE_END) + 1

    def take(self, lines):
        end = self.ends[lines - 1]
        taken, self._text = self._text[:end], self._text[end:]
        return taken


def _whole_lines(path, longest):
    """Yield a file's bytes in pieces that end with a line feed; the last one gets its own."""
    path = Path(path)
    lines = 0
    with open_bytes(path) as file:
        try:
            held = file.read(len(BYTE_ORDER_MARK)).removeprefix(BYTE_ORDER_MARK)
            while data := file.read(BLOCK_BYTES):
                end = data.rfind(b"\n") + 1
                if end:
                    piece = held + data[:end]
                    lines += piece.count(b"\n")
                    yield piece
                    held = data[end:]
                elif len(held) <= longest:
                    held += data
        except DAMAGED as error:
            raise ValueError(
                f"{path} is damaged after line {lines:,} ({error}); fetch it again"
            ) from None
        if held:
            yield held.removesuffix(b"\n") + b"\n"
