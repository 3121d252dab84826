"""Steps over a whole corpus: batches go through workers, in order, as often as the steps need.

Most steps judge a pair by itself; they are done together, a batch at a time, by any worker. A
``Measured`` step needs a number of every pair first, a ``Corpus`` step a hash of every pair. There
the pairs that are left wait on disk, compressed, and are read again when all have come. This
process itself reads, writes and adds up, and no more.
"""

import contextlib
import itertools
import pickle
import tempfile
import time
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from backports import zstd
from tqdm import tqdm

from data_prep.cleaning.duplicates import Repeats
from data_prep.cleaning.kinds import (
    CleaningStep,
    Context,
    Corpus,
    Filter,
    Measured,
    Repair,
    repair_all,
)
from data_prep.cleaning.ledger import Tally, write_dropped
from data_prep.cleaning.lengths import Empty
from data_prep.cleaning.repairs import Whitespace
from data_prep.command import bar_settings
from data_prep.files import one_line, write_whole
from data_prep.spool import Spool

SPOOL_LEVEL = 1  # of zstd
MEASURED_DIGITS = 2  # that count of what is measured, so that memory does not grow


# -- what is always done ---------------------------------------------------------------------


@dataclass(frozen=True)
class Fitting(CleaningStep):
    """drops a pair with a side of more bytes than --max-line-bytes"""

    name: ClassVar[str] = "too long line"


@dataclass(frozen=True)
class Decoded(CleaningStep):
    """drops a pair with a side that is not UTF-8"""

    name: ClassVar[str] = "not UTF-8"


@dataclass(frozen=True)
class HeldOutOverlap(Filter):
    """drops a pair with a side that occurs, exactly or nearly, in a dev or test set"""

    name: ClassVar[str] = "held-out"
    held_out: object  # a HeldOut

    def __str__(self):
        return self.name

    def why(self, src, tgt, context):
        return [leak and _leak_why(leak) for leak in self.held_out.leaks(src, tgt)]


def _leak_why(leak):
    kind = "is" if leak.kind == "exact" else f"is {leak.similarity:.2f} similar to"
    return f"{('source', 'target')[leak.side]} {kind} {leak.place}"


def complete(steps):
    """The steps with what no corpus can do without: ``whitespace`` after repairs, ``empty``.

    Whatever else is asked for, filters see and a run writes text on one line, in NFC, with single
    spaces, on both sides.
    """
    complete = []
    tidy = has_empty = False
    for step in steps:
        if isinstance(step, Repair):
            tidy, has_empty = isinstance(step, Whitespace), False
        else:
            if not tidy:
                complete.append(Whitespace())
            tidy, has_empty = True, has_empty or isinstance(step, Empty)
        complete.append(step)
    complete += [] if tidy else [Whitespace()]
    complete += [] if has_empty else [Empty()]
    return complete


# -- in a worker -----------------------------------------------------------------------------


class Batch(NamedTuple):
    """Pairs on their way through the steps."""

    numbers: np.ndarray  # of the lines in the corpus, from 1
    repaired: np.ndarray  # whether a repair has changed the pair
    src: list
    tgt: list

    def pack(self):
        """The batch as compressed bytes."""
        texts = ["\n".join(side).encode() for side in (self.src, self.tgt)]
        return zstd.compress(pickle.dumps((self.numbers, self.repaired, texts)), SPOOL_LEVEL)

    @classmethod
    def unpack(cls, packed):
        numbers, repaired, texts = pickle.loads(zstd.decompress(packed))
        return cls(numbers, repaired, *(text.decode().split("\n") for text in texts))

    def keep(self, kept):
        """The pairs of which ``kept``, an array of booleans, is true."""
        sides = (list(itertools.compress(side, kept)) for side in (self.src, self.tgt))
        return Batch(self.numbers[kept], self.repaired[kept], *sides)


