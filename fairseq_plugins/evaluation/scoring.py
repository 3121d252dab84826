"""Scores and indicators of any number of systems on a test set, read in step and in batches.

References are prepared once a batch for all systems. What stays in memory is sacreBLEU's
statistics of each sentence (a few bytes a number), which intervals and paired tests are drawn from.
"""

import itertools
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from data_prep import command
from data_prep.files import read_lines
from data_prep.processes import in_processes
from fairseq_plugins.evaluation.indicators import (
    INDICATORS,
    Facts,
    Line,
    Sentence,
    available,
    hashes,
    same_output,
    value,
)
from fairseq_plugins.evaluation.metrics import build_metric, describe, entry, signature
from fairseq_plugins.evaluation.resampling import (
    RESAMPLES,
    Rows,
    paired_signature,
    paired_test,
)

BATCH = 50  # lines; the n-grams of many more would not fit into a processor's cache


class TestSet(NamedTuple):
    """Files of a test set, line by line parallel.

    Args:
        references: one file or more.
        source: None where it is not known; then some indicators are not either.
    """

    name: str
    references: list
    source: str | None = None


@dataclass(frozen=True)
class Settings:
    """What is computed.

    Args:
        tgt_lang: language code of the translations.
        metrics: of ``METRICS``.
        word_order, tokenize, lowercase: see ``build_metric``.
        resamples: of the bootstrap for intervals; 0 for none.
        indicators: whether to compute them.
        baseline: system that the others are tested against, or None.
        paired: ``bs`` or ``ar``, see ``paired_test``.
        workers: processes.
    """

    tgt_lang: str
    metrics: tuple = ("bleu", "chrf")
    word_order: int = 0
    tokenize: str | None = None
    lowercase: bool = False
    resamples: int = RESAMPLES
    indicators: bool = True
    baseline: str | None = None
    paired: str = "bs"
    workers: int = 1

    def metric(self, name, sentence=False):
        """sacreBLEU metric object."""
        return build_metric(
            name, self.tgt_lang, self.word_order, self.tokenize, self.lowercase, sentence
        )


@dataclass
class Found:
    """What is found of one system on one test set."""

    rows: dict  # metric: Rows
    counts: Counter = field(default_factory=Counter)  # of (indicator, 0 or 1)
    lines: int = 0
    empty: int = 0
    hashes: list = field(default_factory=list)


def score_test_set(test_set, systems, settings, facts=None, segments=None):
    """Scores, paired tests and indicators of systems on one test set.

    Args:
        test_set: ``TestSet``.
        systems: {name: file of translations}.
        settings: ``Settings``.
        facts: ``Facts`` for indicators.
        segments: called with (line number, {system: values}) for each line, see ``Scorer``.

    Returns:
        {"lines", "references", "systems": {name: {"file", "empty_lines", "scores", "indicators",
        "paired"}}}, and under "objects" {name: {metric: (sacreBLEU's score object, signature)}}.

    Raises:
        ValueError: files of different lengths, no lines, or a line that is not UTF-8.
    """
    paths = [*([test_set.source] if test_set.source else []), *test_set.references,
             *systems.values()]  # fmt: skip
    first = len(paths) - len(systems)
    scorer = Scorer(settings, bool(test_set.source), first, facts or Facts(), segments is not None)
    found = {name: Found({metric: Rows() for metric in settings.metrics}) for name in systems}
    lines = 0
    bar = tqdm(desc=f"scoring {test_set.name}", unit=" lines", delay=2, **command.bar_settings())
    with bar, in_processes(settings.workers, preload=[__name__]) as apply:
        for results in apply(scorer, _batches(paths)):
            for one, result in zip(found.values(), results, strict=True):
                _add(one, result)
            if segments:
                for place, values in enumerate(zip(*(one["segments"] for one in results))):
                    segments(lines + place + 1, dict(zip(systems, values, strict=True)))
            lines += results[0]["lines"]
            bar.update(results[0]["lines"])
    if not lines:
        raise ValueError(f"{_names(paths)} hold no lines")
    objects = {name: _objects(one, settings, len(test_set.references))
               for name, one in found.items()}  # fmt: skip
    records = {
        name: {
            "file": str(systems[name]),
            "empty_lines": one.empty,
            "scores": {metric: entry(*objects[name][metric]) for metric in settings.metrics},
            "indicators": _indicators(one, scorer.keys, bool(test_set.source)),
        }
        for name, one in found.items()
    }
    if settings.baseline is not None:
        for name in set(systems) - {settings.baseline}:
            records[name]["paired"] = _paired(found[settings.baseline], found[name], settings,
                                              len(test_set.references))  # fmt: skip
    return {
        "lines": lines,
        "references": list(map(str, test_set.references)),
        "systems": records,
        "objects": objects,
    }


