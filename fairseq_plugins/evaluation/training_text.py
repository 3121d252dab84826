"""What the training text tells of a test set: its terms, its rare words, what was taken verbatim.

The training text is read once and streamed. Memory grows with the references and outputs
that are judged, not with the training text: only what occurs in them is counted.
"""

import math
import re
from collections import Counter
from dataclasses import dataclass, field

from tqdm import tqdm

from data_prep import command
from data_prep.files import read_lines
from data_prep.languages import base_code
from fairseq_plugins.evaluation.indicators import (
    SPAN_WORDS,
    VERBATIM_WORDS,
    Facts,
    bare_words,
    runs,
)

TERM_TIMES = 5  # in the domain, at least
WEIRDNESS = 5  # times as frequent as elsewhere, at least
LOG_LIKELIHOOD = 15.13  # p < 0.0001, Rayson et al. 2004
COMMON = 1e-4  # share of all words elsewhere from which on a word is everyday language
SPACELESS_WORD = re.compile(r"[^\x00-\u0dff]")  # such as one Han character
SPACELESS = ("zh", "ja", "th", "lo", "my", "km")


class Terms:
    """Terms of one or more words, to be found in a line.

    Args:
        sources: {term: set of source terms that ask for it, or None where it always counts}.
    """

    def __init__(self, sources):
        self.sources = sources
        self.orders = sorted({term.count(" ") + 1 for term in sources})
        asking = [term for terms in sources.values() for term in terms or ()]
        self.asking_orders = sorted({term.count(" ") + 1 for term in asking})

    def __len__(self):
        return len(self.sources)

    def found(self, words):
        """{term: times} in the ``bare_words`` of a line."""
        return Counter(
            run for order in self.orders for run in runs(words, order) if run in self.sources
        )

    def asked_for(self, needed, source):
        """``needed`` without terms whose source terms the source line does not have."""
        if not self.asking_orders:
            return needed
        words = bare_words(source)
        there = {run for order in self.asking_orders for run in runs(words, order)}
        return Counter({
            term: times for term, times in needed.items()
            if self.sources[term] is None or not there.isdisjoint(self.sources[term])
        })  # fmt: skip


def read_terms(path, has_source=True):
    """``Terms`` of a file: a target term a line, or source term, tab, target term.

    Raises:
        ValueError: more than one tab, a term without a word, no terms, or terms with a source where
            there is no source text.
    """
    sources = {}
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        *source, target = (" ".join(bare_words(part)) for part in line.split("\t"))
        if len(source) > 1 or not target or source == [""]:
            raise ValueError(
                f"{path}, line {number}: a term, or a source term, a tab and its target, "
                f"not {line!r}"
            )
        if source and not has_source:
            raise ValueError(
                f"{path}, line {number} has a source term, but there is no source text; "
                f"give --source, or --source-lang with --test"
            )
        if not source:
            sources[target] = None
        elif sources.setdefault(target, set()) is not None:
            sources[target].add(source[0])
    if not sources:
        raise ValueError(f"{path} holds no terms")
    return Terms(sources)


@dataclass
class TrainingText:
    """Of what was looked for, what the training texts have.

    Args:
        counts: {word of a reference: times}.
        verbatim: outputs that are a training target, as bare words joined by spaces.
        spans: runs of ``SPAN_WORDS`` words of outputs.
    """

    counts: dict
    verbatim: set = field(default_factory=set)
    spans: set = field(default_factory=set)


@dataclass
class Wanted:
    """What is looked for in training text.

    Args:
        orders: how many words the candidates for terms have.
    """

    orders: tuple
    words: set = field(default_factory=set)
    candidates: set = field(default_factory=set)
    outputs: set = field(default_factory=set)
    spans: set = field(default_factory=set)

    def add_reference(self, text):
        words = bare_words(text)
        self.words.update(words)
        for order in self.orders:
            self.candidates.update(runs(words, order))

    def add_output(self, text):
        words = bare_words(text)
        if len(words) >= VERBATIM_WORDS:
            self.outputs.add(" ".join(words))
        self.spans.update(runs(words, SPAN_WORDS))


