"""Clean the training text of a corpus, account for every line, and leave dev and test alone.

Reads {train,dev,test}.SRC and .TGT (plain or .gz) of a folder and writes a text folder:

  train.SRC, train.TGT    what was kept, repaired
  train.lines             for each kept line, its line number in the input
  dev.*, test.*           the bytes of the input, decompressed; checked, never altered
  ledger.json             lines read, kept and dropped, by reason, with examples
  manifest.json           what made it

Training pairs go through these steps, in this order. A pair that fails several is counted
under the first.

  repair              not a filter: NFC; control characters, tabs, carriage returns, U+2028
                      and other odd white space become one space; soft hyphens and byte-order
                      marks go
  empty               either side has no text
  too long            either side has more than --max-words words. A character of a script
                      without spaces (Chinese, Japanese, Thai ...) counts as a word
  word too long       a word has more than --max-word-length characters
  length ratio        the target is --max-ratio times longer or shorter than this corpus
                      makes one expect: the expected ratio is the corpus's own median of
                      target to source characters, so it suits any pair of languages.
                      10 characters are added to both lengths, since short lines vary most
  duplicate           the same pair came before
  held-out overlap    source or target occurs in dev or test, of this folder or of a --held-out
                      one; case, spacing and punctuation are ignored

Example:
  python -m data_prep.clean --in downloads/medical --source-lang de --target-lang en \\
      --held-out downloads/general --out corpora/medical/text
"""

import argparse
import hashlib
import math
import re
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path

from tqdm import tqdm

from data_prep import command
from data_prep.files import (
    copy_text,
    find_text,
    one_line,
    read_bitext,
    write_whole,
    write_whole_folder,
)
from data_prep.manifest import write_json, write_manifest
from data_prep.overlap import HELD_OUT, HeldOut, find_split

PROG = "data_prep.clean"
EXAMPLES = 5
EXAMPLE_CHARACTERS = 200
RATIO_SMOOTHING = 10  # characters
RATIO_STEPS = 100  # the median is found in steps of 1 % (of the ratio's logarithm)

_INVISIBLE = str.maketrans("", "", "\u00ad\ufeff")  # soft hyphen, byte-order mark
_WITHOUT_SPACES = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Burmese, Khmer
    "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"  # kana, Han
)


# -- the steps -----------------------------------------------------------------------------


def repair(text):
    """The text on one line: NFC, single spaces, no control or invisible characters."""
    return one_line(text.translate(_INVISIBLE))


def is_empty(src, tgt):
    return not src or not tgt


def is_too_long(src, tgt, max_words):
    return any(count_words(text) > max_words for text in (src, tgt))


def count_words(text):
    """Words between spaces, where each character of a script without spaces is a word."""
    characters = len(_WITHOUT_SPACES.findall(text))
    return characters + (len(_WITHOUT_SPACES.sub(" ", text).split()) if characters
                         else len(text.split()))  # fmt: skip


def has_long_word(src, tgt, max_word_length):
    if max(len(src), len(tgt)) <= max_word_length:
        return False
    return any(
        len(word) > max_word_length
        for text in (src, tgt)
        for word in _WITHOUT_SPACES.sub(" ", text).split()
    )


def is_out_of_ratio(src, tgt, expected_ratio, max_ratio):
    expected = RATIO_SMOOTHING + len(src) * expected_ratio
    found = RATIO_SMOOTHING + len(tgt)
    return max(expected / found, found / expected) > max_ratio


class Duplicates:
    """Says of each pair whether it came before; keeps 16 bytes of each, not the text."""

    def __init__(self):
        self._seen = set()

    def __call__(self, src, tgt):
        digest = hashlib.blake2b(f"{src}\n{tgt}".encode(), digest_size=16).digest()
        if digest in self._seen:
            return True
        self._seen.add(digest)
        return False


def filters(held_out, expected_ratio, max_words, max_word_length, max_ratio):
    """{reason: function of a repaired pair that says whether to drop it}, in order.

    Args:
        held_out: an ``overlap.HeldOut``.
        expected_ratio: target characters for each source character.
        max_words, max_word_length, max_ratio: limits; see the module's help.
    """
    return {
        "empty": is_empty,
        "too long": partial(is_too_long, max_words=max_words),
        "word too long": partial(has_long_word, max_word_length=max_word_length),
        "length ratio": partial(
            is_out_of_ratio, expected_ratio=expected_ratio, max_ratio=max_ratio
        ),
        "duplicate": Duplicates(),
        "held-out overlap": lambda src, tgt: held_out.leaks([src], [tgt]) != [None],
    }


