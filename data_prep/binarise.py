"""Encode text with a vocabulary and turn it into what fairseq trains on.

Reads the training text of --train, the dev and test sets of --held-out (the same folder
unless told otherwise) and a vocabulary folder, calls fairseq-preprocess, and writes a
prepared folder:

  train.SRC-TGT.SRC.bin .idx ...   fairseq's binaries of train, valid (which is dev) and test
  valid.SRC valid.TGT test.*       the untouched text of dev and test, to score against
  dict.*.txt, vocabulary.json ...  copies of the vocabulary's files
  manifest.json                    what made it: lines, pieces, unknown pieces, pairs dropped

Every sentence in the binaries is counted and measured against the text it came from.
A training pair is dropped, and its line number kept in the manifest, when a side has more
than --max-pieces pieces (fairseq would leave it out without a word) or no text (a teacher
can fail on a sentence, and nothing is to be learnt from that). Dev and test are never
altered: there, a pair that is too long is an error, and an empty line stays.

A piece that the dictionary lacks becomes <unk>. With byte fallback there is none; of subword-nmt
these are characters that its training text lacked. They are counted, and a few are shown.

Examples:
  python -m data_prep.binarise --train corpora/medical/text --vocabulary vocabulary \\
      --out corpora/medical/prepared
  python -m data_prep.binarise --train distilled/medical/general/text \\
      --held-out corpora/medical/text --vocabulary vocabulary \\
      --out distilled/medical/general/prepared
"""

import argparse
import functools
import os
import shutil
import struct
import subprocess
import sys
import time
from array import array
from collections import Counter
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from tqdm import tqdm

from data_prep import command
from data_prep.files import copy_text, find_text, read_bitext, sha256, write_whole_folder
from data_prep.manifest import write_manifest
from data_prep.processes import in_processes
from data_prep.vocabulary import VOCABULARY_FILE, read_pieces, read_vocabulary

PROG = "data_prep.binarise"
FAIRSEQ_NAMES = {"train": "train", "dev": "valid", "test": "test"}
BATCH = 10_000  # pairs encoded at a time
EXAMPLES = 10  # of unknown pieces, the most frequent
INDEX_HEADER = "<9sQBQ"  # magic, version, code of the number type, sentences
INDEX_MAGIC = b"MMIDIDX\x00\x00"


@dataclass
class Encoded:
    """What went into the encoded files of a split.

    Attributes:
        lines: pairs read.
        sizes: pieces of each kept sentence, by side.
        unknown: pieces that the dictionary lacks, and how often each is there, by side.
        dropped: line numbers of training pairs left out, by reason.
    """

    lines: int = 0
    sizes: tuple = field(default_factory=lambda: (array("i"), array("i")))
    unknown: tuple = field(default_factory=lambda: (Counter(), Counter()))
    dropped: dict = field(default_factory=lambda: {"too long": [], "empty": []})

    def counts(self, langs):
        """The numbers for the manifest."""
        record = {"lines": self.lines, "pairs": len(self.sizes[0])}
        for lang, sizes, unknown in zip(langs, self.sizes, self.unknown, strict=True):
            record[lang] = {
                "pieces": sum(sizes),
                "unknown": unknown.total(),
                "unknown_examples": dict(unknown.most_common(EXAMPLES)),
                "empty": sizes.count(0),
            }
        return {**record, "dropped_lines": self.dropped}


