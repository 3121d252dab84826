"""Check that no training line of any text folder occurs in a dev or test set of any of them.

Reads {train,dev,test}.SRC and .TGT (plain or .gz) of every folder, as far as they are
there, and prints each leak with file and line. A training pair is a leak if its source or
its target, with case, spacing and punctuation ignored, occurs on the same side of a dev
or test set: a model that has seen either would be scored for remembering.

A pair that stands in both dev and test of a folder is printed as a warning only. Such
sets are given, never altered here, and ordinary ones share a "Thank you.".

Check folders of references. A teacher's output, too, may say "Thank you.".

With --out, a folder with overlap.json is left as proof when there is no leak.

Exit status: 0 no leak, 1 leaks or unreadable input.

Example:
  python -m data_prep.overlap --source-lang de --target-lang en \\
      corpora/general/text corpora/medical/text
"""

import argparse
import re
import sys
import unicodedata
from typing import NamedTuple

from tqdm import tqdm

from data_prep import command
from data_prep.files import find_text, one_line, read_bitext, write_whole_folder
from data_prep.manifest import write_json
from data_prep.near_duplicates import NearIndex, plain_words

PROG = "data_prep.overlap"
HELD_OUT = ("dev", "test")
EXAMPLES = 5
NEAR_THRESHOLD = 0.8  # Jaccard similarity of the words
NEAR_WORDS = 4  # shorter lines are compared exactly alone

_NEITHER_LETTER_NOR_DIGIT = re.compile(r"[\W_]+")


def match_key(text):
    """What is left of a line when case, spacing, punctuation and character width are ignored.

    Only letters and digits remain. A line without any is itself; '' for an empty line,
    which callers take as matching nothing.
    """
    plain = unicodedata.normalize("NFKC", text).casefold()
    return _NEITHER_LETTER_NOR_DIGIT.sub("", plain) or one_line(text)


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


class Leak(NamedTuple):
    """What a training pair shares with a held-out one."""

    side: int  # 0: source, 1: target
    place: str  # "FILE:LINE" of the held-out line
    kind: str  # "exact" or "near"
    similarity: float  # Jaccard similarity of the words; 1.0 where it is exact
    text: str  # of the held-out line


class HeldOut:
    """Dev and test sets of some folders, and whether a training pair repeats any of their lines.

    It can be pickled; its size is that of these sets.
    """

    def __init__(self, pairs, threshold=NEAR_THRESHOLD):
        """Hold out some pairs.

        Args:
            pairs: ((place, text) of the source, (place, text) of the target) of each pair.
            threshold: lowest similarity of near lines, above 0 to 1; None: exact ones alone.
        """
        self._lines = ([], [])  # (place, text) of each side's lines
        self._exact = ({}, {})  # match key: number of the line
        self._near = None
        words = ([], [])
        for pair in pairs:
            for side, (place, text) in enumerate(pair):
                if key := match_key(text):
                    if key not in self._exact[side]:
                        self._exact[side][key] = len(self._lines[side])
                        self._lines[side].append((place, text))
                        words[side].append(_judged_words(text))
        if threshold is not None:
            self._near = tuple(NearIndex(lines, threshold) for lines in words)

    @classmethod
    def read(cls, folders, langs, threshold=NEAR_THRESHOLD):
        """Hold out the dev and test sets of some folders.

        Raises:
            FileNotFoundError: a folder has neither dev nor test.
        """
        return cls(_held_out_pairs(folders, langs), threshold)

    def leaks(self, src, tgt):
        """The ``Leak`` of each pair, or None.

        Args:
            src, tgt: lists of lines, equally long.
        """
        return [self._leak(*pair) for pair in zip(src, tgt, strict=True)]

    def _leak(self, *pair):
        for side, text in enumerate(pair):
            number = self._exact[side].get(match_key(text))
            if number is not None:
                return Leak(side, self._lines[side][number][0], "exact", 1.0,
                            self._lines[side][number][1])  # fmt: skip
        if self._near is None:
            return None
        for side, text in enumerate(pair):
            words = _judged_words(text)
            if words and (found := self._near[side].nearest(words)):
                similarity, number = found
                place, text = self._lines[side][number]
                return Leak(side, place, "near", similarity, text)
        return None


def _judged_words(text):
    words = plain_words(text)
    return words if len(set(words)) >= NEAR_WORDS else []


