"""Seeds taken together: comparisons, means, and the choice by the dev set."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ttest_1samp

from fairseq_plugins.report.choice import by_size, choose, choose_row
from fairseq_plugins.report.comparisons import (
    Comparer,
    grounds,
    in_words,
    is_gain,
    is_loss,
    over_seeds,
    p_cell,
)
from fairseq_plugins.report.groups import grouped


def comparison(differences, p_values=None, **names):
    p_values = p_values or [0.001] * len(differences)
    return {**names, **over_seeds([
        {"seed": seed, "new": "9", "old": "7", "difference": difference, "p_value": p_value,
         "signature": "bleu"}
        for seed, (difference, p_value) in enumerate(zip(differences, p_values, strict=True), 1)
    ])}  # fmt: skip


# -- noise ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "differences, p_values, outcome",
    [
        ([1.0, 1.2], [0.01, 0.02], "significant"),
        ([-1.0, -1.2], [0.01, 0.02], "significant"),
        ([1.0, 1.2], [0.01, 0.05], "within noise"),  # half of the seeds are no majority
        ([1.0, 1.1, 1.2], [0.01, 0.02, 0.3], "significant"),
        ([1.0, 1.1, 1.2], [0.01, 0.2, 0.3], "within noise"),
        ([2.0, -0.9], [0.01, 0.01], "within noise"),  # they do not agree on the sign
        ([2.0, 0.0], [0.01, 0.01], "within noise"),
        ([0.2, 3.0, 3.4], [0.01, 0.01, 0.01], "within noise"),  # t interval: 2.2 ± 4.4
        ([0.9, -0.9], [0.01, 0.01], "no difference"),
        ([1.0, 1.1, 1.2], [0.01, 0.02, None], "significant"),
        ([1.0, 1.1, 1.2], [0.01, None, None], "within noise"),
        ([1.0, 1.1], [None, None], "not tested"),
    ],
)
def test_the_outcome_over_seeds(differences, p_values, outcome):
    found = comparison(differences, p_values)
    assert found["outcome"] == outcome
    assert is_gain(found) == (outcome == "significant" and differences[0] > 0)
    assert is_loss(found) == (outcome == "significant" and differences[0] < 0)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0.1, 9).map(lambda value: round(value, 1)), min_size=3, max_size=8))
def test_the_interval_over_seeds_leaves_out_0_where_a_t_test_is_significant(differences):
    found = comparison(differences)
    p_value = ttest_1samp(differences, 0).pvalue if len(set(differences)) > 1 else 0.0
    if abs(p_value - 0.05) > 0.005:  # both are rounded
        assert (found["outcome"] == "significant") == (p_value < 0.05)


def test_mean_deviation_and_range_over_seeds():
    found = comparison([1.0, 2.0, 3.0])
    assert (found["difference"], found["deviation"]) == (2.0, 1.0)
    assert (found["low"], found["high"]) == (1.0, 3.0)
    assert found["interval"] == pytest.approx(4.303 / 3**0.5, abs=0.01)
    one = comparison([2.0])
    assert (one["difference"], one["deviation"], one["interval"]) == (2.0, None, None)
    assert comparison([1.0, 2.0])["interval"] is None


def test_a_comparison_in_words_has_every_p_value():
    assert in_words(comparison([1.0], [0.012])) == "+1.0 BLEU, significant (p = 0.012)"
    three = comparison([1.0, 1.1, 1.2], [0.012, None, 0.3])
    assert grounds(three) == "within noise (+1.0 to +1.2 over 3 seeds; p = 0.012, ?, 0.300)"
    assert p_cell(three) == "0.012, ?, 0.300"
    untested = comparison([1.0, 1.1], [None, None])
    assert p_cell(untested) == "–" and "p not known" in in_words(untested)


# -- groups --------------------------------------------------------------------------------


def row_of(name, group, seed=1, bleu=30.0, dev=20.0, dev_set="a", size="tiny"):
    metric = {"score": bleu, "interval": 1.0, "signature": "s"}
    entry = {"lines": 9, "beam": {"bleu": metric}, "greedy": {"bleu": metric},
             "indicators": {"copied": {"value": 0.1 * seed, "count": seed, "of": 10}}}  # fmt: skip
    return {
        "name": name, "group": group, "seed": seed, "size": size, "model": f"student/{name}",
        "state": "to come" if bleu is None else "scored", "general": None,
        "in_domain": None if bleu is None else entry,
        "dev": None if dev is None else {"bleu": dev, "set": dev_set},
    }  # fmt: skip


def test_rows_that_differ_in_their_seed_are_one_with_means():
    rows = [row_of("9 (1)", "9", 1, 30.0, 20.0), row_of("9 (2)", "9", 2, 34.0, 21.0),
            row_of("9 (3)", "9", 3, bleu=None, dev=None), row_of("7", "7")]  # fmt: skip
    groups = grouped(rows)
    assert list(groups) == ["9", "7"]
    nine, bleu = groups["9"], groups["9"]["in_domain"]["beam"]["bleu"]
    assert (bleu["score"], bleu["interval"]) == (32.0, 1.0)
    assert bleu["deviation"] == pytest.approx(8**0.5)
    assert nine["rows"] == ["9 (1)", "9 (2)", "9 (3)"] and nine["seeds"] == [1, 2]
    assert nine["state"] == "2 of 3 seeds scored" and nine["dev"]["bleu"] == 20.5
    copied = nine["in_domain"]["indicators"]["copied"]
    assert copied["value"] == pytest.approx(0.15) and (copied["count"], copied["of"]) == (3, 20)
    seven = groups["7"]
    assert seven["in_domain"]["beam"]["bleu"]["deviation"] is None and seven["state"] == "scored"


def test_a_mean_over_different_dev_sets_is_no_dev_score():
    rows = [row_of("9 (1)", "9", 1), row_of("9 (2)", "9", 2, dev_set="b")]
    assert grouped(rows)["9"]["dev"] is None
    assert grouped([row_of("9 (1)", "9", 1), row_of("9 (2)", "9", 2, dev=None)])["9"]["dev"] is None


class Bare:
    """A run without translations: differences, but no tests."""

    def __init__(self):
        self.notes = []

    def translations(self, *_):
        return None

    test_set = translations

    def note(self, sentence):
        self.notes.append(sentence)


def seeds_compared(rows, new, old):
    compare = Comparer(Bare(), "med", grouped(rows), {row["name"]: row for row in rows}).compare
    found = compare(new, old)
    return found and [(entry["seed"], entry["difference"]) for entry in found["seeds"]]


def test_rows_of_one_seed_are_compared_and_the_only_row_of_a_group_with_all():
    rows = [row_of("9 (1)", "9", 1, 30.0), row_of("9 (2)", "9", 2, 31.0),
            row_of("7 (2)", "7", 2, 29.5), row_of("7 (3)", "7", 3, 20.0),
            row_of("teacher", "teacher", 1, 40.0)]  # fmt: skip
    assert seeds_compared(rows, "9", "7") == [(2, 1.5)]
    assert seeds_compared(rows, "9", "teacher") == [(1, -10.0), (2, -9.0)]
    assert seeds_compared(rows, "teacher", "9") == [(1, 10.0), (2, 9.0)]
    assert seeds_compared([*rows, row_of("8", "8", bleu=None)], "9", "8") is None


# -- the choice ----------------------------------------------------------------------------


def chosen(*rows):
    return choose(list(grouped(rows).values()))


def test_the_dev_set_chooses_and_the_test_set_has_no_say():
    found = chosen(row_of("7", "7", bleu=40.0, dev=19.0), row_of("9", "9", bleu=30.0, dev=20.0))
    assert found == {"name": "9", "by": "dev", "dev": 20.0, "left_out": []}


def test_the_dev_set_chooses_by_the_mean_over_seeds():
    rows = [row_of("9 (1)", "9", 1, dev=25.0), row_of("9 (2)", "9", 2, dev=15.0)]
    found = chosen(*rows, row_of("7", "7", dev=21.0))
    assert (found["name"], found["dev"]) == ("7", 21.0)
    assert choose_row(rows)["name"] == "9 (1)"


def test_students_of_another_dev_set_or_of_none_are_left_out_and_named():
    found = chosen(row_of("1", "1", dev=10.0), row_of("7", "7", dev=11.0),
                   row_of("8", "8", dev=90.0, dev_set="b"), row_of("9", "9", dev=None))  # fmt: skip
    assert (found["name"], found["left_out"]) == ("7", ["8", "9"])


def test_without_any_dev_score_the_test_set_chooses_and_it_is_said():
    rows = [row_of("7", "7", bleu=40.0, dev=None), row_of("9", "9", bleu=30.0, dev=None)]
    assert chosen(*rows) == {"name": "7", "by": "test", "dev": None, "left_out": []}
    assert choose_row(rows) == rows[0]
    assert chosen(row_of("9", "9", bleu=None, dev=None)) is None and chosen() is None


def test_each_size_has_its_own_choice():
    rows = [row_of("tiny 9", "tiny 9", dev=20.0), row_of("small 9", "small 9", size="small"),
            row_of("tiny 7", "tiny 7", dev=21.0)]  # fmt: skip
    found = by_size(list(grouped(rows).values()))
    assert {size: choice["name"] for size, choice in found.items()} == {
        "tiny": "tiny 7", "small": "small 9",
    }  # fmt: skip
