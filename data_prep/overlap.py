"""Check that no training line of any text folder occurs in a dev or test set of any of them.

Reads {train,dev,test}.SRC and .TGT (plain, .gz or .zst) of every folder, as far as they are there.
A training pair is a leak if its source or its target is, on the same side of a dev or test set:

  exactly   the same line, with case, spacing, punctuation and character width ignored
  nearly    a line with most words in common, in whatever order: those in both are at least
            --near-threshold of those in either. At 0.8 one word may be exchanged where there are
            9, or a number; one may be added or left out where there are 5. Each character of a
            script without spaces is a word. Lines of fewer than --near-words different words are
            compared exactly alone: what is near to "What can I do?" is seldom a leak

A model that has seen either would be scored for remembering. python -m data_prep.clean removes
and counts the same pairs.

Prints how many pairs leak, which held-out folder they are from, and a few with both texts. A pair
that leaks in several ways counts once, as the first of: source exactly, target exactly, source
nearly, target nearly; of several held-out lines the first counts, or the nearest.

Test lines that dev knows are a warning only: such sets are given, never altered here, and ordinary
ones share a "Thank you.".

Check folders of references. A teacher's output, too, may say "Thank you.".

With --out, a folder with overlap.json is left as proof when there is no leak.

Exit status: 0 no leak, 1 leaks or unreadable input.

Example:
  python -m data_prep.overlap --source-lang de --target-lang en \\
      corpora/general/text corpora/medical/text
"""

import argparse
import functools
import itertools
import sys
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from data_prep import command
from data_prep.files import find_text, one_line, read_bitext, write_whole_folder
from data_prep.manifest import write_json, write_manifest
from data_prep.near_duplicates import NearIndex, plain_words
from data_prep.processes import in_processes, usable_cores

PROG = "data_prep.overlap"
HELD_OUT = ("dev", "test")
NEAR_THRESHOLD = 0.8
NEAR_WORDS = 6  # a fifth of everyday lines of 5 words have a near one in a corpus by chance
NEAR_SIDES = ("either", "both")
EXAMPLES = 5
EXAMPLE_CHARACTERS = 100
BATCH = 5000  # pairs
BYTES_FOR_A_PROCESS = 1 << 22  # fewer are done before another process has started


def match_key(text):
    """What is left of a line when case, spacing, punctuation and character width are ignored.

    Only letters and digits remain. A line without any is itself; '' for an empty line,
    which callers take as matching nothing.
    """
    return _key(plain_words(text), text)


def _key(words, text):
    return "".join(words) or one_line(text)


def find_split(folder, split, langs):
    """Paths of both sides of a split, or None if neither is there.

    Raises:
        FileNotFoundError: only one side is there.
    """
    paths, faults = [], []
    for lang in langs:
        try:
            paths.append(find_text(folder, split, lang))
        except FileNotFoundError as error:
            faults.append(error)
    if len(faults) == len(langs):
        return None
    if faults:
        raise faults[0]
    return paths


# -- what is held out ------------------------------------------------------------------------


class Leak(NamedTuple):
    """The held-out line that a training pair repeats."""

    side: int  # 0: source, 1: target
    place: str  # "FILE:LINE"
    kind: str  # "exact" or "near"
    similarity: float  # Jaccard similarity of the words; 1.0 where it is exact
    text: str
    folder: str  # that the held-out line is from


