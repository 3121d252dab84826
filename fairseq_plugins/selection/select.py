"""Choose what the student learns: candidates in, a text folder and a ledger of every line out.

Each line goes through the steps in the order given (--list-steps tells them all). A choosing
step ranks the candidates of a line and keeps the best; before it, filters judge each candidate,
after it the chosen ones. A line that loses its last candidate is rejected: dropped, or given
its reference back (--rejected). Without a choosing step the first candidate is taken before all
else. A pair without text on a side is never written. Lines that dad-generate dropped, as
CANDIDATES' ledger tells, are rejected first.

OUT is a text folder:

  train.SRC, train.TGT    the pairs, in the order of the source
  train.lines             for each pair its line number in the source, from 1, a tab, and what
                          its target is: distilled or reference
  ledger.json             for each step lines that came, went on and were rejected, with shares of
                          all lines and examples; for choosing steps how many lines changed and
                          what was gained on average
  manifest.json           what made it

Mixing: every pair that was selected (fallen-back ones among them) is written --mix distilled=W
times, and every line's reference --mix references=W times; of a fraction, a sample is taken.
--tag puts a word before the source, <distilled> or <reference>, by what the target is, so that
the student can tell them apart; give it the same word when it translates.

Examples:
  dad-select --source train.de --candidates train.en.nbest --references ref.en \\
      --source-lang de --target-lang en --step best-of-n:metric=chrf --step copy --out selected
  dad-select --source train.de --candidates train.en --source-lang de --target-lang en \\
      --step length-ratio:max=3 --step repetition --step score-percentile:reject=10 --out selected
"""

import argparse
import itertools
import shutil
import sys
import time
from array import array
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data_prep.command import bar_settings, parser, run
from data_prep.files import write_whole, write_whole_folder
from data_prep.manifest import write_json, write_manifest
from data_prep.named_steps import read_steps
from data_prep.processes import in_processes, usable_cores
from data_prep.spool import Spool
from fairseq_plugins.generation.models import add_checkpoint_flags
from fairseq_plugins.generation.nbest import is_nbest
from fairseq_plugins.selection.ledger import Tally, make_ledger, table
from fairseq_plugins.selection.mixing import (
    ORIGINS,
    Copies,
    check_mix,
    check_tags,
    parse_mix,
    parse_tags,
)
from fairseq_plugins.selection.records import decode_ledger, dropped_in_decoding, read_records
from fairseq_plugins.selection.scores import signature
from fairseq_plugins.selection.steps import (
    Choice,
    Context,
    Empty,
    First,
    Measured,
    Step,
    explain_steps,
    parse,
    run_steps,
)

PROG = "dad-select"
BATCH_CANDIDATES = 4096  # in a batch, so that memory does not grow with the corpus
BATCHES_FOR_A_PROCESS = 32  # fewer are done before another process has started
REJECTED = ("drop", "reference")
PRELOAD = ["fairseq_plugins.selection.steps"]  # imports torch


