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

from tqdm import tqdm

from data_prep import command
from data_prep.files import find_text, one_line, read_bitext, write_whole_folder
from data_prep.manifest import write_json

PROG = "data_prep.overlap"
HELD_OUT = ("dev", "test")
EXAMPLES = 5

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


def held_out_places(folders, langs):
    """Where each line of the dev and test sets of some folders stands.

    Returns:
        two dictionaries, source and target side: ``match_key`` to "FILE:LINE".

    Raises:
        FileNotFoundError: a folder has neither dev nor test.
    """
    places = ({}, {})
    for folder in folders:
        splits = [find_split(folder, split, langs) for split in HELD_OUT]
        if not any(splits):
            raise FileNotFoundError(f"{folder} has neither dev.{langs[0]} nor test.{langs[0]}")
        for paths in filter(None, splits):
            for number, *pair in read_bitext(*paths):
                for side, text in enumerate(pair):
                    if key := match_key(text):
                        places[side].setdefault(key, f"{paths[side]}:{number}")
    return places


def leak_of(src, tgt, places):
    """(side, "FILE:LINE") of the held-out line that a pair repeats, side 0 or 1; else None."""
    for side, text in enumerate((src, tgt)):
        if place := places[side].get(match_key(text)):
            return side, place
    return None


def training_leaks(folder, langs, places):
    """Yield (FILE:LINE of the training line, its text, FILE:LINE held out) for every leak."""
    paths = find_split(folder, "train", langs)
    if paths is None:
        return
    progress = tqdm(read_bitext(*paths), desc=str(folder), unit=" pairs", unit_scale=True)
    for number, *pair in progress:
        if leak := leak_of(*pair, places):
            side, place = leak
            yield f"{paths[side]}:{number}", pair[side], place


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
    places = held_out_places(with_held_out, langs)
    total = 0
    for folder in folders:
        total += _print_some(
            training_leaks(folder, langs, places),
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
