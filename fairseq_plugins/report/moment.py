"""A run at one moment, as data: its stages and how far they are, what finished models score.

Looking only reads: no lock is taken and nothing is written, so a run cannot be disturbed by it.
"""

import os
import socket
import statistics
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from data_prep.pipeline.progress import Progress, StageLog, UnderWay
from data_prep.pipeline.stage import LOG
from fairseq_plugins.report.run import DONE, RUNNING, STOPPED, TO_COME, open_run

FAILED = "failed"
SILENT = 600  # seconds without a word after which a running stage is called silent
LONGEST_WRITE = 10  # seconds that a file of the plan may be missing or half written
MOST_UNTIMED = 3  # kinds of stages that an estimate may leave out, since it names them


@dataclass(frozen=True)
class StageNow:
    """A stage of the plan at one moment.

    Attributes:
        number, title, folder: of the plan.
        state: ``DONE``, ``RUNNING``, ``STOPPED``, ``FAILED`` or ``TO_COME``.
        seconds: that it took, where it is done.
        finished: seconds since the epoch, where it is done.
        progress: ``Progress``, where it is half made.
        elapsed: seconds since this attempt began, where it is running, or None.
        silent: seconds since a running stage last said something.
        error: how it failed, in a sentence, with the last line of its log.
    """

    number: int
    title: str
    folder: str
    state: str
    seconds: float | None = None
    finished: float | None = None
    progress: Progress = Progress()
    elapsed: float | None = None
    silent: float = 0.0
    error: str | None = None

    @property
    def span(self):
        """(start, end) of a finished stage, seconds since the epoch, or None."""
        if self.finished is None or self.seconds is None:
            return None
        return self.finished - self.seconds, self.finished

    @property
    def kind(self):
        """Stages of one kind take about as long as each other."""
        first, *rest = Path(self.folder).parts
        if first == "corpora":
            return self.number, rest[-1]
        losses = [name.partition("-")[2] for name in rest[:-1]]  # student/small/9-word/medical
        return self.number, first, *filter(None, losses)


@dataclass(frozen=True)
class Moment:
    """A run at one moment.

    Attributes:
        run: ``Run``.
        stages: ``StageNow`` of every stage that the recipe was started for or that is there, in
            order.
        rows: {domain: [``Row``]}, those without scores too.
        dev: {model: highest dev BLEU of its finished training, None where it was not measured}.
        time: of the look, seconds since the epoch.
        is_alive: whether the recipe that wrote the plan is there.
    """

    run: object
    stages: list
    rows: dict
    dev: dict
    time: float
    is_alive: bool

    def in_state(self, *states):
        """The stages in one of the states."""
        return [stage for stage in self.stages if stage.state in states]

    @property
    def is_finished(self):
        """Whether every stage is done."""
        return len(self.in_state(DONE)) == len(self.stages)

    @property
    def is_still(self):
        """Whether nobody works on the run, though it is not finished."""
        return not self.is_finished and not self.is_alive and not self.in_state(RUNNING)

    @property
    def elapsed(self):
        """Seconds since the recipe was started, up to the end of a finished run; None: unknown."""
        started = _epoch(self.run.plan.get("started"))
        ends = [stage.finished for stage in self.stages if stage.finished]
        end = max(ends, default=None) if self.is_finished else self.time
        return end - started if started and end and end > started else None

    def seconds_left(self):
        """(seconds until the run is finished, [folders that these leave out]), or None.

        Stages to come take as long as finished ones of their kind took, those side by side
        counted once. Where more than ``MOST_UNTIMED`` have no like there is no estimate.
        """
        pace, untimed, left, running = self._pace(), [], 0.0, [0.0]
        for stage in self.in_state(RUNNING, STOPPED, FAILED, TO_COME):
            known = pace.get(stage.kind)
            if stage.state == RUNNING and stage.progress.is_whole:
                running.append(stage.progress.seconds_left)
            elif known is None:
                untimed.append(stage.folder)
            elif stage.state == RUNNING:
                running.append(max(0.0, known[1] - (stage.elapsed or 0.0)))
            else:
                left += known[0]
        left += max(running)
        return (left, untimed) if left and len(untimed) <= MOST_UNTIMED else None

    def _pace(self):
        """{kind: (clock seconds for each finished stage, median of their own seconds)}."""
        spans = {}
        for stage in self.in_state(DONE):
            if stage.span:
                spans.setdefault(stage.kind, []).append(stage.span)
        return {
            kind: (
                covered(found) / len(found),
                statistics.median(end - start for start, end in found),
            )
            for kind, found in spans.items()
        }


