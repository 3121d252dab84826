"""Intervals and paired tests against sacreBLEU's own on the same text."""

import logging

import numpy as np
import pytest
from sacrebleu.metrics import BLEU, CHRF, TER
from sacrebleu.significance import PairedTest

from fairseq_plugins.evaluation import resampling
from fairseq_plugins.evaluation.comparison import compare
from fairseq_plugins.evaluation.resampling import (
    Rows,
    bootstrap,
    corpus_score,
    paired_signature,
    paired_test,
)
from tests.fixtures.models import toy_lines, write_text

REFERENCES = toy_lines(60, seed=1, longest=8)
OTHERS = [line.replace("du", "di") for line in REFERENCES]
# as good as each other, by and large
GOOD = [line if n % 3 else line.replace("ba", "zz") for n, line in enumerate(REFERENCES)]
SIMILAR = [line if n % 3 != 1 else line.replace("bo", "zz") for n, line in enumerate(REFERENCES)]
LONGER = [line if n % 6 else line + " ba be" for n, line in enumerate(REFERENCES)]
POOR = [line[::-1] for line in REFERENCES]

logging.getLogger("sacrebleu").setLevel(logging.WARNING)


def metrics():
    return [BLEU(force=True), CHRF(), CHRF(word_order=2), TER()]


@pytest.fixture
def pieces(monkeypatch):
    """Seven resamples at once, blocks of 25 sentences, bits for little more than one."""
    monkeypatch.setattr(resampling, "AT_ONCE", 60 * 7)
    monkeypatch.setattr(resampling, "BLOCK", 25)
    monkeypatch.setattr(resampling, "BITS", 64)


def rows_of(metric, system, references):
    rows = metric._extract_corpus_statistics(system, references)
    return Rows([rows[:10], rows[10:30], rows[30:]])


@pytest.mark.parametrize("references", [[REFERENCES], [REFERENCES, OTHERS, LONGER]])
def test_intervals_are_sacrebleus(pieces, references):
    for metric in metrics():
        theirs = metric.corpus_score(GOOD, references, n_bootstrap=1000)
        ours = rows_of(metric, GOOD, references)
        assert corpus_score(metric, ours).score == pytest.approx(theirs.score, rel=1e-12)
        assert bootstrap(metric, ours) == pytest.approx((theirs._mean, theirs._ci), rel=1e-4)


@pytest.mark.parametrize("kind", ["bs", "ar"])
@pytest.mark.parametrize("references", [[REFERENCES], [REFERENCES, OTHERS, LONGER]])
def test_p_values_and_signatures_are_sacrebleus(pieces, references, kind, monkeypatch):
    monkeypatch.setattr(resampling, "RESAMPLES", 400)
    monkeypatch.setattr(resampling, "TRIALS", 400)
    systems = [("one", GOOD), ("other", SIMILAR)]
    values = []
    for metric in metrics():
        signatures, scores = PairedTest(systems, {"x": metric}, references, kind, n_samples=400)()
        ((name, (_, theirs)),) = [item for item in scores.items() if item[0] != "System"]
        values.append(theirs.p_value)
        ours = [rows_of(metric, system, references) for _, system in systems]
        assert paired_test(metric, *ours, kind) == pytest.approx(theirs.p_value, abs=0.003)
        assert paired_signature(metric, kind) == str(signatures[name])
    assert max(values) > 0.05  # or the test would compare nothing but the smallest value


@pytest.mark.parametrize("kind", ["bs", "ar"])
def test_equal_systems_never_differ_significantly(kind):
    for metric in metrics():
        rows = rows_of(metric, GOOD, [REFERENCES])
        assert paired_test(metric, rows, rows_of(metric, GOOD, [REFERENCES]), kind) == 1.0


@pytest.mark.parametrize("seed", ["none", "7"])
def test_the_seed_is_that_of_sacrebleu(seed, monkeypatch):
    monkeypatch.setenv("SACREBLEU_SEED", seed)
    metric = BLEU(force=True)
    theirs = metric.corpus_score(GOOD, [REFERENCES], n_bootstrap=1000)
    ours = [bootstrap(metric, rows_of(metric, GOOD, [REFERENCES])) for _ in range(2)]
    assert (ours[0] == ours[1]) == (seed != "none")
    if seed != "none":
        assert ours[0] == pytest.approx((theirs._mean, theirs._ci), rel=1e-4)
    assert f"seed:{seed}" in paired_signature(metric, "bs")


def test_numbers_that_do_not_fit_into_two_bytes_are_kept():
    rows = Rows([np.array([[70_000, 1]]), np.array([[2.5, 1]]), np.array([[3, 1]])])
    np.testing.assert_array_equal(list(rows), [[70_000, 1], [2.5, 1], [3, 1]])
    np.testing.assert_array_equal(rows.sum(), [70_005.5, 3])
    np.testing.assert_array_equal(
        rows.weighted(np.array([[1, 2, 0]], dtype=np.float32)), [[70_005, 3]]
    )


# -- compare, on files -------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path):
    texts = {"references": REFERENCES, "good": GOOD, "poor": POOR, "short": GOOD[:-1]}
    return {name: write_text(tmp_path / name, lines) for name, lines in texts.items()}


def test_a_system_against_itself_differs_by_nothing(files):
    result = compare(files["good"], files["good"], files["references"], "en")
    assert result["difference"] == 0 and result["p_value"] == 1


@pytest.mark.parametrize("metric, better", [("bleu", 1), ("chrf", 1), ("ter", -1)])
def test_a_better_system_is_significantly_better(files, metric, better):
    result = compare(files["good"], files["poor"], files["references"], "en", metric)
    assert result["difference"] * better > 10 and result["p_value"] < 0.01
    back = compare(files["poor"], files["good"], files["references"], "en", metric)
    assert back["difference"] == -result["difference"]
    assert "bs:1000" in result["signature"]


def test_systems_of_unequal_length_are_not_compared(files):
    with pytest.raises(ValueError, match="differ in their number of lines.*short 59"):
        compare(files["short"], files["poor"], files["references"], "en")


def test_what_was_counted_before_changes_no_result(files):
    known = {}
    for new, old in (("good", "poor"), ("poor", "good"), ("good", "good")):
        words = files[new], files[old], files["references"], "en"
        assert compare(*words, known=known) == compare(*words)
    assert set(known) == {"metric", files["good"], files["poor"]}
