"""Choose the general-domain pairs that are nearest to a domain, to enlarge a small one.

Scores every training pair of a text folder (--general) by its nearness to the training text of
another (--domain), greater is nearer, and writes the best as a text folder:

  train.SRC, train.TGT   the chosen pairs, in the order of the general text
  train.origin           where each comes from: general, its line number there, its score; with
                         --with-domain the domain's own pairs stand before them: domain, number
  dev.*, test.*          the domain's, where it has them, so that recipes can use the folder
  ledger.json            pairs read and kept, quantiles of the scores, examples of the best, of
                         the last kept, of the first left out and of the worst
  manifest.json          what made it

Two measures of nearness (--method):

  cross-entropy-difference  bits per unit that a line costs more under an n-gram model of general
                            text than under one of the domain (Moore & Lewis 2010), source and
                            target summed (Axelrod et al. 2011). The models are learnt from as
                            many lines of the one as of the other. Best for "more text of this
                            kind"; the faster
  tfidf                     cosine between the line and the line of the domain most like it, by
                            TF-IDF of character n-grams, source and target summed. Finds what
                            says almost the same as something in the domain

The domain needs no target side: train.SRC or monolingual.SRC is enough, and then the source side
alone decides. Both folders are to be clean (data_prep.clean); what is chosen has then been kept
apart from dev and test already, and data_prep.overlap proves it for the new folder.

Memory: 8 bytes for each general pair, and what --sample-lines holds. The result depends neither on
--workers nor on the order of the lines, but for pairs with the same score: of those at the limit,
the first are taken.

Examples:
  python -m data_prep.nearest --general corpora/general/text --domain corpora/medical/text \\
      --source-lang de --target-lang en --share 0.1 --out corpora/near-medical/text
  python -m data_prep.nearest --general corpora/general/text --domain corpora/medical/text \\
      --source-lang de --target-lang en --method tfidf --lines 20000 --with-domain \\
      --out corpora/medical-enlarged/text
  python -m data_prep.overlap --source-lang de --target-lang en corpora/*/text
"""

import argparse
import functools
import hashlib
import heapq
import importlib.util
import itertools
import sys
import tempfile
import time
from array import array

import numpy as np
from tqdm import tqdm

from data_prep import command
from data_prep.files import (
    copy_text,
    find_text,
    read_bitext,
    read_lines,
    write_whole,
    write_whole_folder,
)
from data_prep.manifest import write_json, write_manifest
from data_prep.nearness import METHODS, UNITS, CrossEntropyDifference, Samples
from data_prep.overlap import HELD_OUT, find_split
from data_prep.processes import in_processes, usable_cores

PROG = "data_prep.nearest"
SIDES = {"source": (0,), "target": (1,), "both": (0, 1)}
SPLITS = ("train", "monolingual")  # of a domain, either may be missing
BATCH = 1000  # pairs
BATCHES_FOR_A_PROCESS = 16  # fewer are done before another process has started
EXAMPLES = 5
EXAMPLE_CHARACTERS = 200
QUANTILES = (0, 0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1)


def select_nearest(general, domain, out, langs, *, method=None, sides=None, share=None, lines=None,
                   threshold=None, with_domain=False, sample_lines=50_000, seed=1,
                   workers=None):  # fmt: skip
    """Write the text folder ``out`` and return its ledger, a dictionary; see the module's help.

    Args:
        general, domain: text folders.
        langs: source and target language.
        method: a measure of ``data_prep.nearness``; ``CrossEntropyDifference()`` by default.
        sides: "source", "target" or "both"; None: both where the domain has both.
        share, lines, threshold: how many are chosen; one of them, the others None.
        with_domain: put the domain's own training pairs before them.
        sample_lines: the most lines of the domain that the measure is fitted to.
        seed: of the samples.
        workers: processes; None: one for each usable core.

    Raises:
        FileNotFoundError: a folder has no training text.
        ValueError: an option is out of range, a file is not parallel, not UTF-8 or empty, or
            nothing is chosen.
    """
    started = time.monotonic()
    method = method or CrossEntropyDifference()
    _check_wishes(langs, sides, share, lines, threshold, sample_lines, workers)
    general_paths = [find_text(general, "train", lang) for lang in langs]
    sides, domain_paths = find_domain(domain, langs, sides)
    pairs_of_domain = find_split(domain, "train", langs) if with_domain else None
    if with_domain and not pairs_of_domain:
        raise ValueError(
            f"--with-domain needs train.{langs[0]} and train.{langs[1]} in {domain}; a domain "
            "without targets gets them from a teacher first"
        )
    held_out = {split: find_split(domain, split, langs) for split in HELD_OUT}
    of_sides = functools.partial(_sides, SIDES[sides])
    with write_whole_folder(out) as part:
        samples, counts = draw_samples(domain_paths, general_paths, of_sides, sample_lines, seed)
        with tempfile.TemporaryDirectory(dir=part) as scratch:
            print(f"fitting {_name(method)} to {counts['domain_sample']:,} lines", file=sys.stderr)
            method.fit(scratch, samples)
            del samples
            most = counts["general"] // (BATCH * BATCHES_FOR_A_PROCESS)
            workers = min(workers or usable_cores(), max(1, most))
            scores = score_all(
                functools.partial(method.score, scratch), general_paths, of_sides,
                counts["general"], workers, method.preload, scratch,
            )  # fmt: skip
        chosen = choose(scores, share, lines, threshold)
        ledger = {"read": len(scores), **_account(scores, chosen, threshold)}
        ledger |= write_pairs(part, langs, general_paths, pairs_of_domain, scores, chosen)
        for split, paths in held_out.items():
            for path, lang in zip(paths or (), langs, strict=False):
                copy_text(path, part / f"{split}.{lang}")
        write_json(part / "ledger.json", ledger)
        write_manifest(
            part,
            settings={
                "source_lang": langs[0],
                "target_lang": langs[1],
                "method": _name(method),
                **vars(method),
                "sides": sides,
                "share": share,
                "lines": lines,
                "threshold": threshold,
                "with_domain": with_domain,
                "sample_lines": sample_lines,
            },
            inputs=_unique([*general_paths, *sum(domain_paths, []), *(pairs_of_domain or ()),
                            *sum((paths or [] for paths in held_out.values()), [])]),
            counts={**counts, "kept": ledger["kept"]},
            seconds=time.monotonic() - started,
            seed=seed,
        )  # fmt: skip
    return ledger


