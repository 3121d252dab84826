"""Indicators: what each counts, as tables of lines; and what holds of all."""

from types import SimpleNamespace

import numpy as np
import pytest
import xxhash

from fairseq_plugins.evaluation.indicators import (
    INDICATORS,
    Facts,
    Line,
    Sentence,
    available,
    bare_words,
    hashes,
    same_output,
    value,
)
from fairseq_plugins.evaluation.training_text import Terms, TrainingText

DE = "der kleine Hund läuft heute Abend durch den großen alten Park"
EN = "the small dog runs through the big old park this evening"
NAMES = "Anna Maria Schmidt Berlin"


def counted(key, output, references=(EN,), source=DE, facts=None, chrf=None):
    line = Line(Sentence(source, list(references)), output, chrf)
    return INDICATORS[key].function(line, facts or Facts())


@pytest.mark.parametrize(
    "text, words",
    [
        ("“Hello, World!” (it’s me…)", ["hello", "world", "it's", "me"]),
        ("3.5 % of well-known U.S. firms –", ["3.5", "of", "well-known", "u.s", "firms"]),
        ("我们，走吧。", ["我", "们", "走", "吧"]),
        ("  ... !", []),
        ("STRASSE Straße", ["strasse", "strasse"]),
    ],
)
def test_words_have_no_case_and_no_punctuation_at_their_ends(text, words):
    assert bare_words(text) == words


@pytest.mark.parametrize(
    "key, output, options, expected",
    [
        ("empty", "", {}, (1, 1)),
        ("empty", " \u3000 ", {}, (1, 1)),
        ("empty", "a", {}, (0, 1)),
        ("length_ratio", "abcd", {"references": ["ab"]}, (4, 2)),
        ("length_ratio", "abcd", {"references": ["ab", "abcde"]}, (4, 5)),
        ("length_ratio", "abcd", {"references": ["abcde", "abc"]}, (4, 3)),  # as BLEU, the shorter
        ("too_short", "the dog", {}, (1, 1)),
        ("too_short", "the dog ran in parks too", {}, (0, 1)),
        ("too_short", "yes", {"references": ["yes it is"]}, (0, 0)),
        ("too_short", "the dog", {"references": [EN, "a dog runs there"]}, (0, 1)),
        ("too_long", " ".join([EN] * 2 + ["a"]), {}, (1, 1)),
        ("too_long", " ".join([EN] * 2), {}, (0, 1)),
        ("too_long", "no no no no no no", {"references": ["yes it is"]}, (0, 0)),
        ("too_long", " ".join([EN] * 2 + ["a"]), {"references": [EN, EN + " yes"]}, (0, 1)),
        ("copied", DE, {}, (1, 1)),
        ("copied", DE.upper(), {}, (1, 1)),
        ("copied", EN, {}, (0, 1)),
        ("copied", "der kleine Hund", {}, (0, 1)),  # too short to be judged
        ("copied", NAMES, {"source": NAMES, "references": [EN, NAMES]}, (0, 1)),
        ("loops", "no no no no no", {}, (1, 1)),
        ("loops", "no no no no", {}, (0, 1)),
        ("loops", "no no no no no", {"source": "nein " * 5}, (0, 1)),
        ("loops", "no no no no no", {"source": None}, (1, 1)),
        ("loops", "no no no no no", {"source": None, "references": ["na " * 5]}, (0, 1)),
        ("oscillating", "a b c d x a b c d y a b c d", {}, (1, 1)),
        ("oscillating", "a b c d x a b c d y", {}, (0, 1)),
        ("oscillating", "a b c d x a b c d y a b c d", {"source": "k l m n k l m n"}, (0, 1)),
        ("oscillating", "a b c d x a b c d", {"source": ""}, (1, 1)),
        ("oscillating", "a b c d x y", {"source": ""}, (0, 1)),
        ("oscillating", "a b c d x a b c d y a b c d", {"source": None}, (1, 1)),
        ("detached", EN, {"chrf": 9.9}, (1, 1)),
        ("detached", EN, {"chrf": 10.0}, (0, 1)),
        ("exact", EN, {"references": ["no", EN]}, (1, 1)),
        ("exact", EN + " ", {}, (0, 1)),
    ],
)  # fmt: skip
def test_a_line_is_counted(key, output, options, expected):
    assert counted(key, output, **options) == expected


TERMS = Facts(Terms({"dog": None, "big old park": None, "park": {"park"}, "cat": {"katze"}}))
ZH = Facts(Terms({"机 器 翻 译": None}))


@pytest.mark.parametrize(
    "output, options, expected",
    [
        ("The dog, a big old park!", {}, (3, 3)),
        ("a park", {}, (1, 3)),
        ("dog dog dog", {}, (1, 3)),  # as often as the reference at most
        ("", {}, (0, 3)),
        ("dogs", {}, (0, 3)),  # another form is not found
        ("a dog", {"references": ["none of them"]}, (0, 0)),
        ("dog dog", {"references": ["dog", "dog and dog"]}, (2, 2)),
        ("cat", {"references": ["cat"], "source": "der Hund"}, (0, 0)),  # not asked for
        ("cat", {"references": ["cat"], "source": "die Katze."}, (1, 1)),
        ("机器翻译很好", {"references": ["我们用机器翻译。"], "facts": ZH}, (1, 1)),
        ("翻译机器", {"references": ["我们用机器翻译。"], "facts": ZH}, (0, 1)),
    ],
)
def test_recall_of_terms(output, options, expected):
    assert counted("term_recall", output, **{"facts": TERMS, **options}) == expected


