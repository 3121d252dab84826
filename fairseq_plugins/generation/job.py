"""Make one output file from one source file: alone or with others, resumable, whole or absent.

What translates is an engine: an object with ``decode(tasks, should_stop, advance)``, which takes
(number, lines, what an earlier run kept) of one shard after another and yields ``Shard``.
"""

import itertools
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from data_prep.files import count_lines, one_line, read_lines, sha256
from data_prep.manifest import manifest_path, read_json, write_manifest
from fairseq_plugins.generation.policies import Policies
from fairseq_plugins.generation.teacher import FAILED
from fairseq_plugins.generation.workfolder import WorkFolder, output_paths
from fairseq_plugins.shared_folder import differences, is_made

OPEN = ("backend", "device", "compute_type", "batch_tokens")  # None: whatever suits
SECONDS_BETWEEN_LOOKS = 0.3  # at the shards of other processes
CHANGED = {  # settings whose values say nothing to people
    "source": "the source text changed",
    "references": "the references changed",
    "models": "the model changed",
}


@dataclass(frozen=True)
class Job:
    """What is to be made from which text, whatever translates it."""

    source: Path
    out: Path
    references: Path | None
    source_sha256: str
    lines: int
    shard_lines: int
    n_best: int
    policies: Policies

    @property
    def identity(self):
        """What shapes the output, apart from what translates: JSON types only."""
        return {
            "source": {"sha256": self.source_sha256, "lines": self.lines},
            "references": sha256(self.references) if self.references else None,
            "n_best": self.n_best,
            "shard_lines": self.shard_lines,
            **vars(self.policies),
        }

    @property
    def shards(self):
        """Number of shards."""
        return -(-self.lines // self.shard_lines)

    def lines_of(self, number):
        """Number of lines of shard ``number``."""
        return min(self.shard_lines, self.lines - number * self.shard_lines)

    def texts(self):
        """Yield the number of each shard, its source lines, and its references or None."""
        lines = read_lines(self.source)
        references = read_lines(self.references) if self.references else None
        for number in range(self.shards):
            taken = _take(lines, self.shard_lines)
            taken_references = references and _take(references, self.shard_lines)
            if references and len(taken_references) != len(taken):
                raise ValueError(
                    f"{self.source} or {self.references} was changed during the run. Run again"
                )
            yield number, taken, taken_references


class TakenShard(NamedTuple):
    """What :func:`make` wants of a ``Shard``, from an engine that has no ``Shard`` of its own."""

    number: int
    candidates: list
    special: dict
    tokens: int = 0
    complete: bool = True


def make(job, wishes, resolve, load, overwrite, inputs):
    """Make the output of a job, alone or together with other processes; return its manifest.

    Args:
        job: ``Job``.
        wishes: what the output is to be made with; those of ``OPEN`` may be None.
        resolve: function of the ``WorkFolder``; returns the settings, nothing left open, and
            what else is to be remembered.
        load: function of the folder and those two; returns an engine.
        overwrite: replace an output that was made otherwise.
        inputs: paths that the manifest names besides the source.
    """
    started = time.monotonic()
    work = WorkFolder(job.out)
    try:
        while True:
            with work.entered(say) as alone:
                if _is_done(work, wishes, overwrite):
                    if alone:
                        say(f"{job.out} is there already, made from the same text and settings")
                        work.clear()  # a kill at the very end may have left some of it
                    return read_json(manifest_path(job.out))
                remembered = _agree(work, wishes, resolve, alone)
                if remembered is None:
                    continue
                load_seconds = _decode_missing(work, job, remembered, load, alone)
                if not work.be_alone() or _is_done(work, wishes, overwrite):
                    continue
                _check_unchanged(job, remembered["settings"])
                # while we waited, another may have begun afresh, or died as it stored a shard
                if work.settings() != remembered or len(_finished(work, job)) < job.shards:
                    continue
                return _finish(work, job, remembered, inputs, load_seconds, started)
    except OSError as error:
        # a write that fails half-way (disk full) does not say where
        if error.errno and error.filename is None:
            error.filename = str(work.path)
        raise


def _agree(work, wishes, resolve, alone):
    """The settings that all processes in the folder work with; None: look again."""
    remembered = work.settings()
    changes = _changes(remembered["settings"], wishes) if remembered else []
    if not alone:
        if changes:
            raise ValueError(
                f"another process is working in {work.path} with other settings: "
                f"{'; '.join(changes)}. Wait until it has finished, or name another --out"
            )
        if remembered:
            say(f"{work.path}: sharing the work with another process")
        return remembered
    if not remembered or changes:
        for change in changes:
            say(f"{work.path}: starting afresh, because {change}")
        work.clear()
        settings, speed = resolve(work)
        remembered = {"settings": settings, "speed": speed}
        work.begin(remembered)
    work.share()
    # another process may have been quicker to be alone in the folder
    return remembered if work.settings() == remembered else None


def _decode_missing(work, job, remembered, load, alone):
    """Decode until every shard is finished; returns the seconds that loading took."""
    done = _finished(work, job)
    kept = sum(map(job.lines_of, done))
    if kept and alone:
        say(f"{work.path}: going on after {kept:,} of {job.lines:,} lines")
    for number in sorted(set(range(job.shards)) - done):
        if alone and work.was_begun(number):
            say(f"{work.path}: shard {number} is damaged or unfinished; decoding it again")
    if len(done) == job.shards:
        return 0.0
    loading = time.monotonic()
    engine = load(work, remembered["settings"], remembered["speed"])
    load_seconds = time.monotonic() - loading
    on_screen = sys.stderr.isatty()
    bar = tqdm(
        total=job.lines, initial=kept, unit=" sentences", smoothing=0.1, unit_scale=False,
        mininterval=0.5 if on_screen else 30, dynamic_ncols=on_screen, desc=job.out.name,
    )  # fmt: skip
    with bar, _Stop() as stop:
        progress = _Progress(work, job, done, bar)
        while True:
            for shard in engine.decode(progress.tasks(stop), stop.is_wanted, bar.update):
                progress.store(shard)
            stop.heed()
            if len(done) == job.shards:
                return load_seconds
            time.sleep(SECONDS_BETWEEN_LOOKS)  # the rest is with other processes


def _finished(work, job):
    """Numbers of the shards that lie there whole."""
    return {n for n in range(job.shards) if work.finished(n, job.lines_of(n))}


class _Progress:
    """Which shards are done, here and by other processes, and the bar that shows it."""

    def __init__(self, work, job, done, bar):
        self._work, self._job, self._done, self._bar = work, job, done, bar
        self._references, self._elsewhere = {}, set()
        self._clock = self._started = time.monotonic()
        self._tokens = 0

    def tasks(self, stop):
        """Yield (number, lines, what was kept of it) of each shard that this process can claim."""
        for number, lines, references in self._job.texts():
            if stop.is_wanted():
                return
            if number in self._done:
                continue
            if not self._work.claim(number):
                self._elsewhere.add(number)
                continue
            if self._note_finished(number):
                self._work.release(number)
                continue
            self._references[number] = references
            yield number, lines, self._work.partial(number, len(lines))
        for number in list(self._elsewhere):
            self._note_finished(number)

    def _note_finished(self, number):
        lines = self._job.lines_of(number)
        if not self._work.finished(number, lines):
            return False
        self._elsewhere.discard(number)
        self._done.add(number)
        self._bar.update(lines)
        return True

    def store(self, shard):
        """Write a shard that the engine returns, or what there is of one that it had to stop."""
        job, number = self._job, shard.number
        references = self._references.pop(number)
        if not shard.complete:
            failed = [i for i, (what, _) in shard.special.items() if what == FAILED]
            kept = [None if i in failed else found for i, found in enumerate(shard.candidates)]
            self._work.store_partial(number, kept)
            self._work.release(number)
            return
        now = time.monotonic()
        first_line = number * job.shard_lines
        candidates, rows = job.policies.settle(
            shard, first_line + 1, job.n_best, references and [one_line(t) for t in references]
        )
        self._work.store(
            number, candidates, rows, n_best=job.n_best, first_line=first_line,
            tokens=shard.tokens, seconds=now - self._clock,
        )  # fmt: skip
        self._work.release(number)
        self._clock = now
        self._done.add(number)
        self._tokens += shard.tokens
        self._bar.set_postfix_str(
            f"{self._tokens / (now - self._started):,.0f} tokens/s", refresh=False
        )


class _Stop:
    """Ctrl-C and SIGTERM as a wish that is heeded at the next good moment; twice: at once."""

    def __enter__(self):
        self._wanted, self._before = None, {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                # what runs in the background may have been told to ignore Ctrl-C
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_):
        self._restore()

    def is_wanted(self):
        return self._wanted is not None

    def heed(self):
        """Do what the signal would have done, now that all is in order."""
        if self._wanted is not None:
            self._restore()
            signal.raise_signal(self._wanted)
            raise KeyboardInterrupt  # a handler that returns has not ended the run

    def _note(self, number, frame):
        self._wanted = number
        # the signal may have come while a line was being printed, which print does not bear
        os.write(2, b"\nfinishing the batches under way; once more stops at once\n")
        self._restore()

    def _restore(self):
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}


