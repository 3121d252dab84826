"""sacreBLEU's metrics, with statistics that can be summed over batches and processes."""

import numpy as np
from sacrebleu.metrics import BLEU, CHRF, TER
from sacrebleu.significance import _bootstrap_resample, estimate_ci

METRICS = {"bleu": BLEU, "chrf": CHRF, "ter": TER}


def build_metric(name, tgt_lang):
    """sacreBLEU metric object for detokenised text in language ``tgt_lang``.

    BLEU takes sacreBLEU's tokeniser for that language (13a, or zh, ja-mecab, ko-mecab).

    Raises:
        ValueError: no such metric.
    """
    if name not in METRICS:
        raise ValueError(f"metric {name!r} is unknown; there are {', '.join(METRICS)}")
    # force: silences the warning about ' .' at line ends, which is right text in some corpora
    return BLEU(trg_lang=tgt_lang, force=True) if name == "bleu" else METRICS[name]()


def statistics(metric, hypotheses, references):
    """Sum of sacreBLEU's sentence statistics, a float64 vector.

    Sums over batches give the statistics of the corpus, because corpus scores
    of BLEU and chrF are functions of summed counts.
    """
    rows = metric._extract_corpus_statistics(hypotheses, [references])
    return np.asarray(rows, dtype=np.float64).sum(axis=0)


def score(metric, summed):
    """Corpus score, 0 to 100, from summed statistics."""
    return metric._compute_score_from_stats([int(value) for value in summed]).score


def corpus_scores(hypotheses, references, tgt_lang, names=("bleu", "chrf"), resamples=1000):
    """Scores of a whole test set with their signatures and 95 % intervals.

    Args:
        hypotheses, references: lists of detokenised sentences of equal length.
        tgt_lang: language code of both.
        names: metrics, see ``METRICS``.
        resamples: bootstrap samples for the interval (Koehn 2004); sacreBLEU's own.

    Returns:
        {metric: {"score", "mean", "interval", "signature"}}; scores 0 to 100,
        ``interval`` the half width of the 95 % interval around ``mean``.

    Raises:
        ValueError: no sentences, or unequal numbers of them.
    """
    if len(hypotheses) != len(references) or not references:
        raise ValueError(
            f"{len(hypotheses):,} hypotheses for {len(references):,} references; "
            f"a score needs one for each, and at least one"
        )
    scores = {}
    for name in names:
        metric = build_metric(name, tgt_lang)
        rows = metric._extract_corpus_statistics(hypotheses, [references])
        # corpus_score(n_bootstrap=...) does the same, but fails when some resample scores 0
        metric.n_bootstrap = resamples
        metric.seed, resampled = _bootstrap_resample(rows, metric, resamples)
        mean, interval = estimate_ci(np.array([entry.score for entry in resampled]))
        scores[name] = {
            "score": round(metric._aggregate_and_compute(rows).score, 2),
            "mean": round(float(mean), 2),
            "interval": round(float(interval), 2),
            "signature": str(metric.get_signature()),
        }
    return scores
