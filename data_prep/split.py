"""Take a dev and a test set out of a corpus that lacks them.

Reads a raw folder and writes another, with dev and test taken from train:

  train.SRC, train.TGT    what is left, as it was
  dev.*, test.*           pairs that every cleaning step lets pass, repaired; in the corpus's order
  train.lines, ...        for each line of each, its line number in the input
  left-out.tsv            line, why: lines that are in none of them
  split.tsv               pairs of each, and why pairs were left out; they sum to the input
  manifest.json           what made it

A dev or test set that is there is kept as it is. train.origin and train.documents follow the
lines; licences.tsv and references.bib are copied.

Whole documents are drawn, at random: neighbouring lines share names, terms and style, so that a
test of single lines among their neighbours measures memory. Where train.documents names the
document of each line, lines of that name are a document. Where there is no name, blocks of --block
neighbouring lines are the poor man's documents.

Documents are drawn until a set has as many lines as wanted; the last one is whole, so there may be
some more. A document longer than the set wanted is never drawn: it would be the whole set.
Of the documents drawn, some lines are left out of everything, not given back to train:

  STEP          a step of data_prep.clean drops the pair
  too short     a side has fewer than --min-words words: "Yes." measures nothing. A character
                of a script without spaces counts as a word
  repeated      the same pair stands in the set already, case and punctuation ignored
  other set     a line of dev that test knows, exactly or nearly, see data_prep.overlap

Lines of train that repeat a held-out line stay; data_prep.clean removes and counts them.

Example:
  python -m data_prep.split --in downloads/subtitles --source-lang de --target-lang en \\
      --out downloads/subtitles.split
"""

import argparse
import contextlib
import hashlib
import heapq
import itertools
import shutil
import sys
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from data_prep import command
from data_prep.cleaning.blocks import find_shards, read_blocks
from data_prep.cleaning.engine import complete
from data_prep.cleaning.steps import Context, Corpus, Measured, Repair, default_steps, parse
from data_prep.files import PACKED, find_text, read_lines, write_whole, write_whole_folder
from data_prep.manifest import write_manifest
from data_prep.named_steps import read_steps
from data_prep.overlap import HELD_OUT, HeldOut, find_split, match_key
from data_prep.words import words_of

PROG = "data_prep.split"
PAIRS = 2000  # of a set, where the corpus is large
SHARE = 0.05  # of the corpus, where it is not
FEW = 300  # pairs: the score of a smaller set says little
BLOCK = 20
MIN_WORDS = 4
SPARE = 2  # times the lines wanted are looked at, since not all are fit
FOLLOWING = ("origin", "documents")  # files that say something of each line
COPIED = ("licences.tsv", "references.bib")
LEFT_OUT = "left-out.tsv"
TABLE = "split.tsv"


class Pair(NamedTuple):
    """A pair as it stands in the corpus."""

    number: int  # from 1
    src: bytes
    tgt: bytes


# -- documents -------------------------------------------------------------------------------


def document_names(path, block):
    """Yield for each line, endlessly, the name of its document.

    Args:
        path: of train.documents; None: there is none.
        block: lines of a document where no name is known.
    """
    blocks = (f"\n{number // block}" for number in itertools.count())  # no name has a line feed
    if path is None:
        yield from blocks
    for name, unnamed in zip(read_lines(path), blocks):  # noqa: B905
        yield name or unnamed


def rank(name, seed):
    """The place of a document in the order of drawing, at random."""
    digest = hashlib.blake2b(name.encode(), digest_size=8, key=str(seed).encode()).digest()
    return int.from_bytes(digest, "big")


