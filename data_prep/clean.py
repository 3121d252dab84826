"""Clean the training text of a corpus, account for every line, and leave dev and test alone.

Reads {train,dev,test}.SRC and .TGT (plain, .gz or .zst) of a folder and writes a text folder:

  train.SRC, train.TGT    what was kept, repaired
  train.lines             for each kept line, its line number in the input
  dev.*, test.*           the bytes of the input, decompressed; checked, never altered
  dropped.tsv.gz          for each dropped line its number, the step that dropped it, and why
  ledger.json             pairs read, repaired, dropped and kept, step by step, with examples
  manifest.json           what made it

Training text may lie in shards, train.00.SRC, train.01.SRC ..., each with its .TGT: they are read
in the order of their names as one corpus, and line numbers run on.

Steps have names and options, written NAME:OPTION=VALUE,...; --print-steps shows those that a pair
of languages gets, --list-steps tells all. --steps FILE and --step take their place, in the order
given. A pair that fails several filters is counted under the first. Always there, asked for or
not: lines that are not UTF-8 or longer than --max-line-bytes are dropped first, whitespace is
repaired after all other repairs, a pair with an empty side goes, and at last one with a side that
occurs in dev or test, exactly or nearly, of this folder or of a --held-out one (step held-out;
data_prep.overlap tells what is near).

What became of a line? --explain tells it of a finished folder.

The output is the same for any number of --workers. Memory does not grow with the corpus: it is
about 200 MB a process with the default steps. Disk: while it works, OUT.part takes, beside the
output, up to the size of the plain text, and 24 bytes a pair where duplicates are looked for.
--engine ray sends the work to a Ray cluster, whose nodes need not share a disk.

Examples:
  python -m data_prep.clean --in downloads/medical --source-lang de --target-lang en \\
      --held-out downloads/general --out corpora/medical/text
  python -m data_prep.clean --print-steps --source-lang de --target-lang en > steps.txt
  python -m data_prep.clean --in downloads/medical --source-lang de --target-lang en \\
      --steps steps.txt --step duplicate:of=target --out corpora/medical/text
  python -m data_prep.clean --out corpora/medical/text --explain 17 4711
"""

import argparse
import itertools
import shutil
import sys
import time
from pathlib import Path

from tqdm import tqdm

from data_prep import command
from data_prep.cleaning.blocks import find_shards, read_blocks
from data_prep.cleaning.engine import Decoded, Fitting, HeldOutOverlap, complete, run_steps
from data_prep.cleaning.explain import explain
from data_prep.cleaning.kinds import Repair
from data_prep.cleaning.ledger import DROPPED, make_ledger, summary, table
from data_prep.cleaning.steps import Context, default_steps, explain_steps, parse
from data_prep.cluster import on_cluster
from data_prep.files import copy_text, find_text, read_bitext, write_whole_folder
from data_prep.manifest import write_json, write_manifest
from data_prep.named_steps import read_steps
from data_prep.overlap import HELD_OUT, HeldOut, add_near_flags, find_split, near_settings
from data_prep.processes import in_processes, usable_cores

PROG = "data_prep.clean"
MAX_LINE_BYTES = 1 << 20
BLOCKS_FOR_A_PROCESS = 10  # fewer are done before another process has loaded its models
PRELOAD = ["data_prep.cleaning.engine"]
ENGINES = ("local", "ray")
MUCH = 0.01  # of the lines: not a few accidents


