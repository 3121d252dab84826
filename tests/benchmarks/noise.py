"""The default cleaning steps on good text, and on noise planted in it: what share each drops.

Reads train of raw folders, draws --lines pairs of each with a fixed seed, spoils them in one way
after another, and prints which share of the pairs the default steps of the languages drop, and
which steps drop most. The first row is the text as it is: what is lost there is, unless it was
bad, a good pair lost. Ratios of lengths are measured on the text as it is.

Example:
  python tests/benchmarks/noise.py --source-lang de --target-lang en corpora/general corpora/it
"""

import argparse
import random
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from data_prep.cleaning.kinds import Filter, Measured, Repair, repair_all  # noqa: E402
from data_prep.cleaning.steps import Context, default_steps, parse  # noqa: E402
from data_prep.files import find_text, read_lines  # noqa: E402

MOST = 3  # steps that are named


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", metavar="DIR", help="raw folders")
    parser.add_argument("--source-lang", required=True)
    parser.add_argument("--target-lang", required=True)
    parser.add_argument("--lines", type=int, default=2000, metavar="N", help="pairs of each folder")
    args = parser.parse_args()
    context = Context((args.source_lang, args.target_lang))
    steps = [parse(step) for step in default_steps(*context.langs)]
    for folder in args.folders:
        src, tgt = draw(folder, context.langs, args.lines)
        settled = {
            step: step.settle(step.measure(src, tgt))
            for step in steps if isinstance(step, Measured)
        }  # fmt: skip
        print(f"\n{folder}, {len(src):,} pairs")
        for name, pairs in spoilt(src, tgt).items():
            if pairs[0]:
                share, by_step = dropped(*pairs, steps, settled, context)
                words = ", ".join(f"{step} {count / len(pairs[0]):.1%}" for step, count in by_step)
                print(f"  {name:<34} {share:6.1%}  {words}")


def draw(folder, langs, lines):
    """Both sides of pairs drawn at random, two lists."""
    sides = [list(read_lines(find_text(folder, "train", lang))) for lang in langs]
    numbers = random.Random(3).sample(range(len(sides[0])), min(lines, len(sides[0])))
    return [[side[number] for number in numbers] for side in sides]


def spoilt(src, tgt):
    """{kind of noise: both sides with it}"""
    chance = random.Random(1)
    by_length = sorted(range(len(src)), key=lambda number: len(tgt[number]))
    following = tgt[1:] + tgt[:1]
    with_figures = [(s, t) for s, t in zip(src, tgt, strict=True) if any(map(str.isdigit, t))]
    return {
        "as it is": (src, tgt),
        "sides exchanged": (tgt, src),
        "target is the source": (src, src),
        "source is the target": (tgt, tgt),
        "shifted by one line": (src, following),
        "shifted to one of like length": (
            [src[number] for number in by_length],
            [tgt[number] for number in by_length[1:] + by_length[:1]],
        ),
        "half of the target is missing": (src, [text[: len(text) // 2] for text in tgt]),
        "two targets": (src, [f"{text} {more}" for text, more in zip(tgt, following, strict=True)]),
        "target says three words six times": (
            src, [" ".join(text.split()[:3] * 6) for text in tgt]
        ),
        "source in a wrong encoding, lossy": (
            [text.encode().decode("ascii", "replace") for text in src], tgt
        ),
        "source in a wrong encoding (repaired)": (
            [text.encode().decode("latin-1") for text in src], tgt
        ),
        "every figure is another": (
            [s for s, _ in with_figures],
            ["".join(str((int(c) + 1) % 10) if c in "0123456789" else c for c in t)
             for _, t in with_figures],
        ),
        "a third of the letters misread": (
            src,
            ["".join(c if chance.random() > 0.3 else chance.choice("~^|_*#10lI.,") for c in text)
             for text in tgt],
        ),
    }  # fmt: skip


def dropped(src, tgt, steps, settled, context):
    """(share of the pairs that any filter drops, the filters that drop most with their counts)."""
    repairs = [step for step in steps if isinstance(step, Repair)]
    sides = [
        repair_all(repairs, side, lang)[0]
        for side, lang in zip((src, tgt), context.langs, strict=True)
    ]
    by_step, pairs = Counter(), len(src)
    for step in steps:
        if not isinstance(step, Filter):
            continue
        more = [settled[step]] if isinstance(step, Measured) else []
        whys = step.why(*sides, context, *more)
        by_step[step.name] = sum(why is not None for why in whys)
        kept = [number for number, why in enumerate(whys) if why is None]
        sides = [[side[number] for number in kept] for side in sides]
    found = [(name, count) for name, count in by_step.most_common(MOST) if count]
    return 1 - len(sides[0]) / pairs, found


if __name__ == "__main__":
    main()
