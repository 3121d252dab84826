"""Run a recipe in peace, and again under kill -9, and see that both end with the same bytes.

Usage: python tests/recipes/interrupt.py --work DIR [--kills N] [--seed N] -- COMMAND...

In COMMAND {work} stands for the folder of the run: DIR/peace or DIR/killed. What is killed is drawn
each time: all processes of the run, as by a power cut; dad-run alone; or any one of its processes.
Then the same command is started again, until it has been killed so often and is left to end.

Example:
    python tests/recipes/interrupt.py --work runs/kill -- \\
        bash recipes/quickstart/run.sh --short --work '{work}'
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from data_prep.files import sha256
from data_prep.manifest import read_json

SAME = {".pt", ".bin", ".idx", ".model", ".safetensors"}  # besides the texts
SCORES = "scores.tsv"
POWER_CUT, SCHEDULER, ANY = "all of it", "dad-run", "one process"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", required=True, type=Path, metavar="DIR")
    parser.add_argument("--kills", type=int, default=12, metavar="N", help="how often (12)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of the draws (1)")
    parser.add_argument("command", nargs="+", metavar="COMMAND")
    args = parser.parse_args()
    peace, killed = args.work / "peace", args.work / "killed"
    if peace.exists() or killed.exists():
        sys.exit(f"{args.work} holds runs already; name another folder")
    args.work.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    with open(args.work / "peace.log", "wb") as log:
        if start(args.command, peace, log).wait():
            sys.exit(f"the run in peace failed; see {args.work / 'peace.log'}")
    seconds = time.monotonic() - began
    say(f"in peace: {seconds:.0f} s")
    with open(args.work / "killed.log", "wb") as log:
        interrupt(args.command, killed, log, seconds / args.kills, args.kills, args.seed)
    compare(peace, killed)


def start(command, work, log):
    """The process of a command in a session of its own."""
    words = [word.replace("{work}", str(work)) for word in command]
    return subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
    )


def interrupt(command, work, log, mean, kills, seed):
    """Start a command and kill it, again and again; the last start is left to end.

    Args:
        mean: seconds that a start lives on average.
        kills: how often.
        seed: of what is drawn.
    """
    chance, done, failures = random.Random(seed), 0, 0
    while failures <= kills:  # each kill can make one stage fail
        process = start(command, work, log)
        if done < kills:
            lives = chance.uniform(0.2, 1.8) * mean
            wait(process, lives)
        elif process.wait():
            sys.exit(f"killed {done} times, the run failed with {process.returncode}; see its log")
        if process.poll() == 0:
            say(f"{done} kills: finished")
            return
        if process.poll() is not None:
            failures += 1  # a stage whose process was killed before: the same command again
            continue
        done += 1
        how = chance.choice([POWER_CUT, SCHEDULER, ANY])
        family = descendants(process.pid)
        victims = {
            POWER_CUT: family,
            SCHEDULER: [pid for pid in family if "dad-run" in words_of(pid)] or family,
            ANY: [chance.choice(family)],
        }[how]
        say(f"kill {done} after {lives:.0f} s: {how}: {words_of(victims[-1])[:90]}")
        kill(victims)
        if how == ANY:  # the rest goes on for a moment, then a power cut
            wait(process, chance.uniform(0, 5))
            kill(descendants(process.pid))
        process.wait()
    sys.exit(f"killed {done} times, the run failed {failures} times by itself; see its log")


def wait(process, seconds):
    """Wait for a process, at most so many seconds."""
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        pass


def descendants(pid):
    """A process and all that it has started, directly or not."""
    found, ahead = [], [pid]
    while ahead:
        pid = ahead.pop()
        found.append(pid)
        try:
            for task in Path(f"/proc/{pid}/task").iterdir():
                ahead += map(int, (task / "children").read_text().split())
        except OSError:
            continue  # it has ended
    return found


def words_of(pid):
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return ""
    short = " ".join(Path(word).name if word.startswith("/") else word for word in words)
    return " ".join(short.split())  # of python -c a word has several lines


def kill(pids):
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def compare(peace, killed):
    """Exit with 1 unless all models, texts and scores of two runs have the same bytes."""
    ours, theirs = (
        {
            str(path.relative_to(work)): sha256(path)
            for path in work.rglob("*")
            if path.suffix in SAME | languages(work) or path.name == SCORES
        }
        for work in (peace, killed)
    )  # fmt: skip
    differing = sorted(name for name in {*ours, *theirs} if ours.get(name) != theirs.get(name))
    scores = sum(Path(name).name == SCORES for name in ours)
    if differing or not scores:
        sys.exit(f"{len(differing)} of {len(ours)} files differ: {', '.join(differing[:10])}")
    say(f"the same bytes: {len(ours)} files, {scores} {SCORES} among them")


def languages(work):
    """Suffixes of a run's texts."""
    plan = read_json(work / "plan" / "run.json")
    return {f".{plan['source_lang']}", f".{plan['target_lang']}"}


def say(text):
    print(f"interrupt: {text}", flush=True)


if __name__ == "__main__":
    main()