# -- what is read --------------------------------------------------------------------------


def find_domain(folder, langs, sides=None):
    """(sides, paths of each text of a domain that has all of them).

    Raises:
        FileNotFoundError: the folder has no such text.
    """
    found = []
    for split in SPLITS:
        paths = [_find(folder, split, lang) for lang in langs]
        if any(paths):
            found.append(paths)
    if sides is None:
        sides = "both" if any(all(paths) for paths in found) else "source"
    chosen = [[paths[side] for side in SIDES[sides]] for paths in found]
    chosen = [paths for paths in chosen if all(paths)]
    if not chosen:
        names = " and ".join(f"train.{langs[side]}" for side in SIDES[sides])
        raise FileNotFoundError(f"{folder} has no {names} to be near to")
    return sides, chosen


def _find(folder, split, lang):
    try:
        return find_text(folder, split, lang)
    except FileNotFoundError:
        return None


def _sides(numbers, pair):
    return tuple(pair[number] for number in numbers)


def _read_pairs(paths, what):
    pairs = read_bitext(*paths) if len(paths) == 2 else enumerate(read_lines(paths[0]), start=1)
    bar = tqdm(pairs, desc=what, unit=" lines", unit_scale=True, **command.bar_settings())
    for _, *pair in bar:
        yield tuple(pair)


def draw_samples(domain_paths, general_paths, of_sides, most, seed):
    """(``Samples``, counts): what a measure is fitted to, no line twice.

    A line is drawn by the hash of its text, so the order of the lines does not matter.
    """
    counts = {"domain": 0, "general": 0}

    def counted(name, pairs):
        for pair in pairs:
            counts[name] += 1
            yield pair

    read = (_read_pairs(paths, "reading the domain") for paths in domain_paths)
    domain = _draw(counted("domain", itertools.chain.from_iterable(read)), most, seed)
    if not any(any(lines) for lines in domain):
        raise ValueError(f"{domain_paths[0][0]} holds no text to be near to")
    pairs = map(of_sides, _read_pairs(general_paths, "reading general text"))
    general = _draw(counted("general", pairs), 2 * len(domain), seed)
    if len(general) < 2:
        raise ValueError(
            f"{general_paths[0]} has {len(general)} different lines; there is nothing to choose "
            "from"
        )
    samples = Samples(domain, general[::2], general[1::2])
    sizes = zip(("domain", "general", "second_general"), map(len, samples), strict=True)
    return samples, {**counts, **{f"{name}_sample": size for name, size in sizes}}


def _draw(lines, most, seed):
    """``most`` different lines, those with the lowest hashes, by rising hash."""
    key = str(seed).encode()
    heap, drawn = [], set()  # of (minus the hash, line)
    for line in lines:
        text = "\n".join(line).encode()
        number = -int.from_bytes(hashlib.blake2b(text, key=key, digest_size=8).digest(), "big")
        if len(heap) == most and number <= heap[0][0] or line in drawn:
            continue
        drawn.add(line)
        if len(heap) < most:
            heapq.heappush(heap, (number, line))
        else:
            drawn.discard(heapq.heappushpop(heap, (number, line))[1])
    return [line for _, line in sorted(heap, reverse=True)]


