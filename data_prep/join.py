"""Join the text folders of several domains into one: train, dev and test, one domain after another.

Usage: python -m data_prep.join --text DIR --text DIR ... --source-lang L --target-lang L --out DIR

A student that serves all domains is chosen by the dev sets of all of them. What it learns is mixed
when it is trained, so that a small domain is shown as often as a large one.

Example:
  python -m data_prep.join --text corpora/it/text --text corpora/law/text \\
    --source-lang de --target-lang en --out corpora/all/text
"""

import time
from pathlib import Path

from data_prep import command
from data_prep.files import find_text, read_lines, write_whole, write_whole_folder
from data_prep.manifest import write_manifest

SPLITS = ("train", "dev", "test")


def main():
    command.run(_main, "python -m data_prep.join")


def _main():
    parser = command.parser(__doc__, "python -m data_prep.join")
    parser.add_argument(
        "--text", action="append", required=True, metavar="DIR",
        help="text folder of a domain; repeat it for each",
    )  # fmt: skip
    parser.add_argument("--source-lang", required=True)
    parser.add_argument("--target-lang", required=True)
    parser.add_argument("--out", required=True, help="text folder to write")
    args = parser.parse_args()
    counts = join(args.text, (args.source_lang, args.target_lang), args.out)
    told = ", ".join(f"{counts[split]:,} {split}" for split in SPLITS)
    print(f"{args.out}: {told} pairs of {len(args.text)} domains")


def join(texts, langs, out):
    """Write folder ``out`` and return {split: pairs}.

    Args:
        texts: text folders, in the order in which their lines follow each other.
        langs: source and target language.

    Raises:
        FileNotFoundError: a folder lacks a file.
        ValueError: the sides of a folder are not parallel; names both files and counts.
    """
    started = time.monotonic()
    counts = dict.fromkeys(SPLITS, 0)
    inputs = []
    with write_whole_folder(out) as part:
        for split in SPLITS:
            lines = []
            for lang in langs:
                files = [find_text(Path(text), split, lang) for text in texts]
                inputs += files
                with write_whole(part / f"{split}.{lang}") as side:
                    lines.append([_copy(file, side) for file in files])
            for text, src, tgt in zip(texts, *lines, strict=True):
                if src != tgt:
                    raise ValueError(
                        f"{text}: {split}.{langs[0]} has {src:,} lines and {split}.{langs[1]} "
                        f"{tgt:,}; they are not parallel"
                    )
            counts[split] = sum(lines[0])
        write_manifest(
            part, settings={"texts": list(map(str, texts))}, inputs=inputs, counts=counts,
            seconds=time.monotonic() - started,
        )  # fmt: skip
    return counts


def _copy(file, out):
    number = 0
    for number, line in enumerate(read_lines(file), start=1):
        out.write(line + "\n")
    return number


if __name__ == "__main__":
    main()
