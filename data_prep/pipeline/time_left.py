"""How long a run still takes, from the seconds that stages like those to come took."""

import statistics
from pathlib import Path

from data_prep.manifest import read_json
from data_prep.pipeline.resources import ALONE
from data_prep.pipeline.stage import RECORD, duration


class TimeLeft:
    """Estimates the time until a ``Schedule`` is through.

    A stage to come takes as long as it took before, else as the median of those that are like it:
    of the same kind, size and sort of text, general or in domain.
    """

    def __init__(self, schedule):
        self._schedule = schedule
        self._known = None  # likeness: {out: seconds}
        self._looked = 0  # how many of the stages that were done since

    def _look(self, stage):
        """Read how long a stage took, where it was made before."""
        try:
            seconds = read_json(Path(stage.out) / RECORD)["seconds"]
        except (OSError, ValueError, KeyError):  # not made yet, or of an older version
            return
        self._known.setdefault(_likeness(stage), {})[stage.out] = seconds

    def seconds_of(self, stage):
        """What a stage takes, estimated, or None."""
        like = self._known.get(_likeness(stage), {})
        return like.get(stage.out, statistics.median(like.values()) if like else None)

    def words(self, elapsed, progress):
        """Such as "about 1 h 20 min left", or '' where nothing is known.

        Args:
            elapsed: {out of a running stage: seconds since it began}.
            progress: {out of a running stage: ``Progress``}.
        """
        schedule = self._schedule
        if self._known is None:
            self._known = {}
            for stage in schedule.stages.values():
                self._look(stage)
        for out in schedule.done[self._looked :]:
            self._look(schedule.stages[out])
        self._looked = len(schedule.done)
        left, unknown = {}, 0
        for out in [*schedule.undone, *elapsed]:
            seconds = self.seconds_of(schedule.stages[out])
            if out in elapsed:
                told = progress[out]
                if told.is_whole:
                    seconds = told.seconds_left
                elif seconds is not None:
                    seconds = max(0.0, seconds - elapsed[out])
            left[out] = seconds or 0.0
            unknown += seconds is None
        total = self._total(left)
        if not total:
            return ""
        return f"{'at least' if unknown else 'about'} {duration(total)} left"

    def _total(self, left):
        """Seconds of all of them, side by side as far as cores, GPUs and their order allow."""
        schedule, way = self._schedule, {}
        for out in reversed(schedule.stages):
            after = max((way[reader] for reader in schedule.readers[out]), default=0.0)
            way[out] = left.get(out, 0.0) + after
        on_cores, on_gpu, alone = 0.0, 0.0, 0.0
        for out, seconds in left.items():
            share = schedule.shares[out]
            if schedule.stages[out].kind in ALONE:
                alone += seconds
            elif share.gpus:
                on_gpu += seconds * share.gpus / len(schedule.machine.gpus)
            else:
                on_cores += seconds * min(1.0, share.cores / schedule.machine.cores)
        jobs = schedule.machine.jobs_per_gpu
        return max(max(way.values(), default=0.0), alone + max(on_cores, on_gpu / jobs))


def _likeness(stage):
    """Stages that have it in common take about as long as each other."""
    parts = Path(stage.out).parts
    size = parts[1] if parts[0] == "student" and len(parts) > 2 else ""
    step = parts[-1] if parts[0] == "corpora" else parts[0]
    return stage.kind, step, size, "general" in parts