class HeldOut:
    """Dev and test sets of some folders, and whether a training pair repeats any of their lines.

    It can be pickled; its size is that of these sets. A line that stands in several places is
    known by the first.
    """

    def __init__(self, lines, threshold=NEAR_THRESHOLD, words=NEAR_WORDS, sides="either"):
        """Hold out some lines.

        Args:
            lines: (side, folder, place, text) of each.
            threshold: lowest Jaccard similarity of near lines, above 0 to 1; None: exact ones
                alone.
            words: lines with fewer different words are compared exactly alone.
            sides: "either", or "both" if a pair is near only with both its sides. An exact line
                is a leak on either.

        Raises:
            ValueError: a setting is out of range.
        """
        _check_settings(threshold, words, sides)
        self._numbers = ({}, {})  # match key: number of the line
        self._lines = ([], [])  # folder, place, text
        self._all = {"either": any, "both": all}[sides]
        near = ([], [])
        for side, *line in lines:
            line_words = plain_words(line[-1])
            key = _key(line_words, line[-1])
            if key and key not in self._numbers[side]:
                self._numbers[side][key] = len(self._lines[side])
                self._lines[side].append(line)
                near[side].append(line_words)
        self._near = threshold and [NearIndex(lines, threshold, words) for lines in near]

    @classmethod
    def read(cls, folders, langs, threshold=NEAR_THRESHOLD, words=NEAR_WORDS, sides="either",
             splits=HELD_OUT):  # fmt: skip
        """Hold out the dev and test sets of some folders.

        Raises:
            FileNotFoundError: a folder has none of them.
            ValueError: a setting is out of range.
        """
        return cls(_held_out_lines(folders, langs, splits), threshold, words, sides)

    def leaks(self, src, tgt):
        """The ``Leak`` of each pair, or None.

        Args:
            src, tgt: two lists of lines, equally long.
        """
        return [self._leak(pair) for pair in zip(src, tgt, strict=True)]

    def _leak(self, pair):
        words = [plain_words(text) for text in pair]
        for side, text in enumerate(pair):
            number = self._numbers[side].get(_key(words[side], text))
            if number is not None:
                return self._make_leak(side, "exact", 1.0, number)
        if self._near:
            found = [index.nearest(line) for index, line in zip(self._near, words, strict=True)]
            if self._all(found):
                side = 0 if found[0] else 1
                return self._make_leak(side, "near", *found[side])
        return None

    def _make_leak(self, side, kind, similarity, number):
        folder, place, text = self._lines[side][number]
        return Leak(side, place, kind, similarity, text, folder)


def _held_out_lines(folders, langs, splits):
    for folder in folders:
        found = [find_split(folder, split, langs) for split in splits]
        if not any(found):
            names = " nor ".join(f"{split}.{langs[0]}" for split in splits)
            raise FileNotFoundError(f"{folder} has neither {names}")
        for paths in filter(None, found):
            for number, *pair in read_bitext(*paths):
                for side, text in enumerate(pair):
                    yield side, str(folder), f"{paths[side]}:{number}", text


def _check_settings(threshold, words, sides):
    if threshold is not None and not 0 < threshold <= 1:
        raise ValueError(f"--near-threshold is a share above 0, at most 1, not {threshold}")
    if words < 1:
        raise ValueError(f"--near-words is 1 or more, not {words}")
    if sides not in NEAR_SIDES:
        raise ValueError(f"--near-sides is {' or '.join(NEAR_SIDES)}, not {sides}")


# -- folders against each other --------------------------------------------------------------


class Found(NamedTuple):
    """A pair that leaks."""

    place: str  # "FILE:LINE"
    text: str
    leak: Leak

    def __str__(self):
        if self.leak.kind == "exact":
            what, texts = "is", [self.text]
        else:
            what, texts = f"is {self.leak.similarity:.2f} similar to", [self.text, self.leak.text]
        lines = [f"  {self.place} {what} {self.leak.place}:", *map(_shortened, texts)]
        return "\n      ".join(lines)


def _shortened(text):
    text = one_line(text)
    return text if len(text) <= EXAMPLE_CHARACTERS else f"{text[:EXAMPLE_CHARACTERS]}…"


class Tally:
    """How many pairs of a folder leak from where, and the first few of them."""

    def __init__(self, folder):
        self.folder = folder
        self.pairs = 0
        self.counts = Counter()  # of (held-out folder, kind)
        self.examples = []

    def add(self, pairs, found):
        self.pairs += pairs
        for one in found:
            self.counts[one.leak.folder, one.leak.kind] += 1
            if len(self.examples) < EXAMPLES:
                self.examples.append(one)

    def count(self, kind):
        return sum(count for (_, other), count in self.counts.items() if other == kind)

    def rows(self):
        """[(folder, held-out folder, exact leaks, near leaks)]."""
        folders = sorted({folder for folder, _ in self.counts})
        return [
            (self.folder, folder, self.counts[folder, "exact"], self.counts[folder, "near"])
            for folder in folders
        ]

    def show(self, heading):
        """Print a heading, in which {folder}, {total}, {exact} and {near} are filled, and examples.

        Where nothing leaks, nothing is printed.
        """
        total = self.counts.total()
        if not total:
            return
        print(heading.format(
            folder=self.folder, total=f"{total:,}",
            exact=f"{self.count('exact'):,}", near=f"{self.count('near'):,}",
        ))  # fmt: skip
        for one in self.examples:
            print(one)
        if total > len(self.examples):
            print(f"  and {total - len(self.examples):,} more")