def _finish(work, job, remembered, inputs, load_seconds, started):
    merged, counts, seconds = work.merge(job.shards)
    _check_complete(merged["text"], job.lines, counts)
    counts["load_seconds"] = round(load_seconds, 3)
    counts["decode_seconds"] = round(seconds, 3)
    counts["sentences_per_second"] = round(job.lines / seconds, 2) if seconds else None
    counts["tokens_per_second"] = round(counts["tokens"] / seconds, 2) if seconds else None
    write_manifest(
        merged["text"],
        settings={**remembered["settings"], **remembered["speed"]},
        inputs=[path for path in (job.source, job.references, *inputs) if path],
        counts=counts,
        seconds=time.monotonic() - started,
        seed=(remembered["settings"].get("sampling") or {}).get("seed"),
        outputs={
            output_paths(job.out)[kind].name: sha256(path) for kind, path in merged.items()
        },
    )
    work.finish(merged)
    return read_json(manifest_path(job.out))


def _changes(was, wishes):
    """What differs from the wishes, as sentences; what they leave open does not."""
    wanted = {
        name: value for name, value in wishes.items() if value is not None or name not in OPEN
    }
    return differences({name: was.get(name) for name in wanted}, wanted, CHANGED)


def _is_done(work, wishes, overwrite):
    """Whether ``out`` is what this decoding would make.

    Raises:
        FileExistsError: it is something else, and may not be overwritten.
    """
    out, manifest = work.out, manifest_path(work.out)
    if not out.exists():
        return False
    record = read_json(manifest) if manifest.exists() else None
    if record is None:
        # a kill between the renames at the end leaves the text, and the folder, in place
        if work.settings() is not None or overwrite:
            return False
        raise FileExistsError(
            f"{out} exists and has no manifest, so what made it is unknown; "
            f"pass --overwrite to replace it"
        )
    changes = _changes(record.get("settings", {}), wishes)
    if not changes and not _untouched(out, record.get("outputs", {})):
        changes = ["its text was changed after it was made"]
    return is_made(out, changes, overwrite)