class Drawn:
    """The first documents in the order of drawing, as many as hold the lines wanted.

    Documents come in the order of the corpus and may be interleaved. Memory is that of the lines
    wanted: one that is too late in the order to be drawn is forgotten, and never comes back, since
    the bar only falls.
    """

    def __init__(self, wanted, longest):
        """Start with nothing.

        Args:
            wanted: lines to hold.
            longest: lines of a document that may be drawn.
        """
        self.documents = {}  # rank: pairs; None for a document that is too long
        self.last = None  # rank below which documents are drawn; None: any
        self._wanted = wanted
        self._longest = longest
        self._lines = 0
        self._latest = []  # heap of negative ranks

    def takes(self, place):
        return self.last is None or place < self.last

    def add(self, place, pairs):
        """Add pairs to the document of this rank."""
        if place not in self.documents:
            self.documents[place] = []
            heapq.heappush(self._latest, -place)
        document = self.documents[place]
        if document is None:
            return
        document += pairs
        self._lines += len(pairs)
        if len(document) > self._longest:
            self.documents[place] = None
            self._lines -= len(document)
        while self._lines - len(self.documents[-self._latest[0]] or ()) >= self._wanted:
            self.last = -heapq.heappop(self._latest)
            self._lines -= len(self.documents.pop(self.last) or ())


def draw(shards, documents, block, seed, wanted, longest):
    """(number of pairs in the corpus, ``Drawn``).

    Raises:
        ValueError: files are not parallel, or train.documents is shorter or longer than train.
    """
    drawn = Drawn(wanted, longest)
    names = document_names(documents, block)
    pairs = 0
    with tqdm(desc="drawing", unit=" pairs", unit_scale=True, **command.bar_settings()) as bar:
        for text in read_blocks(shards, sys.maxsize):
            sides = None
            for name, lines in itertools.groupby(itertools.islice(names, text.lines)):
                first = pairs
                pairs += sum(1 for _ in lines)
                place = rank(name, seed)
                if drawn.takes(place):
                    sides = sides or [side.split(b"\n") for side in (text.src, text.tgt)]
                    begin, end = first + 1 - text.first, pairs + 1 - text.first
                    numbers = range(first + 1, pairs + 1)
                    texts = (side[begin:end] for side in sides)
                    drawn.add(place, list(map(Pair, numbers, *texts)))
            if pairs != text.first + text.lines - 1:
                raise ValueError(
                    f"{documents} has only {pairs:,} lines; it needs one for each line of "
                    f"{shards[0][0]}"
                )
            bar.update(text.lines)
    if documents and next(names, None) is not None:
        raise ValueError(f"{documents} has more lines than {shards[0][0]}, which has {pairs:,}")
    return pairs, drawn


# -- what is fit -----------------------------------------------------------------------------


class Judged(NamedTuple):
    """A pair after the cleaning steps."""

    number: int
    src: str
    tgt: str
    why: str | None  # why it is not fit


def judge(pairs, steps, context, min_words):
    """The ``Judged`` of each ``Pair``.

    Steps that judge a pair by the whole corpus are left out. What others measure of the corpus is
    measured of these pairs.
    """
    whys = {}
    left = []
    for pair in pairs:
        try:
            left.append((pair.number, pair.src.decode("utf-8"), pair.tgt.decode("utf-8")))
        except UnicodeDecodeError:
            whys[pair.number] = "not UTF-8"
            left.append((pair.number, "", ""))
    numbers, *sides = map(list, zip(*left, strict=True))
    texts = dict(zip(numbers, zip(*sides, strict=True), strict=True))
    for step in steps:
        going = [number for number in numbers if number not in whys]
        if isinstance(step, Corpus) or not going:
            continue
        src, tgt = map(list, zip(*(texts[number] for number in going), strict=True))
        if isinstance(step, Repair):
            sides = (step.repair(side, lang) for side, lang in zip((src, tgt), context.langs,
                                                                   strict=True))  # fmt: skip
            texts.update(zip(going, zip(*sides, strict=True), strict=True))
            continue
        settled = []
        if isinstance(step, Measured):
            settled = [step.settle(step.measure(src, tgt))]
        for number, why in zip(going, step.why(src, tgt, context, *settled), strict=True):
            if why:
                whys[number] = step.name
    for number, pair in texts.items():
        if number not in whys and min(len(words_of(side)) for side in pair) < min_words:
            whys[number] = "too short"
    return [Judged(number, *texts[number], whys.get(number)) for number in numbers]