def encode_split(paths, out_paths, vocabulary, known, max_pieces, training, workers=1):
    """Write both sides of a split as pieces between spaces; the ``Encoded`` account of it.

    Args:
        paths, out_paths: source and target side.
        vocabulary: a ``Vocabulary``.
        known: pieces of each side's dictionary, two sets.
        max_pieces: longest sentence that is let through, in pieces.
        training: drop pairs that are too long or empty; otherwise the first are an error.
        workers: threads or processes that encode.

    Raises:
        ValueError: a pair is too long and may not be dropped, or no pair is there.
    """
    encoded = Encoded()
    bar = tqdm(desc=f"encoding {paths[0].name}", unit=" pairs", unit_scale=True)
    # what is not written in C and runs in threads runs in processes
    threaded = all(subwords.threaded for subwords in _subwords(vocabulary))
    processes, threads = (1, workers) if threaded else (workers, 1)
    encode = functools.partial(_encode, vocabulary, threads)
    with bar, in_processes(processes) as apply, \
            open(out_paths[0], "w", encoding="utf-8", newline="\n") as src_out, \
            open(out_paths[1], "w", encoding="utf-8", newline="\n") as tgt_out:  # fmt: skip
        for numbers, *sides in apply(encode, _batches(read_bitext(*paths))):
            for number, *pair in zip(numbers, *sides, strict=True):
                longest = max((0, 1), key=lambda side: len(pair[side]))
                if len(pair[longest]) > max_pieces:
                    if not training:
                        raise ValueError(
                            f"{paths[longest]}, line {number}: {len(pair[longest]):,} pieces, "
                            f"more than --max-pieces {max_pieces:,}, so fairseq would leave it "
                            "out; take the pair out of this held-out set, or split it"
                        )
                    encoded.dropped["too long"].append(number)
                    continue
                if training and not all(pair):
                    encoded.dropped["empty"].append(number)
                    continue
                for side, out in enumerate((src_out, tgt_out)):
                    out.write(" ".join(pair[side]) + "\n")
                    encoded.sizes[side].append(len(pair[side]))
                    encoded.unknown[side].update(p for p in pair[side] if p not in known[side])
            encoded.lines += len(numbers)
            bar.update(len(numbers))
    if not encoded.sizes[0]:
        reasons = [f"{len(lines):,} {why}" for why, lines in encoded.dropped.items() if lines]
        reason = f"of {encoded.lines:,} pairs, {' and '.join(reasons)}" if reasons else "no lines"
        raise ValueError(f"nothing to binarise in {paths[0]} and {paths[1]}: {reason}")
    return encoded


def _batches(pairs):
    while batch := list(islice(pairs, BATCH)):
        yield batch


def _encode(vocabulary, threads, batch):
    """[line numbers, source pieces, target pieces] of pairs with their numbers."""
    numbers, *sides = zip(*batch, strict=True)
    return [
        numbers,
        *(subwords.encode_batch(side, threads)
          for subwords, side in zip(_subwords(vocabulary), sides, strict=True)),
    ]  # fmt: skip


@functools.lru_cache(maxsize=1)
def _subwords(vocabulary):
    """``Subwords`` of both languages, loaded once in each process."""
    return [vocabulary.subwords(lang) for lang in vocabulary.langs]


def binary_sizes(prefix):
    """Tokens of each sentence in ``PREFIX.bin``, end of sentence included; an array.

    Raises:
        ValueError: a file is missing or is not what fairseq writes.
    """
    index_path, data_path = Path(f"{prefix}.idx"), Path(f"{prefix}.bin")
    try:
        data = index_path.read_bytes()
        magic, version, _, sentences = struct.unpack_from(INDEX_HEADER, data)
        sizes = array("i")
        sizes.frombytes(data[struct.calcsize(INDEX_HEADER) :][: 4 * sentences])
        data_bytes = data_path.stat().st_size
    except (OSError, struct.error, ValueError) as error:
        raise ValueError(
            f"fairseq-preprocess left no readable {prefix}.bin and .idx: {error}"
        ) from None
    # after the header each sentence has its size (4 bytes) and its place in the data (8)
    index_bytes = struct.calcsize(INDEX_HEADER) + 12 * sentences
    if (magic, version) != (INDEX_MAGIC, 1) or len(data) != index_bytes:
        raise ValueError(f"{index_path} is not an index of fairseq's mmap format")
    if data_bytes not in [sum(sizes) * width for width in (2, 4, 8)]:
        raise ValueError(
            f"{data_path} has {data_bytes:,} bytes, which does not fit its {sum(sizes):,} tokens"
        )
    return sizes


