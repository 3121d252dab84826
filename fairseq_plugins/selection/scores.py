"""Sentence scores of many pairs at once, the same numbers as sacreBLEU's one by one.

chrF comes from fastchrf, the compiled twin of sacreBLEU's. BLEU is sacreBLEU's own: it
extracts the n-grams of each text once, the matches of all pairs are one product of matrices,
and sacreBLEU turns them into scores.
"""

import functools

import fastchrf
import numpy as np

from fairseq_plugins.evaluation.metrics import build_metric

PAIRWISE = ("chrf", "bleu")


@functools.lru_cache
def sentence_metric(name, tgt_lang):
    """sacreBLEU's metric as it scores a sentence: BLEU with effective order, else the defaults.

    Raises:
        ValueError: no such metric, or its tokeniser for this language is not installed.
    """
    try:
        metric = build_metric(name, tgt_lang)
    except (RuntimeError, ImportError) as error:
        raise ValueError(
            f"sacreBLEU cannot score {tgt_lang} with {name} here: {error}; take chrf"
        ) from None
    if name == "bleu":
        metric.effective_order = True  # as sacrebleu.sentence_bleu
    metric.num_refs = 1  # what a signature needs before the first score
    return metric


def signature(name, tgt_lang):
    """sacreBLEU's signature of a sentence metric."""
    return str(sentence_metric(name, tgt_lang).get_signature())


def sentence_score(name, hypothesis, reference, tgt_lang):
    """sacreBLEU's score of one sentence (TER: 0 is equal; the others: 100 is equal)."""
    return sentence_metric(name, tgt_lang).sentence_score(hypothesis, [reference]).score


def pairwise(name, hypotheses, references, tgt_lang):
    """Score of each hypothesis against each reference, float64, (hypotheses, references).

    Args:
        name: one of ``PAIRWISE``.
        hypotheses, references: lists of texts.
        tgt_lang: language code of all.
    """
    if not hypotheses or not references:
        return np.zeros((len(hypotheses), len(references)))
    metric = sentence_metric(name, tgt_lang)
    if name == "bleu":
        return _pairwise_bleu(metric, hypotheses, references)
    # white space is taken out here because Python knows more of it than Rust does
    packed = [["".join(text.split()) for text in texts] for texts in (hypotheses, references)]
    (scores,) = fastchrf.pairwise_chrf(
        [packed[0]], [packed[1]], char_order=metric.char_order, beta=float(metric.beta),
        remove_whitespace=False, eps_smoothing=metric.eps_smoothing,
    )  # fmt: skip
    return np.array(scores)


def _pairwise_bleu(metric, hypotheses, references):
    hypothesis_rows = [_ngrams(metric, text) for text in hypotheses]
    reference_rows = (
        hypothesis_rows
        if references == hypotheses
        else [_ngrams(metric, text) for text in references]
    )
    matches = np.stack(
        [
            _clipped_matches(
                [rows[order] for rows, _ in hypothesis_rows],
                [rows[order] for rows, _ in reference_rows],
            )
            for order in range(metric.max_ngram_order)
        ],
        axis=-1,
    )  # (hypotheses, references, orders)
    lengths = np.array([length for _, length in hypothesis_rows])
    reference_lengths = [length for _, length in reference_rows]
    unpenalised = np.empty(matches.shape[:2])
    for row, length in enumerate(lengths.tolist()):
        # one hypothesis has few different numbers of matches
        found, places = np.unique(matches[row], axis=0, return_inverse=True)
        scores = [_unpenalised(metric, length, tuple(counts)) for counts in found.tolist()]
        unpenalised[row] = np.array(scores)[places.ravel()]
    penalties = np.array(
        [[_penalty(metric, length, other) for other in reference_lengths] for length in lengths]
    )
    return penalties * unpenalised


def _ngrams(metric, text):
    """([{(n-gram, occurrence)} for each order], words) of a text, extracted by sacreBLEU."""
    info = metric._extract_reference_info([metric._preprocess_segment(text)])
    rows = [[] for _ in range(metric.max_ngram_order)]
    for ngram, count in info["ref_ngrams"].items():
        # an n-gram that comes twice is two things, so that shared things count clipped matches
        rows[len(ngram) - 1].extend((ngram, occurrence) for occurrence in range(count))
    return rows, info["ref_lens"][0]


def _clipped_matches(hypotheses, references):
    """Things shared by each hypothesis and reference, int64; both are lists of lists of things."""
    columns = {}
    matrices = []
    for rows in (hypotheses, references):
        places = [[columns.setdefault(thing, len(columns)) for thing in row] for row in rows]
        matrices.append(places)
    dense = []
    for places in matrices:
        matrix = np.zeros((len(places), len(columns)), dtype=np.float32)
        for row, found in enumerate(places):
            matrix[row, found] = 1
        dense.append(matrix)
    return (dense[0] @ dense[1].T).astype(np.int64)  # sums of ones, exact in float32


# sacreBLEU multiplies the brevity penalty with a part that does not know the reference's
# length. There are few of either, so each is asked of sacreBLEU once and remembered.


@functools.lru_cache(maxsize=1 << 17)
def _unpenalised(metric, length, matches):
    """Sentence BLEU of a hypothesis with these matches if the reference is as long as it."""
    total = [max(0, length - order) for order in range(metric.max_ngram_order)]
    stats = [length, length, *matches, *total]
    return metric._compute_score_from_stats(stats).score


@functools.lru_cache(maxsize=1 << 17)
def _penalty(metric, length, reference_length):
    none = [0] * metric.max_ngram_order
    return metric._compute_score_from_stats([length, reference_length, *none, *none]).bp
