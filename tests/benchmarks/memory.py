"""How the peak memory of dad-generate and dad-select grows with the corpus.

Each command runs as a process of its own on a text of one or two made-up words a line, with
a tiny random model (greedy, two pieces at most, so that a million lines take minutes). Its peak
is what the system tells when it has ended: the resident set, its child processes each for
itself. Most of it is libraries; so beside the ratio stand the bytes that a line adds.

Example:
  python tests/benchmarks/memory.py --lines 10000,1000000
"""

import argparse
import itertools
import multiprocessing
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# The system starts a child's peak with that of the process that began it. So nothing large is
# imported here; the model is made elsewhere.

ROOT = Path(__file__).parents[2]
COMMANDS = {
    "dad-generate": "fairseq_plugins.generation.generate",
    "dad-select": "fairseq_plugins.selection.select",
}
WORDS = 60  # different ones in the text


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lines", type=_numbers, default=[10_000, 1_000_000], metavar="N,N",
                        help="sizes of the text")  # fmt: skip
    parser.add_argument("--commands", default=",".join(COMMANDS), metavar="A,B",
                        help="the second reads what the first made; both by default")  # fmt: skip
    parser.add_argument("--n-best", type=int, default=1, metavar="N",
                        help="candidates of each line, found with as large a beam")  # fmt: skip
    parser.add_argument("--workers", type=int, default=2, metavar="N")
    args = parser.parse_args()
    commands = [name for name in COMMANDS if name in args.commands.split(",")]
    if commands[:1] != ["dad-generate"] or set(args.commands.split(",")) - set(COMMANDS):
        parser.error("--commands is dad-generate, or dad-generate,dad-select")

    peaks = {name: [] for name in commands}
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        maker = multiprocessing.get_context("spawn").Process(target=make_model, args=[folder])
        maker.start()
        maker.join()
        if maker.exitcode:
            raise SystemExit("the tiny model could not be made; see above")
        for lines in args.lines:
            write_text(folder / "source", lines)
            for name, words in calls(folder, lines, args).items():
                if name in commands:
                    peak, seconds = measure(name, words)
                    peaks[name].append(peak)
                    print(f"{name:<13} {lines:>11,} lines: peak {peak / 2**20:8.1f} MiB, "
                          f"{seconds:.0f} s", flush=True)  # fmt: skip
    for name, found in peaks.items():
        for one, other in itertools.pairwise(range(len(found))):
            added = (found[other] - found[one]) / (args.lines[other] - args.lines[one])
            print(
                f"{name:<13} {args.lines[other]:,} : {args.lines[one]:,} lines = "
                f"{found[other] / found[one]:.2f} times the memory, {added:.1f} bytes a line"
            )


def make_model(folder):
    """A vocabulary and a random model, in ``folder``."""
    sys.path.insert(0, str(ROOT))
    from tests.fixtures.models import toy_model, toy_vocabulary

    toy_vocabulary(folder / "vocabulary")
    toy_model(folder / "model", folder / "vocabulary")


def write_text(path, lines):
    """So many lines of one or two words."""
    chance = random.Random(1)
    words = ["".join(chance.choices("abdeiklmo", k=chance.randint(2, 5))) for _ in range(WORDS)]
    with open(path, "w", encoding="utf-8", newline="\n") as out:
        for _ in range(lines):
            out.write(" ".join(chance.choices(words, k=chance.randint(1, 2))) + "\n")


def calls(folder, lines, args):
    """{command: its arguments}."""
    out = folder / f"out.{lines}"
    candidates = out if args.n_best == 1 else out.with_name(out.name + ".nbest")
    return {
        "dad-generate": [
            "--model", folder / "model", "--source", folder / "source", "--out", out,
            "--beam", args.n_best, "--n-best", args.n_best, "--max-length", 2, "--device", "cpu",
            "--compute-type", "float32", "--workers", args.workers, "--calibrate", "off",
        ],
        "dad-select": [
            "--source", folder / "source", "--candidates", candidates,
            "--source-lang", "de", "--target-lang", "en", "--step", "copy",
            "--step", "length-ratio:max=3", "--workers", args.workers,
            "--out", folder / f"selected.{lines}",
        ],
    }  # fmt: skip


def measure(name, words):
    """Peak of a command's resident set in bytes, and its seconds."""
    environment = {**os.environ}
    environment["PYTHONPATH"] = os.pathsep.join(
        filter(None, [str(ROOT), environment.get("PYTHONPATH")])
    )
    started = time.monotonic()
    with tempfile.TemporaryFile() as printed:
        process = subprocess.Popen(
            [sys.executable, "-m", COMMANDS[name], *map(str, words)], env=environment,
            stdout=printed, stderr=subprocess.STDOUT,
        )  # fmt: skip
        _, status, usage = os.wait4(process.pid, 0)
        # so that Popen does not wait for it once more
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            printed.seek(0)
            end = printed.read()[-2000:].decode("utf-8", "replace")
            raise SystemExit(f"{name} ended with status {process.returncode}:\n{end}")
    unit = 1 if sys.platform == "darwin" else 1024
    return usage.ru_maxrss * unit, time.monotonic() - started


def _numbers(text):
    numbers = [int(number) for number in text.split(",")]
    if sorted(set(numbers)) != numbers or numbers[0] < 1:
        raise argparse.ArgumentTypeError(f"sizes rise, such as 10000,1000000; not {text}")
    return numbers


if __name__ == "__main__":
    main()