def select(
    source, candidates, out, langs, *, steps=(), references=None, rejected="drop", mix=None,
    tags=None, seed=1, workers=None, overwrite=False, trust=False, allow_unknown_vocabulary=False,
    step_files=(),
):  # fmt: skip
    """Write the text folder ``out`` and return its ledger, a dictionary; see the module's help.

    Args:
        source: text, one sentence a line, plain, ``.gz`` or ``.zst``; so are the others.
        candidates: n-best file, or text with one translation a line.
        out: folder to make.
        langs: source and target language.
        steps: in order; each a ``Step`` or text such as "mbr:metric=bleu".
        references: text, where there is one.
        rejected: "drop" a rejected line, or take its "reference".
        mix: {"distilled": weight, "references": weight}; 1 and 0 where left out.
        tags: {"distilled": word, "reference": word} put before the source; none by default.
        seed: of the samples that weights with a fraction take.
        workers: processes; None: one for each usable core. The result is the same.
        overwrite: replace an ``out`` that exists.
        trust, allow_unknown_vocabulary: opt-ins for the checkpoint of a reverse model.
        step_files: files that the steps were read from, for the manifest.

    Raises:
        FileNotFoundError, FileExistsError, ValueError: see the message.
    """
    started = time.monotonic()
    out = Path(out)
    steps = [step if isinstance(step, Step) else parse(step) for step in steps]
    weights = check_mix({"distilled": 1.0, "references": 0.0, **(mix or {})})
    tags = check_tags(dict(tags or {}))
    _check_wishes(langs, steps, references, rejected, weights, workers)
    if out.exists() and not overwrite:
        raise FileExistsError(f"{out} exists; pass --overwrite to replace it, or name another")
    scored = is_nbest(candidates)
    _check_scores(steps, candidates, scored)
    if scored and not any(isinstance(step, Choice) for step in steps):
        steps = [First(), *steps]
    workers = workers or usable_cores()
    with write_whole_folder(out, replace=overwrite) as part:
        scratch = part / "scratch"
        scratch.mkdir()
        context = Context(tuple(langs), scratch, workers, trust, allow_unknown_vocabulary)
        for step in steps:
            step.check(context)
        read = partial(read_records, source, candidates, references)
        lines, width, with_reference = _survey(read, source)
        dropped, tallies = _dropped(candidates, lines)
        tallies += [Tally(str(step), notes=_notes(step, context)) for step in steps]
        tallies.append(Tally("no empty side (checked at the end)"))
        batch_lines = max(1, BATCH_CANDIDATES // width)
        batches = -(-lines // batch_lines)
        processes = max(1, min(workers, batches // BATCHES_FOR_A_PROCESS))
        with in_processes(processes, PRELOAD) as apply:
            stream = _batches(read(), batch_lines)
            if dropped is not None:
                stream = _without(stream, dropped, tallies[0])
            of_steps = tallies[-1 - len(steps) :]
            stream = _through(stream, [*steps, Empty()], of_steps, context, apply, lines)
            stream, population = _count_pairs(stream, rejected, weights["distilled"], scratch)
            copies = {
                "distilled": Copies(weights["distilled"], population, f"{seed} distilled"),
                "references": Copies(weights["references"], with_reference, f"{seed} references"),
            }
            pairs, outcome = _write(part, stream, langs, rejected, copies, tags, lines)
        ledger = make_ledger(lines, tallies, outcome, pairs)
        if not sum(pairs.values()):
            raise ValueError(
                f"no pair is left of the {lines:,} lines of {source}; ease the steps or take "
                f"--rejected reference:\n{table(ledger)}"
            )
        shutil.rmtree(scratch)
        write_json(part / "ledger.json", ledger)
        inputs = [source, candidates, *step_files]
        inputs += [file for step in steps for file in step.inputs()]
        inputs += [references] if references is not None else []
        inputs += [decode_ledger(candidates)] if dropped is not None else []
        write_manifest(
            part,
            settings={
                "source_lang": langs[0],
                "target_lang": langs[1],
                "steps": [str(step) for step in steps],
                "rejected": rejected,
                "mix": weights,
                "tags": tags,
                "workers": workers,
            },
            inputs=inputs,
            counts={"lines": lines, "kept": ledger["kept"], **outcome, "pairs": pairs},
            seconds=time.monotonic() - started,
            seed=seed,
        )
    return ledger


# -- what is asked for ---------------------------------------------------------------------


def _check_wishes(langs, steps, references, rejected, weights, workers):
    if langs[0] == langs[1]:
        raise ValueError(f"--source-lang and --target-lang are both {langs[0]}")
    if rejected not in REJECTED:
        raise ValueError(f"--rejected is one of {', '.join(REJECTED)}, not {rejected}")
    if workers is not None and workers < 1:
        raise ValueError(f"--workers is 1 or more, not {workers}")
    if references is None:
        wishes = [f"--step {step.name}" for step in steps if step.needs_references]
        wishes += ["--rejected reference"] if rejected == "reference" else []
        wishes += ["--mix references"] if weights["references"] else []
        if wishes:
            raise ValueError(f"{wishes[0]} needs --references FILE, one for each line of --source")


def _check_scores(steps, candidates, scored):
    for step in steps:
        if step.needs_scores and not scored:
            raise ValueError(
                f"--step {step.name} needs the teacher's scores, and {candidates} is plain text; "
                f"decode with dad-generate --n-best N and name the .nbest file"
            )


def _survey(read, source):
    """(lines, most candidates of a line, lines whose reference can be learnt from).

    Everything is read once before the work begins, so that a file that ends early is
    noticed now and not after hours.
    """
    lines = with_reference = 0
    width = 1
    bar = {"unit": " sentences", "unit_scale": True, **bar_settings()}
    for record in tqdm(read(), desc="checking", **bar):
        lines += 1
        width = max(width, len(record.candidates))
        with_reference += _has_reference(record)
    if not lines:
        raise ValueError(f"{source} is empty; there is nothing to select")
    return lines, width, with_reference


def _dropped(candidates, lines):
    """(line numbers that dad-generate dropped or None, tally of them in a list)."""
    path = decode_ledger(candidates)
    if not path.exists():
        return None, []
    dropped = dropped_in_decoding(path)
    if dropped and max(dropped) > lines:
        raise ValueError(
            f"{path} tells of line {max(dropped):,}, but there are {lines:,} lines; it belongs to "
            f"another file, move it away"
        )
    return dropped, [Tally("dropped in decoding")]


def _notes(step, context):
    if not isinstance(step, Choice) or isinstance(step, First):
        return {}
    metric = getattr(step, "metric", None)
    return {"ranked_by": f"{metric}|{signature(metric, context.tgt_lang)}" if metric
            else "log-probability"}  # fmt: skip


# -- lines through steps -------------------------------------------------------------------
# All lines stay in the stream, in order; those that are rejected have no candidates.


def _batches(records, size):
    while batch := list(itertools.islice(records, size)):
        yield batch


def _without(batches, dropped, tally):
    for batch in batches:
        yield [
            tally.judge(
                record, ["dropped" if record.number in dropped else None] * len(record.candidates)
            )
            for record in batch
        ]


def _through(batches, steps, tallies, context, apply, lines):
    """The batches after all steps; their tallies are complete when the last one has come."""
    waiting = []  # steps that can be done together
    for step, tally in zip(steps, tallies, strict=True):
        if isinstance(step, Measured):
            batches = _local(batches, waiting, context, apply)
            waiting = []
            batches = _measured(batches, step, tally, context, lines)
        else:
            waiting.append((step, tally))
    return _local(batches, waiting, context, apply)


def _local(batches, steps_and_tallies, context, apply):
    """Batches after steps that need to see one line at a time."""
    if not steps_and_tallies:
        yield from batches
        return
    steps, tallies = zip(*steps_and_tallies, strict=True)
    function = partial(run_steps, steps, context)
    if not any(step.costly for step in steps):
        apply = map
    for batch, counted in apply(function, batches):
        for tally, more in zip(tallies, counted, strict=True):
            tally.add(more)
        yield batch


def _measured(batches, step, tally, context, lines):
    """Batches after a step that measures all lines before it judges the first."""
    values = array("d")
    spool = Spool(context.folder)
    with step.measuring(context) as measure:
        for batch in _counted(batches, lines, f"measuring {step.name}"):
            found = measure(batch)
            for row in found:
                values.extend(row)
            spool.write((batch, found))
    settled = step.settle(np.frombuffer(values, dtype=np.float64))
    del values
    tally.notes.update(step.account(settled))
    for batch, found in spool.read():
        yield [
            tally.judge(
                record,
                [
                    step.verdict(record, candidate.text, value, settled)
                    for candidate, value in zip(record.candidates, row, strict=True)
                ],
            )
            if record.candidates
            else record
            for record, row in zip(batch, found, strict=True)
        ]


# -- the pairs -----------------------------------------------------------------------------


def _has_reference(record):
    return bool(record.reference and record.reference.strip() and record.source.strip())


def _selected(record, rejected):
    """[(target, origin)] of a line: what was chosen, or what stands in for it."""
    if record.candidates:
        return [(candidate.text, "distilled") for candidate in record.candidates]
    if rejected == "reference" and _has_reference(record):
        return [(record.reference, "reference")]
    return []


def _count_pairs(batches, rejected, weight, folder):
    """(the same batches, number of pairs in them); counted only if a sample is to be taken."""
    if weight == int(weight):
        return batches, 0
    population = 0
    spool = Spool(folder)
    for batch in batches:
        population += sum(len(_selected(record, rejected)) for record in batch)
        spool.write(batch)
    return spool.read(), population


def _write(part, batches, langs, rejected, copies, tags, lines):
    """Write the pairs; ({origin: pairs}, {what became of rejected lines})."""
    pairs = dict.fromkeys(ORIGINS, 0)
    outcome = {"dropped": 0, "reference": 0}
    src_lang, tgt_lang = langs
    with write_whole(part / f"train.{src_lang}") as src_out, \
            write_whole(part / f"train.{tgt_lang}") as tgt_out, \
            write_whole(part / "train.lines") as lines_out:  # fmt: skip
        for batch in _counted(batches, lines, "selecting"):
            for record in batch:
                selected = _selected(record, rejected)
                if not record.candidates:
                    outcome["reference" if selected else "dropped"] += 1
                wanted = [(*pair, copies["distilled"].next()) for pair in selected]
                if _has_reference(record):
                    wanted.append((record.reference, "reference", copies["references"].next()))
                for target, origin, times in wanted:
                    tag = f"{tags[origin]} " if origin in tags else ""
                    src_out.write(f"{tag}{record.source}\n" * times)
                    tgt_out.write(f"{target}\n" * times)
                    lines_out.write(f"{record.number}\t{origin}\n" * times)
                    pairs[origin] += times
    return pairs, outcome


# -- the command ---------------------------------------------------------------------------


def _counted(batches, lines, what):
    """The batches, shown by a bar that opens with the first: before, another one may run."""
    bar = None
    for batch in batches:
        bar = bar or tqdm(
            total=lines, desc=what, unit=" sentences", unit_scale=True, **bar_settings()
        )
        yield batch
        bar.update(len(batch))
    if bar is not None:
        bar.close()


def main():
    run(_main, PROG)


def _main():
    args = _arguments()
    if args.list_steps:
        print(explain_steps())
        return
    steps = [*itertools.chain.from_iterable(map(read_steps, args.steps)), *args.step]
    if args.check_steps:
        for step in steps:
            step if isinstance(step, Step) else parse(step)
        return
    ledger = select(
        args.source, args.candidates, args.out, (args.source_lang, args.target_lang),
        steps=steps, step_files=args.steps, references=args.references, rejected=args.rejected,
        mix=parse_mix(args.mix), tags=None if args.tag is None else parse_tags(args.tag),
        seed=args.seed, workers=args.workers, overwrite=args.overwrite,
        trust=args.trust_checkpoint, allow_unknown_vocabulary=args.allow_unknown_vocabulary,
    )  # fmt: skip
    print(f"{table(ledger)}\n{args.out}: {ledger['kept']:,} of {ledger['read']:,} lines kept",
          file=sys.stderr)  # fmt: skip


def _arguments():
    words = parser(f"{__doc__}\n{explain_steps()}", PROG)
    listing = {"--list-steps", "--check-steps"} & {*sys.argv[1:]}
    required = {"required": not listing, "default": argparse.SUPPRESS}
    words.add_argument(
        "--source", metavar="FILE", help="UTF-8 text, plain, .gz or .zst", **required
    )
    words.add_argument(
        "--candidates", metavar="FILE",
        help="n-best file of dad-generate, or text with one translation a line", **required,
    )  # fmt: skip
    words.add_argument("--source-lang", metavar="SRC", help="for example de", **required)
    words.add_argument("--target-lang", metavar="TGT", help="for example en", **required)
    words.add_argument("--out", metavar="DIR", help="text folder to make", **required)
    words.add_argument("--references", metavar="FILE", help="text, one line for each of --source")
    words.add_argument(
        "--step", action="append", default=[], metavar="NAME[:OPTION=VALUE,...]",
        help="a step; may be repeated, the order counts",
    )  # fmt: skip
    words.add_argument(
        "--steps", action="append", default=[], metavar="FILE",
        help="steps from a file, one a line, # begins a remark; they come before --step",
    )  # fmt: skip
    words.add_argument("--list-steps", action="store_true", help="tell all steps and their options")
    words.add_argument("--check-steps", action="store_true",
                       help="see whether the steps are right, and do no more")  # fmt: skip
    words.add_argument("--rejected", choices=REJECTED, default="drop",
                       help="drop rejected lines, or fall back to the reference")  # fmt: skip
    words.add_argument(
        "--mix", action="append", default=[], metavar="SET=WEIGHT",
        help="references=W adds the references, W times; distilled=W (1 unless given) is for what "
        "was selected; may be repeated",
    )  # fmt: skip
    words.add_argument(
        "--tag", nargs="*", metavar="ORIGIN[=WORD]",
        help="tag sources by what their target is; unset words: <distilled> and <reference>; "
        "'--tag reference' tags only those",
    )  # fmt: skip
    words.add_argument("--seed", type=int, default=1, help="chooses the samples of --mix")
    words.add_argument("--workers", type=int, metavar="N",
                       help="processes; unset: one for each usable core")  # fmt: skip
    words.add_argument("--overwrite", action="store_true", help="replace an existing folder")
    add_checkpoint_flags(words)
    return words.parse_args()


if __name__ == "__main__":
    main()
