"""Cleaning: data_prep.clean against OpusFilter and Moses' script, 2 workers against 1, peak memory.

The text is that of a raw folder, over and over: from the second time on, a number is put at the end
of both sides of each pair, so that as much of it is double as was before.

  opusfilter  lines per second of all default steps, and of those alone that OpusFilter has, too,
              against OpusFilter with these: from file to file, start of processes included, one
              worker each, then --workers
  moses       two steps, lengths and their ratio, against clean-corpus-n.perl's rules in a loop of
              plain Python; both in this process
  workers     the default steps with 1 process and with --workers
  memory      peak memory of the default steps at sizes of --memory-lines: of the largest process,
              and the sum of the peaks of all of them

OpusFilter is installed in an environment of its own; its program is named with --opusfilter:

  python -m venv opus && opus/bin/pip install opusfilter==3.3.1 'py3langid<0.4'

Examples:
  python tests/benchmarks/cleaning.py --text downloads/general --source-lang de --target-lang en \\
      --opusfilter opus/bin/opusfilter
  python tests/benchmarks/cleaning.py --text downloads/general --source-lang de --target-lang en \\
      --what memory --memory-lines 100000,5000000
"""

import argparse
import contextlib
import io
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
WHAT = ("opusfilter", "moses", "workers", "memory")
MOSES = {"most_words": 80, "ratio": 9}
LOOKS = 0.1  # seconds between looks at the memory of processes

SCRIPTS = {"de": "Latin", "en": "Latin", "ru": "Cyrillic", "zh": "Han"}
# our steps, and what OpusFilter calls them
SHARED = ("whitespace", "length", "word-length", "length-ratio", "script", "language", "numbers",
          "copy", "repetition", "duplicate")  # fmt: skip


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--text", required=True, metavar="DIR", help="raw folder")
    parser.add_argument("--source-lang", required=True, choices=SCRIPTS)
    parser.add_argument("--target-lang", required=True, choices=SCRIPTS)
    parser.add_argument("--what", default=",".join(WHAT), metavar="A,B", help="all by default")
    parser.add_argument("--lines", type=int, default=1_000_000, metavar="N")
    parser.add_argument("--opusfilter", metavar="PROGRAM", help="left out if not given")
    parser.add_argument("--workers", type=int, default=2, metavar="N")
    parser.add_argument("--rounds", type=int, default=1, metavar="N", help="the best counts")
    parser.add_argument("--memory-lines", type=_numbers, default=[100_000, 5_000_000],
                        metavar="N,N")  # fmt: skip
    args = parser.parse_args()
    what = args.what.split(",")
    if set(what) - set(WHAT):
        parser.error(f"--what is some of {','.join(WHAT)}")
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        if set(what) - {"memory"}:
            raw = make_text(folder / "raw", args.lines, args)
            characters = sum(path.stat().st_size for path in raw.glob("train.*"))
            print(f"{args.lines:,} pairs of {args.text}, {characters / args.lines:.0f} bytes each",
                  flush=True)  # fmt: skip
        for name in what:
            if name == "memory":
                memory(folder, args)
            else:
                {"opusfilter": against_opusfilter, "moses": against_moses,
                 "workers": against_itself}[name](raw, folder, args)  # fmt: skip


def make_text(raw, lines, args):
    """A raw folder of so many training pairs."""
    sys.path.insert(0, str(ROOT))
    from data_prep.files import copy_text, find_text, read_lines

    raw.mkdir()
    for lang in (args.source_lang, args.target_lang):
        for split in ("dev", "test"):
            copy_text(find_text(args.text, split, lang), raw / f"{split}.{lang}")
        path = find_text(args.text, "train", lang)
        with open(raw / f"train.{lang}", "w", encoding="utf-8", newline="\n") as out:
            left = lines
            for turn in itertools.count():
                end = f" {turn}\n" if turn else "\n"
                for line in itertools.islice(read_lines(path), left):
                    out.write(line + end)
                    left -= 1
                if not left:
                    break
    return raw


# -- lines per second --------------------------------------------------------------------------


def against_opusfilter(raw, folder, args):
    langs = (args.source_lang, args.target_lang)
    for workers in (1, args.workers):
        speeds = {}
        for _ in range(args.rounds):
            ours = {"default steps": None, "shared steps": SHARED}
            for name, steps in ours.items():
                seconds, kept = clean_here(raw, folder, args, steps, workers)
                note(speeds, name, args.lines / seconds, kept)
            if args.opusfilter:
                seconds, kept = opusfilter(raw, folder, args, workers)
                note(speeds, "OpusFilter", args.lines / seconds, kept)
        print(f"\n{'-'.join(langs)}, {workers} workers")
        theirs = speeds.get("OpusFilter", (None,))[0]
        for name, (speed, kept) in speeds.items():
            ratio = f"   {speed / theirs:5.2f} × OpusFilter" if theirs else ""
            print(f"  {name:<14} {speed:>9,.0f} lines/s, kept {kept:>9,}{ratio}", flush=True)


