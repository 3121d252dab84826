"""Run the stages of a plan: each as soon as what it reads is there, as many at once as fit.

Usage: dad-run --work DIR [--domain NAME] [--only PATTERN ...] [--jobs N] [--dry-run]

The plan is WORK/plan/stages.json, which the recipes write. What is done and has not changed is
skipped, what was stopped goes on. Ctrl-C and SIGTERM stop everything; the same command goes on.

Side by side run as many stages as the cores, GPUs and memory of this machine allow. What the
longest way to the end depends on goes first. Every training, distilling and caching gets a GPU of
its own where there are any (CUDA_VISIBLE_DEVICES chooses among them; empty: none), the rest uses
the cores beside. Speed is measured while nothing else runs: when a gap comes by itself, at the
latest at the end.

A stage that fails does not stop those that need nothing of it: they would have to be made anyway,
and a night is not lost. At its end the run says what failed and what was left undone, and its exit
status is 1. With --fail-fast nothing more is started.

Example, all that leads to the students of one domain, and then one student alone:
  dad-run --work runs/de-en --last 9
  dad-run --work runs/de-en --only 'student/small/9/medical'
"""

import fnmatch
import heapq
import os
import selectors
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter, deque
from pathlib import Path

from data_prep import command
from data_prep.pipeline.graph import dependencies, read_plan
from data_prep.pipeline.progress import UnderWay
from data_prep.pipeline.resources import (
    ALONE,
    GIGABYTE,
    above_0,
    available_memory,
    memory_of,
    number_of_jobs,
    shares,
    this_machine,
    vocabulary_pieces,
    work,
)
from data_prep.pipeline.screen import Lines, LiveScreen
from data_prep.pipeline.stage import FAILURE, RECORD, is_up_to_date
from data_prep.pipeline.time_left import TimeLeft

RECIPES = Path(__file__).parents[2] / "recipes"
LAST = 12  # stages that the chain has
YOUNG = 60  # seconds until a stage has taken the memory that it needs
LOOK = 1.0  # seconds between two looks at the memory, or at the stages for the view
LAST_LINES = 15  # of a stage's output that are remembered
SHOWN = 5  # of these at the end


def main():
    command.run(_main, "dad-run")


def _main():
    parser = command.parser(__doc__, "dad-run")
    parser.add_argument("--work", required=True, help="folder of the run")
    parser.add_argument("--plan", help="folder of the plan, where it is not WORK/plan")
    parser.add_argument("--first", type=int, default=1, help="number of the first stage")
    parser.add_argument("--last", type=int, default=LAST, help="number of the last stage")
    parser.add_argument(
        "--only", action="append", default=[], metavar="PATTERN",
        help="only stages whose folder is like this, as in 'student/*/9/*'; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--domain", metavar="NAME",
        help="only the stages of this domain, and what they need of others",
    )  # fmt: skip
    parser.add_argument(
        "--jobs", type=number_of_jobs, default="auto", metavar="N",
        help="stages side by side at most; auto: as many as fit",
    )  # fmt: skip
    parser.add_argument(
        "--jobs-per-gpu", type=above_0, default=1, metavar="N",
        help="stages that share a GPU; above 1 only where their memory fits",
    )  # fmt: skip
    parser.add_argument(
        "--all-gpus", action="store_true",
        help="give a training beside which no other can run all GPUs, not one",
    )  # fmt: skip
    parser.add_argument(
        "--memory", type=float, metavar="GB",
        help="memory that a stage needs, of which so many run as fit; default: estimated for each",
    )  # fmt: skip
    parser.add_argument(
        "--fail-fast", action="store_true", help="start nothing more once a stage has failed"
    )
    parser.add_argument("--dry-run", action="store_true", help="print every command, do nothing")
    args = parser.parse_args()
    plan = read_plan(args.plan or args.work)
    part = of_domain(plan, args.domain) if args.domain else plan
    wanted = select(part, args.first, args.last, args.only)
    complete_path()
    if args.dry_run:
        show(wanted)
        return 0
    os.chdir(args.work)
    needs = dependencies(plan)
    check_needs(wanted, needs)
    jobs = None if args.jobs == "auto" else args.jobs
    machine = this_machine(args.jobs_per_gpu, args.all_gpus)
    memory = Memory(vocabulary_pieces(plan), args.memory and args.memory * GIGABYTE)
    schedule = Schedule(
        wanted, needs, shares(plan, needs, machine, jobs), machine, jobs, fits=memory.fits
    )
    return Run(schedule, machine, memory, args.fail_fast).run()