def _untouched(out, outputs):
    return out.name in outputs and all(
        out.with_name(name).exists() and sha256(out.with_name(name)) == digest
        for name, digest in outputs.items()
    )


def _check_unchanged(job, settings):
    for path, digest in (
        (job.source, settings["source"]["sha256"]), (job.references, settings["references"]),
    ):  # fmt: skip
        if path is not None and sha256(path) != digest:
            raise ValueError(f"{path} was changed during the run. Run again")


def _check_complete(merged, lines, counts):
    with open(merged, "rb") as file:
        written = sum(1 for _ in file)
    if not written == lines == counts["lines"]:
        raise ValueError(
            f"{lines:,} lines in, but {written:,} out; the source was changed during the run. "
            f"Run again"
        )


def open_job(source, out, references, policies, n_best, shard_lines):
    """A ``Job``, after a look at all files that it names."""
    source, out = Path(source), Path(out)
    _check_place(source, out)
    digest = sha256(source)  # before counting, so that a change between the two is noticed
    lines = count_lines(source)
    if not lines:
        raise ValueError(f"{source} is empty; there is nothing to translate")
    if policies.need_references and references is None:
        raise ValueError("a policy takes the reference of a line; name them with --references")
    if references is not None:
        references = Path(references)
        if count_lines(references) != lines:
            raise ValueError(
                f"{references} has {count_lines(references):,} lines and {source} {lines:,}; "
                f"references go line by line with the source"
            )
    return Job(source, out, references, digest, lines, shard_lines, n_best, policies)


def _check_place(source, out):
    if not source.exists():
        raise FileNotFoundError(f"source {source} is missing")
    if out.is_dir():
        raise ValueError(f"{out} is a folder; --out names the file to write")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"folder {out.parent} for {out.name} is missing; make it first")
    if not os.access(out.parent, os.W_OK):
        raise PermissionError(f"folder {out.parent} is not writable")
    if out.exists() and out.samefile(source):
        raise ValueError(f"--source and --out are the same file, {out}")


def say(text):
    """Tell the user."""
    print(text, file=sys.stderr, flush=True)


def _take(lines, number):
    return list(itertools.islice(lines, number))
