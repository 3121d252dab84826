"""A file of translations made elsewhere: each goes to its source line, none is lost or doubled."""

import json
import random
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.files import one_line, read_lines
from fairseq_plugins.generation import translations as module
from fairseq_plugins.generation.nbest import Candidate, format_candidates
from fairseq_plugins.generation.translations import (
    JSONL,
    NBEST,
    TEXT,
    check_same_source,
    format_of,
    read_translations,
)
from tests.fixtures.bitext import write_side

SOURCE = ["Gut.", "", "Das Haus ist alt.", "Gut.", "Wie spät?"]


@pytest.fixture
def source(tmp_path):
    write_side(tmp_path / "source", SOURCE)
    return tmp_path / "source"


def jsonl(path, *records):
    write_side(path, [r if isinstance(r, str) else json.dumps(r) for r in records])
    return path


def texts(path, source, **settings):
    return [[found.text for found in line] for line in read_translations(path, source, **settings)]


def refusal(path, source, **settings):
    with pytest.raises(ValueError, match=path.name) as raised:
        list(read_translations(path, source, **settings))
    return str(raised.value)


# -- plain text ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["out", "out.gz"])
def test_text_is_read_line_by_line(name, source, tmp_path):
    write_side(tmp_path / name, ["\ufeffGood.\r", "", "The\u2028house\tis  old.", "{", "Wait"])
    assert texts(tmp_path / name, source) == [
        ["Good."], [""], ["The house is old."], ["{"], ["Wait"]
    ]  # fmt: skip


@pytest.mark.parametrize("number", [0, 4, 6])
def test_text_of_another_length_is_refused(number, source, tmp_path):
    write_side(tmp_path / "out", ["a"] * number)
    message = refusal(tmp_path / "out", source)
    assert f"stop being parallel at line {min(number, 5) + 1}" in message
    shorter = source if number == 6 else tmp_path / "out"
    longer = (tmp_path / "out", 6) if number == 6 else (source, 5)
    assert (
        f"{shorter} has only {min(number, 5)} lines, {longer[0]} has {longer[1]}" in message
    )


def test_translations_of_the_same_text_are_taken(source, tmp_path):
    same = [f"{line} " for line in read_lines(source)]
    write_side(tmp_path / "theirs.gz", same)
    assert check_same_source(tmp_path / "theirs.gz", source) is None


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda lines: ["x", *lines[1:]], "theirs, line 1: 'x', where"),
        (lambda lines: [*lines[:3], lines[3] + "x", "y"], "theirs, line 4: "),
        (lambda lines: lines[:-1], "has only 4 lines"),
        (lambda lines: [*lines, "", "x"], "has 7"),
    ],
)
def test_translations_of_another_text_are_refused_by_the_first_line(
    source, tmp_path, change, message
):
    write_side(tmp_path / "theirs", change(list(read_lines(source))))
    with pytest.raises(ValueError, match=message):
        check_same_source(tmp_path / "theirs", source)


# -- n-best ----------------------------------------------------------------------------------


def nbest(path, lines):
    path.write_text("".join(format_candidates(*entry) for entry in enumerate(lines)))
    return path


def test_an_nbest_file_is_read_as_it_was_written(source, tmp_path):
    lines = [[Candidate(f"a{n}", -1.5, 3), Candidate("b", -2.0, 2)] for n in range(5)]
    path = nbest(tmp_path / "out", lines)
    assert format_of(path) == NBEST
    assert list(read_translations(path, source)) == lines
    assert list(read_translations(path, source, 1)) == [line[:1] for line in lines]
    assert "line 6: " in refusal(nbest(tmp_path / "long", lines * 2), source)


def test_the_nbest_file_of_another_program_is_not_taken_for_text(source, tmp_path):
    write_side(tmp_path / "out", [f"{n} ||| a ||| F0= -1 ||| -1" for n in range(5)])
    assert "line 1: an n-best file of another program" in refusal(tmp_path / "out", source)