def complete_path():
    """Let stages find the commands that they call, though no environment was activated."""
    folders = [os.environ.get("PATH", os.defpath), str(RECIPES / "stages")]
    if not shutil.which("dad-stage"):
        folders.insert(0, str(Path(sys.executable).parent))
    os.environ["PATH"] = os.pathsep.join(folders)


def select(plan, first=1, last=LAST, patterns=()):
    """The stages of a plan that are asked for.

    Raises:
        ValueError: a pattern is like no folder.
    """
    for pattern in patterns:
        if not any(fnmatch.fnmatchcase(stage.out, pattern) for stage in plan):
            raise ValueError(
                f"--only {pattern}: no stage of the plan makes such a folder; "
                "dad-run --dry-run shows all"
            )
    return [
        stage for stage in plan
        if first <= stage.number <= last
        and (not patterns or any(fnmatch.fnmatchcase(stage.out, like) for like in patterns))
    ]  # fmt: skip


def check_needs(wanted, needs):
    """Refuse stages that read what is neither done nor asked for.

    Raises:
        ValueError: names a stage and what it reads.
    """
    chosen = {stage.out for stage in wanted}
    for stage in wanted:
        for out in needs[stage.out]:
            if out not in chosen and not (Path(out) / RECORD).exists():
                raise ValueError(
                    f"{stage.out} needs {out}, which is not done and not among the stages asked "
                    "for; ask for it too"
                )


def of_domain(stages, name):
    """The stages in whose folder's path the domain is named, and all that they need, in order.

    Raises:
        ValueError: there is none.
    """
    needs = dependencies(stages)
    wanted = {stage.out for stage in stages if name in Path(stage.out).parts}
    if not wanted:
        raise ValueError(f"--domain {name}: no stage of the plan is of that domain")
    for stage in reversed(stages):  # what a stage needs stands before it
        if stage.out in wanted:
            wanted.update(needs[stage.out])
    return [stage for stage in stages if stage.out in wanted]


def show(stages):
    """Print the command of every stage; stage scripts say what they would call themselves."""
    shown = None
    for stage in stages:
        if stage.number != shown:
            shown = stage.number
            print(f"\n{heading(stage)}", file=sys.stderr, flush=True)
        words = [word.replace("{out}", stage.out) for word in stage.command]
        if words[0].endswith(".sh"):
            subprocess.run([words[0], "--dry-run", *words[1:]], check=True)
        else:
            print(shlex.join(words), flush=True)


def heading(stage):
    return f"Stage {stage.number} of {LAST}: {stage.title}"