class Filled(NamedTuple):
    """A set, and what became of the documents that were looked at for it."""

    pairs: list  # of Judged, in the order of the corpus
    left_out: dict  # {number: why} of the other lines of the documents taken
    rest: list  # documents not taken that another set may take
    passed_over: Counter  # why lines of documents not taken were not fit


def fill(documents, wanted, other):
    """The set that is ``Filled`` with whole documents until it has as many pairs as wanted.

    A document without a fit pair goes back to train.

    Args:
        documents: lists of ``Judged``, in the order of drawing.
        wanted: pairs.
        other: ``HeldOut`` lines of the other set.
    """
    filled = Filled([], {}, [], Counter())
    seen = set()
    for document in documents:
        if len(filled.pairs) >= wanted or len(document) > wanted:
            filled.rest.append(document)
            continue
        fit, unfit = [], {}
        leaks = other.leaks([one.src for one in document], [one.tgt for one in document])
        for one, leak in zip(document, leaks, strict=True):
            key = (match_key(one.src), match_key(one.tgt))
            why = one.why or (leak and "other set") or ("repeated" if key in seen else None)
            if why:
                unfit[one.number] = why
            else:
                fit.append(one)
                seen.add(key)
        filled.pairs.extend(fit)
        if fit:
            filled.left_out.update(unfit)
        else:
            filled.passed_over.update(unfit.values())
    filled.pairs.sort()
    return filled


# -- the whole -------------------------------------------------------------------------------


def split(folder, langs, out, *, dev=None, test=None, seed=1, block=None, min_words=MIN_WORDS,
          steps=None):  # fmt: skip
    """Write the raw folder ``out``; the counts: {(part, why): pairs}.

    Args:
        folder: raw folder without dev, without test, or without both.
        langs: source and target language.
        dev, test: pairs wanted; None: ``PAIRS``, but no more than ``SHARE`` of the corpus.
        seed: draws other documents.
        block: lines of a document where none is known; a number: also where they are known.
        min_words: words of the shortest side of a held-out pair.
        steps: descriptions of cleaning steps; None: ``default_steps`` of the languages.

    Raises:
        FileNotFoundError: there is no train.
        ValueError: dev and test are there, an option is out of range, files are not parallel, or
            the corpus is too small for what is wanted.
    """
    started = time.monotonic()
    _check_options(dev=dev, test=test, block=block, min_words=min_words)
    folder, out = Path(folder), Path(out)
    shards = find_shards(folder, "train", langs)
    following = {name: path for name in FOLLOWING if (path := _find_side(folder, name))}
    there = [name for name in HELD_OUT if find_split(folder, name, langs)]
    if len(there) == len(HELD_OUT):
        raise ValueError(f"{folder} has dev and test; there is nothing to split off")
    asked = {name: pairs for name, pairs in (("test", test), ("dev", dev)) if name not in there}
    context = Context(tuple(langs))
    steps = complete(map(parse, default_steps(*langs) if steps is None else steps))
    for step in steps:
        step.check(context)
    known = HeldOut.read([folder], langs, splits=there) if there else HeldOut([])
    documents = None if block else following.get("documents")
    with write_whole_folder(out) as part:
        most = {name: pairs or PAIRS for name, pairs in asked.items()}
        spare = SPARE
        while True:
            pairs, drawn = draw(
                shards, documents, block or BLOCK, seed,
                wanted=spare * sum(most.values()) + max(most.values()), longest=max(most.values()),
            )  # fmt: skip
            wanted = _sizes(asked, pairs, shards[0][0])
            chosen = _choose(drawn, wanted, known, steps, context, min_words)
            short = [name for name, size in wanted.items() if len(chosen[name].pairs) < size]
            if not short or drawn.last is None:
                break
            spare *= 4
        for name in short:
            found, left_out, _, passed_over = chosen[name]
            whys = _reasons(passed_over + Counter(left_out.values()))
            raise ValueError(
                f"{shards[0][0]}: only {len(found):,} of {wanted[name]:,} pairs for {name} are fit "
                f"({whys or 'the documents are too long'}); wish for fewer with --{name}, allow "
                "shorter ones with --min-words, or cut documents with --block"
            )
        sets = {name: filled.pairs for name, filled in chosen.items()}
        left_out = {number: why for filled in chosen.values()
                    for number, why in filled.left_out.items()}  # fmt: skip
        suffix = shards[0][0].suffix if shards[0][0].suffix in PACKED else ""
        fates = {one.number: name for name, found in sets.items() for one in found}
        _write_sets(part, sets, langs, suffix)
        _write_train(part, shards, langs, suffix, {*fates, *left_out}, pairs)
        for name, path in following.items():
            _write_following(part, name, path, suffix, fates, left_out, pairs)
        for path in folder.iterdir():
            if path.name in COPIED or path.name.startswith(tuple(f"{name}." for name in there)):
                shutil.copyfile(path, part / path.name)
        counts = {"train": pairs - len(fates) - len(left_out)}
        counts |= {name: len(sets[name]) for name in HELD_OUT if name in sets}
        _write_account(part, pairs, counts, left_out)
        write_manifest(
            part,
            settings={
                "source_lang": langs[0], "target_lang": langs[1], "in": str(folder), **wanted,
                "block": block, "min_words": min_words, "steps": [str(step) for step in steps],
            },
            inputs=[*itertools.chain(*shards), *following.values()],
            counts={"pairs": pairs, **counts, "left_out": len(left_out)},
            seconds=time.monotonic() - started,
            seed=seed,
        )  # fmt: skip
    return pairs, counts, left_out