# -- the whole -----------------------------------------------------------------------------


class Ledger:
    """Where every line that was read has gone."""

    def __init__(self, reasons):
        self.read = self.kept = self.repaired = 0
        self.dropped = {reason: 0 for reason in reasons}
        self.examples = {reason: [] for reason in reasons}

    def drop(self, reason, number, src, tgt):
        self.dropped[reason] += 1
        if len(self.examples[reason]) < EXAMPLES:
            self.examples[reason].append(
                {
                    "line": number,
                    "source": src[:EXAMPLE_CHARACTERS],
                    "target": tgt[:EXAMPLE_CHARACTERS],
                }
            )

    def record(self):
        """The ledger as a dictionary; kept and dropped lines sum to those read."""
        assert self.read == self.kept + sum(self.dropped.values())
        return {
            "read": self.read,
            "kept": self.kept,
            "repaired": self.repaired,
            "dropped": {
                reason: {
                    "count": count,
                    "share": round(count / self.read, 6),
                    "examples": self.examples[reason],
                }
                for reason, count in self.dropped.items()
            },
        }

    def __str__(self):
        dropped = ", ".join(
            f"{count:,} {reason}" for reason, count in self.dropped.items() if count
        )
        return f"kept {self.kept:,} of {self.read:,}" + (f" ({dropped})" if dropped else "")


def survey(src_path, tgt_path):
    """(pairs, median of target to source characters) of a training set.

    The ratio is 1 when no pair has text on both sides.

    Raises:
        ValueError: the files hold no line, are not parallel or not UTF-8.
    """
    ratios = Counter()  # of steps, so that memory does not grow with the corpus
    number = 0
    pairs = read_bitext(src_path, tgt_path)
    for number, src, tgt in tqdm(pairs, desc="measuring", unit=" pairs", unit_scale=True):
        src_length, tgt_length = len(src.strip()), len(tgt.strip())
        if src_length and tgt_length:
            ratios[round(math.log(tgt_length / src_length) * RATIO_STEPS)] += 1
    if not number:
        raise ValueError(f"{src_path} and {tgt_path} are empty; there is nothing to train on")
    half = ratios.total() / 2
    below = 0
    for step, count in sorted(ratios.items()):
        below += count
        if below >= half:
            return number, round(math.exp(step / RATIO_STEPS), 4)
    return number, 1.0


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


def clean_train(paths, out_paths, lines_path, steps, pairs, limit=None):
    """Write the kept pairs and their line numbers; the ``Ledger``.

    Args:
        paths, out_paths: source and target side.
        lines_path: where the line numbers of kept pairs go.
        steps: {reason: function}, from ``filters``.
        pairs: how many there are.
        limit: read only so many, evenly spread; all by default.
    """
    ledger = Ledger(steps)
    src_path, tgt_path = out_paths
    with write_whole(src_path) as src_out, write_whole(tgt_path) as tgt_out, \
            write_whole(lines_path) as lines_out:  # fmt: skip
        progress = tqdm(
            read_bitext(*paths), desc="cleaning", unit=" pairs", unit_scale=True, total=pairs
        )
        for number, raw_src, raw_tgt in progress:
            if limit and number * limit // pairs == (number - 1) * limit // pairs:
                continue
            ledger.read += 1
            src, tgt = repair(raw_src), repair(raw_tgt)
            ledger.repaired += (src, tgt) != (raw_src, raw_tgt)
            for reason, fails in steps.items():
                if fails(src, tgt):
                    ledger.drop(reason, number, src, tgt)
                    break
            else:
                ledger.kept += 1
                src_out.write(f"{src}\n")
                tgt_out.write(f"{tgt}\n")
                lines_out.write(f"{number}\n")
    return ledger


