"""What scores do not tell: how much of a translation shows a certain trait.

Each indicator is a function of one line that gives two numbers; both are summed over the test set,
and its value is the first divided by the second. Its docstring is its definition. None of
them needs a model. They point to lines that a person should read; none proves that a line is wrong.

Words are what ``data_prep.words.words_of`` finds, in lower case, with one kind of apostrophe and
without the punctuation at their ends; in scripts without spaces each character is one.
"""

from collections import Counter
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import xxhash

from data_prep.words import copied_share, repeated_more, words_of

COPIED_SHARE, COPIED_WORDS = 0.8, 4  # as the cleaning step `copy`
LOOPS = 4  # as the cleaning step `repetition`
SHORT, LONG, JUDGED_WORDS = 0.5, 2.0, 4
OSCILLATION_WORDS, OSCILLATION_MORE = 4, 2
SAME_SOURCES = 5
DETACHED_CHRF = 10
VERBATIM_WORDS = 5
SPAN_WORDS = 8
RARE = 5  # times in the training text, at most

_PUNCTUATION = (
    "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"
    "\u00a1\u00a7\u00ab\u00b6\u00b7\u00bb\u00bf\u2010\u2011\u2012\u2013\u2014\u2015"
    "\u2018\u2019\u201a\u201c\u201d\u201e\u2026\u2039\u203a\u3001\u3002\u3008\u3009\u300a\u300b"
    "\u300c\u300d\u300e\u300f\u3010\u3011\u301c\u30fb\uff01\uff08\uff09\uff0c\uff0e\uff1a\uff1b\uff1f"
)


def bare_words(text):
    """Words in lower case without the punctuation at their ends."""
    text = text.casefold().replace("\u2019", "'")
    return [bare for word in words_of(text) if (bare := word.strip(_PUNCTUATION))]


def runs(words, size):
    """All ``size`` words in a row, joined by spaces."""
    if size == 1:
        return words
    return [" ".join(words[first : first + size]) for first in range(len(words) - size + 1)]


class Sentence:
    """What all systems have of a line: its source and its references."""

    def __init__(self, source, references):
        self.source = source  # None where there is no source text
        self.references = references

    @cached_property
    def reference_words(self):
        return [bare_words(text) for text in self.references]

    @cached_property
    def needed(self):
        """{word: times}, the most that any reference has it."""
        return _most(map(Counter, self.reference_words))

    @cached_property
    def spans(self):
        return {run for words in self.reference_words for run in runs(words, SPAN_WORDS)}

    @cached_property
    def top(self):
        """How often the source, or without it the first reference, has its most frequent run."""
        text = self.references[0] if self.source is None else self.source
        return _top(bare_words(text))

    def needed_terms(self, terms):
        """{term: times}, the most that any reference has it; of terms that the source asks for."""
        needed = _most(terms.found(words) for words in self.reference_words)
        return terms.asked_for(needed, self.source)


class Line:
    """One line of one system."""

    def __init__(self, sentence, output, chrf=None):
        self.sentence = sentence
        self.output = output
        self.chrf = chrf  # of the sentence, 0 to 100

    @cached_property
    def words(self):
        return bare_words(self.output)


@dataclass
class Facts:
    """What indicators know beside the line.

    Args:
        terms: ``terminology.Terms``, or None.
        training: ``training_text.TrainingText``, or None.
    """

    terms: object = None
    training: object = None


@dataclass(frozen=True)
class Indicator:
    """An indicator by name.

    Args:
        key: name in JSON files.
        title: name in tables.
        counts: what is counted; ``lines`` are shown as 0 or 1 for a line.
        needs: ``source``, ``chrf``, ``terms`` or ``training``; without it there is no value.
        paper: where the definition comes from.
        function: of a ``Line`` and ``Facts``, gives two numbers.
    """

    key: str
    title: str
    counts: str
    needs: str | None
    paper: str
    function: object

    @property
    def definition(self):
        """One paragraph of plain words."""
        return " ".join(self.function.__doc__.split())


INDICATORS = {}


def _indicator(title, counts, paper, needs=None):
    def register(function):
        key = function.__name__
        INDICATORS[key] = Indicator(key, title, counts, needs, paper, function)
        return function

    return register


@_indicator("empty lines", "lines", "own")
def empty(line, facts):
    """Share of lines without any text. A line may be empty; it scores nothing."""
    return int(not line.output.strip()), 1