class Parcel(NamedTuple):
    """A packed ``Batch`` that is not empty, and what a ``Corpus`` step found out since."""

    packed: bytes
    repeated: np.ndarray | None = None  # lines that repeat another, and which


class Done(NamedTuple):
    """What has become of a batch."""

    read: int  # pairs that came
    tallies: dict  # number of a step: Tally
    repaired: int  # pairs that were repaired for the first time
    dropped: bytes  # a line for each dropped pair, as in the file DROPPED
    kept: int  # pairs that are left
    last: int  # the highest line number among them
    result: object  # see Pass


@dataclass(frozen=True)
class Pass:
    """What is done with each batch while the corpus is read once; gives ``Done``.

    Its result is what the next step needs: the packed pairs and (values, counts) from a
    ``Measured`` step, or the packed pairs and (line numbers, hashes) for a ``Corpus`` step; when
    all steps are done, source, target and line numbers as they are written. None without pairs.

    Args:
        context: ``Context``.
        steps: (number, step, what a ``Measured`` one has settled on) of each, in order.
        following: (number, step) of the ``Measured`` or ``Corpus`` step after them, or None.
        longest: most bytes of a line.
        sample: (pairs wanted, pairs in the corpus) to take some, evenly spread; None: all.
    """

    context: Context
    steps: tuple
    following: tuple | None
    longest: int
    sample: tuple | None

    def __call__(self, task):
        tallies, dropped, repaired = defaultdict(Tally), [], 0
        if isinstance(task, Parcel):
            batch, whys = Batch.unpack(task.packed), {}
        else:
            batch, whys = self._read(task)
        read = len(batch.numbers)
        for repairs, steps in itertools.groupby(self.steps, lambda entry: _is_repair(entry[1])):
            if repairs:
                numbers, steps, _ = zip(*steps, strict=True)
                batch, new = _repair(steps, batch, self.context, [tallies[n] for n in numbers])
                repaired += new
                continue
            for number, step, settled in steps:
                tally = tallies[number]
                tally.read += len(batch.numbers)
                if not len(batch.numbers):
                    continue
                started = time.thread_time()
                if isinstance(step, (Fitting, Decoded)):
                    found = [whys.get((step.name, line)) for line in batch.numbers.tolist()]
                elif isinstance(step, Corpus):
                    found = _repeats(batch.numbers, task.repeated)
                elif isinstance(step, Measured):
                    found = step.why(batch.src, batch.tgt, self.context, settled)
                else:
                    found = step.why(batch.src, batch.tgt, self.context)
                batch = _judge(batch, found, str(step), tally, dropped)
                tally.seconds += time.thread_time() - started
        dropped.sort()
        kept = len(batch.numbers)
        return Done(
            read, dict(tallies), repaired, "".join(line for _, line in dropped).encode(), kept,
            int(batch.numbers[-1]) if kept else 0, self._result(batch, tallies) if kept else None,
        )  # fmt: skip

    def _read(self, block):
        """(the ``Batch`` of a ``Block``, {(name of a step, line): why it must go})."""
        numbers = np.arange(block.first, block.first + block.lines)
        whys = {}
        sides = []
        for name, data in (("source", block.src), ("target", block.tgt)):
            texts, unfit = _decode(data, self.longest)
            for (step, place), why in unfit.items():
                whys.setdefault((step, block.first + place), f"{name} of {why}")
            sides.append(texts)
        batch = Batch(numbers, np.zeros(block.lines, dtype=bool), *sides)
        if self.sample:
            wanted, pairs = self.sample
            batch = batch.keep(numbers * wanted // pairs != (numbers - 1) * wanted // pairs)
        return batch, whys

    def _result(self, batch, tallies):
        if self.following is None:
            lines = batch.src, batch.tgt, map(str, batch.numbers.tolist())
            return tuple(("\n".join(side) + "\n").encode() for side in lines)
        number, step = self.following
        started = time.thread_time()
        if isinstance(step, Measured):
            values = np.round(step.measure(batch.src, batch.tgt), MEASURED_DIGITS)
            found = np.unique(values[~np.isnan(values)], return_counts=True)
        else:
            found = batch.numbers, step.hashes(batch.src, batch.tgt)
        packed = batch.pack()
        tallies[number].seconds += time.thread_time() - started
        return packed, *found


def _decode(data, longest):
    """(lines of a block of bytes, {(name of a step, place from 0): what is wrong with a line})."""
    if len(data) <= longest:
        with contextlib.suppress(UnicodeDecodeError):
            return data.decode("utf-8").split("\n")[:-1], {}
    texts, unfit = [], {}
    for place, line in enumerate(data.split(b"\n")[:-1]):
        if len(line) > longest:
            unfit[Fitting.name, place] = f"more than {longest:,} bytes"
        else:
            try:
                texts.append(line.decode("utf-8"))
                continue
            except UnicodeDecodeError as error:
                value = f"byte 0x{line[error.start]:02x} at column {error.start + 1}"
                unfit[Decoded.name, place] = value
        texts.append(line.decode("utf-8", "backslashreplace"))
    return texts, unfit


def _is_repair(step):
    return isinstance(step, Repair)


def _repair(steps, batch, context, tallies):
    """(the batch after some repairs, how many pairs they were the first to change)."""
    timed = [_Timed(step, tally) for step, tally in zip(steps, tallies, strict=True)]
    sides = [
        repair_all(timed, texts, lang)
        for texts, lang in zip((batch.src, batch.tgt), context.langs, strict=True)
    ]
    for tally, *places in zip(tallies, *(changed for _, changed in sides), strict=True):
        tally.read += len(batch.numbers)
        tally.repaired += len(set().union(*places))
    repaired = batch.repaired.copy()
    repaired[list(set().union(*(places for _, changed in sides for places in changed)))] = True
    new = int(np.count_nonzero(repaired) - np.count_nonzero(batch.repaired))
    return Batch(batch.numbers, repaired, *(texts for texts, _ in sides)), new


class _Timed(NamedTuple):
    """A repair whose processor time is counted."""

    step: Repair
    tally: Tally

    def repair(self, texts, lang):
        started = time.thread_time()
        repaired = self.step.repair(texts, lang)
        self.tally.seconds += time.thread_time() - started
        return repaired


def _repeats(numbers, repeated):
    """Why each pair of a batch must go, given lines that repeat another, sorted."""
    first = dict(repeated.tolist())
    return [
        f"repeats line {first[number]}" if number in first else None for number in numbers.tolist()
    ]


def _judge(batch, whys, step, tally, dropped):
    """The pairs that may stay; the others are counted and noted."""
    assert len(whys) == len(batch.numbers), f"{step} judged {len(whys)} of {len(batch.numbers)}"
    kept = np.array([why is None for why in whys])
    if kept.all():
        return batch
    for place in np.flatnonzero(~kept).tolist():
        number, why = int(batch.numbers[place]), one_line(whys[place])
        tally.drop(number, batch.src[place], batch.tgt[place], why)
        dropped.append((number, f"{number}\t{step}\t{why}\n"))
    return batch.keep(kept)


# -- the whole -------------------------------------------------------------------------------


@dataclass
class Outcome:
    """What a run has counted: a ``Tally`` of each step, pairs read, repaired and kept."""

    tallies: list
    read: int = 0
    repaired: int = 0
    kept: int = 0


def run_steps(blocks, pairs, steps, context, out_paths, scratch, apply, *, longest, sample=None):
    """Write the pairs that pass all steps, their line numbers, and why others do not.

    Args:
        blocks: the corpus, from ``read_blocks``.
        pairs: how many are read of it.
        steps: in order.
        out_paths: of source, target, line numbers, and dropped lines.
        scratch: folder for what waits.
        apply: from ``in_processes``.
        longest, sample: see ``Pass``.

    Returns:
        ``Outcome``.
    """
    outcome = Outcome([Tally() for _ in steps])
    *text_paths, dropped_path = out_paths
    passes = _passes(steps)
    tasks, settled = blocks, {
        number: step.settled() for number, step in enumerate(steps) if isinstance(step, Measured)
    }
    outcome.kept = pairs
    with contextlib.ExitStack() as stack:
        dropped = []
        for turn, (own, following) in enumerate(passes, start=1):
            work = Pass(
                context, tuple((number, step, settled.get(number)) for number, step in own),
                following, longest, sample,
            )  # fmt: skip
            dropped.append(stack.enter_context(tempfile.TemporaryFile(dir=scratch)))
            between = stack.enter_context(_between(following, text_paths, scratch, outcome.kept))
            bar = tqdm(
                total=outcome.kept, desc=f"cleaning, {turn} of {len(passes)}", unit=" pairs",
                unit_scale=True, **bar_settings(),
            )  # fmt: skip
            outcome.kept = 0
            with bar:
                for done in apply(work, tasks):
                    outcome.read += done.read if turn == 1 else 0
                    outcome.repaired += done.repaired
                    outcome.kept += done.kept
                    for number, tally in done.tallies.items():
                        outcome.tallies[number].add(tally)
                    dropped[-1].write(done.dropped)
                    if done.kept:
                        between.take(done)
                    bar.update(done.read)
            if following is not None:
                number, _ = following
                started = time.thread_time()
                settled[number], notes = between.settle()
                outcome.tallies[number].notes.update(notes)
                outcome.tallies[number].seconds += time.thread_time() - started
                tasks = between.tasks()
        write_dropped(dropped_path, dropped)
    return outcome


def _passes(steps):
    """[(steps that can be done together, what they have to prepare for or None)], numbered."""
    passes, own = [], []
    for number, step in enumerate(steps):
        if isinstance(step, Corpus) or isinstance(step, Measured) and step.settled() is None:
            passes.append((own, (number, step)))
            own = []
        own.append((number, step))
    return [*passes, (own, None)]


def _between(following, text_paths, scratch, pairs):
    if following is None:
        return _Writing(text_paths)
    kind = _Measuring if isinstance(following[1], Measured) else _Comparing
    return kind(following[1], scratch, pairs)


class _Writing(contextlib.ExitStack):
    """What is left at the end, written."""

    def __init__(self, paths):
        super().__init__()
        self._files = [self.enter_context(write_whole(path)).buffer for path in paths]

    def take(self, done):
        for file, text in zip(self._files, done.result, strict=True):
            file.write(text)


class _Measuring(contextlib.ExitStack):
    """Pairs that wait until all have been measured."""

    def __init__(self, step, scratch, _):
        super().__init__()
        self._step, self._spool, self._values = step, Spool(scratch), Counter()

    def take(self, done):
        packed, values, counts = done.result
        self._spool.write(packed)
        self._values.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))

    def settle(self):
        values = sorted(self._values)
        settled = self._step.settle(np.array(values), [self._values[value] for value in values])
        return settled, self._step.account(settled)

    def tasks(self):
        return map(Parcel, self._spool.read())


class _Comparing(contextlib.ExitStack):
    """Pairs that wait until it is known which of them came before."""

    def __init__(self, _, scratch, pairs):
        super().__init__()
        self._spool = Spool(scratch)
        self._repeats = self.enter_context(Repeats(scratch, pairs))

    def take(self, done):
        packed, numbers, hashes = done.result
        self._spool.write((done.last, packed))
        self._repeats.add(numbers, hashes)

    def settle(self):
        self._repeats.find()
        return None, {}

    def tasks(self):
        up_to = self._repeats.up_to()
        return (Parcel(packed, up_to(last)) for last, packed in self._spool.read())
