"""What training text tells of a test set: terms, rare words, what was taken verbatim."""

from collections import Counter

import numpy as np
import pytest
from scipy.stats import power_divergence

from fairseq_plugins.evaluation.indicators import INDICATORS, Line, Sentence
from fairseq_plugins.evaluation.training_text import (
    Counts,
    gather_facts,
    log_likelihood,
    mine_terms,
    read_terms,
)
from tests.fixtures.models import write_text

GENERAL = [f"the man and the woman see house number {n} in the town" for n in range(100)]
MEDICAL = [f"the patient received a dose of aspirin and {n} mg" for n in range(20)]


def counts(words, total, candidates=None):
    return Counts(Counter(words), Counter(candidates or words), total)


@pytest.mark.parametrize(
    "here, there, other_total, is_term",
    [
        (5, 0, 100_000, True),
        (4, 0, 100_000, False),  # too few
        (11, 0, 1000, True),
        (10, 0, 1000, False),  # twice ten times the logarithm of 2 is below 15.13
        (50, 9, 1000, True),
        (50, 10, 1000, False),  # 50 of 1000 is not five times 11 of 1001
    ],
)
def test_a_term_is_frequent_here_and_rare_elsewhere(here, there, other_total, is_term, monkeypatch):
    monkeypatch.setattr("fairseq_plugins.evaluation.training_text.COMMON", 1)
    domain, other = counts({"dose": here}, 1000), counts({"dose": there}, other_total)
    assert len(mine_terms(domain, other)) == is_term


def test_everyday_words_and_numbers_are_no_terms():
    words = {"dose": 500, "of": 500, "250": 500}
    domain = counts(words, 10_000, {**words, "dose of": 500, "dose dose": 500})
    other = counts({"of": 11}, 100_000)
    assert set(mine_terms(domain, other).sources) == {"dose", "dose dose"}
    assert "of" in mine_terms(domain, counts({"of": 10}, 100_000)).sources


def test_runs_of_characters_are_judged_as_a_whole():
    domain = counts({"的": 900, "剂": 900}, 10_000, {"剂 的": 900})
    other = counts({"的": 5000}, 100_000, {"剂 的": 1})
    assert set(mine_terms(domain, other).sources) == {"剂 的"}


@pytest.mark.parametrize("here, words, there, others", [(10, 100, 3, 900), (7, 1000, 0, 100)])
def test_the_log_likelihood_is_scipys(here, words, there, others):
    expected = np.array([words, others]) * (here + there) / (words + others)
    theirs = power_divergence([here, there], expected, lambda_="log-likelihood").statistic
    assert log_likelihood(here, words, there, others) == pytest.approx(theirs)


@pytest.fixture
def facts(tmp_path):
    """Facts of a medical test set, its training text and a general one."""

    def gather(outputs, references=("the patient received a dose of aspirin",), trains=None,
               lang="en"):  # fmt: skip
        files = {"medical": [write_text(tmp_path / "references", references)]}
        systems = {"medical": [write_text(tmp_path / "outputs", outputs)]}
        texts = {"medical": MEDICAL, "general": GENERAL} if trains is None else trains
        paths = {name: write_text(tmp_path / f"train-{name}", lines)
                 for name, lines in texts.items()}  # fmt: skip
        return gather_facts(files, systems, paths, None, lang)["medical"]

    return gather


def test_terms_are_mined_from_the_text_of_the_same_name(facts):
    found = facts(["x"])
    assert {"patient", "dose", "aspirin"} <= set(found.terms.sources)
    assert "the" not in found.terms.sources and "mg" not in found.terms.sources
    assert facts(["x"], trains={"other": MEDICAL, "general": GENERAL}).terms is None
    assert facts(["x"], trains={"medical": MEDICAL}).terms is None  # nothing to tell them from


def test_terms_of_scripts_without_spaces_are_runs_of_characters(facts):
    trains = {"medical": ["服用阿司匹林片"] * 20, "general": ["今天天气很好我们走吧"] * 100}
    found = facts(["x"], ["请服用阿司匹林"], trains, "zh")
    assert {"阿 司", "阿 司 匹 林"} <= set(found.terms.sources)
    assert {term.count(" ") for term in found.terms.sources} == {1, 2, 3}


def test_words_are_counted_over_all_training_texts(facts):
    training = facts(["x"], ["The patient and the town, unseen"]).training
    assert training.counts == {"the": 20 + 300, "patient": 20, "and": 120, "town": 100}


def test_what_outputs_take_verbatim_is_found_whatever_case_and_punctuation(facts):
    outputs = [
        "The patient received a dose of Aspirin, and 7 mg.",
        "so the patient received a dose of aspirin and nothing",
        "the patient",
    ]
    training = facts(outputs).training
    assert training.verbatim == {"the patient received a dose of aspirin and 7 mg"}
    assert "the patient received a dose of aspirin and" in training.spans
    assert not any("nothing" in run for run in training.spans)
    line = Line(Sentence("q", ["the patient"]), outputs[1])
    assert INDICATORS["training_runs"].function(line, facts(outputs)) == (8, 10)


def test_only_what_was_asked_for_is_kept(facts):
    training = facts(["x"], ["no such words"], {"medical": MEDICAL, "general": GENERAL}).training
    assert training.counts == {} and not training.verbatim and not training.spans


# -- lists of terms ----------------------------------------------------------------------------


def test_a_list_holds_targets_or_pairs(tmp_path):
    path = write_text(tmp_path / "terms", ["Blood Pressure", "", "Dosis\tdose", "Gabe\tdose",
                                           "Herz\theart", "heart"])  # fmt: skip
    terms = read_terms(path)
    assert terms.sources == {"blood pressure": None, "dose": {"dosis", "gabe"}, "heart": None}
    words = "the dose for heart and blood pressure".split()
    assert set(terms.found(words)) == {"dose", "heart", "blood pressure"}
    assert set(terms.asked_for(terms.found(words), "Eine Gabe")) == set(terms.found(words))
    assert "dose" not in terms.asked_for(terms.found(words), "Herz")


@pytest.mark.parametrize(
    "lines, has_source, message",
    [
        (["a\tb\tc"], True, "terms, line 1: a term, or a source term"),
        (["dose", "..."], True, "terms, line 2"),
        (["\tdose"], True, "terms, line 1"),
        (["", " "], True, "terms holds no terms"),
        (["a\tb"], False, "line 1 has a source term, but there is no source text"),
    ],
)
def test_bad_lists_are_refused(tmp_path, lines, has_source, message):
    with pytest.raises(ValueError, match=message):
        read_terms(write_text(tmp_path / "terms", lines), has_source)