def note(speeds, name, speed, kept):
    speeds[name] = max(speeds.get(name, (0, 0)), (speed, kept))


def clean_here(raw, folder, args, steps, workers):
    """(seconds, pairs kept) of the command in a process of its own."""
    out = folder / "out"
    words = [sys.executable, "-m", "data_prep.clean", *command_words(raw, out, args, workers)]
    for step in steps or ():
        words += ["--step", step]
    started = time.perf_counter()
    run(words)
    seconds = time.perf_counter() - started
    kept = json.loads((out / "ledger.json").read_text(encoding="utf-8"))["kept"]
    remove(out)
    return seconds, kept


def command_words(raw, out, args, workers):
    return ["--in", str(raw), "--source-lang", args.source_lang, "--target-lang", args.target_lang,
            "--out", str(out), "--workers", str(workers)]  # fmt: skip


def opusfilter(raw, folder, args, workers):
    """(seconds, pairs kept) of OpusFilter with the steps of SHARED."""
    out = folder / "opusfilter"
    out.mkdir()
    langs = (args.source_lang, args.target_lang)
    files = {stage: [f"{stage}.{lang}" for lang in langs]
             for stage in ("tidy", "kept", "train", "unique")}  # fmt: skip
    filters = [
        {"LengthFilter": {"min_length": 1, "max_length": 200, "unit": "word"}},
        {"LongWordFilter": {"threshold": 101}},
        {"LengthRatioFilter": {"threshold": 3, "unit": "char"}},
        {"CharacterScoreFilter": {"scripts": [SCRIPTS[lang] for lang in langs],
                                  "thresholds": [0.3, 0.3]}},
        {"LangidFilter": {"languages": list(langs), "thresholds": [0.0, 0.0]}},
        {"NonZeroNumeralsFilter": {"threshold": 0.5}},
        {"SimilarityFilter": {"threshold": 0.8, "unit": "word"}},
        {"RepetitionFilter": {"threshold": 4, "min_length": 3, "max_length": 100}},
    ]  # fmt: skip
    config = {
        "common": {"output_directory": str(out)},
        "steps": [
            {"type": "preprocess", "parameters": {
                "inputs": [str(raw / f"train.{lang}") for lang in langs], "outputs": files["tidy"],
                "preprocessors": [{"WhitespaceNormalizer": {}}]}},
            {"type": "filter", "parameters": {
                "inputs": files["tidy"], "outputs": files["kept"], "filters": filters}},
            {"type": "remove_duplicates", "parameters": {
                "inputs": files["kept"], "outputs": files["unique"]}},
        ],
    }  # fmt: skip
    for split in ("dev", "test"):
        before = config["steps"][-1]["parameters"]["outputs"]
        config["steps"].append({"type": "remove_duplicates", "parameters": {
            "inputs": before, "outputs": [f"{split}.{name}" for name in files["train"]],
            "overlap": [str(raw / f"{split}.{lang}") for lang in langs],
            "letters_only": True, "lowercase": True}})  # fmt: skip
    (out / "steps.yaml").write_text(json.dumps(config))  # JSON is YAML
    started = time.perf_counter()
    run([args.opusfilter, "--n-jobs", str(workers), str(out / "steps.yaml")])
    seconds = time.perf_counter() - started
    with open(out / f"test.train.{langs[0]}", "rb") as file:
        kept = sum(1 for _ in file)
    remove(out)
    return seconds, kept


