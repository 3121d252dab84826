"""Paired bootstrap of two systems on one test set."""

from data_prep.files import read_lines
from fairseq_plugins.evaluation.metrics import build_metric
from fairseq_plugins.evaluation.resampling import (
    Rows,
    corpus_score,
    paired_signature,
    paired_test,
)


def compare(new, old, references, tgt_lang, name="bleu", known=None):
    """What system ``new`` gains over ``old``, and how likely that is chance.

    Args:
        new, old: files of translations of the same test set.
        references: file of untouched references.
        tgt_lang: language code of the text.
        name: metric, see ``METRICS``.
        known: dictionary that keeps what was counted in the files for further comparisons with the
            same references and metric; to count takes most of the time.

    Returns:
        {"difference": points, "p_value": of the paired bootstrap (Koehn 2004),
        "signature": str}.

    Raises:
        ValueError: the files have different numbers of lines.
    """
    known = {} if known is None else known
    metric = known.setdefault("metric", build_metric(name, tgt_lang))
    for path in (old, new):
        if path not in known:
            known[path] = _counted(metric, path, references)
    before, after = known[old], known[new]
    difference = corpus_score(metric, after).score - corpus_score(metric, before).score
    return {
        "difference": round(difference, 2),
        "p_value": round(paired_test(metric, before, after), 4),
        "signature": paired_signature(metric, "bs"),
    }


def _counted(metric, path, references):
    """What a metric counts in every line of a file of translations."""
    lines, targets = list(read_lines(path)), list(read_lines(references))
    if len(lines) != len(targets):
        raise ValueError(
            f"systems and references differ in their number of lines: {path} {len(lines):,}, "
            f"{references} {len(targets):,}"
        )
    return Rows([metric._extract_corpus_statistics(lines, [targets])])