class Schedule:
    """Which stage is next; knows nothing of processes and clocks.

    A stage is in one of the states: it waits for others; ``fresh``, since all that it reads is
    there; in the queue (``enqueue``); running (``next_stage``); ended (``end``).

    Args:
        stages: those to run, in the order of the chain.
        needs: ``graph.dependencies`` of the whole plan.
        shares: {out: ``Share``}.
        machine: ``Machine``.
        jobs: stages side by side at most, or None.
        fits: tells of a stage whether its memory can be had.

    Attributes:
        fresh: stages to be enqueued, or ended if they are done already.
        running: {out: names of its GPUs}.
        readers: {out: folders of the stages that read it}.
        done, failed: folders, in the order in which they ended.
    """

    def __init__(self, stages, needs, shares, machine, jobs=None, fits=lambda stage: True):
        self.stages = {stage.out: stage for stage in stages}
        self.fresh, self.running, self.done, self.failed = deque(), {}, [], []
        self.shares, self.machine, self._jobs, self._fits = shares, machine, jobs, fits
        self.needs = {
            stage.out: [out for out in needs[stage.out] if out in self.stages] for stage in stages
        }
        self._missing = {out: len(needed) for out, needed in self.needs.items()}
        self.readers = {out: [] for out in self.stages}
        for out, needed in self.needs.items():
            for other in needed:
                self.readers[other].append(out)
        self.way = {}  # work from a stage to the end of the chain, its own included
        for stage in reversed(stages):
            after = max((self.way[out] for out in self.readers[stage.out]), default=0)
            self.way[stage.out] = work(stage) + after
        ranked = sorted(enumerate(stages), key=lambda item: (-self.way[item[1].out], item[0]))
        self._rank = {stage.out: rank for rank, (_, stage) in enumerate(ranked)}
        self._on_cores, self._on_gpu, self._alone = [], [], []  # heaps of (rank, out)
        self._used = Counter({gpu: 0 for gpu in machine.gpus})  # places of each
        self.fresh.extend(stage for stage in stages if not self._missing[stage.out])

    def enqueue(self, stage):
        """It has to be run."""
        alone, gpus = stage.kind in ALONE, self.shares[stage.out].gpus
        queue = self._alone if alone else self._on_gpu if gpus else self._on_cores
        heapq.heappush(queue, (self._rank[stage.out], stage.out))

    def next_stage(self):
        """(stage, ``Share``, names of its GPUs) that can be started now, or None."""
        if any(self.stages[out].kind in ALONE for out in self.running):
            return None
        if self._alone and not self.running:
            return self._start(self._alone)
        if self._jobs and len(self.running) >= self._jobs:
            return None
        queue = min(filter(None, (self._gpu_queue(), self._core_queue())), default=None)
        # a smaller stage does not overtake: else one that needs much would wait for ever
        if not queue or self.running and not self._fits(self.stages[queue[0][1]]):
            return None
        return self._start(queue)

    def _gpu_queue(self):
        if self._on_gpu and self._gpus_for(self.shares[self._on_gpu[0][1]]):
            return self._on_gpu
        return None

    def _gpus_for(self, share):
        """The GPUs that a stage would get now, the least used first; () where it must wait."""
        free = [gpu for gpu in self.machine.gpus if self._used[gpu] < self.machine.jobs_per_gpu]
        free.sort(key=self._used.get)
        return tuple(free[: share.gpus]) if len(free) >= share.gpus else ()

    def _core_queue(self):
        taken = [self.shares[out] for out in self.running]
        on_cores = [share for share in taken if not share.gpus]
        # a stage starts where a core is free, though it may have threads for more: nothing waits
        # for ever, and no core for long
        is_free = sum(share.cores for share in taken) < self.machine.cores
        return self._on_cores if self._on_cores and (is_free or not on_cores) else None

    def _start(self, queue):
        _, out = heapq.heappop(queue)
        share = self.shares[out]
        self.running[out] = self._gpus_for(share)
        self._used.update(self.running[out])
        return self.stages[out], share, self.running[out]

    def end(self, out, well):
        """A stage has ended; those that waited for it only become fresh if it ended well."""
        self._used.subtract(self.running.pop(out, ()))
        if not well:
            self.failed.append(out)
            return
        self.done.append(out)
        for reader in self.readers[out]:
            self._missing[reader] -= 1
            if not self._missing[reader]:
                self.fresh.append(self.stages[reader])

    @property
    def undone(self):
        """Folders of the stages that have not ended and do not run, in the order of the chain."""
        ended = {*self.done, *self.failed, *self.running}
        return [out for out in self.stages if out not in ended]


