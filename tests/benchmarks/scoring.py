"""dad-score against calling sacreBLEU directly: lines per second, and peak memory.

References are the lines of a file, over and over; translations are made of them by dropping and
exchanging words, with a seed. Each side reads both files and computes BLEU and chrF, in a process
of its own; the sides take turns, round by round. Seconds are counted from the opening of the files
on, without imports; the peak is that of the process, libraries included, so bytes that a line adds
stand beside it. sacreBLEU keeps n-grams of all references in memory, so 1 M lines of 60
characters are too many for it on a small machine, and its bootstrap needs 8 bytes for each line and
resample: that is why the sides are compared without intervals.

The sides: `sacrebleu` is corpus_score of both metrics; `scores` is dad-score --no-indicators
--resamples 0; `all` is dad-score with intervals and the indicators that need no training text.

Example:
  python tests/benchmarks/scoring.py --text de-en/general/train.en.gz --lines 10000,100000 \\
      --more 1000000
"""

import argparse
import gzip
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# The system starts a child's peak with that of the process that began it. So nothing large is
# imported here.

ROOT = Path(__file__).parents[2]
SIDES = ("sacrebleu", "scores", "all")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--text", help="references, one a line")
    parser.add_argument("--lines", type=_numbers, default=[10_000, 100_000], metavar="N,N",
                        help="sizes for all sides")  # fmt: skip
    parser.add_argument("--more", type=_numbers, default=[], metavar="N,N",
                        help="sizes for dad-score alone")  # fmt: skip
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1, help="of dad-score")
    parser.add_argument("--clock", choices=["wall", "processor"], default="wall",
                        help="processor where the machine is busy; with 1 worker")  # fmt: skip
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        return run_side(args.side, Path(args.folder), args.workers, args.clock)
    if not args.text:
        parser.error("--text is missing")
    peaks = {side: {} for side in SIDES}
    for lines in [*args.lines, *args.more]:
        sides = SIDES if lines in args.lines else SIDES[1:]
        with tempfile.TemporaryDirectory() as folder:
            write_text(args.text, Path(folder), lines)
            seconds = {side: [] for side in sides}
            for _ in range(args.rounds if lines in args.lines else 1):
                for side in sides:
                    found, peak = measure(side, folder, args)
                    seconds[side].append(found["seconds"])
                    peaks[side][lines] = max(peak, peaks[side].get(lines, 0))
                    scores = f"BLEU {found['bleu']:.2f}, chrF {found['chrf']:.2f}"
                    speed = f"{lines / found['seconds']:8,.0f} lines/s"
                    print(f"{side:<10} {lines:>10,} lines: {speed}, "
                          f"peak {peak / 2**20:8.1f} MiB, {scores}", flush=True)  # fmt: skip
            for side in sides[1:] if "sacrebleu" in sides else ():
                ratios = [other / one
                          for one, other in zip(seconds[side], seconds["sacrebleu"], strict=True)]
                shown = " ".join(f"{ratio:.2f}" for ratio in ratios)
                print(f"{side} is {statistics.median(ratios):.2f} times as fast as sacreBLEU "
                      f"at {lines:,} lines (rounds: {shown})", flush=True)  # fmt: skip
    for side, found in peaks.items():
        sizes = sorted(found)
        for one, other in zip(sizes, sizes[1:]):
            print(f"{side:<10} {other:,} : {one:,} lines = {found[other] / found[one]:.2f} times "
                  f"the memory, {(found[other] - found[one]) / (other - one):,.0f} bytes a line")


def write_text(path, folder, lines):
    """So many references and translations."""
    chance = random.Random(1)
    unpack = gzip.open if path.endswith(".gz") else open
    with unpack(path, "rt", encoding="utf-8", newline="\n") as file:
        text = [line.rstrip("\n") for _, line in zip(range(lines), file)]
    with open(folder / "reference", "w", encoding="utf-8", newline="\n") as references:
        with open(folder / "translation", "w", encoding="utf-8", newline="\n") as translations:
            for number in range(lines):
                line = text[number % len(text)]
                words = [chance.choice(text).split(" ")[0] if chance.random() < 0.2 else word
                         for word in line.split(" ") if chance.random() > 0.1]  # fmt: skip
                references.write(line + "\n")
                translations.write(" ".join(words) + "\n")


def measure(side, folder, args):
    """({"seconds", "bleu", "chrf"}, peak of the process in bytes)."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    words = [sys.executable, __file__, "--side", side, "--folder", folder,
             "--workers", str(args.workers), "--clock", args.clock]  # fmt: skip
    with tempfile.TemporaryFile() as printed:
        process = subprocess.Popen(words, env={**os.environ, "PYTHONPATH": path}, stdout=printed)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{side} ended with status {process.returncode}")
        printed.seek(0)
        unit = 1 if sys.platform == "darwin" else 1024
        return json.loads(printed.read()), usage.ru_maxrss * unit


def run_side(side, folder, workers, clock):
    """Score the texts of ``folder`` and print what ``measure`` reads."""
    now = time.process_time if clock == "processor" else time.perf_counter
    if side == "sacrebleu":
        from sacrebleu.metrics import BLEU, CHRF

        started = now()
        references, translations = (
            (folder / name).read_text(encoding="utf-8").split("\n")[:-1]
            for name in ("reference", "translation")
        )
        scores = {
            name: metric.corpus_score(translations, [references]).score
            for name, metric in (("bleu", BLEU(force=True)), ("chrf", CHRF()))
        }
    else:
        from fairseq_plugins.evaluation.scoring import Settings, TestSet, score_test_set

        everything = side == "all"
        settings = Settings("en", resamples=1000 if everything else 0, indicators=everything,
                            workers=workers)  # fmt: skip
        started = now()
        result = score_test_set(TestSet("test", [folder / "reference"]),
                                {"system": folder / "translation"}, settings)  # fmt: skip
        scores = {name: entry["score"]
                  for name, entry in result["systems"]["system"]["scores"].items()}
    print(json.dumps({"seconds": now() - started, **scores}))


def _numbers(text):
    return [int(number) for number in text.split(",")]


if __name__ == "__main__":
    main()
