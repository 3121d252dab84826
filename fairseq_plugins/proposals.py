"""Propose settings for adapting a model to a domain, from the size of the domain's bitext.

Reads the training set of a prepared folder and prints flags of fairseq-train, each with its
reason and its source. They are rules of thumb to start from, not results: try the learning rate
at half and at twice the value when a dev set allows it.

Examples:
  dad-propose --data corpora/medical/prepared
  dad-propose --data corpora/medical/prepared --max-tokens 8192 --update-freq 2 --workers 4
"""

import argparse
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_prep import command
from data_prep.binarise import binary_sizes
from data_prep.vocabulary import read_vocabulary

PROG = "dad-propose"

PAPER = "Gordon & Duh 2020"  # https://aclanthology.org/2020.ngt-1.12/
PAPER_RATE = 2e-4  # constant, in training and adapting alike
PAPER_PATIENCE = 10
LOWEST_RATE = 5e-5
USUAL_PASS = 1000  # updates; in a pass this long, or longer, the paper's rate does well
FEWEST_UPDATES, MOST_UPDATES = 100, 1000  # between two validations
PASSES = 30


@dataclass(frozen=True)
class Proposal:
    """Settings for adapting, and what they were derived from.

    Attributes:
        pairs, updates: in a pass over the training set.
        lr: learning rate, constant.
        slices: validations in a pass, so --epoch-fraction is 1 / slices.
        max_update, patience: fairseq's settings.
    """

    pairs: int
    updates: int
    lr: float
    slices: int
    max_update: int
    patience: int


def propose(pairs, updates):
    """The ``Proposal`` for a training set of so many pairs and updates in a pass."""
    updates = max(1, updates)
    rate = max(LOWEST_RATE, PAPER_RATE * min(1, math.sqrt(updates / USUAL_PASS)))
    distance = min(max(updates / 4, FEWEST_UPDATES), MOST_UPDATES)
    return Proposal(
        pairs=pairs,
        updates=updates,
        lr=float(f"{rate:.1g}"),
        slices=max(1, round(updates / distance)),
        max_update=PASSES * updates,
        patience=PAPER_PATIENCE,
    )


def updates_in_pass(sizes, weights, max_tokens, batch_size, update_freq, workers):
    """About how many updates a pass makes: batches are taken for full, pairs of equal length.

    Args:
        sizes: for each bitext an array (pairs, 2), source and target tokens.
        weights: how often a pass shows each bitext.
        max_tokens, batch_size: tokens and sentences in a batch; None: no limit.
        update_freq: batches in an update of one worker.
        workers: processes that train together.
    """
    tokens = sum(w * np.max(s, axis=1).sum() for w, s in zip(weights, sizes, strict=True))
    pairs = sum(w * len(s) for w, s in zip(weights, sizes, strict=True))
    by_tokens = tokens / max_tokens if max_tokens else 0
    by_sentences = pairs / batch_size if batch_size else 0
    return math.ceil(max(by_tokens, by_sentences) / (update_freq * workers))


def read_sizes(folder):
    """Source and target tokens of the training pairs in a prepared folder, array (pairs, 2).

    Raises:
        FileNotFoundError, ValueError: the folder is not a prepared one.
    """
    folder = Path(folder)
    vocabulary = read_vocabulary(folder)
    langs = (vocabulary.source_lang, vocabulary.target_lang)
    prefix = f"train.{langs[0]}-{langs[1]}"
    for lang in langs:
        if not (folder / f"{prefix}.{lang}.idx").exists():
            raise FileNotFoundError(
                f"{folder} holds no binarised training set; make one with "
                "python -m data_prep.binarise"
            )
    return np.stack([binary_sizes(folder / f"{prefix}.{lang}") for lang in langs], axis=1)


def explain(proposal):
    """Lines of ``--flag value   # reason``."""
    between = proposal.updates / proposal.slices
    lowered = proposal.updates < USUAL_PASS
    reasons = {
        f"--lr {proposal.lr:g}": (
            f"{PAPER} adapt with the rate they train with, {PAPER_RATE:g}, constant"
            + (
                f"; lowered with the root of the {proposal.updates:,} updates in a pass, below "
                f"{USUAL_PASS:,} (our rule of thumb)"
                if lowered
                else ""
            )
        ),
        f"--epoch-fraction {fraction(proposal.slices)}": (
            f"a validation every {between:,.0f} updates: four in a pass, {FEWEST_UPDATES} to "
            f"{MOST_UPDATES:,} updates apart (our rule of thumb; {PAPER} validated every 5,000 "
            "updates on sets of 1,000 a pass)"
        ),
        f"--max-update {proposal.max_update}": (
            f"{PASSES} passes, an upper limit: --patience should end it before (our rule of thumb)"
        ),
        f"--patience {proposal.patience}": f"validations without improvement ({PAPER})",
    }
    width = max(map(len, reasons))
    return [f"{flag:{width}}  # {reason}" for flag, reason in reasons.items()]


def fraction(slices):
    """1 / slices as few digits as ``--epoch-fraction`` takes."""
    return f"{1 / slices:.4g}"


def main():
    command.run(_main, PROG)


def _main(argv=None):
    words = command.parser(__doc__, PROG)
    words.add_argument("--data", required=True, default=argparse.SUPPRESS, metavar="PREPARED",
                       help="prepared folder of the domain")  # fmt: skip
    words.add_argument("--max-tokens", type=int, default=4096, metavar="N",
                       help="tokens in a batch, as for fairseq-train")  # fmt: skip
    words.add_argument("--update-freq", type=int, default=1, metavar="N",
                       help="batches in an update")  # fmt: skip
    words.add_argument("--workers", type=int, default=1, metavar="N",
                       help="processes (GPUs) that train together")  # fmt: skip
    args = words.parse_args(argv)
    for flag in ("max_tokens", "update_freq", "workers"):
        if getattr(args, flag) < 1:
            raise ValueError(f"--{flag.replace('_', '-')} is above 0, not {getattr(args, flag)}")
    sizes = read_sizes(args.data)
    updates = updates_in_pass([sizes], [1], args.max_tokens, None, args.update_freq, args.workers)
    proposal = propose(len(sizes), updates)
    print(f"# {args.data}: {len(sizes):,} pairs, about {proposal.updates:,} updates in a pass")
    print("# rules of thumb to start from; --lr-scheduler fixed, --warmup-updates 1")
    print("\n".join(explain(proposal)))


if __name__ == "__main__":
    main()
