"""Weights and tags: how often a pair is written, and what stands before its source."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairseq_plugins.selection.mixing import Copies, parse_mix, parse_tags


def drawn(weight, population, seed=1):
    copies = Copies(weight, population, seed)
    return [copies.next() for _ in range(population)]


@given(weight=st.floats(0, 4), population=st.integers(0, 60), seed=st.integers(0, 5))
def test_the_copies_sum_to_the_weight_and_are_as_even_as_can_be(weight, population, seed):
    times = drawn(weight, population, seed)
    whole = int(weight)
    assert sum(times) == whole * population + round((weight - whole) * population)
    assert set(times) <= {whole, whole + 1}


def test_a_whole_weight_leaves_nothing_to_chance():
    assert drawn(2, 5) == [2] * 5
    assert drawn(0, 5) == [0] * 5
    unknown = Copies(1, 0, seed=1)
    assert [unknown.next() for _ in range(5)] == [1] * 5


def test_the_seed_chooses_the_sample():
    assert drawn(0.5, 40, "a") == drawn(0.5, 40, "a")
    assert drawn(0.5, 40, "a") != drawn(0.5, 40, "b")


def test_each_pair_has_the_same_chance():
    first = sum(drawn(0.25, 8, seed)[0] for seed in range(2000))
    last = sum(drawn(0.25, 8, seed)[-1] for seed in range(2000))
    assert 400 < first < 600
    assert 400 < last < 600


@pytest.mark.parametrize(
    "words, weights",
    [
        ([], {"distilled": 1, "references": 0}),
        (["references=0.5"], {"distilled": 1, "references": 0.5}),
        (["distilled=2", "references=1"], {"distilled": 2, "references": 1}),
    ],
)
def test_weights_are_read(words, weights):
    assert parse_mix(words) == weights


@pytest.mark.parametrize(
    "words, message",
    [
        (["general=1"], "not general=1"),
        (["references"], "'' is not a number"),
        (["references=x"], "'x' is not a number"),
        (["references=-1"], "0 or more, not -1.0"),
        (["references=nan"], "0 or more, not nan"),
        (["references=inf"], "0 or more, not inf"),
        (["references=1", "references=2"], "references is given twice"),
        (["distilled=0"], "every weight is 0"),
    ],
)
def test_a_bad_weight_is_named(words, message):
    with pytest.raises(ValueError) as raised:
        parse_mix(words)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    "words, tags",
    [
        ([], {"distilled": "<distilled>", "reference": "<reference>"}),
        (["reference"], {"reference": "<reference>"}),
        (["distilled=<kd>", "reference"], {"distilled": "<kd>", "reference": "<reference>"}),
    ],
)
def test_tags_are_read(words, tags):
    assert parse_tags(words) == tags


@pytest.mark.parametrize(
    "words, message",
    [
        (["references"], "not references"),
        (["reference=two words"], "one word, not 'two words'"),
        (["reference="], "one word, not ''"),
        (["reference", "reference=<r>"], "given twice"),
        (["distilled=<x>", "reference=<x>"], "both origins have the tag <x>"),
    ],
)
def test_a_bad_tag_is_named(words, message):
    with pytest.raises(ValueError) as raised:
        parse_tags(words)
    assert message in str(raised.value)