def clean(text, langs, out, *, held_out=(), max_words=200, max_word_length=100, max_ratio=3.0,
          expected_ratio=None, lines=None):  # fmt: skip
    """Write the text folder ``out`` and return its ``Ledger``; see the module's help.

    Args:
        text: folder with train, dev and test of both languages.
        langs: source and target language.
        held_out: further folders whose dev and test lines must not be trained on.
        expected_ratio: target characters for each source character; measured by default.
        lines: clean only so many training pairs, evenly spread over the corpus.

    Raises:
        FileNotFoundError: a split is missing.
        ValueError: an option is out of range, a file is not parallel, not UTF-8 or empty,
            or nothing is left.
    """
    started = time.monotonic()
    _check_options(langs, max_words, max_word_length, max_ratio, expected_ratio, lines)
    out = Path(out)
    with write_whole_folder(out) as part:
        paths = {
            split: [find_text(text, split, lang) for lang in langs]
            for split in ("train", *HELD_OUT)
        }
        counts = {}
        for split in HELD_OUT:
            counts[split] = check_held_out(*paths[split])
            for path, lang in zip(paths[split], langs, strict=True):
                copy_text(path, part / f"{split}.{lang}")
        folders = {Path(folder).resolve(): folder for folder in (*held_out, text)}
        guard = HeldOut.read(folders.values(), langs)
        pairs, median_ratio = survey(*paths["train"])
        steps = filters(
            guard, expected_ratio or median_ratio, max_words, max_word_length, max_ratio
        )
        ledger = clean_train(
            paths["train"], [part / f"train.{lang}" for lang in langs], part / "train.lines",
            steps, pairs, limit=lines if lines and lines < pairs else None,
        )  # fmt: skip
        if not ledger.kept:
            raise ValueError(
                f"no training pair of {paths['train'][0]} and {paths['train'][1]} is left: {ledger}"
                f"; look at the first lines of both and at the limits (--help)"
            )
        record = {"median_ratio": median_ratio, "pairs_in_corpus": pairs, **ledger.record()}
        write_json(part / "ledger.json", record)
        write_manifest(
            part,
            settings={
                "source_lang": langs[0],
                "target_lang": langs[1],
                "held_out": [str(folder) for folder in held_out],
                "max_words": max_words,
                "max_word_length": max_word_length,
                "max_ratio": max_ratio,
                "expected_ratio": expected_ratio or median_ratio,
                "lines": lines,
            },
            inputs=[*sum(paths.values(), []), *_held_out_files(held_out, langs)],
            counts={"train": ledger.kept, **counts, "train_read": ledger.read},
            seconds=time.monotonic() - started,
        )
    return ledger


def _held_out_files(folders, langs):
    splits = [find_split(folder, split, langs) for folder in folders for split in HELD_OUT]
    return [path for paths in splits if paths for path in paths]


def _check_options(langs, max_words, max_word_length, max_ratio, expected_ratio, lines):
    if langs[0] == langs[1]:
        raise ValueError(f"--source-lang and --target-lang are both {langs[0]}")
    for name, value in (("--max-words", max_words), ("--max-word-length", max_word_length),
                        ("--lines", lines)):  # fmt: skip
        if value is not None and value < 1:
            raise ValueError(f"{name} is a number above 0, not {value}")
    if not max_ratio > 1:
        raise ValueError(f"--max-ratio is a factor above 1, not {max_ratio}")
    if expected_ratio is not None and not 0 < expected_ratio < math.inf:
        raise ValueError(f"--expected-ratio is a number above 0, not {expected_ratio}")


def main():
    command.run(_main, PROG)


def _main(argv=None):
    parser = command.parser(__doc__, f"python -m {PROG}")
    required = {"required": True, "default": argparse.SUPPRESS}
    parser.add_argument(
        "--in", dest="text", metavar="DIR", help="folder with train, dev and test", **required
    )
    parser.add_argument("--source-lang", metavar="SRC", help="for example de", **required)
    parser.add_argument("--target-lang", metavar="TGT", help="for example en", **required)
    parser.add_argument("--out", metavar="DIR", help="text folder to write", **required)
    parser.add_argument(
        "--held-out", metavar="DIR", action="append", default=argparse.SUPPRESS,
        help="another folder whose dev and test lines must not be trained on; may be repeated",
    )  # fmt: skip
    parser.add_argument("--max-words", type=int, default=200, metavar="N", help="longest line")
    parser.add_argument(
        "--max-word-length", type=int, default=100, metavar="N", help="longest word, in characters"
    )
    parser.add_argument(
        "--max-ratio", type=float, default=3.0, metavar="FACTOR",
        help="how far a pair's length ratio may be from the expected one",
    )  # fmt: skip
    parser.add_argument(
        "--expected-ratio", type=float, metavar="RATIO",
        help="target characters for each source character; the corpus's median by default",
        default=argparse.SUPPRESS,
    )  # fmt: skip
    parser.add_argument(
        "--lines", type=int, metavar="N", default=argparse.SUPPRESS,
        help="take only N training pairs, evenly spread over the corpus, for a trial",
    )  # fmt: skip
    args = vars(parser.parse_args(argv))
    out = args["out"]
    ledger = clean(
        args.pop("text"), (args.pop("source_lang"), args.pop("target_lang")), args.pop("out"),
        **args,
    )  # fmt: skip
    print(f"{out}: {ledger}", file=sys.stderr)


if __name__ == "__main__":
    main()
