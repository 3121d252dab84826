"""Source text without translations in a domain's folder: where it goes in the chain."""

import os
import shlex
import stat
import subprocess

import pytest

from data_prep.monolingual import add_monolingual
from tests.fixtures.bitext import read_side, write_side
from tests.fixtures.prepared import toy_prepared
from tests.fixtures.toy_chain import ROOT, environment, run_chain, toy_corpora


@pytest.fixture
def corpora(tmp_path):
    return toy_corpora(tmp_path / "corpora")


def dry_run(corpora, *options):
    """Commands of a dry run, lists of words."""
    done = run_chain(corpora, corpora / "nowhere", "--dry-run", *options)
    assert done.returncode == 0, done.stdout
    return [shlex.split(line) for line in done.stdout.splitlines() if line and line[0].islower()]


def values(commands, program, flag):
    """What follows a flag in each command of a program."""
    return [words[words.index(flag) + 1] for words in commands if program in words]


@pytest.mark.parametrize(
    "names", [["monolingual.de"], ["monolingual.00.de.zst", "monolingual.01.de.zst"]]
)
def test_teachers_of_the_domain_translate_it_and_the_table_says_so(corpora, names):
    for name in names:
        write_side(corpora / "odd" / name, ["1 3 5"])
    losses = ["--loss", "plain,sequence-risk", "--lines", "7"]
    commands = dry_run(corpora, "--configuration", "1,7,8,9", *losses)
    (words,) = [words for words in commands if "data_prep.monolingual" in words]
    flags = list(zip(words, words[1:], strict=False))
    assert {("--in", str(corpora / "odd")), ("--text", "corpora/odd/text"), ("--lines", "7"),
            ("--out", "corpora/odd/sources"), ("--held-out", str(corpora / "general")),
            ("--held-out", str(corpora / "odd"))} <= {*flags}  # fmt: skip
    (words,) = [words for words in commands if "data_prep.overlap" in words]
    assert words[-2:] == ["corpora/general/text", "corpora/odd/sources"]
    translated = values(commands, "dad-generate", "--source")
    assert translated == ["corpora/general/text/train.de", *["corpora/odd/sources/train.de"] * 2]
    for flag, lang in (("--source", "de"), ("--references", "en")):
        assert values(commands, "dad-select", flag)[1:] == [f"corpora/odd/sources/train.{lang}"] * 2
        assert values(commands, "dad-candidates", flag) == [f"corpora/odd/sources/train.{lang}"] * 2
    # what is trained on references does not see it
    assert values(commands, "data_prep.binarise", "--train")[:2] == [
        "corpora/general/text", "corpora/odd/text",
    ]  # fmt: skip
    labels = dict(zip(*(values(commands, "dad-evaluate", flag) for flag in ("--name", "--label")),
                      strict=True))  # fmt: skip
    having = {name for name, label in labels.items() if "output + monolingual" in label}
    assert having == {"8", "9", "8 risk", "9 risk"}


def test_other_files_change_nothing(corpora):
    plain = dry_run(corpora, "--configuration", "1,9")
    for name in ("odd/monolingual.en", "odd/monolingual.origin", "general/monolingual.de"):
        write_side(corpora / name, ["1 3 5"])
    assert dry_run(corpora, "--configuration", "1,9") == plain
    assert not any("sources" in word for words in plain for word in words)


STAND_IN = """#!/usr/bin/env bash
while (( $# )); do [[ $1 == --source ]] && src=$2; [[ $1 == --out ]] && out=$2; shift; done
rev "$src" > "$out"
"""


def test_every_line_that_the_teacher_translates_is_learnt(tmp_path):
    """distil.sh for real, but for a teacher who says everything backwards."""
    toy_prepared(tmp_path)
    text, raw = tmp_path / "data-text", tmp_path / "raw"
    raw.mkdir()
    train = read_side(text / "train.de")
    more = [f"{line} {line[::-1]}" for line in train[:20]]
    write_side(raw / "monolingual.de", [*more, train[3], more[5]])
    steps = ["empty", "duplicate"]  # the toy language is none
    add_monolingual(raw, text, ("de", "en"), tmp_path / "sources", steps=steps,
                    near={"threshold": None})  # fmt: skip
    sources = read_side(tmp_path / "sources" / "train.de")
    assert sources[:60] == train and 60 < len(sources) <= 80
    stand_in = tmp_path / "bin" / "dad-generate"
    stand_in.parent.mkdir()
    stand_in.write_text(STAND_IN)
    stand_in.chmod(stand_in.stat().st_mode | stat.S_IXUSR)
    out = tmp_path / "distilled"
    done = subprocess.run(
        ["bash", str(ROOT / "recipes" / "stages" / "distil.sh"), "--teacher", "none",
         "--text", str(tmp_path / "sources"), "--vocabulary", str(tmp_path / "data-vocabulary"),
         "--source-lang", "de", "--target-lang", "en", "--out", str(out),
         "--references", "1"],
        env={**environment(), "PATH": f"{stand_in.parent}:{environment()['PATH']}",
             "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
        text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    origins = [line.split("\t") for line in read_side(out / "text" / "train.lines")]
    numbers = {kind: [int(number) for number, origin in origins if origin == kind]
               for kind in ("distilled", "reference")}  # fmt: skip
    assert numbers["distilled"] == [*range(1, len(sources) + 1)]
    assert numbers["reference"] == [*range(1, 61)]
    pairs = set(zip(*(read_side(out / "text" / f"train.{lang}") for lang in ("de", "en")),
                    strict=True))  # fmt: skip
    assert {(line, line[::-1]) for line in sources} <= pairs
    for split, name in (("dev", "valid"), ("test", "test")):
        for lang in ("de", "en"):
            untouched = (text / f"{split}.{lang}").read_bytes()
            assert (out / "prepared" / f"{name}.{lang}").read_bytes() == untouched
