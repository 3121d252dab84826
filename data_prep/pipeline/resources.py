"""What the stages of a run may use of this machine: cores, GPUs, memory.

How many threads a stage gets follows from the plan and the machine alone, never from the moment or
from what has been done already: with another number of threads sums are rounded in another order,
and a run that was stopped would not end with the same bytes.
"""

import os
import re
import subprocess
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from data_prep.processes import usable_cores

ALONE = {"speed"}  # kinds that nothing may run beside
ON_GPU = {"train", "distil", "cache", "fisher"}  # kinds that use a GPU where there is one
TEXT = {"text", "vocabulary", "prepare", "hand over"}  # kinds that prepare text, in processes
# how much there is to do, roughly and in relation to each other
WORK = {"train": 8, "distil": 4, "cache": 2}
GENERAL_WORK = 4  # times as much, for general text is the larger one

GIGABYTE = 10**9
MEMORY = {"train": 1.0, "distil": 1.5, "cache": 1.5, "fisher": 1.5}  # GB; 1 for every other kind
TABLES = 4  # of tokens x vocabulary numbers that a training holds at once, as float32
MEMORY_INFO = Path("/proc/meminfo")
MEMORY_GROUP = Path("/sys/fs/cgroup")  # the limits of a container


@dataclass(frozen=True)
class Machine:
    """What a run may use.

    Attributes:
        cores: number of CPU cores.
        gpus: their names, as CUDA_VISIBLE_DEVICES takes them.
        jobs_per_gpu: stages that share a GPU.
        all_gpus: whether a training that no other GPU stage can run beside gets every GPU.
    """

    cores: int
    gpus: tuple = ()
    jobs_per_gpu: int = 1
    all_gpus: bool = False

    @property
    def places(self):
        """How many stages can use a GPU at once."""
        return len(self.gpus) * self.jobs_per_gpu


@dataclass(frozen=True)
class Share:
    """What a stage gets of the machine.

    Attributes:
        threads: that it may start.
        cores: that it counts for while others are beside it.
        gpus: 0, 1, or all of them.
    """

    threads: int
    cores: int
    gpus: int = 0


def work(stage):
    """How much a stage has to do, roughly and in relation to others; 1 is little."""
    if stage.kind not in WORK:
        return 1
    return WORK[stage.kind] * (GENERAL_WORK if Path(stage.out).name == "general" else 1)