def _check_options(**values):
    for name, value in values.items():
        if value is not None and value < 1:
            raise ValueError(f"--{name.replace('_', '-')} is a number above 0, not {value}")


def _find_side(folder, name):
    try:
        return find_text(folder, "train", name)
    except FileNotFoundError:
        return None


def _sizes(asked, pairs, path):
    """{set: pairs wanted} of a corpus of so many pairs."""
    wanted = {
        name: size or max(1, min(PAIRS, int(pairs * SHARE))) for name, size in asked.items()
    }
    if sum(wanted.values()) > pairs / 2:
        flags = " and ".join(f"--{name} {size}" for name, size in wanted.items())
        raise ValueError(
            f"{path} has {pairs:,} pairs; {flags} would leave less than half of them to train on"
        )
    return wanted


def _choose(drawn, wanted, known, steps, context, min_words):
    """{set: what it is ``Filled`` with}."""
    documents = [pairs for _, pairs in sorted(drawn.documents.items()) if pairs]
    judged = iter(judge(list(itertools.chain(*documents)), steps, context, min_words))
    documents = [list(itertools.islice(judged, len(pairs))) for pairs in documents]
    chosen = {}
    for name, size in wanted.items():
        chosen[name] = fill(documents, size, known)
        documents = chosen[name].rest
        known = HeldOut(
            (side, "", "", text)
            for one in chosen[name].pairs for side, text in enumerate((one.src, one.tgt))
        )  # fmt: skip
    return chosen


def _reasons(whys):
    return ", ".join(f"{count:,} {why}" for why, count in whys.most_common())


def _write_sets(part, sets, langs, suffix):
    for name, pairs in sets.items():
        for end, field in ((langs[0], "src"), (langs[1], "tgt"), ("lines", "number")):
            with write_whole(part / f"{name}.{end}{suffix}") as out:
                out.writelines(f"{getattr(one, field)}\n" for one in pairs)


def _write_train(part, shards, langs, suffix, gone, pairs):
    """Write train without the lines whose numbers are ``gone``."""
    names = [f"train.{end}{suffix}" for end in (*langs, "lines")]
    with write_whole(part / names[0]) as src_out, write_whole(part / names[1]) as tgt_out, \
            write_whole(part / names[2]) as lines_out, \
            tqdm(desc="writing", unit=" pairs", unit_scale=True, total=pairs,
                 **command.bar_settings()) as bar:  # fmt: skip
        for text in read_blocks(shards, sys.maxsize):
            numbers = range(text.first, text.first + text.lines)
            stays = [number not in gone for number in numbers]
            for side, out in ((text.src, src_out), (text.tgt, tgt_out)):
                if not all(stays):
                    kept = itertools.compress(side.split(b"\n"), stays)
                    side = b"".join(line + b"\n" for line in kept)
                out.buffer.write(side)
            lines_out.writelines(f"{number}\n" for number in itertools.compress(numbers, stays))
            bar.update(text.lines)


