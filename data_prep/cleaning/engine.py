"""Steps over a whole corpus: batches go through workers, in order, as often as the steps need.

Most steps judge a pair by itself. They are done in one go, on a batch at a time, by any worker.
A ``Measured`` step needs a number of every pair first, a ``Corpus`` step a hash of every pair; so
there the pairs that are left wait on disk, compressed, and are read again when all have come. What
this process does is read, write and add up.
"""

import itertools
import pickle
import sys
import time
from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import numpy as np
from backports import zstd
from tqdm import tqdm

from data_prep.cleaning.duplicates import Repeats, repeats_why
from data_prep.cleaning.kinds import CleaningStep, Context, Corpus, Filter, Measured, Repair
from data_prep.cleaning.ledger import Tally
from data_prep.files import one_line
from data_prep.spool import Spool

SPOOL_LEVEL = 1  # of zstd
MEASURED_DIGITS = 2  # of what a Measured step is given to settle on


# -- what the engine itself sees to ----------------------------------------------------------


@dataclass(frozen=True)
class Readable(CleaningStep):
    """drops a pair of which a side is not UTF-8"""

    name: ClassVar[str] = "not UTF-8"


@dataclass(frozen=True)
class NotHuge(CleaningStep):
    """drops a pair with a side of more bytes than --max-line-bytes"""

    name: ClassVar[str] = "too many bytes"


@dataclass(frozen=True)
class HeldOutOverlap(Filter):
    """drops a pair of which a side occurs in a dev or test set"""

    name: ClassVar[str] = "held-out"
    held_out: object = field(repr=False)

    def __str__(self):
        return self.name

    def why(self, src, tgt, context):
        return [
            leak and f"{('source', 'target')[leak.side]} is {leak}"
            for leak in self.held_out.leaks(src, tgt)
        ]
