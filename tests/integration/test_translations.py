"""dad-generate --translations: a file made elsewhere takes the place of a teacher."""

import json
import subprocess
import sys

import pytest

from fairseq_plugins.generation.generate import take_translations
from fairseq_plugins.generation.nbest import Candidate, format_candidates, read_nbest
from tests.fixtures.models import read_text, write_text

SOURCE = ["eins", "zwei", "", "vier", "f\u00fcnf"]


@pytest.fixture
def source(tmp_path):
    return write_text(tmp_path / "source", SOURCE)


def records(path, *entries):
    return write_text(path, [json.dumps(entry) for entry in entries])


def test_answers_in_any_order_become_a_line_for_each_line(source, tmp_path):
    answers = records(
        tmp_path / "answers.jsonl",
        {"line": 5, "translation": "five"},
        {"line": 1, "translation": "one"},
        {"line": 4, "translation": None},
        {"line": 2, "translation": " two\r\n"},
    )
    with pytest.raises(ValueError, match="gave up on line 4"):
        take_translations(answers, source, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    record = take_translations(answers, source, tmp_path / "out", on_fail="drop", shard_lines=2)
    assert read_text(tmp_path / "out") == ["one", "two", "", "", "five"]
    assert read_text(tmp_path / "out.ledger.tsv")[1:] == [
        "3\tempty source\tleft empty\t0", "4\tfailed\tdropped\t0",
    ]  # fmt: skip
    assert record["counts"]["failed"] == 1 and record["counts"]["lines"] == 5


def test_candidates_become_an_nbest_file(source, tmp_path):
    answers = records(
        tmp_path / "answers.jsonl",
        *({"line": number, "translations": [f"{number}a", f"{number}b"], "scores": [-2, -1]}
          for number in (1, 2, 4, 5)),
    )  # fmt: skip
    take_translations(answers, source, tmp_path / "out", n_best=2)
    found = list(read_nbest(tmp_path / "out.nbest"))
    assert [[candidate.text for candidate in entry] for entry in found] == [
        ["1b", "1a"], ["2b", "2a"], ["", ""], ["4b", "4a"], ["5b", "5a"],
    ]  # fmt: skip
    assert read_text(tmp_path / "out") == ["1b", "2b", "", "4b", "5b"]


def test_an_nbest_file_of_ours_comes_out_as_it_went_in(source, tmp_path):
    lines = [[Candidate(f"{n}{c}", -1.5 - n, 3) for c in "ab"] for n in range(5)]
    lines[2] = [Candidate("")] * 2
    nbest = tmp_path / "theirs.nbest"
    nbest.write_text("".join(format_candidates(*entry) for entry in enumerate(lines)))
    take_translations(nbest, source, tmp_path / "out", n_best=2, shard_lines=2)
    assert (tmp_path / "out.nbest").read_bytes() == nbest.read_bytes()


@pytest.mark.parametrize("lines", [4, 6])
def test_a_file_of_another_length_is_refused_before_anything_is_written(source, tmp_path, lines):
    theirs = write_text(tmp_path / "theirs", ["x"] * lines)
    with pytest.raises(ValueError, match=f"has only {min(lines, 5)} lines, .* has {max(lines, 5)}"):
        take_translations(theirs, source, tmp_path / "out")
    assert not list(tmp_path.glob("out*"))


def test_done_is_done_and_other_translations_are_noticed(source, tmp_path, capsys):
    theirs = write_text(tmp_path / "theirs", list("abcde"))
    first = take_translations(theirs, source, tmp_path / "out")
    assert take_translations(theirs, source, tmp_path / "out") == first
    assert "is there already" in capsys.readouterr().err
    write_text(theirs, list("abcdf"))
    with pytest.raises(FileExistsError, match="--translations was"):
        take_translations(theirs, source, tmp_path / "out")


def command(*words):
    return subprocess.run(
        [sys.executable, "-m", "fairseq_plugins.generation.generate", *map(str, words)],
        capture_output=True, text=True,
    )  # fmt: skip


def test_the_command_says_where_translations_came_from_and_refuses_what_makes_no_sense(
    source, tmp_path
):
    theirs = write_text(tmp_path / "theirs", list("abcde"))
    words = ("--translations", theirs, "--source", source, "--out", tmp_path / "out")
    refused = command(*words, "--beam", 4)
    assert refused.returncode == 1 and "--beam is for models" in refused.stderr
    done = command(*words)
    assert done.returncode == 0, done.stderr
    assert "5 lines (1 empty (empty)), taken from translations made elsewhere" in done.stderr
