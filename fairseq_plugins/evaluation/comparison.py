"""Paired bootstrap of two systems on one test set."""

from data_prep.files import read_lines
from fairseq_plugins.evaluation.metrics import build_metric
from fairseq_plugins.evaluation.resampling import (
    Rows,
    corpus_score,
    paired_signature,
    paired_test,
)


def compare(new, old, references, tgt_lang, name="bleu"):
    """What system ``new`` gains over ``old``, and how likely that is chance.

    Args:
        new, old: files of translations of the same test set.
        references: file of untouched references.
        tgt_lang: language code of the text.
        name: metric, see ``METRICS``.

    Returns:
        {"difference": points, "p_value": of the paired bootstrap (Koehn 2004),
        "signature": str}.

    Raises:
        ValueError: the files have different numbers of lines.
    """
    lines = {path: list(read_lines(path)) for path in (old, new, references)}
    if len({len(entry) for entry in lines.values()}) != 1:
        found = ", ".join(f"{path} {len(entry):,}" for path, entry in lines.items())
        raise ValueError(f"systems and references differ in their number of lines: {found}")
    metric = build_metric(name, tgt_lang)
    before, after = (
        Rows([metric._extract_corpus_statistics(lines[path], [lines[references]])])
        for path in (old, new)
    )
    difference = corpus_score(metric, after).score - corpus_score(metric, before).score
    return {
        "difference": round(difference, 2),
        "p_value": round(paired_test(metric, before, after), 4),
        "signature": paired_signature(metric, "bs"),
    }
