"""The steps of selection: what each does to a line's candidates, and its options.

A choosing step ranks the candidates of a line and keeps the best. A filter judges each
candidate by itself. A line whose last candidate goes is rejected. A measured filter first sees
all lines, then decides where the limit is.
"""

import abc
import contextlib
import dataclasses
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from data_prep.cleaning.content import CopyLimits, RepetitionLimit
from data_prep.cleaning.lengths import is_out_of_ratio
from data_prep.languages import accepted_codes, other_languages
from data_prep.named_steps import NamedStep, by_name, option, parse_step, steps_help
from data_prep.words import copied_share, repeated_more
from fairseq_plugins.selection.ledger import Tally
from fairseq_plugins.selection.scores import PAIRWISE, pairwise, sentence_score, signature

DISTANCES = ("ter", "chrf", "bleu")


@dataclass(frozen=True)
class Context:
    """What a step may need to know of the run.

    Attributes:
        langs: source and target language.
        folder: where it may leave files until the end of the run.
        workers: how many things it may do at once.
        trust, allow_unknown_vocabulary: opt-ins for checkpoints.
    """

    langs: tuple
    folder: Path | None = None
    workers: int = 1
    trust: bool = False
    allow_unknown_vocabulary: bool = False

    @property
    def tgt_lang(self):
        return self.langs[1]


@dataclass(frozen=True)
class Step(NamedStep):
    """What every step of selection has besides a name and options: what it needs to be given."""

    needs_scores: ClassVar[bool] = False
    needs_references: ClassVar[bool] = False
    costly: ClassVar[bool] = False  # worth a process of its own

    def check(self, context):
        """Refuse, before anything is read, what cannot work."""

    def inputs(self):
        """Files that it reads besides the text."""
        return []


# -- choosing ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Choice(Step, abc.ABC):
    """A step that keeps the best ``top`` of a line's candidates, equal texts counted as one.

    Of equally good ones the one that stood first is better.
    """

    def check(self, context):
        if self.kept < 1:
            self._refuse("top", self.top, "1 or more")

    @property
    def kept(self):
        return getattr(self, "top", 1)

    @abc.abstractmethod
    def values(self, record, distinct, counts, context):
        """A number for each of ``distinct`` candidates, more is better.

        Args:
            counts: how often each text stood among the candidates.
        """

    def choose(self, record, context):
        """(kept candidates, gain of the best of them over the first candidate)."""
        first = {}
        for candidate in record.candidates:
            first.setdefault(candidate.text, candidate)
        distinct = list(first.values())
        occurrences = Counter(candidate.text for candidate in record.candidates)
        counts = [occurrences[candidate.text] for candidate in distinct]
        values = [float(value) for value in self.values(record, distinct, counts, context)]
        order = sorted(range(len(distinct)), key=lambda index: -values[index])
        gain = values[order[0]] - values[0] if values[order[0]] > values[0] else 0.0
        return [distinct[index] for index in order[: self.kept]], gain


@dataclass(frozen=True)
class First(Choice):
    """keeps the first candidate. Stands before all others when no choosing step is given"""

    name: ClassVar[str] = "first"

    def values(self, record, distinct, counts, context):
        return [0.0] * len(distinct)


@dataclass(frozen=True)
class MetricChoice(Choice):
    """A choice by a sentence score between pairs of texts."""

    costly: ClassVar[bool] = True
    metric: str = option("chrf", "chrf or bleu, of the sentence")
    top: int = option(1, "how many are kept, each a pair of its own")

    def check(self, context):
        super().check(context)
        _check_metric(self, self.metric, PAIRWISE, context)


@dataclass(frozen=True)
class BestOfN(MetricChoice):
    """keeps the candidate that is most like the reference: sequence-level interpolation
    (Kim & Rush 2016)"""

    name: ClassVar[str] = "best-of-n"
    needs_references: ClassVar[bool] = True

    def values(self, record, distinct, counts, context):
        texts = [candidate.text for candidate in distinct]
        return pairwise(self.metric, texts, [record.reference], context.tgt_lang)[:, 0]


@dataclass(frozen=True)
class MinimumBayesRisk(MetricChoice):
    """keeps the candidate that is most like all candidates: minimum Bayes risk (Eikema & Aziz
    2020). Each candidate, itself among them, is a reference, equal ones as often as they
    occur. With top above 1 the student learns several (Finkelstein & Freitag 2023)"""

    name: ClassVar[str] = "mbr"

    def values(self, record, distinct, counts, context):
        texts = [candidate.text for candidate in distinct]
        scores = pairwise(self.metric, texts, texts, context.tgt_lang)
        return (scores * np.array(counts)).sum(axis=1) / sum(counts)


@dataclass(frozen=True)
class ModelScore(Choice):
    """keeps the candidate that the teacher finds most likely as a whole"""

    name: ClassVar[str] = "model-score"
    needs_scores: ClassVar[bool] = True
    top: int = option(1, "how many are kept, each a pair of its own")

    def values(self, record, distinct, counts, context):
        return [_decoded(candidate, candidate.log_prob) for candidate in distinct]


