import numpy as np
import pytest
from sacrebleu.metrics import BLEU, CHRF

from fairseq_plugins.evaluation.metrics import (
    build_metric,
    corpus_scores,
    score,
    statistics,
)

HYPOTHESES = ["the cat sat on a mat .", "it rains", "", "hello world , again"] * 3
REFERENCES = ["the cat sat on the mat.", "it is raining", "silence", "hello world, again"] * 3


@pytest.mark.parametrize("name, sacrebleu", [("bleu", BLEU(force=True)), ("chrf", CHRF())])
def test_summed_statistics_of_batches_give_the_corpus_score(name, sacrebleu):
    metric = build_metric(name, "en")
    batches = [slice(0, 1), slice(1, 5), slice(5, None)]
    summed = sum(statistics(metric, HYPOTHESES[b], REFERENCES[b]) for b in batches)
    assert score(metric, summed) == sacrebleu.corpus_score(HYPOTHESES, [REFERENCES]).score


def test_chinese_has_its_own_tokeniser():
    assert "tok:zh" in corpus_scores(["你好。"], ["你好。"], "zh")["bleu"]["signature"]


def test_scores_carry_interval_and_signature():
    scores = corpus_scores(HYPOTHESES, REFERENCES, "en")
    assert scores["bleu"]["interval"] > 0
    assert "tok:13a" in scores["bleu"]["signature"] and "bs:1000" in scores["bleu"]["signature"]
    assert scores == corpus_scores(HYPOTHESES, REFERENCES, "en")


@pytest.mark.parametrize("references", [[], REFERENCES[:-1]])
def test_a_missing_reference_is_an_error(references):
    with pytest.raises(ValueError, match="needs one for each"):
        corpus_scores(HYPOTHESES if references else [], references, "en")


def test_intervals_are_sacrebleus():
    scores = corpus_scores(HYPOTHESES, REFERENCES, "en")
    metric = BLEU(force=True)
    theirs = metric.corpus_score(HYPOTHESES, [REFERENCES], n_bootstrap=1000)
    assert scores["bleu"]["interval"] == round(float(theirs._ci), 2)
    assert scores["bleu"]["signature"] == str(metric.get_signature())


def test_output_so_bad_that_some_resamples_score_nothing_has_an_interval():
    references = [f"this is sentence number {i} of them" for i in range(20)]
    hypotheses = [references[0]] + ["quite unlike"] * 19
    assert corpus_scores(hypotheses, references, "en")["bleu"]["interval"] > 0


def test_an_unknown_metric_is_named():
    with pytest.raises(ValueError, match="'rouge' is unknown"):
        build_metric("rouge", "en")


def test_statistics_are_numbers_that_add_up():
    metric = build_metric("bleu", "en")
    rows = [statistics(metric, [h], [r]) for h, r in zip(HYPOTHESES, REFERENCES)]
    np.testing.assert_array_equal(np.sum(rows, axis=0), statistics(metric, HYPOTHESES, REFERENCES))