@_indicator("length, of reference", "characters", "as BLEU's brevity penalty; Papineni et al. 2002")
def length_ratio(line, facts):
    """Characters of the output for each character of the references (of several the one nearest in
    length). Below 1, text is left out; above 1, text is added."""
    size = len(line.output)
    return size, min((len(text) for text in line.sentence.references),
                     key=lambda other: (abs(size - other), other))  # fmt: skip


@_indicator("less than half as long", "lines", "own")
def too_short(line, facts):
    """Share of lines with fewer than half the words of their shortest reference, of lines whose
    references have 4 words or more: something was probably left out."""
    shortest = min(map(len, line.sentence.reference_words))
    if shortest < JUDGED_WORDS:
        return 0, 0
    return int(len(line.words) < SHORT * shortest), 1


@_indicator("more than twice as long", "lines", "own")
def too_long(line, facts):
    """Share of lines with more than twice the words of their longest reference, of lines whose
    references have 4 words or more: something was probably added."""
    longest = max(map(len, line.sentence.reference_words))
    if min(map(len, line.sentence.reference_words)) < JUDGED_WORDS:
        return 0, 0
    return int(len(line.words) > LONG * longest), 1


@_indicator("copied from source", "lines",
            "copies harm most: Khayrallah & Koehn 2018", needs="source")  # fmt: skip
def copied(line, facts):
    """Share of lines of which more than 80 % of the words stand in the source, of outputs with 4
    words or more: not translated. Lines whose reference does the same (names, titles) do not
    count."""
    sentence = line.sentence
    if _copies(sentence.source, line.output):
        return int(not any(_copies(sentence.source, text) for text in sentence.references)), 1
    return 0, 1


@_indicator("loops", "lines", "degenerate repetition: Holtzman et al. 2020")
def loops(line, facts):
    """Share of lines in which 1 to 8 words follow themselves more than 4 times in a row, unless the
    source (without one, the first reference) repeats as often."""
    sentence = line.sentence
    excuse = sentence.references[0] if sentence.source is None else sentence.source
    return int(repeated_more(line.output, LOOPS, excuse) is not None), 1


@_indicator("oscillating", "lines",
            "Raunak et al. 2021; thresholds of Guerreiro et al. 2023 (EACL)")  # fmt: skip
def oscillating(line, facts):
    """Share of lines that have some run of 4 words at least 2 times more often than the source
    (without one, the first reference) has its most frequent run: signs of an oscillatory
    hallucination. Finds refrains in verse, too."""
    return int(_top(line.words) - line.sentence.top >= OSCILLATION_MORE), 1


@_indicator("far from every reference", "lines",
            "reference-based detection: Guerreiro et al. 2023 (EACL)", needs="chrf")  # fmt: skip
def detached(line, facts):
    """Share of lines whose chrF2 is below 10, as low as of most translations of other
    sentences (50 to 74 % of outputs set beside a wrong reference, German to English): output that
    may be detached from its source. A free translation, and a very short one, may be as low; chrF
    is lower in Chinese and Japanese, so compare systems there, not test sets."""
    return int(line.chrf < DETACHED_CHRF), 1


@_indicator("equal to a reference", "lines", "replication: Dankers & Raunak 2025")
def exact(line, facts):
    """Share of lines that equal a reference, character by character. On a test set it is good;
    where the test set is training text it is the replication rate of memorisation."""
    return int(line.output in line.sentence.references), 1


def same_output(outputs, pairs, right):
    """Share of lines whose output is given for 5 different sources or more and equals no reference
    of the line: the model answers so when it knows nothing better (a natural hallucination). The
    paper asks a quality model which of these are wrong; here the reference decides."""
    # outputs, pairs: hashes of the output, and of source and output, of each line
    # right: whether the output is empty or equals a reference
    _, first = np.unique(pairs, return_index=True)
    values, sources = np.unique(outputs[first], return_counts=True)
    often = np.isin(outputs, values[sources >= SAME_SOURCES])
    return int((often & ~right).sum()), len(outputs)


INDICATORS["same_output"] = Indicator(
    "same_output", "one output for many", "lines", "source",
    "NatHal: Dankers & Raunak 2025, after Raunak et al. 2021", same_output,
)  # fmt: skip


@_indicator("term recall", "terms", "Dinu et al. 2019; mined by log-likelihood, Rayson & Garside "
            "2000, and weirdness, Ahmad et al. 1999", needs="terms")  # fmt: skip
