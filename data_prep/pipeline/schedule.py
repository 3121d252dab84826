"""Run the stages of a plan: each as soon as what it reads is there, several side by side.

Usage: dad-run --work DIR [--jobs N] [--first N] [--last N] [--dry-run]

The plan is WORK/plan/stages.json, which the recipes write. Every stage is run by dad-stage, so what
is done is skipped and what was stopped goes on. Where a stage fails, those beside it are finished
and no other is started. Ctrl-C and SIGTERM stop everything; the same command goes on later.

Speed is measured while nothing else runs.
"""

import os
import shlex
import subprocess
import sys
import threading

from data_prep import command
from data_prep.pipeline.graph import dependencies, read_plan
from data_prep.pipeline.stage import say

LAST = 12  # stages that the chain has
ALONE = {"speed"}  # kinds that nothing may run beside


def main():
    command.run(_main, "dad-run")


def _main():
    parser = command.parser(__doc__, "dad-run")
    parser.add_argument("--work", required=True, help="folder of the run")
    parser.add_argument("--plan", help="folder of the plan, where it is not WORK/plan")
    parser.add_argument("--jobs", type=int, default=1, help="stages side by side at most")
    parser.add_argument("--first", type=int, default=1, help="number of the first stage")
    parser.add_argument("--last", type=int, default=LAST, help="number of the last stage")
    parser.add_argument("--dry-run", action="store_true", help="print every command, do nothing")
    args = parser.parse_args()
    stages = [
        stage for stage in read_plan(args.plan or args.work)
        if args.first <= stage.number <= args.last
    ]  # fmt: skip
    if args.dry_run:
        show(stages)
        return 0
    os.chdir(args.work)
    return run(stages, args.jobs)


def show(stages):
    """Print the command of every stage; stage scripts say what they would call themselves."""
    shown = None
    for stage in stages:
        shown = _heading(stage, shown)
        words = [word.replace("{out}", stage.out) for word in stage.command]
        if words[0].endswith(".sh"):
            subprocess.run([words[0], "--dry-run", *words[1:]], check=True)
        else:
            print(shlex.join(words), flush=True)


def run(stages, jobs):
    """Run stages, at most ``jobs`` side by side; 0 when all are up to date, else 1.

    A stage that is alone on its way from the first to the last gets all cores; others share them.
    """
    needs = dependencies(stages)
    waiting, running, shown = list(stages), {}, None
    failed = []
    ended = threading.Condition()
    try:
        while waiting or running:
            with ended:
                for stage in [] if failed else list(waiting):
                    if not _may_start(stage, needs, waiting, running, jobs):
                        continue
                    waiting.remove(stage)
                    shown = _heading(stage, shown)
                    running[stage.out] = _start(stage, _threads(stage, stages, needs, jobs), jobs)
                    threading.Thread(
                        target=_notify, args=(running[stage.out], ended), daemon=True
                    ).start()
                if not running:
                    break
                ended.wait_for(lambda: any(p.poll() is not None for p in running.values()))
                for out in [out for out, process in running.items() if process.poll() is not None]:
                    if running.pop(out).returncode:
                        failed.append(out)
    except BaseException:
        _stop(running.values())
        raise
    if failed:
        say(f"dad-run: error: {', '.join(failed)} failed; what was said stands above")
    return 1 if failed else 0


def _may_start(stage, needs, waiting, running, jobs):
    """Whether a stage can be started now."""
    undone = {other.out for other in waiting} | running.keys()
    if undone & set(needs[stage.out]) or len(running) >= jobs:
        return False
    alone = ALONE & {stage.kind, *(kind for kind in _kinds(running, waiting))}
    return not running if alone else True


def _kinds(running, waiting):
    return ["speed" for out in running if out.startswith("speed/")]


def _threads(stage, stages, needs, jobs):
    """Threads of a stage: all cores where no other can run beside it, else its share of them.

    It depends on the plan alone, never on the moment, so that a run gives the same bytes again.
    """
    cores = len(os.sched_getaffinity(0))
    beside = len(_independent(stage, stages, needs))
    return max(1, cores // min(jobs, beside + 1))


def _independent(stage, stages, needs):
    before, after = _reach(stage.out, needs), {o.out for o in stages if stage.out in
                                               _reach(o.out, needs)}  # fmt: skip
    return [o for o in stages if o.out not in before | after | {stage.out}]


def _reach(out, needs):
    found, fresh = set(), [out]
    while fresh:
        for other in needs[fresh.pop()]:
            if other in needs and other not in found:
                found.add(other)
                fresh.append(other)
    return found


def _start(stage, threads, jobs):
    flags = [word for path in stage.inputs for word in ("--in", path)]
    flags += ["--resume"] if stage.resume else []
    screen = "lines" if jobs > 1 and stage.screen == "all" else stage.screen
    words = ["dad-stage", "--out", stage.out, "--screen", screen, *flags, "--", *stage.command]
    environment = {"OMP_NUM_THREADS": str(threads), **os.environ}
    return subprocess.Popen(words, env=environment, process_group=0)


def _notify(process, ended):
    process.wait()
    with ended:
        ended.notify()


def _stop(processes):
    for process in processes:
        if process.poll() is None:
            process.terminate()
    for process in processes:
        process.wait()


def _heading(stage, shown):
    if stage.number != shown:
        print(f"\nStage {stage.number} of {LAST}: {stage.title}", file=sys.stderr, flush=True)
    return stage.number


if __name__ == "__main__":
    main()
