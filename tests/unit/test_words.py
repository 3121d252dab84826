"""Words of lines in any script, and what repeats or copies them."""

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.words import (
    copied_share,
    count_words,
    longest_word,
    most_repeated,
    repeated_more,
    words_of,
)


@pytest.mark.parametrize(
    "text, words",
    [
        ("The house  is old. ", ["The", "house", "is", "old."]),
        ("Дом — старый", ["Дом", "—", "старый"]),
        ("“ŵ” é…", ["“ŵ”", "é…"]),
        ("我有2只猫。", ["我", "有", "2", "只", "猫", "。"]),
        ("カタカナ、ひら", ["カ", "タ", "カ", "ナ", "、", "ひ", "ら"]),
        ("한국어 문장", ["한국어", "문장"]),
        ("ไทย ลาว", ["ไ", "ท", "ย", "ล", "า", "ว"]),
        ("a\tb\u3000c\x1cd", ["a", "b", "c", "d"]),
        ("我\x1cb", ["我", "b"]),
        ("", []),
        (" ", []),
    ],
)
def test_words_are_between_spaces_and_characters_where_there_are_none(text, words):
    assert words_of(text) == words
    assert count_words(text) == len(words)
    assert longest_word(text) == max(map(len, words), default=0)


SPACELESS = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Myanmar}\p{Khmer}]")


@pytest.mark.parametrize("first, last", [(0x80, 0xABFF), (0xF900, 0xFFDC), (0x20000, 0x323AF)])
def test_scripts_without_spaces_are_those_that_unicode_names(first, last):
    for code in range(first, last + 1):
        letter = chr(code)
        if letter.isalpha() and SPACELESS.match(letter):
            # extensions of Burmese and phonetic marks apart
            assert len(words_of(letter * 2)) == 2 or 0xA9E0 <= code <= 0xAA7F, hex(code)


@pytest.mark.parametrize("text", ["한국어", "देवनागरी", "العربية", "עברית", "ქართული", "Ελλάδα"])
def test_other_scripts_have_spaces(text):
    assert words_of(text) == [text]


def plain_most_repeated(text):
    """As ``most_repeated``, from its definition."""
    words = words_of(text)
    best = 1
    for size in range(1, 9):
        for start in range(len(words)):
            times = 1
            while (words[start : start + size]
                   == words[start + times * size : start + (times + 1) * size] != []):  # fmt: skip
                times += 1
            best = max(best, times)
    return best


LOOPS = st.lists(st.sampled_from("abc"), max_size=40).map(" ".join)


@settings(max_examples=150, deadline=None)
@given(LOOPS, LOOPS, st.integers(1, 6))
def test_loops_are_found_as_their_definition_says(text, other, most):
    times, words = most_repeated(text)
    assert times == plain_most_repeated(text)
    assert f"{' '.join(words * times)} " in f"{text} "
    found = repeated_more(text, most, other)
    if times > most and times > most_repeated(other)[0]:
        assert found == f"{times} × {' '.join(words)!r}"
    else:
        assert found is None


@pytest.mark.parametrize("size, times", [(1, 6), (8, 6), (9, 1)])
def test_a_loop_has_up_to_eight_words(size, times):
    words = " ".join("abcdefghi"[:size])
    text = " ".join([words] * 6)
    assert most_repeated(text)[0] == times
    assert repeated_more(text, 4, "") == (f"6 × {words!r}" if times == 6 else None)


@pytest.mark.parametrize(
    "source, target, share",
    [
        ("a b c d", "a b c d", 1.0),
        ("A B c d", "a b C D", 1.0),
        ("a b c x", "a b c d", 0.75),
        ("abcd", "a b c d", 0.0),  # in a word, but no word
        ("a", "a a a a", 0.25),
        ("1 2 a b", "1 2 a c", 0.5),
        ("a b c", "a b c", None),  # too few
        ("1 2 3 4", "1 2 3 4", None),
        ("我不信任汤姆", "我不信任她", 0.8),
    ],
)
def test_the_share_of_words_that_were_copied(source, target, share):
    least = 2 if "1" in source and "a" in source else 4
    assert copied_share(source, target, -1, least) == share
    for most in (0, 0.3, 0.6, 0.75, 0.9, 1):
        expected = share if share is not None and share > most else None
        assert copied_share(source, target, most, least) == expected
        longer = source + " z" * 1000
        assert copied_share(longer, target, most, least) == expected