# -- JSONL -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["out.jsonl", "out", "out.jsonl.gz"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_records_in_any_order_go_to_the_lines_that_they_name(name, mark, source, tmp_path):
    records = [json.dumps({"line": n, "translation": f"ü{n}\n\n x"}, ensure_ascii=n % 2 == 0)
               for n in (5, 1, 3, 4)]  # fmt: skip
    path = jsonl(tmp_path / name, mark + records[0], records[1] + "\r", "", *records[2:], "")
    assert format_of(path) == JSONL
    assert texts(path, source) == [["ü1 x"], [], ["ü3 x"], ["ü4 x"], ["ü5 x"]]


@given(order=st.permutations(range(5)), text=st.text())
def test_any_text_in_any_order_arrives_on_one_line(tmp_path_factory, order, text):
    folder = tmp_path_factory.mktemp("any")
    write_side(folder / "source", SOURCE)
    records = [{"line": n + 1, "translation": f"{text}{n}", "cost": [1]} for n in order]
    path = jsonl(folder / "out", *records)
    assert texts(path, folder / "source") == [[one_line(f"{text}{n}")] for n in range(5)]


def test_a_translation_by_text_serves_every_line_with_that_text(source, tmp_path):
    records = [{"source": " Wie  spa\u0308t?\r", "translation": "What time?"},
               {"source": "Gut.", "translations": ["Good.", "Well."]}]  # fmt: skip
    path = jsonl(tmp_path / "out", *records)
    assert texts(path, source) == [["Good.", "Well."], [], [], ["Good.", "Well."], ["What time?"]]


def test_no_translation_means_failed_and_an_empty_one_does_not(source, tmp_path):
    path = jsonl(
        tmp_path / "out",
        {"line": 1, "translation": None},
        {"line": 2, "translations": None},
        {"line": 3, "translations": []},
        {"line": 4, "translation": " "},
    )
    assert texts(path, source) == [[], [], [], [""], []]


def test_the_highest_score_comes_first(source, tmp_path):
    record = {"line": 3, "translations": ["a", "b", "c"], "scores": [-2, -0.5, -2]}
    found = list(read_translations(jsonl(tmp_path / "out", record), source))[2]
    assert found == [Candidate("b", -0.5, 1), Candidate("a", -2.0, 1), Candidate("c", -2.0, 1)]
    assert [candidate.normalised for candidate in found] == [-0.5, -2.0, -2.0]


def test_candidates_without_scores_stay_in_order(source, tmp_path):
    path = jsonl(tmp_path / "out", {"line": 1, "translations": ["b", "a"], "scores": None})
    assert next(read_translations(path, source)) == [Candidate("b"), Candidate("a")]


def test_as_many_candidates_as_asked_for_or_none(source, tmp_path):
    path = jsonl(
        tmp_path / "out",
        {"line": 1, "translations": ["a", "b", "c"]},
        {"line": 4, "translations": ["d", "e"]},
    )
    assert texts(path, source, candidates=2) == [["a", "b"], [], [], ["d", "e"], []]
    assert "source line 4 has 2 candidates, 3 were asked" in refusal(path, source, candidates=3)
    with pytest.raises(ValueError, match="1 or more, not 0"):
        list(read_translations(path, source, candidates=0))


def test_half_a_character_becomes_a_replacement_character(source, tmp_path):
    record = r'{"line": 1, "translation": "a\ud83d b\ud83d\ude00"}'
    assert texts(jsonl(tmp_path / "out", record), source)[0] == ["a\ufffd b\U0001f600"]


