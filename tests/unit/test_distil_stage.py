"""recipes/stages/distil.sh: where the translations come from, a teacher or another place."""

import shlex
import subprocess
from pathlib import Path

import pytest

STAGE = Path(__file__).resolve().parents[2] / "recipes" / "stages" / "distil.sh"
FLAGS = ("--text", "text", "--vocabulary", "v", "--source-lang", "de", "--target-lang", "en",
         "--out", "out", "--dry-run")  # fmt: skip


def commands(*words, folder=None):
    """Status, what distil.sh would run (a list of words each) and what it says."""
    done = subprocess.run(
        ["bash", STAGE, *words, *FLAGS], capture_output=True, text=True, cwd=folder
    )
    return done.returncode, [shlex.split(line) for line in done.stdout.splitlines()], done.stderr


def files(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


@pytest.mark.parametrize(
    "names, place, flags, taken",
    [
        (["out.en"], "out.en", [], ["out.en"]),
        (["a/train.en"], "a", [], ["a/train.en"]),
        (["a/train.en.zst", "a/train.fr"], "a", [], ["a/train.en.zst"]),
        (["a/train.en", "a/train.de.gz"], "a", [],
         ["a/train.en", "--translations-of", "a/train.de.gz"]),
        (["a/decoded/train.en", "a/text/train.de"], "a", [], ["a/decoded/train.en"]),
        (["a/decoded/train.en", "a/decoded/train.en.nbest"], "a", ["--targets", "best-of-4-chrf"],
         ["a/decoded/train.en.nbest", "--n-best", "4"]),
        (["a/train.en", "a/train.en.nbest.gz"], "a", ["--n-best", "3"],
         ["a/train.en.nbest.gz", "--n-best", "3"]),
        (["out.jsonl"], "out.jsonl", ["--targets", "mbr-8-bleu"], ["out.jsonl", "--n-best", "8"]),
    ],
)  # fmt: skip
def test_translations_stand_in_for_the_teacher(tmp_path, names, place, flags, taken):
    files(tmp_path, *names)
    status, theirs, said = commands("--translations", place, *flags, folder=tmp_path)
    assert status == 0, said
    _, ours, _ = commands("--teacher", "t", *flags, folder=tmp_path)
    start = ["dad-generate", "--translations", *taken]
    assert theirs[0][: len(start)] == start
    assert theirs[0][len(start) :] == ours[0][ours[0].index("--source") :]
    assert theirs[1:] == ours[1:]  # chosen and binarised as ever


@pytest.mark.parametrize(
    "names, flags, message",
    [
        ([], ["--translations", "a", "--teacher", "t"], "--teacher translates and --translations"),
        (["a/train.fr"], ["--translations", "a"], "a holds neither train.en nor decoded/train.en"),
        (["a/train.en"], ["--translations", "a", "--n-best", "2"], "neither train.en.nbest nor"),
        (["a/train.en", "a/train.en.gz"], ["--translations", "a"],
         "a/train.en a/train.en.gz exist; remove what is out of date"),
        ([], [], "--teacher is missing"),
    ],
)  # fmt: skip
def test_what_is_unclear_is_refused(tmp_path, names, flags, message):
    files(tmp_path, "a/x", *names)
    status, words, said = commands(*flags, folder=tmp_path)
    assert status != 0 and not words and message in said