class Watcher:
    """Looks at the run in folder ``work`` again and again; a look costs what is new.

    Raises:
        FileNotFoundError, ValueError: there is no run, or no plan; see ``open_run``.
    """

    def __init__(self, work):
        self._work = Path(work)
        self._under_way, self._dev = {}, {}
        self._rows_of, self._rows = None, {}
        self._last = None

    def look(self):
        """The ``Moment`` that is now; the one before where a file is just being written."""
        try:
            self._last = self._look()
        except (OSError, ValueError):
            if self._last is None or time.time() - self._last.time > LONGEST_WRITE:
                raise
        return self._last

    def _look(self):
        run = open_run(self._work)
        now = time.time()
        first, last = run.asked
        stages = [
            self._stage_now(run, stage, now)
            for stage in run.stages()
            if first <= stage.number <= last or stage.state != TO_COME
        ]
        done = {stage.folder: stage.finished for stage in stages if stage.state == DONE}
        if done != self._rows_of:
            self._rows = {domain: run.rows(domain) for domain in run.domains}
            models = {row.model for rows in self._rows.values() for row in rows}
            for model in models & done.keys():
                if self._rows_of is None or self._rows_of.get(model) != done[model]:
                    self._dev[model] = _best_dev(run.work / model / LOG)
            self._rows_of = done
        return Moment(run, stages, self._rows, self._dev, now, _is_alive(run, stages))

    def _stage_now(self, run, stage, now):
        known = stage.number, stage.title, stage.folder
        if stage.state in (DONE, TO_COME):
            self._under_way.pop(stage.folder, None)
            return StageNow(*known, stage.state, stage.seconds, _epoch(stage.finished))
        out = run.work / stage.folder
        under_way = self._under_way.setdefault(stage.folder, UnderWay(out))
        progress = under_way.look()
        log, state, error = under_way.log, stage.state, None
        if state == STOPPED and _is_elsewhere(run) and under_way.silent < SILENT:
            state = RUNNING
        if state == STOPPED and log.error:
            state, error = FAILED, ": ".join(filter(None, (log.error, log.last_line)))
        elapsed = under_way.since and max(0.0, now - under_way.since)
        return StageNow(
            *known, state, progress=progress, elapsed=elapsed if state == RUNNING else None,
            silent=under_way.silent if state == RUNNING else 0.0, error=error,
        )  # fmt: skip


def _best_dev(path):
    log = StageLog(path)
    log.look()
    return log.training.best if log.training else None


def _is_alive(run, stages):
    """Whether the recipe is there; on another machine: whether one of its stages seems to be."""
    if _is_elsewhere(run):
        return any(stage.state == RUNNING for stage in stages)
    try:
        os.kill(int(run.plan["pid"]), 0)  # sends nothing
    except PermissionError:
        return True
    except (OSError, KeyError, TypeError, ValueError, OverflowError):
        return False
    return True


def _is_elsewhere(run):
    """Whether the run is on another machine, whose processes cannot be seen from here."""
    return run.plan.get("host", socket.gethostname()) != socket.gethostname()


def _epoch(text):
    """Seconds since the epoch of an ISO time such as 2026-11-21T19:48:30Z; None: not known."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except (TypeError, ValueError):
        return None


def covered(spans):
    """Seconds that lie in at least one of the (start, end); None among them counts for nothing."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(filter(None, spans)):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total
