"""Clean in-domain text that has no translation, and put it behind the training text of its domain.

A teacher translates the source side of a training set, so more sources are more to learn from, and
they need no references. Reads monolingual.SRC (plain, .gz or .zst, or in shards) of a raw folder
and the domain's text folder, which data_prep.clean has written, and writes a text folder whose
sources a teacher can translate:

  train.SRC               the training sources of --text, then the monolingual lines that were kept
  train.TGT               the references of --text, then an empty line for each of the others
  train.origin            where each comes from: domain or monolingual, a tab, its line number there
  dev.*, test.*           those of --text
  dropped.tsv.gz          for each dropped line its number, the step that dropped it, and why
  ledger.json             lines read, repaired, dropped and kept, step by step, with examples
  manifest.json           what made it

The lines go through the cleaning steps of their language that look at one side; --step and --steps
replace them as in data_prep.clean, and of those given, too, what compares two sides is left out.
After these, and always: a line that is a training source
already goes (step known), and so does one that occurs, exactly or nearly, on the source side of a
dev or test set, of --text or of a --held-out folder (step held-out).

Where references are asked for, a line without one has none: dad-select --rejected reference drops
it, --mix references leaves it out, best-of-n takes the teacher's best translation, and
minimum-risk training learns its target and no more. data_prep.binarise drops what has no target,
so train on what the teacher made of this folder, not on the folder itself.

The output is the same for any number of --workers. Memory grows with the training text of --text,
some 100 bytes a line, and not with the monolingual text.

Example:
  python -m data_prep.monolingual --in downloads/medical --text corpora/medical/text \\
      --source-lang de --target-lang en --held-out downloads/general --out corpora/medical/sources
  bash recipes/stages/distil.sh --teacher teacher/medical --text corpora/medical/sources \\
      --vocabulary vocabulary --source-lang de --target-lang en --out distilled/medical/medical
"""

import argparse
import hashlib
import itertools
import shutil
import sys
import time
from dataclasses import dataclass
from typing import ClassVar

from data_prep import command
from data_prep.clean import (
    BLOCKS_FOR_A_PROCESS,
    MAX_LINE_BYTES,
    PRELOAD,
    add_cleaning_flags,
    asked_steps,
    survey,
    unset_cleaning_flags,
)
from data_prep.cleaning.blocks import find_shards, read_blocks
from data_prep.cleaning.engine import Decoded, Fitting, HeldOutOverlap, complete, run_steps
from data_prep.cleaning.kinds import Filter, Repair
from data_prep.cleaning.ledger import DROPPED, make_ledger, summary, table
from data_prep.cleaning.steps import Context, default_steps, parse
from data_prep.files import (
    copy_text,
    find_text,
    read_bitext,
    read_lines,
    write_whole,
    write_whole_folder,
)
from data_prep.manifest import write_json, write_manifest
from data_prep.overlap import HELD_OUT, HeldOut, find_split, near_settings
from data_prep.processes import in_processes, usable_cores

PROG = "data_prep.monolingual"
SPLIT = "monolingual"
TWO_SIDED = ("copy", "numbers", "length-ratio", "word-ratio")  # steps that compare the sides
UNDETERMINED = "und"  # ISO 639-2 for a language that is not known


# -- the steps -----------------------------------------------------------------------------
# The engine of cleaning reads pairs. A line without translation goes through it as a pair of
# equals.


@dataclass(frozen=True)
class Known(Filter):
    """drops a line that is a source of the training text already"""

    name: ClassVar[str] = "known"
    digests: frozenset

    @classmethod
    def read(cls, path):
        return cls(frozenset(map(_digest, read_lines(path))))

    def __str__(self):
        return self.name

    def why(self, src, tgt, context):
        return ["is a training source" if _digest(text) in self.digests else None for text in src]


def _digest(text):
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


@dataclass(frozen=True)
class SourceOverlap(HeldOutOverlap):
    """drops a line that occurs, exactly or nearly, on the source side of a dev or test set"""

    def why(self, src, tgt, context):
        return super().why(src, [""] * len(src), context)


def one_sided_steps(lang):
    """Descriptions of the default steps that can judge a line without its translation."""
    steps = default_steps(lang, UNDETERMINED)
    return [step for step in steps if step.partition(":")[0] not in TWO_SIDED]


def _parse(descriptions):
    steps = [parse(text) for text in descriptions]
    if left_out := [str(step) for step in steps if step.name in TWO_SIDED]:
        print(
            f"{PROG}: there is only one side here, so what compares two is left out: "
            + ", ".join(left_out),
            file=sys.stderr,
        )
    return complete([step for step in steps if step.name not in TWO_SIDED])


# -- the whole -----------------------------------------------------------------------------