def shares(stages, needs, machine, jobs=None):
    """{out: ``Share``} of every stage of a plan.

    A stage on the CPU gets that share of the cores which its work has in all that can run beside
    it: all of them where nothing can. Little work, such as scores, takes nothing from a training.
    Text is prepared before the models, by processes that divide the lines among them: such a stage
    may use every core, and two of them run at once.

    Args:
        stages: the whole plan, not a part of it.
        needs: ``graph.dependencies(stages)``.
        machine: ``Machine``.
        jobs: stages side by side at most, or None.
    """
    related = _related(stages, needs)
    on_gpu = {stage.out for stage in stages if machine.gpus and stage.kind in ON_GPU}
    bits = {stage.out: 1 << place for place, stage in enumerate(stages)}
    masks = {}  # work: the stages on the CPU that have so much, as bits
    for stage in stages:
        if stage.kind not in ALONE | TEXT and stage.out not in on_gpu:
            masks[work(stage)] = masks.get(work(stage), 0) | bits[stage.out]
    gpu_mask = sum(bits[out] for out in on_gpu)
    found = {}
    for stage in stages:
        beside = ~related[stage.out]
        if stage.out in on_gpu:
            others = (gpu_mask & beside).bit_count()
            every = machine.all_gpus and stage.kind == "train" and not others
            at_once = 1 if every else min(machine.places, others + 1, jobs or machine.places)
            gpus = len(machine.gpus) if every else 1
            found[stage.out] = Share(max(1, machine.cores // at_once), 1, gpus)
        elif stage.kind in ALONE:
            found[stage.out] = Share(machine.cores, machine.cores, len(machine.gpus))
        elif stage.kind in TEXT:
            found[stage.out] = Share(machine.cores, max(1, machine.cores // 2))
        else:
            own = work(stage)
            others = sum(
                amount * (mask & beside).bit_count() for amount, mask in masks.items()
                if own == 1 or amount > 1
            )  # fmt: skip
            threads = int(machine.cores * own / (own + others))
            least = machine.cores // jobs if jobs else 1
            threads = max(1, least, threads)
            found[stage.out] = Share(threads, threads)
    return found


def _related(stages, needs):
    """{out: bits of the stages that come before or after it on some way, and its own}."""
    bits = {stage.out: 1 << place for place, stage in enumerate(stages)}
    before, after = {}, {stage.out: bits[stage.out] for stage in stages}
    for stage in stages:
        before[stage.out] = bits[stage.out]
        for out in needs[stage.out]:
            before[stage.out] |= before[out]
    for stage in reversed(stages):
        for out in needs[stage.out]:
            after[out] |= after[stage.out]
    return {out: before[out] | after[out] for out in before}


def this_machine(jobs_per_gpu=1, all_gpus=False):
    """``Machine`` that we are on; CUDA_VISIBLE_DEVICES chooses among its GPUs."""
    return Machine(usable_cores(), find_gpus(), jobs_per_gpu, all_gpus)


def find_gpus():
    """Names of the GPUs that may be used, as CUDA_VISIBLE_DEVICES takes them; a tuple."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        names = [name.strip() for name in chosen.split(",")]
        # CUDA goes no further than the first that cannot be
        end = next((i for i, name in enumerate(names) if name in ("", "-1")), len(names))
        return tuple(names[:end])
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    found = re.findall(r"\(UUID: ((?:GPU|MIG)-[^)]+)\)", listed.stdout)
    # one that is cut into parts stands before them and cannot be used itself
    return tuple(
        name for name, following in zip_longest(found, found[1:], fillvalue="")
        if not (name.startswith("GPU") and following.startswith("MIG"))
    )  # fmt: skip


def memory_of(stage, pieces):
    """Bytes of memory that a stage may need, estimated.

    Args:
        stage: ``PlannedStage``.
        pieces: of the vocabulary, or None.
    """
    amount = MEMORY.get(stage.kind, 1) * GIGABYTE
    tokens = _value(stage.command, "--max-tokens")
    if stage.kind == "train" and pieces and tokens:
        amount += TABLES * 4 * tokens * pieces
    return amount


def vocabulary_pieces(stages):
    """Pieces of the vocabulary that a plan makes, or None."""
    sizes = [_value(stage.command, "--size") for stage in stages if stage.kind == "vocabulary"]
    return next(filter(None, sizes), None)


def _value(words, flag):
    """The number after the last ``flag``, or None."""
    values = [after for word, after in zip(words, words[1:], strict=False) if word == flag]
    return int(values[-1]) if values and values[-1].isdigit() else None


def available_memory():
    """Bytes that can still be had, in a container those of its limit; None where it is not told."""
    amounts = []
    try:
        line = re.search(r"^MemAvailable: +(\d+) kB", MEMORY_INFO.read_text(), re.MULTILINE)
        amounts += [1024 * int(line[1])] if line else []
    except OSError:
        pass
    try:
        limit, used = (
            (MEMORY_GROUP / name).read_text().strip() for name in ("memory.max", "memory.current")
        )
        cached = re.search(
            r"^inactive_file (\d+)", (MEMORY_GROUP / "memory.stat").read_text(), re.MULTILINE
        )
        if limit != "max":
            amounts.append(int(limit) - int(used) + (int(cached[1]) if cached else 0))
    except OSError:
        pass
    return min(amounts, default=None)


def number_of_jobs(text):
    """What --jobs says: a number above 0, or ``auto``."""
    return text if text == "auto" else above_0(text)


def above_0(text):
    """A whole number above 0, of the command line."""
    number = int(text)
    if number < 1:
        raise ValueError
    return number


number_of_jobs.__name__ = above_0.__name__ = "number above 0"  # in the message of argparse