def clean(
    text, langs, out, *, steps=None, step_files=(), held_out=(), near=None, lines=None,
    max_line_bytes=MAX_LINE_BYTES, workers=None, engine="local", address="auto",
):  # fmt: skip
    """Write the text folder ``out``; its ledger and the processor seconds of each step.

    Args:
        text: folder with train, dev and test of both languages.
        langs: source and target language.
        steps: descriptions, in order; None: ``default_steps`` of the languages.
        step_files: files that they were read from, for the manifest.
        held_out: further folders whose dev and test lines must not be trained on.
        near: settings of ``HeldOut``: threshold, words, sides.
        lines: clean only so many training pairs, evenly spread over the corpus.
        max_line_bytes: longer lines are dropped before they are looked at.
        workers: processes; None: one for each usable core, or what a cluster has room for.
        engine: "local", or "ray" to work on a cluster.
        address: of the cluster, see ``connect``.

    Raises:
        FileNotFoundError: a split is missing.
        ValueError: an option is out of range, files are not parallel, dev or test is not UTF-8,
            a file is empty, or nothing is left.
    """
    started = time.monotonic()
    _check_options(langs, lines, max_line_bytes, workers, engine)
    context = Context(tuple(langs))
    steps = complete(map(parse, default_steps(*langs) if steps is None else steps))
    for step in steps:
        step.check(context)
    out = Path(out)
    with write_whole_folder(out) as part:
        scratch = part / "scratch"
        scratch.mkdir()
        shards = find_shards(text, "train", langs)
        paths = {split: [_find_held_out(text, split, lang) for lang in langs]
                 for split in HELD_OUT}  # fmt: skip
        counts = {}
        for split in HELD_OUT:
            counts[split] = check_held_out(*paths[split])
            for path, lang in zip(paths[split], langs, strict=True):
                copy_text(path, part / f"{split}.{lang}")
        folders = {Path(folder).resolve(): folder for folder in (*held_out, text)}
        overlap = HeldOutOverlap(HeldOut.read(folders.values(), langs, **(near or {})))
        steps = [Fitting(), Decoded(), *steps, overlap]
        pairs, blocks = survey(shards, max_line_bytes)
        read = min(lines or pairs, pairs)
        if engine == "ray":
            crew = on_cluster(address, workers)
        else:
            workers = min(workers or usable_cores(), max(1, blocks // BLOCKS_FOR_A_PROCESS))
            crew = in_processes(workers, PRELOAD, scratch)
        with crew as apply:
            outcome = run_steps(
                read_blocks(shards, max_line_bytes), pairs, steps, context,
                [*(part / f"train.{lang}" for lang in langs), part / "train.lines",
                 part / DROPPED],
                scratch, apply, longest=max_line_bytes,
                sample=(read, pairs) if read < pairs else None,
            )  # fmt: skip
        shutil.rmtree(scratch)
        ledger = make_ledger(
            pairs, outcome, [(str(step), isinstance(step, Repair)) for step in steps]
        )
        seconds = [round(tally.seconds, 2) for tally in outcome.tallies]
        if not ledger["kept"]:
            raise ValueError(
                f"no training pair of {shards[0][0]} and {shards[0][1]} is left: "
                f"{summary(ledger)}; look at the first lines of both and at the steps "
                f"(--print-steps)\n{table(ledger, seconds)}"
            )
        write_json(part / "ledger.json", ledger)
        write_manifest(
            part,
            settings={
                "source_lang": langs[0],
                "target_lang": langs[1],
                "in": str(text),
                "held_out": [str(folder) for folder in held_out],
                "steps": [str(step) for step in steps[2:-1]],
                "near": near,
                "lines": lines,
                "max_line_bytes": max_line_bytes,
            },
            inputs=[*itertools.chain(*shards), *itertools.chain(*paths.values()),
                    *_held_out_files(held_out, langs), *step_files],
            counts={"train": ledger["kept"], **counts, "train_read": ledger["read"],
                    "processor_seconds": seconds},
            seconds=time.monotonic() - started,
        )  # fmt: skip
    return ledger, seconds


def survey(shards, longest):
    """(pairs, blocks) of a training set.

    Everything is read once before the work begins, so that a file that ends early is noticed
    now and not after hours.

    Raises:
        ValueError: the files hold no line or are not parallel.
    """
    pairs = blocks = 0
    with tqdm(desc="counting", unit=" pairs", unit_scale=True, **command.bar_settings()) as bar:
        for block in read_blocks(shards, longest):
            pairs += block.lines
            blocks += 1
            bar.update(block.lines)
    if not pairs:
        src, tgt = shards[0]
        raise ValueError(f"{src} and {tgt} are empty; there is nothing to train on")
    return pairs, blocks


def check_held_out(src_path, tgt_path):
    """Number of pairs of a dev or test set.

    Raises:
        ValueError: the files hold no line, are not parallel or not UTF-8.
    """
    number = 0
    for number, _, _ in read_bitext(src_path, tgt_path):
        pass
    if not number:
        raise ValueError(f"{src_path} and {tgt_path} are empty; a held-out set needs text")
    return number


def _find_held_out(folder, split, lang):
    try:
        return find_text(folder, split, lang)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{error}; python -m data_prep.split makes dev and test of a corpus without them"
        ) from None


def _held_out_files(folders, langs):
    splits = [find_split(folder, split, langs) for folder in folders for split in HELD_OUT]
    return [path for paths in splits if paths for path in paths]


def _check_options(langs, lines, max_line_bytes, workers, engine):
    if langs[0] == langs[1]:
        raise ValueError(f"--source-lang and --target-lang are both {langs[0]}")
    for name, value in (("--lines", lines), ("--max-line-bytes", max_line_bytes),
                        ("--workers", workers)):  # fmt: skip
        if value is not None and value < 1:
            raise ValueError(f"{name} is a number above 0, not {value}")
    if engine not in ENGINES:
        raise ValueError(f"--engine is one of {', '.join(ENGINES)}, not {engine}")


def main():
    command.run(_main, PROG)


def _main(argv=None):
    args = _arguments(argv)
    if args.list_steps:
        print(explain_steps())
        return
    if args.explain:
        for line in explain(args.out, args.explain, args.text):
            print(line)
        return
    langs = (args.source_lang, args.target_lang)
    if args.print_steps:
        print("\n".join(default_steps(*langs)))
        return
    steps = asked_steps(args)
    if args.check_steps:
        for step in steps or ():
            parse(step)
        return
    ledger, seconds = clean(
        args.text, langs, args.out, steps=steps, step_files=args.steps,
        held_out=args.held_out, near=near_settings(args), lines=args.lines,
        max_line_bytes=args.max_line_bytes, workers=args.workers, engine=args.engine,
        address=args.address,
    )  # fmt: skip
    print(f"{table(ledger, seconds)}\n{args.out}: {summary(ledger)}", file=sys.stderr)


def _arguments(argv):
    words = command.parser(__doc__, f"python -m {PROG}")
    given = {*(sys.argv[1:] if argv is None else argv)}
    alone = given & {"--list-steps", "--check-steps", "--explain"}
    unset = {"default": argparse.SUPPRESS}
    whole = {"required": not alone and "--print-steps" not in given, **unset}
    words.add_argument(
        "--in", dest="text", metavar="DIR", help="folder with train, dev and test", **whole
    )
    langs = {"required": not alone, **unset}
    words.add_argument("--source-lang", metavar="SRC", help="for example de", **langs)
    words.add_argument("--target-lang", metavar="TGT", help="for example en", **langs)
    words.add_argument(
        "--out", metavar="DIR", help="text folder to write", **unset,
        required=whole["required"] or "--explain" in given,
    )  # fmt: skip
    add_cleaning_flags(words)
    words.add_argument("--print-steps", action="store_true",
                       help="print the default steps of the languages, as for --steps")  # fmt: skip
    words.add_argument("--list-steps", action="store_true", help="tell all steps and their options")
    words.add_argument("--check-steps", action="store_true",
                       help="see whether the steps are right, and do no more")  # fmt: skip
    words.add_argument(
        "--explain", type=int, nargs="+", metavar="N", **unset,
        help="tell what became of these lines of the input of a finished --out",
    )  # fmt: skip
    words.add_argument("--max-line-bytes", type=int, default=MAX_LINE_BYTES, metavar="N",
                       help="longer lines are dropped")  # fmt: skip
    words.add_argument("--engine", choices=ENGINES, default="local",
                       help="work on this machine, or on a Ray cluster")  # fmt: skip
    words.add_argument(
        "--address", default="auto",
        help="of the Ray cluster: HOST:PORT, ray://HOST:PORT, auto or local",
    )  # fmt: skip
    return words.parse_args(argv, argparse.Namespace(
        text=None, source_lang=None, target_lang=None, out=None, explain=[],
        **unset_cleaning_flags(),
    ))  # fmt: skip


def add_cleaning_flags(words):
    """Add what every command that cleans has: steps, held-out folders, lines, workers."""
    unset = {"default": argparse.SUPPRESS}
    words.add_argument(
        "--held-out", metavar="DIR", action="append", **unset,
        help="another folder whose dev and test lines must not be trained on; may be repeated",
    )  # fmt: skip
    add_near_flags(words)
    words.add_argument(
        "--step", action="append", **unset, metavar="NAME[:OPTION=VALUE,...]",
        help="a step; may be repeated, the order counts; the default steps are left out then",
    )  # fmt: skip
    words.add_argument(
        "--steps", action="append", **unset, metavar="FILE",
        help="steps from a file, one a line, # begins a remark; they come before --step",
    )  # fmt: skip
    words.add_argument(
        "--lines", type=int, metavar="N", **unset,
        help="take only N lines of what is cleaned, evenly spread, for a trial",
    )  # fmt: skip
    words.add_argument("--workers", type=int, metavar="N", **unset,
                       help="processes; unset: one for each usable core")  # fmt: skip


def unset_cleaning_flags():
    """{name: value} of these flags where they are not given."""
    return {"held_out": [], "step": [], "steps": [], "lines": None, "workers": None}


def asked_steps(args):
    """Descriptions of the steps that these flags ask for; None: the default ones."""
    steps = [*itertools.chain.from_iterable(map(read_steps, args.steps)), *args.step]
    return steps if args.steps or args.step else None


if __name__ == "__main__":
    main()
