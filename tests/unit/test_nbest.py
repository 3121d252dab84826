"""The n-best file: what is written is read back, and what is missing is noticed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.files import one_line
from fairseq_plugins.generation.nbest import (
    Candidate,
    format_candidates,
    is_nbest,
    read_nbest,
)
from tests.fixtures.models import write_text

LINES = [[Candidate("a b", -1.5, 3), Candidate("a", -2.0, 2)], [Candidate(""), Candidate("")]]


def written(path, lines):
    path.write_text("".join(format_candidates(*entry) for entry in enumerate(lines)))
    return path


def test_what_is_written_is_read_back(tmp_path):
    path = written(tmp_path / "out.nbest", LINES)
    assert list(read_nbest(path)) == LINES
    assert is_nbest(path)


@given(text=st.text(alphabet="a |\u3000é", max_size=20).map(one_line))
def test_any_text_survives_even_one_with_the_separator(tmp_path_factory, text):
    path = written(tmp_path_factory.mktemp("nbest") / "out", [[Candidate(text, -0.25, 1)]])
    assert list(read_nbest(path)) == [[Candidate(text, -0.25, 1)]]


def test_the_score_is_per_piece():
    assert Candidate("a b", -1.5, 3).normalised == -0.5
    assert Candidate("").normalised == 0
    assert format_candidates(7, [Candidate("a b", -1.5, 3)]).endswith("||| -0.500000\n")


def test_plain_text_is_no_nbest_file(tmp_path):
    assert not is_nbest(write_text(tmp_path / "out", ["0 ||| no", "b"]))
    assert not is_nbest(write_text(tmp_path / "empty", []))


@pytest.mark.parametrize(
    "drop, message",
    [
        ([1], "source line 1 (from 0) has 2 candidates, line 0 has 1"),
        ([3], "source line 1 (from 0) has 1 candidates, line 0 has 2"),
        ([0, 1], "line 1: source line 1 where 0 was expected"),
    ],
)
def test_a_missing_candidate_is_noticed(tmp_path, drop, message):
    lines = written(tmp_path / "whole", LINES).read_text().splitlines()
    kept = [line for number, line in enumerate(lines) if number not in drop]
    with pytest.raises(ValueError, match="line") as raised:
        list(read_nbest(write_text(tmp_path / "cut", kept)))
    assert message in str(raised.value)


@pytest.mark.parametrize(
    "line, message",
    [
        ("1 ||| b ||| -3", "line 5: expected 'NUMBER ||| TEXT"),
        ("5 ||| b ||| logprob= -1 pieces= 2 ||| -0.5", "source line 5 where 2 was expected"),
        ("1 ||| b ||| logprob= x pieces= 2 ||| -0.5", "x is not a number"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, message):
    path = written(tmp_path / "out", LINES)
    with open(path, "a") as file:
        file.write(line + "\n")
    with pytest.raises(ValueError, match="line 5") as raised:
        list(read_nbest(path))
    assert message in str(raised.value)