class Scorer:
    """Statistics of a batch; goes to each worker once.

    Called with a batch (lists of lines: source if there is one, references, systems), it gives a
    dictionary for each system: "rows" {metric: array}, "counts", "lines", "empty", "hashes" and, on
    demand, "segments": for each line ({metric: score}, {indicator: (count, of)}).
    """

    def __init__(self, settings, has_source, first, facts, segments):
        self.settings = settings
        self.has_source = has_source
        self.first = first
        self.facts = facts
        self.segments = segments
        has = {
            "source": has_source,
            "chrf": "chrf" in settings.metrics,
            "terms": facts.terms is not None,
            "training": facts.training is not None,
        }
        found = available([what for what, there in has.items() if there])
        self.keys = [key for key in found if key != "same_output"] if settings.indicators else []

    def __getstate__(self):
        # tokenisers of Japanese and Korean cannot be sent to a process, which builds its own
        return {name: item for name, item in vars(self).items() if not name.startswith("_metric")}

    @cached_property
    def _metrics(self):
        return {name: self.settings.metric(name) for name in self.settings.metrics}

    @cached_property
    def _metrics_of_sentences(self):
        return {name: self.settings.metric(name, sentence=True) for name in self.settings.metrics}

    def __call__(self, batch):
        references = batch[self.has_source : self.first]
        sources = batch[0] if self.has_source else [None] * len(batch[0])
        sentences = [Sentence(source, refs)
                     for source, *refs in zip(sources, *references, strict=True)]  # fmt: skip
        for metric in self._metrics.values():
            metric._ref_cache = metric._cache_references(references)
        return [self._system(outputs, sentences) for outputs in batch[self.first :]]

    def _system(self, outputs, sentences):
        rows = {name: metric._extract_corpus_statistics(outputs, None)
                for name, metric in self._metrics.items()}  # fmt: skip
        result = {
            "rows": {name: np.asarray(found) for name, found in rows.items()},
            "lines": len(outputs),
            "empty": sum(not output.strip() for output in outputs),
            "counts": Counter(),
            "hashes": None,
        }
        marks = [{} for _ in outputs] if self.segments else itertools.repeat(None)
        if self.keys:
            lines = [Line(*both) for both in zip(sentences, outputs, strict=True)]
            if "chrf" in rows:
                metric = self._metrics["chrf"]
                for line, row in zip(lines, rows["chrf"], strict=True):
                    line.chrf = metric._compute_f_score(row)
            for key in self.keys:
                function = INDICATORS[key].function
                count = of = 0
                for line, mark in zip(lines, marks, strict=False):
                    one, other = function(line, self.facts)
                    count += one
                    of += other
                    if self.segments:
                        mark[key] = one, other
                result["counts"].update({(key, 0): count, (key, 1): of})
            if self.has_source:
                result["hashes"] = [np.array(column) for column in
                                    zip(*map(hashes, lines), strict=True)]  # fmt: skip
        if self.segments:
            scores = [
                {name: self._metrics_of_sentences[name]._compute_score_from_stats(list(row)).score
                 for name, row in zip(rows, numbers, strict=True)}
                for numbers in zip(*rows.values(), strict=True)
            ]  # fmt: skip
            result["segments"] = list(zip(scores, marks, strict=True))
        return result


def _add(found, result):
    for metric, rows in result["rows"].items():
        found.rows[metric].add(rows)
    found.counts.update(result["counts"])
    found.lines += result["lines"]
    found.empty += result["empty"]
    if result["hashes"]:
        found.hashes.append(result["hashes"])


def _indicators(found, keys, has_source):
    record = {key: value(found.counts[key, 0], found.counts[key, 1]) for key in keys}
    if keys and has_source:
        record["same_output"] = value(
            *same_output(*(np.concatenate(column) for column in zip(*found.hashes, strict=True)))
        )
    return {key: record[key] for key in INDICATORS if key in record}


def _objects(found, settings, references):
    """{metric: (sacreBLEU's score object, signature)}."""
    objects = {}
    for name, rows in found.rows.items():
        metric = settings.metric(name)
        metric.num_refs = references
        objects[name] = (
            describe(metric, rows, settings.resamples),
            signature(metric, settings.resamples),
        )
    return objects


def _paired(baseline, found, settings, references):
    """{metric: {"baseline", "difference", "p_value", "test", "signature"}}."""
    record = {}
    for name, rows in found.rows.items():
        metric = settings.metric(name)
        metric.num_refs = references
        difference = (describe(metric, rows, 0).score
                      - describe(metric, baseline.rows[name], 0).score)  # fmt: skip
        record[name] = {
            "baseline": settings.baseline,
            "difference": round(difference, 2),
            "p_value": round(paired_test(metric, baseline.rows[name], rows, settings.paired), 4),
            "test": settings.paired,
            "signature": paired_signature(metric, settings.paired),
        }
    return record


def _batches(paths):
    """Yield batches: for each file the list of its next lines.

    Raises:
        ValueError: one file has fewer lines than another; tells the number of lines of each.
    """
    files = [read_lines(path) for path in paths]
    before = 0
    while True:
        batch = [list(itertools.islice(file, BATCH)) for file in files]
        if len({len(lines) for lines in batch}) > 1:
            sizes = [before + len(lines) + sum(1 for _ in file)
                     for lines, file in zip(batch, files, strict=True)]  # fmt: skip
            found = "".join(f"\n  {size:>11,}  {path}"
                            for path, size in zip(paths, sizes, strict=True))  # fmt: skip
            raise ValueError(f"these files must have the same number of lines:{found}")
        if not batch[0]:
            return
        before += len(batch[0])
        yield batch


def _names(paths):
    return ", ".join(str(Path(path)) for path in paths)
