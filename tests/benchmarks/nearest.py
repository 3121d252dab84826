"""Both measures of data_prep.nearest: how many of the pairs ranked first are the domain's.

Puts pairs of the domain aside, mixes them with general pairs, and ranks the mixture by nearness to
what is left of the domain. Prints the share of planted pairs among the first ones of each ranking,
beside that of a random ranking; and pairs per second, learning included.

Example:
  python tests/benchmarks/nearest.py --general corpora/general/text --domain corpora/medical/text \\
      --source-lang de --target-lang en
"""

import argparse
import contextlib
import io
import random
import tempfile
import time
from pathlib import Path

from data_prep.files import find_text, read_bitext, read_lines
from data_prep.nearest import make_method, select_nearest
from data_prep.nearness import METHODS
from tests.fixtures.bitext import write_folder


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--general", required=True, help="folder with training text")
    parser.add_argument("--domain", required=True, help="folder with training text")
    parser.add_argument("--source-lang", required=True)
    parser.add_argument("--target-lang", required=True)
    parser.add_argument("--pool", type=int, default=20_000, help="general pairs")
    parser.add_argument("--planted", type=int, default=2000, help="pairs of the domain among them")
    parser.add_argument("--sides", choices=("source", "target", "both"), default="both")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()

    langs = (args.source_lang, args.target_lang)
    chance = random.Random(args.seed)
    domain = shuffled(args.domain, langs, chance)
    planted, domain = domain[: args.planted], domain[args.planted :]
    pool = shuffled(args.general, langs, chance)[: args.pool] + planted
    places = list(range(len(pool)))
    chance.shuffle(places)
    firsts = [args.planted // 4, args.planted // 2, args.planted, args.planted * 2]
    print(
        f"{len(planted):,} pairs of the domain among {len(pool):,}, {len(domain):,} to learn from"
    )
    print(f"{'share of planted pairs among the first':<40}" + "".join(f"{n:>8,}" for n in firsts))
    print_row("random", [len(planted) / len(pool)] * len(firsts))
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        mixed = [pool[place] for place in places]
        write_folder(folder / "general", mixed, None, None, langs)
        write_folder(folder / "domain", domain, None, None, langs)
        for name in METHODS:
            started = time.perf_counter()
            with contextlib.redirect_stderr(io.StringIO()):
                select_nearest(folder / "general", folder / "domain", folder / name, langs,
                               method=make_method(name), sides=args.sides, share=1)  # fmt: skip
            seconds = time.perf_counter() - started
            origins = (line.split("\t") for line in read_lines(folder / name / "train.origin"))
            scored = sorted((-float(score), int(number)) for _, number, score in origins)
            hits = [places[number - 1] >= len(pool) - len(planted) for _, number in scored]
            print_row(name, [sum(hits[:n]) / n for n in firsts],
                      f"{len(pool) / seconds:10,.0f} pairs/s")  # fmt: skip


def shuffled(folder, langs, chance):
    """The different training pairs of a folder, in random order."""
    paths = [find_text(folder, "train", lang) for lang in langs]
    pairs = list(dict.fromkeys((src, tgt) for _, src, tgt in read_bitext(*paths)))
    chance.shuffle(pairs)
    return pairs


def print_row(name, shares, more=""):
    print(f"{name:<40}" + "".join(f"{share:>8.3f}" for share in shares) + more)


if __name__ == "__main__":
    main()