@dataclass(frozen=True)
class NormalisedScore(Choice):
    """keeps the candidate that the teacher finds most likely by the piece"""

    name: ClassVar[str] = "normalised-score"
    needs_scores: ClassVar[bool] = True
    top: int = option(1, "how many are kept, each a pair of its own")

    def values(self, record, distinct, counts, context):
        return [_decoded(candidate, candidate.normalised) for candidate in distinct]


def _decoded(candidate, score):
    # what was not decoded has no score, and no pieces to tell
    return score if candidate.pieces else -math.inf


# -- filters -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Filter(Step, abc.ABC):
    """A step that judges each candidate by itself."""

    @abc.abstractmethod
    def why(self, record, text, context):
        """Why ``text`` must not be the target, a few words; None if it may."""


@dataclass(frozen=True)
class Empty(Filter):
    """rejects a pair without text on a side. What it would find never reaches the output: the
    same is checked at the end"""

    name: ClassVar[str] = "empty"

    def why(self, record, text, context):
        if not record.source.strip():
            return "no source"
        return None if text.strip() else "no target"


@dataclass(frozen=True)
class Repetition(RepetitionLimit, Filter):
    """rejects a target that says the same words many times in a row, unless the source does"""

    name: ClassVar[str] = "repetition"
    costly: ClassVar[bool] = True

    def why(self, record, text, context):
        return repeated_more(text, self.max, record.source)


@dataclass(frozen=True)
class Copy(CopyLimits, Filter):
    """rejects a target whose words stand in the source: it was not translated"""

    name: ClassVar[str] = "copy"
    costly: ClassVar[bool] = True

    def why(self, record, text, context):
        share = copied_share(record.source, text, self.max, self.words)
        return None if share is None else f"{share:.0%} of the words"


@dataclass(frozen=True)
class Language(Filter):
    """rejects a target in another language (py3langid)"""

    name: ClassVar[str] = "language"
    costly: ClassVar[bool] = True
    code: str = option(None, "what py3langid calls the language; unset: --target-lang")
    accept: str = option(None, "further languages that may be found, joined by +")
    min: int = option(
        20, "bytes of letters that a target must have to be judged (Latin 1 each, Chinese 3)"
    )
    confidence: float = option(0.5, "least probability of the other language")

    def check(self, context):
        try:
            self._accepted(context)
        except ValueError as error:
            raise ValueError(
                f"step language: {error}. Say code=… for the nearest, or leave the step out"
            ) from None
        if not 0 <= self.confidence <= 1:
            self._refuse("confidence", self.confidence, "a share from 0 to 1")

    def _accepted(self, context):
        further = self.accept.split("+") if self.accept else ()
        return accepted_codes(self.code or context.tgt_lang, *further)

    def why(self, record, text, context):
        return other_languages([text], self._accepted(context), self.min, self.confidence)[0]


@dataclass(frozen=True)
class Distance(Filter):
    """rejects a target far from the reference (Freitag et al. 2017); without one, none"""

    name: ClassVar[str] = "distance"
    costly: ClassVar[bool] = True
    needs_references: ClassVar[bool] = True
    metric: str = option("ter", "ter, chrf or bleu, of the sentence")
    max: float = option(None, "reject above this; 80 for ter unless max or min is given")
    min: float = option(None, "reject below this")

    def __post_init__(self):
        if self.metric == "ter" and self.max is None and self.min is None:
            object.__setattr__(self, "max", 80.0)

    def check(self, context):
        _check_metric(self, self.metric, DISTANCES, context)
        if self.max is None and self.min is None:
            raise ValueError(f"step distance:metric={self.metric} needs max=… or min=…")

    def why(self, record, text, context):
        if not record.reference.strip():
            return None
        score = sentence_score(self.metric, text, record.reference, context.tgt_lang)
        low, high = (self.min, self.max)
        if (high is None or score <= high) and (low is None or score >= low):
            return None
        return f"{self.metric} {score:.1f}"


# -- measured filters ----------------------------------------------------------------------


@dataclass(frozen=True)
class Measured(Step, abc.ABC):
    """A filter that measures every candidate before it judges any."""

    @contextlib.contextmanager
    def measuring(self, context):
        """Gives the function from a list of records to a list of lists of numbers.

        A number for each candidate; NaN: not judged. Here one by one, with ``value``.
        """
        yield lambda records: [
            [self.value(record, candidate) for candidate in record.candidates]
            for record in records
        ]

    @abc.abstractmethod
    def settle(self, values):
        """What the judgement rests on, from all measured numbers; a float."""

    @abc.abstractmethod
    def verdict(self, record, text, value, settled):
        """Why ``text`` must not be the target; None if it may."""

    @abc.abstractmethod
    def account(self, settled):
        """What the ledger tells of the limit, a dictionary."""


