"""sacreBLEU's metrics, with statistics that can be summed over batches and processes."""

import numpy as np
from sacrebleu.metrics import BLEU, CHRF, TER

from fairseq_plugins.evaluation.resampling import RESAMPLES, Rows, bootstrap, corpus_score, seed

METRICS = {"bleu": BLEU, "chrf": CHRF, "ter": TER}


def build_metric(name, tgt_lang, word_order=0, tokenize=None, lowercase=False, sentence=False):
    """sacreBLEU metric object for detokenised text in language ``tgt_lang``.

    Args:
        word_order: word n-grams of chrF: 0 is chrF2, 2 is chrF++.
        tokenize: tokeniser of BLEU; by default sacreBLEU's for that language (13a, or zh, ja-mecab,
            ko-mecab).
        lowercase: ignore case (TER always does).
        sentence: for scores of sentences, for which BLEU leaves out orders that they are too
            short for.

    Raises:
        ValueError: no such metric or tokeniser.
    """
    if name not in METRICS:
        raise ValueError(f"metric {name!r} is unknown; there are {', '.join(METRICS)}")
    if name == "ter":
        return TER()
    if name == "chrf":
        return CHRF(word_order=word_order, lowercase=lowercase)
    if tokenize not in (None, *BLEU.TOKENIZERS):
        raise ValueError(
            f"tokeniser {tokenize!r} is unknown; sacreBLEU has {', '.join(BLEU.TOKENIZERS)}"
        )
    # force: silences the warning about ' .' at line ends, which is right text in some corpora
    return BLEU(trg_lang=tgt_lang, tokenize=tokenize, lowercase=lowercase,
                effective_order=sentence, force=True)  # fmt: skip


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


def describe(metric, rows, resamples=RESAMPLES):
    """sacreBLEU's score object of a corpus, with mean and interval where resamples are drawn.

    Args:
        metric: object that knows its number of references; its signature tells the resamples.
        rows: ``Rows``.
    """
    found = corpus_score(metric, rows)
    if resamples:
        found._mean, found._ci = bootstrap(metric, rows, resamples)
    return found


def entry(found, signature):
    """What JSON files hold of a score object: rounded, with its signature."""
    record = {"score": round(found.score, 2)}
    if found._mean >= 0:
        record.update(mean=round(found._mean, 2), interval=round(found._ci, 2))
    return {**record, "signature": signature}


def corpus_scores(hypotheses, references, tgt_lang, names=("bleu", "chrf"), resamples=RESAMPLES):
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
        rows = Rows([metric._extract_corpus_statistics(hypotheses, [references])])
        found = describe(metric, rows, resamples)
        scores[name] = entry(found, signature(metric, resamples))
    return scores


def signature(metric, resamples=0):
    """Signature of a metric that knows its number of references."""
    found = metric.get_signature()
    if resamples:
        found.update("bs", resamples)
        found.update("seed", seed())
    return str(found)