def _write_following(part, name, path, suffix, fates, left_out, pairs):
    """Write what a file says of each line beside the line, wherever that has gone."""
    number = 0
    sets = ("train", *dict.fromkeys(fates.values()))
    with contextlib.ExitStack() as stack:
        outs = {
            split: stack.enter_context(write_whole(part / f"{split}.{name}{suffix}"))
            for split in sets
        }
        for number, line in enumerate(read_lines(path), start=1):
            if number not in left_out:
                outs[fates.get(number, "train")].write(f"{line}\n")
        if number != pairs:
            raise ValueError(f"{path} has {number:,} lines, train has {pairs:,} pairs")


def _write_account(part, pairs, counts, left_out):
    whys = Counter(left_out.values())
    rows = [(name, "", count) for name, count in counts.items()]
    rows += [("left out", why, whys[why]) for why in sorted(whys)]
    assert pairs == sum(count for *_, count in rows)
    with write_whole(part / TABLE) as out:
        out.writelines(
            "\t".join(map(str, row)) + "\n"
            for row in [("part", "why", "pairs"), *rows, ("all", "", pairs)]
        )
    with write_whole(part / LEFT_OUT) as out:
        out.write("line\twhy\n")
        out.writelines(f"{number}\t{why}\n" for number, why in sorted(left_out.items()))


def main():
    command.run(_main, PROG)


def _main(argv=None):
    parser = command.parser(__doc__, f"python -m {PROG}")
    required = {"required": True, "default": argparse.SUPPRESS}
    unset = {"type": int, "metavar": "N", "default": argparse.SUPPRESS}
    parser.add_argument("--in", dest="folder", metavar="DIR", help="folder with train", **required)
    parser.add_argument("--source-lang", metavar="SRC", help="for example de", **required)
    parser.add_argument("--target-lang", metavar="TGT", help="for example en", **required)
    parser.add_argument("--out", metavar="DIR", help="raw folder to write", **required)
    for name in HELD_OUT:
        parser.add_argument(
            f"--{name}", **unset,
            help=f"pairs of {name}; by default {PAIRS}, or {SHARE:.0%}% of a small corpus",
        )  # fmt: skip
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="draws other documents")
    parser.add_argument(
        "--block", **unset,
        help=f"take blocks of N lines for documents, even where these are known; {BLOCK} by "
             "default where they are not",
    )  # fmt: skip
    parser.add_argument("--min-words", type=int, default=MIN_WORDS, metavar="N",
                        help="words of a held-out line, on either side")  # fmt: skip
    parser.add_argument(
        "--step", action="append", default=[], metavar="NAME[:OPTION=VALUE,...]",
        help="a step that held-out pairs must pass, instead of the default ones, as in "
             "data_prep.clean",
    )  # fmt: skip
    parser.add_argument("--steps", action="append", default=[], metavar="FILE",
                        help="such steps from a file")  # fmt: skip
    args = vars(parser.parse_args(argv))
    steps = [*itertools.chain(*map(read_steps, args.pop("steps"))), *args.pop("step")]
    langs = (args.pop("source_lang"), args.pop("target_lang"))
    out = args["out"]
    pairs, counts, left_out = split(args.pop("folder"), langs, args.pop("out"),
                                    steps=steps or None, **args)  # fmt: skip
    kept = ", ".join(f"{name} {count:,}" for name, count in counts.items())
    whys = f" ({_reasons(Counter(left_out.values()))})" if left_out else ""
    print(f"{out}: {kept} of {pairs:,} pairs, {len(left_out):,} left out{whys}", file=sys.stderr)
    for name in HELD_OUT:
        if counts.get(name, FEW) < FEW:
            print(f"{out}: warning: {name} has only {counts[name]:,} pairs; differences of a few "
                  "BLEU on it are chance", file=sys.stderr)  # fmt: skip


if __name__ == "__main__":
    main()
