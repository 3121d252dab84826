"""dad-score --comet with a stand-in for comet-score that keeps to its command line and files."""

import sys

import pytest

from fairseq_plugins.evaluation import comet, score
from fairseq_plugins.evaluation.scoring import TestSet
from tests.fixtures.models import write_text

SOURCES = ["ein Haus", "ein\rHund", "", "eine Katze"]
REFERENCES = ["a house", "a dog", "x", "a cat"]
GOOD = ["a house", "a\rdog\u2028", "", "a cat"]
POOR = ["mouse", "fog", "", "bat"]

# reads files as comet-score does: lines end at carriage returns, too; the shortest file counts
STAND_IN = """#!{python} -IS
import json, sys
if sys.argv[1:] == ["-c", "import importlib.metadata as m; print(m.version('unbabel-comet'))"]:
    sys.exit("asked the wrong program")
words = sys.argv[1:]
def values(flag):
    found = []
    for word in words[words.index(flag) + 1:]:
        if word.startswith("-"):
            break
        found.append(word)
    return found
read = lambda path: [line.strip() for line in open(path, encoding="utf-8").readlines()]
(source,), (reference,), (out,) = values("-s"), values("-r"), values("--to_json")
assert values("--model") == ["Unbabel/some|model"] and values("--gpus") == ["0"], words
{trouble}
record = {{
    path: [dict(src=s, mt=m, ref=r, COMET=float(m == r))
           for s, m, r in zip(read(source), read(path), read(reference))]
    for path in values("-t")
}}
json.dump({written}, open(out, "w"))
"""


@pytest.fixture
def stand_in(tmp_path):
    def make(trouble="", written="record"):
        path = tmp_path / "comet-score"
        path.write_text(STAND_IN.format(python=sys.executable, trouble=trouble, written=written))
        path.chmod(0o755)
        return str(path)

    return make


@pytest.fixture
def files(tmp_path):
    texts = {"source": SOURCES, "reference": REFERENCES, "good": GOOD, "poor": POOR}
    return {name: str(write_text(tmp_path / name, lines)) for name, lines in texts.items()}


def scored(files, command, source=True, model="Unbabel/some|model"):
    test_set = TestSet("test", [files["reference"]], files["source"] if source else None)
    systems = {name: files[name] for name in ("good", "poor")}
    return comet.score(test_set, systems, model, command)


def test_the_mean_of_the_segments_is_the_score(files, stand_in):
    found = scored(files, stand_in())
    assert {name: entry["score"] for name, entry in found.items()} == {"good": 0.75, "poor": 0.0}
    assert found["good"]["model"] == "Unbabel/some|model"
    # a stand-in is no environment with unbabel-comet
    assert found["good"]["signature"] == "model:Unbabel/some_model|version:unknown"


def test_the_version_is_that_of_the_commands_environment(tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 2.2.7\n")
    python.chmod(0o755)
    command = tmp_path / "comet-score"
    command.write_text(f"#!{python}\n")
    assert comet._version(str(command)) == "2.2.7"
    command.write_bytes(b"\x7fELF")
    assert comet._version(str(command)) == "unknown"


@pytest.mark.parametrize(
    "trouble, written, message",
    [
        ("sys.exit('no such model: some')", "record", "status 1; it said:\n  no such model: some"),
        ("sys.exit(0)", "record", "status 0; it said:\n  nothing"),
        ("", "{}", "something else than segments with COMET scores"),
        ("", "{path: [{}] for path in record}", "something else than segments"),
        ("", "{path: lines[1:] for path, lines in record.items()}", "scored 3 of 4 lines"),
    ],
)
def test_what_goes_wrong_is_told(files, stand_in, trouble, written, message):
    with pytest.raises(ValueError, match=message):
        scored(files, stand_in(trouble, written))


def test_without_command_or_source_the_next_step_is_told(files, stand_in):
    with pytest.raises(FileNotFoundError, match="pip install unbabel-comet"):
        scored(files, "no-such-command")
    with pytest.raises(ValueError, match="give --source"):
        scored(files, stand_in(), source=False)


def test_the_command_shows_comet_beside_the_rest(files, stand_in, monkeypatch, capsys, tmp_path):
    words = ["--references", files["reference"], "--source", files["source"], "--target-lang", "en",
             "--comet", "Unbabel/some|model", "--comet-command", stand_in(),
             files["good"], files["poor"], "--baseline", files["poor"]]  # fmt: skip
    printed = {}
    for flags in ("--format table", "--format text", "--format json", "--brief"):
        monkeypatch.setattr(sys, "argv", ["dad-score", *words, *flags.split()])
        with pytest.raises(SystemExit) as stopped:
            score.main()
        assert not stopped.value.code
        printed[flags] = capsys.readouterr().out
    assert "COMET" in printed["--format table"] and "0.7500" in printed["--format table"]
    assert "COMET|model:Unbabel/some_model|version:unknown = 0.7500" in printed["--format text"]
    assert '"COMET": {\n   "score": 0.75' in printed["--format json"]
    assert printed["--brief"].split()[2] == "0.7500"