class Memory:
    """Whether the memory for another stage can be had.

    Args:
        pieces: of the vocabulary, or None.
        each: bytes that a stage needs; None: estimated.
    """

    def __init__(self, pieces, each=None):
        self._pieces, self._each = pieces, each
        self._young = {}  # out: (time until which it counts, bytes)
        self._said = False
        self.is_short = False  # whether a stage was refused since the last one was started
        self.say = None

    def needed(self, stage):
        return self._each or memory_of(stage, self._pieces)

    def started(self, stage):
        self._young[stage.out] = time.monotonic() + YOUNG, self.needed(stage)

    def ended(self, out):
        self._young.pop(out, None)

    def fits(self, stage):
        available = available_memory()
        if available is None:
            return True
        now = time.monotonic()
        promised = sum(amount for until, amount in self._young.values() if now < until)
        fits = self.needed(stage) <= available - promised
        self.is_short = not fits
        if not fits and not self._said:
            self._said = True
            self.say(
                f"{stage.out} waits for memory: it may need {self.needed(stage) / GIGABYTE:.1f} GB "
                f"and {max(0, available - promised) / GIGABYTE:.1f} GB are free; "
                "so fewer stages run side by side"
            )
        return fits


class Run:
    """Runs what a ``Schedule`` tells to, each stage in a process of dad-stage.

    Args:
        schedule, machine, memory: as their names say.
        fail_fast: start nothing more once a stage has failed.
    """

    def __init__(self, schedule, machine, memory, fail_fast=False):
        self._schedule, self._machine, self._memory = schedule, machine, memory
        self._fail_fast = fail_fast
        self._children, self._selector = {}, selectors.DefaultSelector()
        self._screen = LiveScreen() if sys.stderr.isatty() else Lines()
        self._left = TimeLeft(schedule)
        self._headed = 0  # number of the last stage whose heading was shown
        self._failures = {}  # failed stage: what is said of it at the end
        memory.say = lambda text: self._screen.say(f"dad-run: {text}")

    def run(self):
        """Run everything; exit status 0, or 1 where a stage failed."""
        try:
            with self._screen:
                while self._go_on():
                    pass
        except BaseException:
            self._stop()
            raise
        finally:
            self._selector.close()
        return self._conclude()

    def _go_on(self):
        """Do what can be done now, wait for what comes next; False at the end."""
        schedule = self._schedule
        while schedule.fresh:
            stage = schedule.fresh.popleft()
            if is_up_to_date(stage.command, stage.out, stage.inputs):
                self._head(stage)
                self._screen.say(f"{stage.out}: done before, nothing changed")
                schedule.end(stage.out, well=True)
            else:
                schedule.enqueue(stage)
            self._show()
        self._memory.is_short = False
        while not (self._fail_fast and schedule.failed) and (found := schedule.next_stage()):
            self._start(*found)
        if not schedule.running:
            return False
        often = self._screen.is_live or self._memory.is_short
        for key, _ in self._selector.select(LOOK if often else None):
            self._hear(key.data)
        self._show()
        return True

    def _show(self):
        """Draw the view anew, where there is one."""
        if not self._screen.is_due:
            return
        progress = {out: child.under_way.look() for out, child in self._children.items()}
        schedule = self._schedule
        words = f"{len(schedule.done)} of {len(schedule.stages)} stages done"
        if schedule.failed:
            words += f", {len(schedule.failed)} failed"
        elapsed = {out: child.elapsed for out, child in self._children.items()}
        if left := self._left.words(elapsed, progress):
            words += f", {left}"
        self._screen.draw(words, progress, elapsed)

    def _head(self, stage):
        if stage.number > self._headed:
            self._headed = stage.number
            self._screen.say(f"\n{heading(stage)}")

    def _start(self, stage, share, gpus):
        self._head(stage)
        self._memory.started(stage)
        screen = self._screen.of_stage(stage)
        flags = [word for path in stage.inputs for word in ("--in", path)]
        flags += ["--resume"] if stage.resume else []
        words = [
            sys.executable, "-P", "-m", "data_prep.pipeline.stage", "--out", stage.out,
            "--screen", screen, "--parent", str(os.getpid()), *flags, "--", *stage.command,
        ]  # fmt: skip
        child = Child(stage, words, self._environment(share, gpus))
        self._children[stage.out] = child
        self._selector.register(child.process.stdout, selectors.EVENT_READ, child)

    def _environment(self, share, gpus):
        threads = str(share.threads)
        # threads that wait must not take the core of another stage's
        usual = {"OMP_NUM_THREADS": threads, "OMP_WAIT_POLICY": "PASSIVE"}
        environment = {**usual, **os.environ, "PYTHON_CPU_COUNT": threads}
        if self._machine.gpus:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
        return environment

    def _hear(self, child):
        """Pass on what a stage says; it has ended when nothing more can come."""
        lines = child.read()
        for line in lines or ():
            self._screen.say_of(child.stage, line)
        if lines is not None:
            return
        self._selector.unregister(child.process.stdout)
        child.process.stdout.close()
        status = child.process.wait()
        out = child.stage.out
        del self._children[out]
        self._memory.ended(out)
        self._schedule.end(out, well=status == 0)
        if status:
            self._failures[out] = _failure(child, status)

    def _stop(self):
        """Stop every stage and its command; a second Ctrl-C changes nothing."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        for child in self._children.values():
            child.process.terminate()
        for child in self._children.values():
            child.process.stdout.close()
            child.process.wait()

    def _conclude(self):
        schedule = self._schedule
        if not schedule.failed:
            return 0
        failures = "\n\n".join(self._failures[out] for out in schedule.failed)
        undone = f"\n\nLeft undone: {', '.join(schedule.undone)}." if schedule.undone else ""
        self._screen.say(
            f"\ndad-run: error: {len(schedule.failed)} of {len(schedule.stages)} stages failed\n\n"
            f"{failures}{undone}\n\nMend it and run the same command again: it goes on."
        )
        return 1


def _failure(child, status):
    """What is said at the end of a stage that failed: how, and its last lines."""
    tail = [line for line in child.tail if not line.startswith(("$ ", f"{child.stage.out}: "))]
    how = f"dad-stage was killed by signal {-status}" if status < 0 else f"status {status}"
    if tail and tail[-1].startswith(FAILURE):
        how = tail.pop().removeprefix(FAILURE)
    return "\n".join([f"{child.stage.out}: {how}", *(f"  {line}" for line in tail[-SHOWN:])])


class Child:
    """A process of dad-stage, and what it says.

    Attributes:
        tail: its last lines.
        under_way: ``UnderWay``: how far the stage is.
    """

    def __init__(self, stage, words, environment):
        self.stage, self.under_way = stage, UnderWay(stage.out)
        self._started = time.monotonic()
        self.tail, self._rest = deque(maxlen=LAST_LINES), b""
        # a group of its own: the Ctrl-C of a terminal is for us, and we stop it
        self.process = subprocess.Popen(
            words, env=environment, process_group=0, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    @property
    def elapsed(self):
        """Seconds since it was started."""
        return time.monotonic() - self._started

    def read(self):
        """The lines that have come since the last call; None at the end."""
        data = os.read(self.process.stdout.fileno(), 1 << 16)
        *lines, self._rest = (self._rest + data).split(b"\n")
        if not data and lines == [] and self._rest:
            lines, self._rest = [self._rest], b""
        elif not data:
            return None
        lines = [line.decode("utf-8", "replace") for line in lines]
        self.tail.extend(line for line in lines if line.strip())
        return lines


if __name__ == "__main__":
    main()