def check_binary(prefix, pieces):
    """Compare a binary with the text it was made from.

    Args:
        prefix: path without ``.bin``.
        pieces: pieces of each sentence, an array.

    Raises:
        ValueError: a sentence is missing, added or of another length.
    """
    sizes = binary_sizes(prefix)
    if len(sizes) != len(pieces):
        raise ValueError(
            f"{Path(prefix).name}: {len(pieces):,} lines went in and {len(sizes):,} sentences came "
            "out of fairseq-preprocess; please report this with the text"
        )
    for number, (found, expected) in enumerate(zip(sizes, pieces, strict=True), start=1):
        if found != expected + 1:  # the end of the sentence is one more
            raise ValueError(
                f"{Path(prefix).name}: sentence {number} has {found - 1} pieces after "
                f"fairseq-preprocess and {expected} before; please report this with the text"
            )


def find_command(name):
    """Path of a command: beside this Python, or else on PATH.

    Raises:
        FileNotFoundError: it is in neither place.
    """
    places = [str(Path(sys.executable).parent), os.environ.get("PATH", "")]
    found = shutil.which(name, path=os.pathsep.join(places))
    if not found:
        raise FileNotFoundError(
            f"{name} is neither beside {sys.executable} nor on PATH; dad-doctor tells whether "
            "fairseq is installed"
        )
    return found