def run(words):
    """Run a program; what it said is shown if it fails."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = str(ROOT)
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{words[0]} ended with status {done.returncode}:\n{done.stderr[-3000:]}")


def against_moses(raw, folder, args):
    sys.path.insert(0, str(ROOT))
    from data_prep.cleaning.blocks import read_blocks
    from data_prep.cleaning.engine import complete, run_steps
    from data_prep.cleaning.steps import Context, parse

    langs = (args.source_lang, args.target_lang)
    paths = [raw / f"train.{lang}" for lang in langs]
    most, ratio = MOSES["most_words"], MOSES["ratio"]
    steps = complete(map(parse, [f"length:max={most}", f"word-ratio:max={ratio},expected=1"]))
    names = ("out.src", "out.tgt", "out.lines", "out.dropped.gz")
    best = {}
    for _ in range(max(2, args.rounds)):
        started = time.perf_counter()
        with contextlib.redirect_stderr(io.StringIO()):
            outcome = run_steps(
                read_blocks([paths], 1 << 20), args.lines, steps, Context(langs),
                [folder / name for name in names], folder, map, longest=1 << 20,
            )  # fmt: skip
        note(best, "data_prep", args.lines / (time.perf_counter() - started), outcome.kept)
        started = time.perf_counter()
        kept = moses(paths, [folder / "moses.src", folder / "moses.tgt"], most, ratio)
        note(best, "loop", args.lines / (time.perf_counter() - started), kept)
    (ours, kept), (theirs, kept_there) = best["data_prep"], best["loop"]
    print(
        f"\nlengths and their ratio, 1 process: data_prep {ours:,.0f} lines/s (kept {kept:,}), a "
        f"loop with the rules of clean-corpus-n.perl {theirs:,.0f} (kept {kept_there:,})   ratio "
        f"{ours / theirs:.2f}", flush=True,
    )  # fmt: skip


def moses(paths, out_paths, most, ratio):
    """Pairs kept: 1 to ``most`` words on each side, neither ``ratio`` times longer than the other.

    Spaces are tidied, and lines written, as clean-corpus-n.perl does it.
    """
    kept = 0
    with contextlib.ExitStack() as stack:
        src_in, tgt_in, src_out, tgt_out = [
            stack.enter_context(open(path, mode, encoding="utf-8", newline="\n"))
            for path, mode in zip([*paths, *out_paths], "rrww", strict=True)
        ]
        for src, tgt in zip(src_in, tgt_in, strict=True):
            src_words, tgt_words = src.split(), tgt.split()
            one, other = len(src_words), len(tgt_words)
            if 1 <= one <= most and 1 <= other <= most and one <= ratio * other <= ratio**2 * one:
                kept += 1
                src_out.write(" ".join(src_words) + "\n")
                tgt_out.write(" ".join(tgt_words) + "\n")
    return kept


def against_itself(raw, folder, args):
    best = {}
    for _ in range(args.rounds):
        for workers in (1, args.workers):
            seconds, kept = clean_here(raw, folder, args, None, workers)
            note(best, workers, args.lines / seconds, kept)
    one, more = best[1][0], best[args.workers][0]
    print(f"\ndefault steps: 1 worker {one:,.0f} lines/s, {args.workers} workers {more:,.0f}   "
          f"ratio {more / one:.2f}", flush=True)  # fmt: skip


# -- memory --------------------------------------------------------------------------------------


def memory(folder, args):
    found = []
    print()
    for lines in args.memory_lines:
        raw = make_text(folder / f"raw.{lines}", lines, args)
        out = folder / "out"
        words = [sys.executable, "-m", "data_prep.clean",
                 *command_words(raw, out, args, args.workers)]  # fmt: skip
        started = time.perf_counter()
        largest, together = peaks_of(words)
        found.append((largest, together))
        print(
            f"{lines:>11,} lines, {args.workers} workers: largest process "
            f"{largest / 2**20:.1f} MiB, all together {together / 2**20:.1f} MiB, "
            f"{time.perf_counter() - started:.0f} s", flush=True,
        )  # fmt: skip
        remove(out)
        remove(raw)
    for (one, other), sizes in zip(
        itertools.pairwise(found), itertools.pairwise(args.memory_lines), strict=True
    ):
        print(
            f"{sizes[1]:,} : {sizes[0]:,} lines = {other[0] / one[0]:.2f} times the memory in the "
            f"largest process, {other[1] / one[1]:.2f} times in all together"
        )


def peaks_of(words):
    """Peak resident set of the largest process of a command, and the sum of all peaks; bytes."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    peaks = {}
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(words, env=environment, stdout=said, stderr=said)
        while process.poll() is None:
            for pid in family(process.pid):
                peaks[pid] = max(peaks.get(pid, 0), peak(pid))
            time.sleep(LOOKS)
        if process.returncode:
            said.seek(0)
            raise SystemExit(said.read()[-3000:].decode("utf-8", "replace"))
    return max(peaks.values()), sum(peaks.values())


def family(pid):
    """Ids of a process, of those that it has started, and of those that they have."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(one for child in children for one in family(int(child)))]


def peak(pid):
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return int(found[0].split()[1]) * 1024 if found else 0


def remove(folder):
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


def _numbers(text):
    return [int(number) for number in text.split(",")]


if __name__ == "__main__":
    main()