@pytest.mark.parametrize(
    "key, expected",
    [
        ("unseen_word_recall", (1, 2)),
        ("rare_word_recall", (1, 2)),
        ("frequent_word_recall", (2, 3)),
    ],
)
def test_recall_of_words_by_how_often_they_were_seen(key, expected):
    facts = Facts(training=TrainingText({"once": 1, "five": 5, "six": 6, "often": 99}))
    references = ["new newer once five six often often"]
    output = "new once often six once"
    assert counted(key, output, references, facts=facts) == expected


LONG = "one two three four five six seven eight nine ten"


@pytest.mark.parametrize(
    "key, output, references, expected",
    [
        ("verbatim", "One, two three four five.", [EN], (1, 1)),
        ("verbatim", "one two three four five", [EN, "One two three four five!"], (0, 1)),
        ("verbatim", "one two three four six", [EN], (0, 1)),
        ("verbatim", "one two three four", [EN], (0, 0)),
        ("training_runs", "so " + LONG, [EN], (9, 11)),  # one to nine
        ("training_runs", LONG, [LONG], (0, 10)),
        ("training_runs", "one two", [EN], (0, 2)),
    ],
)
def test_what_is_taken_from_the_training_text(key, output, references, expected):
    runs = {"one two three four five six seven eight", "two three four five six seven eight nine"}
    training = TrainingText({}, {"one two three four five", "one two three four"}, runs)
    assert counted(key, output, references, facts=Facts(training=training)) == expected


def same(lines):
    columns = zip(*(hashes(Line(Sentence(source, references), output))
                    for source, output, references in lines), strict=True)  # fmt: skip
    return same_output(*map(np.array, columns))


def test_one_output_for_five_sources_is_counted():
    lines = [(f"source {n}", "sorry", ["right"]) for n in range(5)]
    assert same(lines) == (5, 5)
    assert same(lines[:4]) == (0, 4)


def test_one_output_for_one_source_or_where_it_is_right_or_empty_is_not():
    assert same([("source", "sorry", ["right"])] * 9) == (0, 9)
    lines = [(f"source {n}", "sorry", ["right"]) for n in range(4)]
    assert same([*lines, ("source 4", "sorry", ["sorry", "x"])]) == (4, 5)
    assert same([(f"source {n}", "", ["right"]) for n in range(9)]) == (0, 9)


def test_source_and_output_are_told_apart_in_hashes():
    one, other = (hashes(Line(Sentence(source, ["x"]), output))[1]
                  for source, output in (("a", "bc"), ("ab", "c")))  # fmt: skip
    assert one != other
    assert hashes(Line(Sentence("a", ["x"]), "b"))[0] == xxhash.xxh3_64_intdigest(b"b")


PERFECT = Facts(TERMS.terms, TrainingText(dict.fromkeys(bare_words(EN), 1)))


def test_a_perfect_translation_has_all_traits_that_are_good_and_none_that_is_bad():
    found = {}
    for key in set(INDICATORS) - {"same_output"}:
        count, of = counted(key, EN, facts=PERFECT, chrf=100)
        found[key] = count / of if of else None
    good = {"length_ratio", "exact", "term_recall", "rare_word_recall"}
    nothing = {"unseen_word_recall", "frequent_word_recall"}  # no such words
    assert {key for key, share in found.items() if share == 1} == good
    assert {key for key, share in found.items() if share is None} == nothing
    assert {key for key, share in found.items() if share == 0} == set(found) - good - nothing


def test_every_indicator_has_a_definition_and_a_source():
    for key, indicator in INDICATORS.items():
        assert indicator.key == key and indicator.paper and len(indicator.title) < 32
        assert indicator.definition.endswith(".") and "\n" not in indicator.definition
        assert indicator.needs in (None, "source", "chrf", "terms", "training")
    assert len({indicator.title for indicator in INDICATORS.values()}) == len(INDICATORS)


def test_only_what_can_be_known_is_available():
    assert "loops" in available([]) and "copied" not in available([])
    assert {"copied", "same_output"} == set(available(["source"])) - set(available([]))
    assert set(available(["source", "chrf", "terms", "training"])) == set(INDICATORS)


def test_a_value_of_nothing_is_none():
    assert value(0, 0) == {"value": None, "count": 0, "of": 0}
    assert value(np.int64(1), 3) == {"value": 0.3333, "count": 1, "of": 3}


def test_sources_are_read_only_where_they_are_needed():
    sentence = SimpleNamespace(references=[EN], reference_words=[bare_words(EN)])
    for key in ("empty", "length_ratio", "too_short", "too_long", "exact"):
        count, of = INDICATORS[key].function(Line(sentence, EN), Facts())  # there is no source
        assert 0 <= count <= of