def preprocess(work, out, langs, splits, dictionaries, workers):
    """Run fairseq-preprocess on ``work/SPLIT.LANG``, binaries to ``out``.

    Raises:
        ValueError: it failed; shows the end of what it printed.
    """
    words = [
        find_command("fairseq-preprocess"),
        "--source-lang", langs[0], "--target-lang", langs[1],
        "--srcdict", str(dictionaries[0]), "--tgtdict", str(dictionaries[1]),
        "--destdir", str(out), "--workers", str(workers),
    ]  # fmt: skip
    for split in splits:
        words += [f"--{FAIRSEQ_NAMES[split]}pref", str(work / FAIRSEQ_NAMES[split])]
    done = subprocess.run(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    if done.returncode:
        printed = done.stdout.decode("utf-8", "replace").strip().splitlines()
        raise ValueError(
            f"fairseq-preprocess failed with status {done.returncode}; it ended with\n  "
            + "\n  ".join(printed[-5:])
        )


def binarise(train, vocabulary, out, *, held_out=None, splits=tuple(FAIRSEQ_NAMES),
             max_pieces=1022, workers=1):  # fmt: skip
    """Write the prepared folder ``out`` and return {split: ``Encoded``}; see the module's help.

    Raises:
        FileNotFoundError: a split, the vocabulary or fairseq-preprocess is missing.
        ValueError: text is not parallel, not UTF-8, empty or too long, or the binaries do
            not hold what went in.
    """
    started = time.monotonic()
    if workers < 1 or max_pieces < 1:
        raise ValueError(f"--workers and --max-pieces are above 0, not {workers} and {max_pieces}")
    out = Path(out)
    vocabulary = read_vocabulary(vocabulary)
    langs = vocabulary.langs
    splits = [split for split in FAIRSEQ_NAMES if split in splits]
    folders = {split: train if split == "train" else held_out or train for split in splits}
    paths = {
        split: [find_text(folder, split, lang) for lang in langs]
        for split, folder in folders.items()
    }
    find_command("fairseq-preprocess")  # before the long work
    known = [read_pieces(vocabulary.dictionary(lang)).keys() for lang in langs]
    with write_whole_folder(out) as part:
        vocabulary.copy_to(part)
        work, binaries = part / "work", part / "work" / "binaries"
        binaries.mkdir(parents=True)
        encoded = {}
        for split in splits:
            name = FAIRSEQ_NAMES[split]
            encoded[split] = encode_split(
                paths[split], [work / f"{name}.{lang}" for lang in langs], vocabulary, known,
                max_pieces, training=split == "train", workers=workers,
            )  # fmt: skip
            if split != "train":
                for path, lang in zip(paths[split], langs, strict=True):
                    copy_text(path, part / f"{name}.{lang}")
        print("binarising with fairseq-preprocess", file=sys.stderr)
        preprocess(
            work, binaries, langs, splits, [vocabulary.dictionary(lang) for lang in langs],
            workers,
        )  # fmt: skip
        for split in splits:
            for side, lang in enumerate(langs):
                prefix = binaries / f"{FAIRSEQ_NAMES[split]}.{langs[0]}-{langs[1]}.{lang}"
                check_binary(prefix, encoded[split].sizes[side])
                for suffix in (".bin", ".idx"):
                    os.replace(f"{prefix}{suffix}", part / f"{prefix.name}{suffix}")
        for lang in langs:
            name = vocabulary.dictionary(lang).name
            if sha256(binaries / name) != vocabulary.files[name]:
                raise ValueError(
                    f"fairseq reads {vocabulary.dictionary(lang)} as another dictionary than it "
                    "says; learn the vocabulary anew with python -m data_prep.vocabulary"
                )
        shutil.rmtree(work)
        write_manifest(
            part,
            settings={
                "source_lang": langs[0],
                "target_lang": langs[1],
                "splits": splits,
                "max_pieces": max_pieces,
            },
            inputs=[*sum(paths.values(), []), vocabulary.folder / VOCABULARY_FILE],
            counts={split: encoded[split].counts(langs) for split in splits},
            seconds=time.monotonic() - started,
        )
    return encoded


def summary(encoded):
    """One sentence for people: pairs of each split, what was dropped, unknown pieces."""
    pairs = ", ".join(f"{len(split.sizes[0]):,} {name}" for name, split in encoded.items())
    unknown = sum((side for split in encoded.values() for side in split.unknown), Counter())
    shown = ", ".join(piece for piece, _ in unknown.most_common(EXAMPLES))
    dropped = [
        f"{len(lines):,} training pairs dropped ({reason})"
        for split in encoded.values()
        for reason, lines in split.dropped.items()
        if lines
    ]
    found = f"{unknown.total():,} unknown pieces" + (f" ({shown})" if shown else "")
    return ", ".join([f"{pairs} pairs", found, *dropped])


def main():
    command.run(_main, PROG)


def _main(argv=None):
    parser = command.parser(__doc__, f"python -m {PROG}")
    required = {"required": True, "default": argparse.SUPPRESS}
    parser.add_argument("--train", metavar="DIR", help="text folder with train", **required)
    parser.add_argument("--vocabulary", metavar="DIR", help="vocabulary folder", **required)
    parser.add_argument("--out", metavar="DIR", help="prepared folder to write", **required)
    parser.add_argument(
        "--held-out", metavar="DIR", default=argparse.SUPPRESS,
        help="text folder with dev and test; that of --train by default",
    )  # fmt: skip
    parser.add_argument(
        "--splits", nargs="+", choices=list(FAIRSEQ_NAMES), default=list(FAIRSEQ_NAMES),
        help="which splits to prepare",
    )  # fmt: skip
    parser.add_argument(
        "--max-pieces", type=int, default=1022, metavar="N",
        help="longest sentence, in pieces; fairseq's models have 1024 positions",
    )  # fmt: skip
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes to use")
    args = vars(parser.parse_args(argv))
    out = args["out"]
    encoded = binarise(args.pop("train"), args.pop("vocabulary"), args.pop("out"), **args)
    print(f"{out}: {summary(encoded)}", file=sys.stderr)


if __name__ == "__main__":
    main()
