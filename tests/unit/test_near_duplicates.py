"""data_prep/near_duplicates.py: the nearest line is found, always and exactly."""

import pickle
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.near_duplicates import NearIndex, plain_words
from data_prep.words import words_of

THRESHOLDS = ("0.5", "0.6", "0.7", "0.75", "0.8", "0.9", "1")


@pytest.mark.parametrize(
    "text, words",
    [
        ("Guten Morgen, Herr Müller!", ["guten", "morgen", "herr", "müller"]),
        ("STRASSE und Straße", ["strasse", "und", "strasse"]),
        ("I don't know.", ["i", "dont", "know"]),
        ("I don’t know …", ["i", "dont", "know"]),
        ("e-mail/Fax_1", ["e", "mail", "fax", "1"]),
        ("ве\u0301рсия", ["версия"]),
        ("Версия 3.11", ["версия", "3", "11"]),
        ("他说：“Ｈｅｌｌｏ，世界”。", ["他", "说", "hello", "世", "界"]),
        ("สวัสดี", list("สวสด")),  # vowel signs are marks, no letters
        ("?!", []),
        ("", []),
    ],
)
def test_case_punctuation_and_width_are_no_part_of_words(text, words):
    assert plain_words(text) == words


@given(st.text(st.sampled_from("aBéß '’._-1２你ไ\u0301\u2028ё"), max_size=12))
def test_words_are_those_of_every_command_without_marks_between(text):
    assert plain_words(text) == words_of(" ".join(plain_words(text)))
    assert plain_words(text) == plain_words(f" {text.lower()}!")


def similarity(one, other):
    one, other = set(one), set(other)
    return Fraction(len(one & other), len(one | other))


def nearest_by_comparing_all(lines, line, threshold, least):
    found = [
        (-similarity(line, other), number)
        for number, other in enumerate(lines)
        if min(len(set(line)), len(set(other))) >= least
        and similarity(line, other) >= Fraction(threshold)
    ]
    return (float(-min(found)[0]), min(found)[1]) if found else None


few_words = st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=10)
many_words = st.builds(
    lambda first, size: [str(number) for number in range(first, first + size)],
    st.integers(0, 12), st.integers(1, 160),
)  # fmt: skip


@given(
    st.lists(few_words | many_words, max_size=12),
    st.lists(few_words | many_words, max_size=6),
    st.sampled_from(THRESHOLDS),
    st.integers(1, 4),
)
def test_no_near_line_is_missed_and_none_made_up(lines, asked, threshold, least):
    index = pickle.loads(pickle.dumps(NearIndex(lines, float(threshold), least)))
    for line in [*asked, *lines, [*"abcde", "unknown"]]:
        assert index.nearest(line) == nearest_by_comparing_all(lines, line, threshold, least)


@given(
    st.lists(few_words, min_size=1, max_size=8).flatmap(
        lambda lines: st.tuples(st.just(lines), st.permutations(lines))
    ),
    few_words.flatmap(lambda line: st.tuples(st.just(line), st.permutations(line))),
)
def test_neither_the_order_of_lines_nor_of_words_matters(lines, line):
    results = [NearIndex(lines[n], 0.6, 1).nearest(line[n]) for n in (0, 1)]
    assert [result and result[0] for result in results] == [results[0] and results[0][0]] * 2


@pytest.mark.parametrize("size, one_added, one_left_out, one_exchanged", [
    (3, False, False, False),
    (4, True, False, False),
    (5, True, True, False),
    (8, True, True, False),
    (9, True, True, True),
])  # fmt: skip
def test_what_a_similarity_of_four_fifths_allows(size, one_added, one_left_out, one_exchanged):
    words = [str(number) for number in range(size)]
    index = NearIndex([words], 0.8, 1)
    assert index.nearest(words) == (1, 0)
    assert bool(index.nearest([*words, "new"])) == one_added
    assert bool(index.nearest(words[1:])) == one_left_out
    assert bool(index.nearest([*words[1:], "new"])) == one_exchanged


# 25 × 0.56 is a little more than 14 in floating point, 17 / 0.68 a little less than 25
@pytest.mark.parametrize("threshold, shared, of", [(0.8, 8, 10), (0.56, 14, 25), (0.68, 17, 25)])
def test_a_similarity_of_just_the_threshold_is_near(threshold, shared, of):
    words = [f"{number:02}" for number in range(of)]
    for some in (words[:shared], words[-shared:]):
        assert NearIndex([words], threshold, 1).nearest(some) == (shared / of, 0)
        assert NearIndex([some], threshold, 1).nearest(words) == (shared / of, 0)
        assert not NearIndex([words], threshold, 1).nearest(some[1:])


def test_lines_of_too_few_words_are_near_to_none():
    index = NearIndex([list("abcdef"), list("abcde")], 0.8, 6)
    assert index.nearest("abcdefg") == (6 / 7, 0)
    assert index.nearest("abcde") is None
    assert NearIndex([list("abcde")], 0.8, 6).nearest("abcdef") is None