def add_monolingual(raw, text, langs, out, *, steps=None, step_files=(), held_out=(), near=None,
                    lines=None, workers=None):  # fmt: skip
    """Write the text folder ``out``; its ledger and the processor seconds of each step.

    Args:
        raw: folder with ``monolingual.SRC``.
        text: clean text folder of the domain.
        langs: source and target language.
        steps: descriptions, in order; None: ``one_sided_steps``.
        step_files: files that they were read from, for the manifest.
        held_out: further folders whose dev and test lines must not be trained on.
        near: settings of ``HeldOut``: threshold and words.
        lines: take only so many monolingual lines, evenly spread.
        workers: processes; None: one for each usable core.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: an option is out of range, a file is damaged or empty, or nothing is left.
    """
    started = time.monotonic()
    _check_options(langs, lines, workers)
    src_lang = langs[0]
    context = Context((src_lang, src_lang))
    steps = _parse(one_sided_steps(src_lang) if steps is None else steps)
    for step in steps:
        step.check(context)
    # a line that stands alone is near with the side it has
    near = {**(near or {}), "sides": "either"}
    with write_whole_folder(out) as part:
        scratch = part / "scratch"
        scratch.mkdir()
        shards = find_shards(raw, SPLIT, context.langs)
        train = [find_text(text, "train", lang) for lang in langs]
        own = {split: find_split(text, split, langs) or [] for split in HELD_OUT}
        steps = [
            Fitting(), Decoded(), *steps, Known.read(train[0]),
            SourceOverlap(HeldOut.read([text, *held_out], langs, **near)),
        ]  # fmt: skip
        found, blocks = survey(shards, MAX_LINE_BYTES)
        read = min(lines or found, found)
        workers = min(workers or usable_cores(), max(1, blocks // BLOCKS_FOR_A_PROCESS))
        kept = [scratch / name for name in ("kept", "kept.twin", "kept.lines")]
        with in_processes(workers, PRELOAD, scratch) as apply:
            outcome = run_steps(
                read_blocks(shards, MAX_LINE_BYTES), found, steps, context,
                [*kept, part / DROPPED], scratch, apply, longest=MAX_LINE_BYTES,
                sample=(read, found) if read < found else None,
            )  # fmt: skip
        ledger = make_ledger(
            found, outcome, [(str(step), isinstance(step, Repair)) for step in steps]
        )
        seconds = [round(tally.seconds, 2) for tally in outcome.tallies]
        if not ledger["kept"]:
            raise ValueError(
                f"no line of {shards[0][0]} is left: {summary(ledger)}\n{table(ledger, seconds)}"
            )
        pairs = _join(part, langs, train, kept[0], kept[2])
        shutil.rmtree(scratch)
        for split, paths in own.items():
            for path, lang in zip(paths, langs, strict=False):
                copy_text(path, part / f"{split}.{lang}")
        ledger = {"pairs_of_domain": pairs, **ledger}
        write_json(part / "ledger.json", ledger)
        write_manifest(
            part,
            settings={
                "source_lang": langs[0],
                "target_lang": langs[1],
                "in": str(raw),
                "text": str(text),
                "held_out": [str(folder) for folder in held_out],
                "steps": [str(step) for step in steps[2:-2]],
                "near": near,
                "lines": lines,
            },
            inputs=[*dict.fromkeys(itertools.chain(*shards)), *train, *sum(own.values(), []),
                    *_held_out_files(held_out, langs), *step_files],
            counts={"train": pairs + ledger["kept"], "pairs_of_domain": pairs,
                    "monolingual": ledger["kept"], "monolingual_read": ledger["read"],
                    "processor_seconds": seconds},
            seconds=time.monotonic() - started,
        )  # fmt: skip
    return ledger, seconds


def _join(part, langs, train, kept, kept_lines):
    """Write the training text, the monolingual lines behind it; number of the former."""
    pairs = 0
    with write_whole(part / f"train.{langs[0]}") as src_out, \
            write_whole(part / f"train.{langs[1]}") as tgt_out, \
            write_whole(part / "train.origin") as origin_out:  # fmt: skip
        for pairs, src, tgt in read_bitext(*train):
            src_out.write(f"{src}\n")
            tgt_out.write(f"{tgt}\n")
            origin_out.write(f"domain\t{pairs}\n")
        for _, src, number in read_bitext(kept, kept_lines):
            src_out.write(f"{src}\n")
            tgt_out.write("\n")
            origin_out.write(f"{SPLIT}\t{number}\n")
    return pairs


def _held_out_files(folders, langs):
    splits = [find_split(folder, split, langs) for folder in folders for split in HELD_OUT]
    return [path for paths in splits if paths for path in paths]


def _check_options(langs, lines, workers):
    if langs[0] == langs[1]:
        raise ValueError(f"--source-lang and --target-lang are both {langs[0]}")
    for name, value in (("--lines", lines), ("--workers", workers)):
        if value is not None and value < 1:
            raise ValueError(f"{name} is a number above 0, not {value}")


def main():
    command.run(_main, PROG)


def _main(argv=None):
    parser = command.parser(__doc__, f"python -m {PROG}")
    required = {"required": True, "default": argparse.SUPPRESS}
    parser.add_argument(
        "--in", dest="raw", metavar="DIR", help="raw folder with monolingual.SRC", **required
    )
    parser.add_argument(
        "--text", metavar="DIR", help="clean text folder of the domain", **required
    )
    parser.add_argument("--source-lang", metavar="SRC", help="for example de", **required)
    parser.add_argument("--target-lang", metavar="TGT", help="for example en", **required)
    parser.add_argument("--out", metavar="DIR", help="text folder to write", **required)
    add_cleaning_flags(parser)
    args = parser.parse_args(argv, argparse.Namespace(**unset_cleaning_flags()))
    ledger, seconds = add_monolingual(
        args.raw, args.text, (args.source_lang, args.target_lang), args.out,
        steps=asked_steps(args), step_files=args.steps,
        held_out=args.held_out, near=near_settings(args), lines=args.lines, workers=args.workers,
    )  # fmt: skip
    print(
        f"{table(ledger, seconds)}\n{args.out}: {ledger['pairs_of_domain']:,} pairs of the domain "
        f"and, without translation, {summary(ledger)}",
        file=sys.stderr,
    )


if __name__ == "__main__":
    main()
