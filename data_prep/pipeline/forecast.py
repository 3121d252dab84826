"""What stages cost together: time one after another and side by side, memory, disk."""

import math
from dataclasses import dataclass

from data_prep.pipeline.resources import ALONE


@dataclass(frozen=True)
class Forecast:
    """Sums over stages; seconds and bytes. Stages of unknown cost are left out of the sums.

    Attributes:
        stages: ``PlannedStage``.
        jobs: stages side by side at most.
        low, high: seconds, one stage after another.
        side_by_side_low, side_by_side_high: seconds with ``jobs`` at a time.
        critical_low, critical_high: the longest way from a first stage to a last one.
        limit: seconds, one after another, if every training made all its updates.
        ram, gpu: bytes at the peak, of the ``jobs`` largest stages together; one model at a time
            on a GPU.
        ram_stage, gpu_stage: the stage that needs most.
        disk: bytes that stay.
        extra: bytes more while trainings run.
        unknown: stages whose time is not known.
    """

    stages: tuple
    jobs: int
    low: float
    high: float
    side_by_side_low: float
    side_by_side_high: float
    critical_low: float
    critical_high: float
    limit: float
    ram: float
    ram_stage: str
    gpu: float
    gpu_stage: str
    disk: float
    extra: float
    unknown: int

    @classmethod
    def of(cls, stages, needs, costs, jobs=1, slower=None):
        """``Forecast`` of some stages of a plan.

        Args:
            stages: ``PlannedStage`` in the order of the chain.
            needs: {out: [out of what it reads]} of the whole plan.
            costs: {out: ``Estimate``}.
            jobs: stages side by side at most.
            slower: {out: times as long as with all cores}; a stage that is not in it is not.
        """
        low = {stage.out: costs[stage.out].low or 0.0 for stage in stages}
        high = {stage.out: costs[stage.out].high or 0.0 for stage in stages}
        used = [(costs[stage.out], stage.out) for stage in stages]
        ram = sorted(((c.memory, out) for c, out in used if c.on == "RAM"), reverse=True)
        gpu = max(((c.memory, out) for c, out in used if c.on == "GPU"), default=(0, ""))
        extra = sorted((cost.extra for cost, _ in used), reverse=True)
        return cls(
            tuple(stages), jobs, sum(low.values()), sum(high.values()),
            makespan(stages, needs, low, jobs, slower), makespan(stages, needs, high, jobs, slower),
            critical_path(stages, needs, low), critical_path(stages, needs, high),
            sum(c.limit or c.high or 0.0 for c, _ in used),
            sum(memory for memory, _ in ram[:jobs]), ram[0][1] if ram else "", *gpu,
            sum(c.disk or 0.0 for c, _ in used), sum(extra[:jobs]),
            sum(c.high is None for c, _ in used),
        )  # fmt: skip

    def as_json(self):
        """The sums as a dictionary."""
        return {
            "stages": len(self.stages), "stages_of_unknown_time": self.unknown,
            "jobs": self.jobs, "seconds": [self.low, self.high],
            "seconds_side_by_side": [self.side_by_side_low, self.side_by_side_high],
            "seconds_critical_path": [self.critical_low, self.critical_high],
            "seconds_of_all_updates": self.limit, "ram_bytes": self.ram, "gpu_bytes": self.gpu,
            "disk_bytes": self.disk, "disk_bytes_meanwhile": self.extra,
        }  # fmt: skip


def critical_path(stages, needs, seconds):
    """Seconds of the longest way through the stages; needs are earlier in the list."""
    end = {}
    for stage in stages:
        before = max((end.get(out, 0.0) for out in needs[stage.out]), default=0.0)
        end[stage.out] = before + seconds[stage.out]
    return max(end.values(), default=0.0)


def slowdown(shares, cores, sharing):
    """{out: times as long as it would take with all cores}, as dad-run gives each its threads.

    Args:
        shares: {out: ``resources.Share``}.
        cores: of the machine.
        sharing: what a stage keeps of its speed when it gets half of the cores, 0.5 to 1.
    """
    return {
        out: (1 / sharing) ** math.log2(cores / share.threads) for out, share in shares.items()
    }


def makespan(stages, needs, seconds, jobs, slower=None):
    """Seconds until all stages are done, as ``dad-run`` starts them: the first that can, does.

    What is measured for speed runs alone.
    """
    slower = slower or {}
    waiting, running, now = list(stages), {}, 0.0
    while waiting or running:
        for stage in list(waiting):
            undone = {other.out for other in waiting} | running.keys()
            alone = stage.kind in ALONE or any(kind in ALONE for _, kind in running.values())
            if len(running) >= jobs or (alone and running) or undone & set(needs[stage.out]):
                continue
            waiting.remove(stage)
            running[stage.out] = now + seconds[stage.out] * slower.get(stage.out, 1.0), stage.kind
        if not running:
            break  # what is left waits for a stage that is not among these
        now = min(end for end, _ in running.values())
        running = {out: (end, kind) for out, (end, kind) in running.items() if end > now}
    return now