def tally_leaks(texts, held_out, apply=map, title=None):
    """[``Tally``] of some folders.

    Args:
        texts: {folder: paths of both sides}.
        held_out: a ``HeldOut``.
        apply: from ``in_processes``.
        title: of the progress bar; None: there is none.
    """
    tallies = {folder: Tally(folder) for folder in texts}
    with tqdm(desc=title, unit=" pairs", unit_scale=True, disable=title is None,
              **command.bar_settings()) as progress:  # fmt: skip
        for folder, pairs, found in apply(functools.partial(_judge, held_out), _batches(texts)):
            tallies[folder].add(pairs, found)
            progress.update(pairs)
    return list(tallies.values())


def _batches(texts):
    for folder, paths in texts.items():
        pairs = read_bitext(*paths)
        while batch := list(itertools.islice(pairs, BATCH)):
            yield folder, paths, batch


def _judge(held_out, work):
    folder, paths, batch = work
    leaks = held_out.leaks([src for _, src, _ in batch], [tgt for _, _, tgt in batch])
    return folder, len(batch), [
        Found(f"{paths[leak.side]}:{number}", pair[leak.side], leak)
        for (number, *pair), leak in zip(batch, leaks, strict=True)
        if leak
    ]


def check(folders, langs, *, threshold=NEAR_THRESHOLD, words=NEAR_WORDS, sides="either",
          workers=None):  # fmt: skip
    """Print what the folders share; the report, a dictionary with the number of ``leaks``.

    Args:
        folders: text folders.
        langs: source and target language.
        threshold, words, sides: what is near, see ``HeldOut``.
        workers: processes; None: one for each usable core.

    Raises:
        FileNotFoundError: a folder holds no text of the pair, or no folder a training set, or
            none a dev or test set.
        ValueError: a setting is out of range, or files are not parallel or not UTF-8.
    """
    if workers is not None and workers < 1:
        raise ValueError(f"--workers is 1 or more, not {workers}")
    splits = {str(Path(folder)): _splits(folder, langs) for folder in folders}
    train, dev, test = (
        {folder: paths[split] for folder, paths in splits.items() if split in paths}
        for split in ("train", *HELD_OUT)
    )
    if not dev and not test:
        raise FileNotFoundError("none of the folders has a dev or test set to check against")
    if not train:
        raise FileNotFoundError("none of the folders has a training set to check")
    near = {"threshold": threshold, "words": words, "sides": sides}
    with_held_out = [folder for folder in splits if folder in dev or folder in test]
    held_out = HeldOut.read(with_held_out, langs, **near)
    size = sum(path.stat().st_size for paths in train.values() for path in paths)
    processes = max(1, min(workers or usable_cores(), size // BYTES_FOR_A_PROCESS))
    with in_processes(processes) as apply:
        tallies = tally_leaks(train, held_out, apply, "checking")
    for tally in tallies:
        tally.show("{folder}: {total} training pairs occur in dev or test "
                   "({exact} exactly, {near} nearly)")  # fmt: skip
    warnings = []
    for folder in [folder for folder in dev if folder in test]:
        in_dev = HeldOut.read([folder], langs, **near, splits=["dev"])
        warnings += tally_leaks({folder: test[folder]}, in_dev)
    for tally in warnings:
        tally.show("{folder}: warning: {total} test pairs occur in dev "
                   "({exact} exactly, {near} nearly)")  # fmt: skip
    rows = [row for tally in tallies for row in tally.rows()]
    leaks = sum(tally.counts.total() for tally in tallies)
    if leaks:
        print(_table(rows))
    else:
        pairs = sum(tally.pairs for tally in tallies)
        print(
            f"none of {pairs:,} training pairs of {len(train)} folders occurs in the dev and "
            f"test sets of {len(with_held_out)}"
        )
    names = ("folder", "held_out", "exact", "near")
    return {
        "folders": list(splits),
        "near": near if threshold else None,
        "pairs": {tally.folder: tally.pairs for tally in tallies},
        "leaks": leaks,
        "leaks_by_held_out": [dict(zip(names, row, strict=True)) for row in rows],
        "examples": [
            {"place": one.place, "text": one.text, "held_out": one.leak.place,
             "held_out_text": one.leak.text, "similarity": round(one.leak.similarity, 4),
             "kind": one.leak.kind}
            for tally in tallies for one in tally.examples
        ],
        "test_pairs_in_dev": {
            tally.folder: {kind: tally.count(kind) for kind in ("exact", "near")}
            for tally in warnings
        },
    }  # fmt: skip


def _splits(folder, langs):
    """{split: paths of both sides} of those that are there."""
    found = {split: find_split(folder, split, langs) for split in ("train", *HELD_OUT)}
    if not any(found.values()):
        raise FileNotFoundError(
            f"{folder} holds no train, dev or test of {langs[0]} and {langs[1]}"
        )
    return {split: paths for split, paths in found.items() if paths}


def _table(rows):
    cells = [("training pairs of", "in dev or test of", "exactly", "nearly")]
    cells += [(*names, f"{exact:,}", f"{near:,}") for *names, exact, near in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) if place < 2 else cell.rjust(width)
                  for place, (cell, width) in enumerate(zip(row, widths, strict=True)))
        for row in cells
    )  # fmt: skip


