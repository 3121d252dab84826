"""Which language a text is in, and in which scripts a language is written."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.languages import (
    ENOUGH,
    FEW,
    SCRIPTS,
    accepted_codes,
    base_code,
    identifier,
    identify,
    known_language,
    letters_of,
    other_languages,
)

TEXTS = [
    "This is a sentence in English, as it should be.",
    "Dies ist ein Satz, der nicht übersetzt worden ist.",
    "Том раскрыл книгу на случайной странице и начал читать.",
    "汤姆进了厨房，给自己倒了杯咖啡。",
    "CAPITALS ARE NOT A LANGUAGE",
    "e\u0301te\u0301 français",
    "Ovo je rečenica na srpskom jeziku.",
    "Ово је реченица на српском језику.",  # Serbian is two classes of py3langid
    "", " ", "…", "1234 5678", "\U0010ffff", "a",
]  # fmt: skip


def test_many_texts_at_once_are_as_likely_as_one_by_one():
    texts = [*TEXTS, TEXTS[1] * 18]
    labels, probs = identify(texts)
    assert len(texts) > FEW
    assert labels == identifier().labels
    for text, row in zip(texts, probs, strict=True):
        expected = dict(identifier().rank(text))
        assert row == pytest.approx([expected[label] for label in labels], abs=1e-5)
        _, (alone,) = identify([text])
        assert row == pytest.approx(alone, abs=1e-5)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(), min_size=FEW + 1, max_size=30), st.integers(1, 300))
def test_any_text_at_all_is_as_likely_as_alone(texts, at_once):
    from data_prep import languages

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(languages, "AT_ONCE", at_once)
        labels, probs = identify(texts)
    for text, row in zip(texts, probs, strict=True):
        expected = dict(identifier().rank(text))
        assert row == pytest.approx([expected[label] for label in labels], abs=1e-4)


@pytest.mark.parametrize("copies", [1, FEW + 1])
def test_the_rest_of_a_long_text_is_not_looked_at(copies):
    german = TEXTS[1] * 50
    assert len(german) > ENOUGH
    _, probs = identify([german] * copies)
    _, longer = identify([german + TEXTS[2] * 1000] * copies)
    np.testing.assert_array_equal(probs, longer)


@pytest.mark.parametrize("copies", [1, FEW + 1])
@pytest.mark.parametrize(
    "text, lang, least, confidence, answer",
    [
        (TEXTS[0], "en", 20, 0.5, None),
        (TEXTS[1], "en", 20, 0.5, "de, probability"),
        (TEXTS[1], "en", 200, 0.5, None),
        (TEXTS[1], "en", 20, 1.0, None),
        ("Nicht übersetzt", "en", 20, 0.5, None),
        ("Nicht übersetzt", "en", 15, 0.5, "de, probability"),  # ü is two bytes
        ("Nicht übersetzt", "en", 16, 0.5, None),
        (TEXTS[3], "en", 20, 0.5, "zh, probability"),
        (TEXTS[3], "zh-CN", 20, 0.5, None),
        (f"{'. ' * 50}{TEXTS[1]}", "en", 20, 0.5, "de, probability"),
        ("0.5 0.7 >>> 0.8 = 1 - xxx", "de", 1, 0.0, None),
        ("Дата появления симптомов", "ru", 20, 0.5, None),  # bg, but ru is not much less likely
    ],
)
def test_a_text_in_another_language_is_told(text, lang, least, confidence, answer, copies):
    found = other_languages([text] * copies, accepted_codes(lang), least, confidence)
    assert len(set(found)) == 1 and len(found) == copies
    assert found[0] == answer if answer is None else found[0].startswith(answer)


def test_texts_that_are_not_judged_do_not_shift_the_others():
    texts = ["ja", *TEXTS[:2], "ja", TEXTS[2], ""] * 3
    found = other_languages(texts, accepted_codes("en"), 20, 0.5)
    assert [one and one[:2] for one in found] == [None, None, "de", None, "ru", None] * 3


def test_one_written_language_under_several_names_is_one():
    assert {"zh", "yue", "wuu"} == accepted_codes("zh") == accepted_codes("zh_TW")
    assert {"en", "pcm", "de"} == accepted_codes("en", "de")
    with pytest.raises(ValueError, match="does not know 'xx-YY'; it knows af, am"):
        accepted_codes("en", "xx-YY")
    assert known_language("zh-TW") and not known_language("xx")


@pytest.mark.parametrize(
    "lang, code", [("zh", "zh"), ("zh-CN", "zh"), ("zh_Hant_TW", "zh"), ("EN", "en")]
)
def test_a_code_may_say_country_and_script(lang, code):
    assert base_code(lang) == code


def test_the_scripts_of_all_languages_have_letters():
    for scripts in SCRIPTS.values():
        assert letters_of("", scripts) == 0
    undecided = {"zxx", "ace", "ku", "uzs"}
    assert set(identifier().labels) - undecided == set(SCRIPTS) - {"yi"}


@pytest.mark.parametrize(
    "text, scripts, count",
    [
        ("Tom, 2 Äpfel!", None, 8),
        ("abc 1_", None, 3),
        ("Том ест", None, 6),
        ("Том ест", ("Cyrillic",), 6),
        ("Том ест", ("Latin",), 0),
        ("Tom ест 中", ("Latin", "Cyrillic"), 6),
        ("e\u0301", ("Latin",), 1),
        ("中国カナ", ("Han",), 2),
        ("", None, 0),
    ],
)
def test_letters_are_counted_by_script(text, scripts, count):
    assert letters_of(text, scripts) == count
