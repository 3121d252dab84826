"""Draw the quickstart's text from larger corpora; standard library only.

CORPORA/general and CORPORA/suttas hold {train,dev,test}.{de,en,origin}.gz, line by
line parallel; origin names the source of each line. Short sentences are taken, which
small models learn quickly, and of general text only Tatoeba's, for its licence.

Usage: python recipes/quickstart/make_sample.py CORPORA OUT
"""

import gzip
import random
import sys
from pathlib import Path

LANGUAGES = ("de", "en")
ORIGIN = {"general": "tatoeba", "suttas": "suttas"}
MOST_WORDS = {"general": 7, "suttas": 12}  # of the longer side
MOST_LINES = {
    "general": {"train": 30_000, "dev": 250, "test": 500},
    "suttas": {"train": 10_000, "dev": 250, "test": 500},
}


def main(corpora, out):
    for domain, origin in ORIGIN.items():
        for split in ("train", "dev", "test"):
            columns = [
                gzip.open(
                    corpora / domain / f"{split}.{kind}.gz", "rt", encoding="utf-8", newline="\n"
                )
                for kind in (*LANGUAGES, "origin")
            ]
            rows = [
                pair
                for *pair, made_by in zip(*(map(str.rstrip, column) for column in columns))
                if made_by == origin
                and max(len(text.split()) for text in pair) <= MOST_WORDS[domain]
            ]
            drawn = random.Random(1).sample(rows, min(len(rows), MOST_LINES[domain][split]))
            (out / domain).mkdir(parents=True, exist_ok=True)
            for number, lang in enumerate(LANGUAGES):
                text = "".join(pair[number] + "\n" for pair in drawn).encode()
                path = out / domain / f"{split}.{lang}.gz"
                path.write_bytes(gzip.compress(text, 9, mtime=0))
            print(f"{domain} {split}: {len(drawn):,} of {len(rows):,} pairs")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