def term_recall(line, facts):
    """Share of the terms in the references that the output has, too, as often as the reference at
    most. Terms are those of --terms, of which pairs count only where the source term stands in the
    source; or words and pairs of words (in scripts without spaces, 2 to 4 characters) that stand
    at least 5 times as often in the training text of the test set as in the other training
    texts, with a log-likelihood ratio of 15.13 or more (p < 0.0001), 5 times in it at least, and
    none of whose words is frequent there (more than 1 in 10,000 words). Another form of a word
    is not found."""
    needed = line.sentence.needed_terms(facts.terms)
    if not needed:
        return 0, 0
    return (facts.terms.found(line.words) & needed).total(), needed.total()


@_indicator("recall, words unseen", "words", "Neubig et al. 2019 (compare-mt)", needs="training")
def unseen_word_recall(line, facts):
    """Share of the references' words that stand nowhere in the training text, but in the output.
    Compare with the same of frequent words."""
    return _recall(line, facts, 0, 0)


@_indicator("recall, words seen 1-5 times", "words", "Neubig et al. 2019 (compare-mt)",
            needs="training")  # fmt: skip
def rare_word_recall(line, facts):
    """Share of the references' words seen 1 to 5 times in the training text that the output has,
    as often as the reference at most."""
    return _recall(line, facts, 1, RARE)


@_indicator("recall, words seen more", "words", "Neubig et al. 2019 (compare-mt)",
            needs="training")  # fmt: skip
def frequent_word_recall(line, facts):
    """Share of the references' words seen more than 5 times in the training text that the output
    has, as often as the reference at most."""
    return _recall(line, facts, RARE + 1, None)


@_indicator("a training target, verbatim", "lines",
            "after the replication rate of Dankers & Raunak 2025", needs="training")  # fmt: skip
def verbatim(line, facts):
    """Share of outputs of 5 words or more that are, word by word, a target of the training text
    though no reference reads so: perhaps memorised. Formulas of a domain are found, too. It says
    nothing about extractive memorisation, for which the model must see beginnings of training
    sources alone; dad-evaluate --extract does that."""
    if len(line.words) < VERBATIM_WORDS:
        return 0, 0
    text = " ".join(line.words)
    return int(text in facts.training.verbatim
               and line.words not in line.sentence.reference_words), 1  # fmt: skip


@_indicator("words in runs of training text", "words",
            "n-gram overlap with training text, McCoy et al. 2023", needs="training")  # fmt: skip
def training_runs(line, facts):
    """Share of the output's words that stand in runs of 8 words or more which the training text
    has and no reference has. Formulas of a domain are found, too."""
    covered = set()
    if len(line.words) >= SPAN_WORDS:
        for first, run in enumerate(runs(line.words, SPAN_WORDS)):
            if run in facts.training.spans and run not in line.sentence.spans:
                covered.update(range(first, first + SPAN_WORDS))
    return len(covered), len(line.words)


def hashes(line):
    """(hash of the output, hash of source and output, whether it is empty or right)."""
    output = line.output.encode()
    source = line.sentence.source.encode()
    return (
        xxhash.xxh3_64_intdigest(output),
        xxhash.xxh3_64_intdigest(source + b"\n" + output),
        not line.output.strip() or line.output in line.sentence.references,
    )


def available(has):
    """Keys of the indicators for which there is what they need.

    Args:
        has: of ``source``, ``chrf``, ``terms``, ``training`` what there is.
    """
    return [key for key, indicator in INDICATORS.items() if indicator.needs in (None, *has)]


def value(count, of):
    """What files hold of an indicator: {"value": float or None, "count", "of"}."""
    return {"value": round(count / of, 4) if of else None, "count": int(count), "of": int(of)}


def _copies(source, text):
    return copied_share(source, text, COPIED_SHARE, COPIED_WORDS) is not None


def _top(words):
    return max(Counter(runs(words, OSCILLATION_WORDS)).values(), default=0)


def _most(counters):
    most = Counter()
    for counter in counters:
        most |= counter
    return most


def _recall(line, facts, least, most):
    seen = facts.training.counts
    output = Counter(line.words)
    found = of = 0
    for word, times in line.sentence.needed.items():
        if seen.get(word, 0) >= least and (most is None or seen.get(word, 0) <= most):
            of += times
            found += min(times, output[word])
    return found, of
