"""Lines through a model as they come: in order, none missing, in little memory.

There is no thread that reads: whether a line has come is asked while the model is at work. So a
program that writes one line and waits gets its translation, a file is translated in full
batches, and the reader never runs ahead of the writer.
"""

import codecs
import os
import select
from collections import deque

from data_prep.files import BYTE_ORDER_MARK
from fairseq_plugins.generation.teacher import decode

SHARD_LINES = 512  # that are sorted by length and written together
LINE_BYTES = 1 << 16  # of a longer line the rest is not kept; no model reads as far
READ_BYTES = 1 << 16
PENDING_BYTES = 1 << 20  # that are read ahead
SHARDS_AHEAD = 64  # of empty lines, say, behind one that is being translated


class Input:
    """Lines of a file descriptor, taken as they come.

    Attributes:
        lines: number of lines taken so far.
        error: ``ValueError`` that ended the input early, or None.
    """

    def __init__(self, descriptor, name="standard input"):
        self._descriptor, self._name = descriptor, name
        self._begun = bytearray()  # of a line whose end has not come
        self._inside = False  # such a line, even if none of its bytes were kept
        self._pending, self._pending_bytes = deque(), 0
        self._end_of_file = False
        self.lines, self.error = 0, None

    @property
    def ended(self):
        """Whether there will be no more lines."""
        return self.error is not None or (self._end_of_file and not self._pending)

    def take(self, wait):
        """The lines that have come, at most ``SHARD_LINES``: a list of str without line feeds.

        Args:
            wait: whether to wait for a line; the list is empty then only at the end.
        """
        while not self._enough() and (self._readable() or (wait and not self._pending)):
            self._read()
        taken = []
        while self._pending and len(taken) < SHARD_LINES and self.error is None:
            line = self._pending.popleft()
            self._pending_bytes -= len(line) + 1
            try:
                taken.append(self._text(line))
            except UnicodeDecodeError as error:
                self.error = ValueError(
                    f"{self._name}, line {self.lines + 1:,}: not UTF-8 (byte "
                    f"0x{error.object[error.start]:02x} at column {error.start + 1}); convert it, "
                    f"for example with iconv"
                )
                break
            self.lines += 1
        return taken

    def _enough(self):
        return (
            self._end_of_file
            or self.error is not None
            or self._pending_bytes >= PENDING_BYTES
        )

    def _readable(self):
        return bool(select.select([self._descriptor], [], [], 0)[0])

    def _read(self):
        data = os.read(self._descriptor, READ_BYTES)
        *ended, begun = data.split(b"\n")
        for part in ended:
            self._keep(part)
            self._end_line()
        self._keep(begun)
        self._inside = self._inside or bool(begun)
        if not data:
            self._end_of_file = True
            if self._inside:
                self._end_line()

    def _keep(self, part):
        self._begun += part[: LINE_BYTES + 1 - len(self._begun)]

    def _end_line(self):
        self._pending.append(bytes(self._begun))
        self._pending_bytes += len(self._begun) + 1  # empty lines take room, too
        self._begun.clear()
        self._inside = False

    def _text(self, line):
        if self.lines == 0:
            line = line.removeprefix(BYTE_ORDER_MARK)
        if len(line) <= LINE_BYTES:
            return line.decode("utf-8")
        # the cut may have gone through a character
        return codecs.getincrementaldecoder("utf-8")().decode(line[:LINE_BYTES])


def translate_stream(lines, teacher, policies, workers):
    """Yield (candidates of each line, ledger rows) of a few lines after the other, in order.

    Args:
        lines: :class:`Input`.
        teacher: ``Teacher``.
        policies: ``Policies``.
        workers: batches that the teacher's backend decodes at the same time.

    Raises:
        ValueError: a line is not UTF-8, and all lines before it were yielded; or the decoder gave
            up on a line and the policy is to stop.
    """
    first_lines = deque()  # of the shards that were not yielded yet
    complete = {}  # {number: shard} of those among them that wait for one before them
    begun = done = 0  # shards

    def shards():
        nonlocal begun
        while True:
            if len(first_lines) >= SHARDS_AHEAD:
                yield None
                continue
            number = lines.lines + 1
            taken = lines.take(wait=not first_lines)
            if taken:
                first_lines.append(number)
                begun += 1
                yield teacher.shard(begun - 1, taken)
            elif lines.ended:
                return
            else:
                yield None  # nothing has come: decode finishes what is under way, and asks again

    for shard in decode(shards(), workers=workers):
        complete[shard.number] = shard
        while done in complete:
            first_line = first_lines.popleft()
            done += 1
            yield policies.settle(complete.pop(done - 1), first_line, teacher.decoding.n_best)
    if lines.error is not None:
        raise lines.error