def add_near_flags(parser):
    """The flags that say which lines are near, for ``near_settings``."""
    parser.add_argument(
        "--near-threshold", type=float, default=NEAR_THRESHOLD, metavar="SHARE",
        help="words in common, of all words of two lines, that make them near",
    )  # fmt: skip
    parser.add_argument(
        "--near-words", type=int, default=NEAR_WORDS, metavar="N",
        help="lines with fewer different words are compared exactly alone",
    )  # fmt: skip
    parser.add_argument(
        "--near-sides", choices=NEAR_SIDES, default="either",
        help="whether one near side makes a leak, or only both",
    )  # fmt: skip
    parser.add_argument("--exact-only", action="store_true", help="leave near leaks alone")


def near_settings(args):
    """Settings of ``HeldOut`` from parsed flags."""
    return {
        "threshold": None if args.exact_only else args.near_threshold,
        "words": args.near_words,
        "sides": args.near_sides,
    }


def main():
    command.run(_main, PROG)


def _main(argv=None):
    started = time.monotonic()
    parser = command.parser(__doc__, f"python -m {PROG}")
    required = {"required": True, "default": argparse.SUPPRESS}
    parser.add_argument("--source-lang", metavar="SRC", help="for example de", **required)
    parser.add_argument("--target-lang", metavar="TGT", help="for example en", **required)
    parser.add_argument(
        "folders", nargs="+", metavar="DIR", default=argparse.SUPPRESS, help="text folders"
    )
    add_near_flags(parser)
    parser.add_argument("--workers", type=int, metavar="N", default=usable_cores(),
                        help="processes; here one for each core")  # fmt: skip
    parser.add_argument("--out", metavar="DIR", help="folder to make when no leak is found")
    parser.add_argument(
        "--json", metavar="FILE", help="also write the counts and examples here, leaks or not"
    )
    args = parser.parse_args(argv)
    langs = (args.source_lang, args.target_lang)
    report = check(args.folders, langs, **near_settings(args), workers=args.workers)
    if args.json:
        write_json(args.json, report)
    if report["leaks"]:
        print(
            f"{PROG}: error: {report['leaks']:,} training pairs leak into dev or test; run "
            "python -m data_prep.clean with --held-out for each of these folders",
            file=sys.stderr,
        )
        return 1
    if args.out:
        with write_whole_folder(args.out) as part:
            write_json(part / "overlap.json", report)
            write_manifest(
                part,
                settings={"source_lang": langs[0], "target_lang": langs[1],
                          "near": report["near"]},
                inputs=[path for folder in report["folders"]
                        for paths in _splits(folder, langs).values() for path in paths],
                counts={"train": sum(report["pairs"].values()), "leaks": 0},
                seconds=time.monotonic() - started,
            )  # fmt: skip
    return 0


if __name__ == "__main__":
    main()
