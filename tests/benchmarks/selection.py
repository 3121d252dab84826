"""Minimum Bayes risk over n candidates: dad-select's scores against a double loop of sacreBLEU.

Candidates are made from a text by dropping words, with a seed. The loop scores fewer lines;
both are given as sentences per second on one core, and the choices of both are compared. With
--workers, the whole of dad-select, reading and writing included, is timed with 1 and N processes.

Example:
  python tests/benchmarks/selection.py --text corpora/general/dev.en.gz --candidates 32
"""

import argparse
import contextlib
import io
import itertools
import random
import tempfile
import time
from pathlib import Path

import sacrebleu

from data_prep.files import read_lines, write_whole
from fairseq_plugins.generation.nbest import Candidate, format_candidates
from fairseq_plugins.selection.records import Record
from fairseq_plugins.selection.select import select
from fairseq_plugins.selection.steps import Context, parse, run_steps

PLAIN = {"chrf": sacrebleu.sentence_chrf, "bleu": sacrebleu.sentence_bleu}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--text", required=True, help="file of sentences, plain or .gz")
    parser.add_argument("--lines", type=int, default=400, help="scored by dad-select")
    parser.add_argument("--loop-lines", type=int, default=10, help="scored by the loop")
    parser.add_argument("--candidates", type=int, default=32, help="for each line")
    parser.add_argument("--drop", type=float, default=0.15, help="chance of a word to be dropped")
    parser.add_argument("--target-lang", default="en")
    parser.add_argument("--workers", type=int, help="also time dad-select with 1 and N processes")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()

    records = make_records(args)
    few = evenly(records, args.loop_lines)
    distinct = sum(len({one.text for one in record.candidates}) for record in records)
    characters = sum(len(one.text) for record in records for one in record.candidates)
    print(
        f"{len(records):,} lines × {args.candidates} candidates ({distinct / len(records):.1f} of "
        f"them distinct, {characters / len(records) / args.candidates:.0f} characters each); "
        f"the loop: {len(few)} of these lines; 1 core"
    )
    for metric, function in PLAIN.items():
        started = time.perf_counter()
        expected = [loop(record, function) for record in few]
        theirs = len(few) / (time.perf_counter() - started)
        step, context = parse(f"mbr:metric={metric}"), Context(("xx", args.target_lang))
        step.check(context)
        started = time.perf_counter()
        chosen, _ = run_steps([step], context, records)
        ours = len(records) / (time.perf_counter() - started)
        found = {record.number: record.candidates[0].text for record in chosen}
        same = sum(found[record.number] == text
                   for record, text in zip(few, expected, strict=True))  # fmt: skip
        print(
            f"mbr:metric={metric}  sacreBLEU loop {theirs:8.2f} sentences/s   dad-select "
            f"{ours:8.1f}   ratio {ours / theirs:6.1f}   same choice {same} of {len(few)}"
        )
    if args.workers:
        for metric in PLAIN:
            speeds = [whole(records, metric, args, number) for number in (1, args.workers)]
            print(
                f"mbr:metric={metric}  dad-select, all of it: 1 process {speeds[0]:,.1f}, "
                f"{args.workers} processes {speeds[1]:,.1f} sentences/s   "
                f"ratio {speeds[1] / speeds[0]:.2f}"
            )


def make_records(args):
    """The text's first lines as records, with candidates made by dropping words."""
    chance = random.Random(args.seed)

    def shorter(words):
        return " ".join(word for word in words if chance.random() > args.drop)

    lines = [line for line in itertools.islice(read_lines(args.text), args.lines) if line.split()]
    return [
        Record(number, line, line,
               [Candidate(shorter(line.split())) for _ in range(args.candidates)])
        for number, line in enumerate(lines, start=1)
    ]  # fmt: skip


def evenly(records, number):
    """``number`` of the records, evenly spread."""
    return records[:: max(1, len(records) // number)][:number]


def loop(record, function):
    """The candidate with the highest sum of scores against all, each pair scored by itself."""
    texts = [candidate.text for candidate in record.candidates]
    sums = [sum(function(one, [other]).score for other in texts) for one in texts]
    return texts[max(range(len(texts)), key=sums.__getitem__)]


def whole(records, metric, args, workers):
    """Sentences per second of dad-select from file to folder, start of processes included."""
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        with write_whole(folder / "src") as src, write_whole(folder / "out.nbest") as nbest:
            for number, record in enumerate(records):
                src.write(f"{record.source}\n")
                nbest.write(format_candidates(number, record.candidates))
        started = time.perf_counter()
        with contextlib.redirect_stderr(io.StringIO()):
            select(folder / "src", folder / "out.nbest", folder / "out", ("xx", args.target_lang),
                   steps=[f"mbr:metric={metric}"], workers=workers)  # fmt: skip
        return len(records) / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