@pytest.mark.parametrize(
    "record, message",
    [
        ('{"line": 3, "translation": "x"', "line 2: not JSON"),
        ("[" * 100_000, "line 2: not JSON"),
        ('["x"]', "line 2: expected an object"),
        ({"translation": "x"}, "line 2: names no source line"),
        ({"line": "3", "translation": "x"}, "line 2: \"line\" is a whole number, the first"),
        ({"line": "3", "translation": "x"}, "line is 1; not '3'"),
        ({"line": 0, "translation": "x"}, "not 0"),
        ({"line": 2.0, "translation": "x"}, "not 2.0"),
        ({"line": True, "translation": "x"}, "not True"),
        ({"line": 3, "source": 7, "translation": "x"}, "line 2: \"source\" is the text"),
        ({"line": 3, "text": "x"}, "line 2: has neither \"translation\" nor \"translations\""),
        ({"line": 3, "translation": "x", "translations": ["x"]}, "line 2: has both"),
        ({"line": 3, "translation": ["x"]}, "line 2: \"translation\" is a text or null"),
        ({"line": 3, "translation": 0}, "line 2: \"translation\" is a text or null, not 0"),
        ({"line": 3, "translations": "x"}, "line 2: \"translations\" is a list of texts or null"),
        ({"line": 3, "translations": ["x", None]}, "line 2: \"translations\" is a list of texts"),
        ({"line": 3, "translation": "x", "scores": [1, 2]}, "line 2: \"scores\" is a list of 1"),
        ({"line": 3, "translation": "x", "scores": ["1"]}, "line 2: \"scores\""),
        ({"line": 3, "translation": "x", "scores": [float("nan")]}, "line 2: \"scores\""),
        ({"line": 3, "translation": "x", "scores": [10**400]}, "line 2: \"scores\""),
        ({"source": "Gut.", "translation": "x"}, "line 2: has no line number, unlike the lines"),
        ({"line": 1, "translation": "x"}, "line 2: is about the same source line as line 1"),
        ({"line": 6, "translation": "x"}, "line 2: is about a line after the last"),
        ({"line": 3, "source": "Gut.", "translation": "x"}, "line 2: its source is not that of"),
    ],
)  # fmt: skip
def test_a_bad_record_is_named(record, message, source, tmp_path):
    path = jsonl(tmp_path / "out.jsonl", {"line": 1, "translation": "Good."}, record)
    assert message in refusal(path, source)


def test_a_text_that_is_not_in_the_source_or_is_there_twice_is_named(source, tmp_path):
    known, unknown = ({"source": text, "translation": "x"} for text in ("Gut.", "Schlecht."))
    path = jsonl(tmp_path / "out", known, unknown)
    assert "line 2: its source is no line of" in refusal(path, source)
    path = jsonl(tmp_path / "out", known, "", {**known, "source": " Gut."})
    assert "line 3: is about the same source line as line 1" in refusal(path, source)


def test_a_bad_record_is_found_before_the_first_line_is_given(source, tmp_path):
    path = jsonl(tmp_path / "out", {"line": 1, "translation": "a"}, {"line": 5, "translation": 1})
    with pytest.raises(ValueError, match="line 2"):
        next(read_translations(path, source))


def test_a_name_tells_that_an_unreadable_first_line_was_to_be_json(source, tmp_path):
    assert "line 1: not JSON" in refusal(jsonl(tmp_path / "out.jsonl", "{'line': 1}"), source)
    assert format_of(jsonl(tmp_path / "out", "{'line': 1}")) == TEXT


def test_an_empty_file_of_records_means_that_all_lines_failed(source, tmp_path):
    assert texts(jsonl(tmp_path / "out.jsonl"), source) == [[]] * 5


def test_a_missing_file_is_named(source, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        list(read_translations(tmp_path / "nowhere", source))


def test_what_is_held_in_memory_does_not_grow_with_the_text(tmp_path, monkeypatch):
    chance = random.Random(1)
    numbers = list(range(1, 301))
    write_side(tmp_path / "source", [f"s{n}" for n in numbers])
    chance.shuffle(numbers)
    path = jsonl(tmp_path / "out", *({"line": n, "translation": "x" * n} for n in numbers))
    made = []

    class Watched(module._Index):
        def __init__(self, *args):
            super().__init__(*args)
            made.append(self)

    monkeypatch.setattr(module, "_Index", Watched)
    assert texts(path, tmp_path / "source") == [["x" * n] for n in range(1, 301)]
    (index,) = made
    held = [value for value in vars(index).values() if hasattr(value, "__len__")]
    assert held and all(isinstance(v, array) or v.dtype.kind in "iu" for v in held)