def _held_out_pairs(folders, langs):
    for folder in folders:
        splits = [find_split(folder, split, langs) for split in HELD_OUT]
        if not any(splits):
            raise FileNotFoundError(f"{folder} has neither dev.{langs[0]} nor test.{langs[0]}")
        for paths in filter(None, splits):
            for number, *pair in read_bitext(*paths):
                yield [
                    (f"{path}:{number}", text) for path, text in zip(paths, pair, strict=True)
                ]


def training_leaks(folder, langs, held_out):
    """Yield (FILE:LINE of the training line, its text, FILE:LINE held out) for every leak."""
    paths = find_split(folder, "train", langs)
    if paths is None:
        return
    progress = tqdm(read_bitext(*paths), desc=str(folder), unit=" pairs", unit_scale=True)
    for number, *pair in progress:
        (leak,) = held_out.leaks([pair[0]], [pair[1]])
        if leak:
            yield f"{paths[leak.side]}:{number}", pair[leak.side], leak.place


def shared_pairs(folder, langs):
    """Yield (FILE:LINE in dev, source, FILE:LINE in test) for every pair that is in both."""
    dev, test = (find_split(folder, split, langs) for split in HELD_OUT)
    if not dev or not test:
        return
    in_dev = {}
    for number, src, tgt in read_bitext(*dev):
        if src or tgt:
            in_dev.setdefault((match_key(src), match_key(tgt)), number)
    for number, src, tgt in read_bitext(*test):
        if place := in_dev.get((match_key(src), match_key(tgt))):
            yield f"{dev[0]}:{place}", src, f"{test[0]}:{number}"


def check(folders, langs):
    """Print what the folders share and return the number of leaks.

    Raises:
        FileNotFoundError: a folder holds no text of the pair, or no folder a dev or test set.
    """
    with_held_out = []
    for folder in folders:
        splits = {split for split in ("train", *HELD_OUT) if find_split(folder, split, langs)}
        if not splits:
            raise FileNotFoundError(
                f"{folder} holds no train, dev or test of {langs[0]} and {langs[1]}"
            )
        if splits & set(HELD_OUT):
            with_held_out.append(folder)
    if not with_held_out:
        raise FileNotFoundError("none of the folders has a dev or test set to check against")
    held_out = HeldOut.read(with_held_out, langs)
    total = 0
    for folder in folders:
        total += _print_some(
            training_leaks(folder, langs, held_out),
            f"{folder}: {{count:,}} training pairs occur in dev or test",
        )
        _print_some(
            shared_pairs(folder, langs),
            f"{folder}: warning: {{count:,}} pairs are in both dev and test",
        )
    if not total:
        print(f"no training line of {len(folders)} folders occurs in their dev or test sets")
    return total


def _print_some(findings, heading):
    """Print the heading, which counts the findings, and the first few; their number."""
    examples, count = [], 0
    for count, finding in enumerate(findings, start=1):
        if count <= EXAMPLES:
            examples.append(finding)
    if count:
        print(heading.format(count=count))
    for place, text, other in examples:
        print(f"  {place} is {other}: {one_line(text)[:100]}")
    if count > len(examples):
        print(f"  and {count - len(examples):,} more")
    return count


def main():
    command.run(_main, PROG)


def _main(argv=None):
    parser = command.parser(__doc__, f"python -m {PROG}")
    required = {"required": True, "default": argparse.SUPPRESS}
    parser.add_argument("--source-lang", metavar="SRC", help="for example de", **required)
    parser.add_argument("--target-lang", metavar="TGT", help="for example en", **required)
    parser.add_argument(
        "folders", nargs="+", metavar="DIR", default=argparse.SUPPRESS, help="text folders"
    )
    parser.add_argument("--out", metavar="DIR", help="folder to make when no leak is found")
    args = parser.parse_args(argv)
    leaks = check(args.folders, (args.source_lang, args.target_lang))
    if leaks:
        print(
            f"{PROG}: error: {leaks:,} training pairs leak into dev or test; run "
            "python -m data_prep.clean with --held-out for each of these folders",
            file=sys.stderr,
        )
        return 1
    if args.out:
        with write_whole_folder(args.out) as part:
            write_json(part / "overlap.json", {"folders": args.folders, "leaks": 0})
    return 0


if __name__ == "__main__":
    main()