# -- what is chosen ------------------------------------------------------------------------


def score_all(score, paths, of_sides, total, workers, preload, folder):
    """The score of every pair, an array of float64."""
    pairs = (of_sides(pair) for _, *pair in read_bitext(*paths))
    batches = iter(lambda: list(itertools.islice(pairs, BATCH)), [])
    scores = array("d")
    bar = tqdm(
        total=total, desc="scoring", unit=" pairs", unit_scale=True, **command.bar_settings()
    )
    with bar, in_processes(workers, preload, folder) as apply:
        for found in apply(score, batches):
            scores.extend(found)
            bar.update(len(found))
    return np.frombuffer(scores)


def choose(scores, share=None, lines=None, threshold=None):
    """Which pairs are the nearest, an array of bool; ties at the limit go to the first.

    Args:
        scores: of all pairs.
        share: choose this share of them;
        lines: or so many, all where there are fewer;
        threshold: or those with at least this score.

    Raises:
        ValueError: none has the score.
    """
    if threshold is not None:
        chosen = scores >= threshold
        if not chosen.any():
            raise ValueError(
                f"--threshold {threshold:g} is above the score of every pair, {scores.max():g} "
                "at most"
            )
        return chosen
    number = min(len(scores), lines or max(1, round(share * len(scores))))
    limit = np.partition(scores, len(scores) - number)[len(scores) - number]
    chosen = scores > limit
    ties = np.flatnonzero(scores == limit)
    chosen[ties[: number - chosen.sum()]] = True
    return chosen


def write_pairs(part, langs, general_paths, domain_paths, scores, chosen):
    """Write the pairs and where each comes from; (part of the ledger) numbers and examples."""
    examples = _examples(scores, chosen)
    wanted = {number for numbers in examples.values() for number in numbers}
    texts, in_domain = {}, set()
    counts = {"pairs_of_domain": 0, "left_out_as_in_domain": 0, "kept": 0}
    with write_whole(part / f"train.{langs[0]}") as src_out, \
            write_whole(part / f"train.{langs[1]}") as tgt_out, \
            write_whole(part / "train.origin") as origin_out:  # fmt: skip

        def write(src, tgt, *origin):
            src_out.write(f"{src}\n")
            tgt_out.write(f"{tgt}\n")
            origin_out.write("\t".join(origin) + "\n")

        for number, src, tgt in read_bitext(*domain_paths) if domain_paths else ():
            write(src, tgt, "domain", str(number))
            in_domain.add(_digest(src, tgt))
            counts["pairs_of_domain"] += 1
        for number, src, tgt in read_bitext(*general_paths):
            if number - 1 in wanted:
                texts[number - 1] = (src, tgt)
            if not chosen[number - 1]:
                continue
            if _digest(src, tgt) in in_domain:
                counts["left_out_as_in_domain"] += 1
                continue
            write(src, tgt, "general", str(number), f"{scores[number - 1]:.6f}")
            counts["kept"] += 1
    return {
        **counts,
        "examples": {
            name: [
                {
                    "line": number + 1,
                    "score": round(float(scores[number]), 6),
                    "source": texts[number][0][:EXAMPLE_CHARACTERS],
                    "target": texts[number][1][:EXAMPLE_CHARACTERS],
                }
                for number in numbers
            ]
            for name, numbers in examples.items()
        },
    }


def _digest(src, tgt):
    return hashlib.blake2b(f"{src}\n{tgt}".encode(), digest_size=16).digest()


def _account(scores, chosen, threshold):
    """Quantiles of the scores and the limit, for the ledger."""
    quantiles = np.quantile(scores, QUANTILES)
    limit = scores[chosen].min() if threshold is None else threshold
    return {
        "lowest_kept": round(float(limit), 6),
        "quantiles": {
            f"{share:g}": round(float(value), 6)
            for share, value in zip(QUANTILES, quantiles, strict=True)
        },
    }


def _examples(scores, chosen):
    """{kind: places of a few pairs}, from the nearest to the farthest."""
    kept, left = np.flatnonzero(chosen), np.flatnonzero(~chosen)
    return {
        "best": _extreme(scores, kept, -1),
        "last_kept": _extreme(scores, kept, 1)[::-1],
        "first_left_out": _extreme(scores, left, -1),
        "worst": _extreme(scores, left, 1)[::-1],
    }


def _extreme(scores, places, sign):
    """The few of ``places`` with the lowest score × sign, the lowest first."""
    few = heapq.nsmallest(EXAMPLES, ((sign * scores[place], place) for place in places))
    return [int(place) for _, place in few]


# -- the command ---------------------------------------------------------------------------