@dataclass(frozen=True)
class LengthRatio(Measured):
    """rejects a target that is much longer or shorter than this text makes one expect: the
    expected ratio is the median of target to source characters, as in data_prep.clean"""

    name: ClassVar[str] = "length-ratio"
    max: float = option(3.0, "largest factor between the length found and the one expected")

    def check(self, context):
        if not 1 < self.max < math.inf:
            self._refuse("max", self.max, "a factor above 1")

    def value(self, record, candidate):
        source, target = len(record.source.strip()), len(candidate.text.strip())
        return target / source if source and target else math.nan

    def settle(self, values):
        judged = values[~np.isnan(values)]
        return float(np.median(judged)) if judged.size else 1.0

    def verdict(self, record, text, value, settled):
        source, target = record.source.strip(), text.strip()
        if math.isnan(value) or not is_out_of_ratio(source, target, settled, self.max):
            return None
        return f"{len(target)} characters where {len(source) * settled:.0f} are expected"

    def account(self, settled):
        return {"median_ratio": round(settled, 4)}


@dataclass(frozen=True)
class Percentile(Measured):
    """A measured filter that rejects a share of the candidates, those with the lowest numbers."""

    def check(self, context):
        if not 0 <= self.reject < 100:
            self._refuse("reject", self.reject, "a percentage from 0 to below 100")

    def settle(self, values):
        judged = values[~np.isnan(values)]
        rejected = int(judged.size * self.reject / 100)
        if not judged.size:
            return -math.inf
        return float(np.partition(judged, rejected)[rejected])

    def verdict(self, record, text, value, settled):
        # what ties with the limit stays, so never more than the share goes
        return f"{value:.3f}" if value < settled else None

    def account(self, settled):
        return {"least_kept": settled if math.isfinite(settled) else None}


@dataclass(frozen=True)
class ScorePercentile(Percentile):
    """rejects the targets that the teacher finds least likely by the piece"""

    name: ClassVar[str] = "score-percentile"
    needs_scores: ClassVar[bool] = True
    reject: float = option(10.0, "percentage that goes")

    def value(self, record, candidate):
        return candidate.normalised if candidate.pieces else math.nan


@dataclass(frozen=True)
class ReverseModel(Percentile):
    """rejects the targets from which a model of the other direction would least guess the
    source, by its log-probability per piece. Train that model with the same recipe"""

    name: ClassVar[str] = "reverse-model"
    model: str = option(dataclasses.MISSING, "MODEL or EXPORTED folder, from target to source")
    reject: float = option(5.0, "percentage that goes")

    def check(self, context):
        super().check(context)
        from fairseq_plugins.selection.reverse_model import open_reverse_model

        open_reverse_model(self.model, context)

    def inputs(self):
        from fairseq_plugins.generation.models import EXPORTED_WEIGHTS, WEIGHTS

        return [path for name in (WEIGHTS, EXPORTED_WEIGHTS)
                if (path := Path(self.model) / name).is_file()][-1:]  # fmt: skip

    @contextlib.contextmanager
    def measuring(self, context):
        from fairseq_plugins.selection.reverse_model import Scorer

        scorer = Scorer(self.model, context)

        def measure(records):
            pairs = [
                (record.source, candidate.text)
                for record in records
                for candidate in record.candidates
            ]
            values = iter(scorer.log_probs(pairs))
            return [[next(values) for _ in record.candidates] for record in records]

        yield measure


# -- together ----------------------------------------------------------------------------


def run_steps(steps, context, batch):
    """(records after the steps, a ``Tally`` of each step)."""
    tallies = [Tally(str(step)) for step in steps]
    for step, tally in zip(steps, tallies, strict=True):
        batch = [
            _run_step(step, tally, context, record) if record.candidates else record
            for record in batch
        ]
    return batch, tallies


def _run_step(step, tally, context, record):
    if isinstance(step, Choice):
        chosen, gain = step.choose(record, context)
        tally.pass_on(record, chosen)
        tally.changed += chosen[0].text != record.candidates[0].text
        tally.gain += gain
        return record._replace(candidates=chosen)
    whys = [step.why(record, candidate.text, context) for candidate in record.candidates]
    return tally.judge(record, whys)


# -- by name -------------------------------------------------------------------------------

STEPS = by_name(
    First, BestOfN, MinimumBayesRisk, ModelScore, NormalisedScore,
    Empty, LengthRatio, Repetition, Copy, Language, Distance, ScorePercentile, ReverseModel,
)  # fmt: skip


def parse(text):
    """The step that ``NAME[:OPTION=VALUE[,OPTION=VALUE]]`` describes; see ``parse_step``."""
    return parse_step(text, STEPS)


def explain_steps():
    """All steps and their options as text for people."""
    kinds = {"Choosing steps": Choice, "Filters": (Filter, Measured)}
    return steps_help(
        {
            title: [step for step in STEPS.values() if issubclass(step, kind)]
            for title, kind in kinds.items()
        }
    )


def _check_metric(step, metric, known, context):
    if metric not in known:
        step._refuse("metric", metric, f"one of {', '.join(known)}")
    signature(metric, context.tgt_lang)  # fails where the tokeniser is not installed