def term_orders(tgt_lang):
    """How many words a mined term has: 1 or 2; of scripts without spaces 2 to 4 characters."""
    return (2, 3, 4) if base_code(tgt_lang) in SPACELESS else (1, 2)


def gather_facts(tests, outputs, trains, terms, tgt_lang):
    """{name of test set: ``Facts``}.

    Args:
        tests: {name of test set: reference files}.
        outputs: {name of test set: files of the systems}.
        trains: {name of training text: file of targets}; the one named as a test set is its domain,
            and the others what its terms are told from.
        terms: ``Terms`` for all test sets, in place of mined ones; or None.
    """
    if not trains:
        return {name: Facts(terms) for name in tests}
    wanted = Wanted(term_orders(tgt_lang))
    for name, references in tests.items():
        for path in references:
            for line in read_lines(path):
                wanted.add_reference(line)
        for path in outputs[name]:
            for line in read_lines(path):
                wanted.add_output(line)
    training = TrainingText(Counter())
    counted = {name: _count(path, wanted, training) for name, path in trains.items()}
    facts = {}
    for name in tests:
        mined = terms
        if terms is None and name in counted and len(counted) > 1:
            rest = [count for other, count in counted.items() if other != name]
            mined = mine_terms(counted[name], sum(rest[1:], rest[0]))
        facts[name] = Facts(mined, training)
    return facts


@dataclass
class Counts:
    """Of a text: times of words, times of candidates for terms, number of words."""

    words: Counter = field(default_factory=Counter)
    candidates: Counter = field(default_factory=Counter)
    total: int = 0

    def __add__(self, other):
        return Counts(self.words + other.words, self.candidates + other.candidates,
                      self.total + other.total)  # fmt: skip


def _count(path, wanted, training):
    """``Counts`` of a file; notes what was taken verbatim in ``training``."""
    counts = Counts()
    words_wanted, candidates = wanted.words, wanted.candidates
    orders = [order for order in wanted.orders if order > 1]
    bar = tqdm(read_lines(path), desc=f"reading {path}", unit=" lines", delay=2,
               **command.bar_settings())  # fmt: skip
    for line in bar:
        words = bare_words(line)
        counts.total += len(words)
        counts.words.update(word for word in words if word in words_wanted)
        for order in orders:
            counts.candidates.update(run for run in runs(words, order) if run in candidates)
        if len(words) >= VERBATIM_WORDS and (text := " ".join(words)) in wanted.outputs:
            training.verbatim.add(text)
        if len(words) >= SPAN_WORDS:
            training.spans.update(wanted.spans.intersection(runs(words, SPAN_WORDS)))
    if 1 in wanted.orders:
        counts.candidates.update(counts.words)
    training.counts.update(counts.words)
    return counts


def mine_terms(domain, other):
    """``Terms`` of a domain: what is much more frequent in it than elsewhere.

    Log-likelihood ratio G2 (Rayson & Garside 2000) says that the difference is no chance, the ratio
    of relative frequencies ("weirdness", Ahmad et al. 1999; one is added to the count elsewhere)
    that it is large. Everyday words, of which texts of two kinds differ in share, are no terms: all
    words of a term are rare elsewhere.

    Args:
        domain, other: ``Counts`` of the domain and of the text to tell it from.
    """
    # a character of a script without spaces is no word, so there the run alone is judged
    common = {word for word, times in other.words.items()
              if times > COMMON * other.total and not SPACELESS_WORD.fullmatch(word)}  # fmt: skip
    found = {}
    for term, here in domain.candidates.items():
        there = other.candidates[term]
        if (
            here >= TERM_TIMES
            and any(map(str.isalpha, term))
            and here * (other.total + 1) >= WEIRDNESS * (there + 1) * domain.total
            and log_likelihood(here, domain.total, there, other.total) >= LOG_LIKELIHOOD
            and not any(map(common.__contains__, term.split()))
        ):
            found[term] = None
    return Terms(found)


def log_likelihood(here, words, there, other_words):
    """G2 of a word's counts in two texts of so many words (Rayson & Garside 2000)."""
    share = (here + there) / (words + other_words)
    return 2 * sum(
        times * math.log(times / (size * share))
        for times, size in ((here, words), (there, other_words))
        if times
    )