def _check_wishes(langs, sides, share, lines, threshold, sample_lines, workers):
    if langs[0] == langs[1]:
        raise ValueError(f"--source-lang and --target-lang are both {langs[0]}")
    if sides is not None and sides not in SIDES:
        raise ValueError(f"--sides is {', '.join(SIDES)}, not {sides}")
    if [share, lines, threshold].count(None) != 2:
        raise ValueError("one of --share, --lines and --threshold says how many are chosen")
    if share is not None and not 0 < share <= 1:
        raise ValueError(f"--share is above 0 and at most 1, not {share}")
    for name, value in (("--lines", lines), ("--sample-lines", sample_lines),
                        ("--workers", workers)):  # fmt: skip
        if value is not None and value < 1:
            raise ValueError(f"{name} is a number above 0, not {value}")


def _name(method):
    return next(name for name, kind in METHODS.items() if isinstance(method, kind))


def _unique(paths):
    return list(dict.fromkeys(paths))


def make_method(name, units=None, order=None):
    """The measure that the command line describes.

    Raises:
        ValueError: it has no such options, or its package is not installed.
    """
    if name != "cross-entropy-difference":
        if units is not None or order is not None:
            raise ValueError(f"--units and --order say nothing to --method {name}; leave them out")
        return METHODS[name]()
    if not importlib.util.find_spec("varikn"):
        raise ValueError(
            f"--method {name} needs the package varikn, which is not here: pip install varikn "
            "(ready-made for Python up to 3.11), or take --method tfidf"
        )
    units = units or "subwords"
    if order is not None and order < 1:
        raise ValueError(f"--order is a number above 0, not {order}")
    return CrossEntropyDifference(units, order or UNITS[units])


def summary(ledger):
    """One sentence for people."""
    kept, read = ledger["kept"], ledger["read"]
    words = f"kept {kept:,} of {read:,} general pairs ({kept / read:.1%}), score at least "
    words += f"{ledger['lowest_kept']:.3f}"
    if ledger["pairs_of_domain"]:
        words += (
            f", after {ledger['pairs_of_domain']:,} of the domain; "
            f"{ledger['left_out_as_in_domain']:,} were among these already"
        )
    return words


def main():
    command.run(_main, PROG)


def _main(argv=None):
    parser = command.parser(__doc__, f"python -m {PROG}")
    required = {"required": True, "default": argparse.SUPPRESS}
    optional = {"default": argparse.SUPPRESS}
    parser.add_argument("--general", metavar="DIR", help="text folder to choose from", **required)
    parser.add_argument("--domain", metavar="DIR", help="text folder of the domain", **required)
    parser.add_argument("--source-lang", metavar="SRC", help="for example de", **required)
    parser.add_argument("--target-lang", metavar="TGT", help="for example en", **required)
    parser.add_argument("--out", metavar="DIR", help="text folder to write", **required)
    number = parser.add_mutually_exclusive_group(required=True)
    number.add_argument(
        "--share", type=float, metavar="SHARE", help="of the general pairs to choose", **optional
    )
    number.add_argument("--lines", type=int, metavar="N", help="or the number of them", **optional)
    number.add_argument(
        "--threshold", type=float, metavar="SCORE", help="or the lowest score", **optional
    )
    parser.add_argument(
        "--method", choices=METHODS, default="cross-entropy-difference",
        help="what near means; see above",
    )  # fmt: skip
    parser.add_argument(
        "--sides", choices=SIDES, help="what is compared; both where the domain has both",
        **optional,
    )  # fmt: skip
    parser.add_argument(
        "--units", choices=UNITS, help="of the n-gram models; subwords by default, learnt from "
        "the samples", **optional,
    )  # fmt: skip
    parser.add_argument(
        "--order", type=int, metavar="N", **optional,
        help="longest n-gram; "
        + ", ".join(f"{order} {units}" for units, order in UNITS.items()) + " by default",
    )  # fmt: skip
    parser.add_argument(
        "--sample-lines", type=int, default=50_000, metavar="N",
        help="most lines of the domain to learn from or compare with",
    )  # fmt: skip
    parser.add_argument("--with-domain", action="store_true", help="the domain's own pairs first")
    parser.add_argument("--seed", type=int, default=1, help="chooses the samples")
    parser.add_argument("--workers", type=int, metavar="N", **optional,
                        help="processes; unset: one for each usable core")  # fmt: skip
    args = vars(parser.parse_args(argv))
    method = make_method(args.pop("method"), args.pop("units", None), args.pop("order", None))
    langs = (args.pop("source_lang"), args.pop("target_lang"))
    out = args["out"]
    ledger = select_nearest(langs=langs, method=method, **args)
    print(f"{out}: {summary(ledger)}", file=sys.stderr)


if __name__ == "__main__":
    main()
