"""Draw the miniatures' text from larger corpora; standard library only.

CORPORA/PAIR/{general,medical} hold {train,dev,test}.{SOURCE,en,origin}.gz, line by line parallel;
origin names the source of each line. Only lines of two sources are taken, for their licences.

Usage: python tests/recipes/miniatures/make_sample.py CORPORA OUT
"""

import gzip
import random
import sys
from pathlib import Path

PAIRS = {"ru-en": ("ru", "en"), "zh-en": ("zh", "en")}
ORIGIN = {"general": "tatoeba", "medical": "tico19"}
LINES = {"train": 800, "dev": 60, "test": 60}
MOST_WORDS = 20  # of the English side
LICENCE = {  # id, licence, citation, address
    "tatoeba": (
        "Tatoeba", "CC BY 2.0 FR", "tatoeba.org contributors, manythings.org/anki",
        "https://tatoeba.org",
    ),
    "tico19": (
        "TICO-19", "CC0", "Anastasopoulos et al. 2020", "https://aclanthology.org/2020.nlpcovid19-2.5"
    ),
}  # fmt: skip


def main(corpora, out):
    for pair, languages in PAIRS.items():
        for domain, origin in ORIGIN.items():
            folder = out / pair / domain
            folder.mkdir(parents=True, exist_ok=True)
            for split, lines in LINES.items():
                rows = _rows(corpora / pair / domain, split, languages, origin)
                drawn = random.Random(1).sample(rows, lines)
                for number, lang in enumerate(languages):
                    text = "".join(row[number] + "\n" for row in drawn).encode()
                    (folder / f"{split}.{lang}.gz").write_bytes(gzip.compress(text, 9, mtime=0))
                print(f"{pair} {domain} {split}: {lines:,} of {len(rows):,} pairs")
            name, licence, citation, address = LICENCE[origin]
            rows = [("id", "role", "licence", "citation", "address", "lines")]
            rows += [(name, split, licence, citation, address, n) for split, n in LINES.items()]
            (folder / "licences.tsv").write_text(
                "".join("\t".join(map(str, row)) + "\n" for row in rows)
            )


def _rows(folder, split, languages, origin):
    columns = [
        gzip.open(folder / f"{split}.{kind}.gz", "rt", encoding="utf-8", newline="\n")
        for kind in (*languages, "origin")
    ]
    return [
        (source, english)
        for source, english, made_by in zip(*(map(str.rstrip, column) for column in columns))
        if made_by == origin and len(english.split()) <= MOST_WORDS
    ]


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
