"""Scores of many pairs at once: sacreBLEU's numbers, to the last digit."""

import numpy as np
import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st

from fairseq_plugins.selection.scores import (
    PAIRWISE,
    pairwise,
    sentence_metric,
    sentence_score,
    signature,
)

TEXTS = [
    "", "a", " a b ", "the the the the the", "the cat sat on the mat", "The cat sat on the mat.",
    "on the mat the cat sat", "Die Nummer 1,000.5 ist alt.", "x\x1cy", "na\u0308ive café",
    "𝔘𝔫𝔦 code", "你好吗 你好", "!!! ??? ...", "a b a b a b a", "\u3000x\u2028y",
    "The &quot;cat&quot; sat.", "It has rained for days, and it will rain for days to come.",
]  # fmt: skip

texts = st.lists(
    st.lists(st.sampled_from(["a", "b", "the", "mat.", "é", ",", "  ", "x-y"]), max_size=9).map(
        " ".join
    ),
    min_size=1,
    max_size=5,
)


@pytest.mark.parametrize("tgt_lang", ["en", "zh"])
@pytest.mark.parametrize("name", PAIRWISE)
def test_every_pair_has_the_score_that_sacrebleu_gives_it_alone(name, tgt_lang):
    found = pairwise(name, TEXTS, TEXTS[::-1], tgt_lang)
    for row, hypothesis in enumerate(TEXTS):
        for column, reference in enumerate(TEXTS[::-1]):
            expected = sentence_metric(name, tgt_lang).sentence_score(hypothesis, [reference])
            assert found[row, column] == pytest.approx(expected.score, abs=1e-9), (
                hypothesis, reference,
            )  # fmt: skip


@settings(max_examples=50, deadline=None)
@given(hypotheses=texts, references=texts)
def test_any_pair_has_the_score_of_the_plain_functions(hypotheses, references):
    plain = {"chrf": sacrebleu.sentence_chrf, "bleu": sacrebleu.sentence_bleu}
    for name, function in plain.items():
        found = pairwise(name, hypotheses, references, "en")
        expected = [[function(one, [other]).score for other in references] for one in hypotheses]
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", PAIRWISE)
def test_a_text_is_closest_to_itself(name):
    written = [text for text in TEXTS if text.strip()]
    scores = pairwise(name, written, written, "en")
    np.testing.assert_allclose(np.diag(scores), 100)
    assert scores.max() <= 100 + 1e-9


def test_no_texts_have_no_scores():
    assert pairwise("chrf", [], ["a"], "en").shape == (0, 1)
    assert pairwise("bleu", ["a"], [], "en").shape == (1, 0)


def test_sentence_scores_are_sacrebleus():
    one, other = "the cat sat on a mat", "the cat sat on the mat"
    assert sentence_score("ter", one, other, "en") == sacrebleu.sentence_ter(one, [other]).score
    assert sentence_score("bleu", one, other, "en") == sacrebleu.sentence_bleu(one, [other]).score
    assert sentence_score("chrf", one, other, "en") == sacrebleu.sentence_chrf(one, [other]).score


def test_the_signature_tells_the_tokeniser_and_the_order():
    assert "tok:zh" in signature("bleu", "zh")
    assert "eff:yes" in signature("bleu", "en")
    assert "nc:6|nw:0" in signature("chrf", "en")


def test_an_unknown_metric_is_named():
    with pytest.raises(ValueError, match="comet"):
        sentence_metric("comet", "en")
