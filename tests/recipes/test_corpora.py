"""From a catalogue, or from files without dev and test, to prepared folders."""

import gzip
import shlex
import subprocess

import pytest

from data_prep.files import count_lines, read_lines
from data_prep.manifest import read_json
from tests.fixtures.toy_chain import ROOT, environment

SAMPLE = ROOT / "recipes" / "quickstart" / "data"
SPLITS = ("train", "dev", "test")
HEADER = "id pair domain role source licence citation"


def recipe(*options):
    """A run of recipes/chain.sh with the numbers of the quickstart."""
    config = ROOT / "recipes" / "quickstart" / "config.sh"
    return subprocess.run(
        ["bash", str(ROOT / "recipes" / "chain.sh"), "--config", str(config), *map(str, options)],
        env=environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def head(path, out, lines):
    with gzip.open(path, "rb") as text:
        out.write_bytes(b"".join(text.readline() for _ in range(lines)))


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A catalogue of local files, general, and a folder of a domain that has no dev and test."""
    root = tmp_path_factory.mktemp("places")
    (root / "files").mkdir()
    (root / "suttas").mkdir()
    for lang in ("de", "en"):
        head(SAMPLE / "suttas" / f"train.{lang}.gz", root / "suttas" / f"train.{lang}", 3000)
        for split in SPLITS:
            name = f"{split}.{lang}"
            head(SAMPLE / "general" / f"{name}.gz", root / "files" / name, 2000)
    rows = [
        [f"own-{split}", "de-en", "general", split, f"file:files/{split}.{{lang}}", "CC BY 2.0 FR",
         "tatoeba.org"]
        for split in SPLITS
    ]  # fmt: skip
    (root / "mine.tsv").write_text(
        "\n".join("\t".join(row) for row in [HEADER.split(), *rows]) + "\n"
    )
    return root


@pytest.fixture(scope="module")
def prepared(places):
    work = places / "work"
    done = recipe(
        "--catalogue", places / "mine.tsv", "--general", "catalogue",
        "--domain", f"suttas={places / 'suttas'}", "--work", work,
        "--vocabulary-size", 1000, "--vocabulary-kind", "bpe", "--stop-stage", 3,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return work


def test_a_corpus_of_the_catalogue_arrives_as_it_is(places, prepared):
    for split in SPLITS:
        for lang in ("de", "en"):
            ours = prepared / "corpora" / "general" / "raw" / f"{split}.{lang}"
            assert ours.read_bytes() == (places / "files" / f"{split}.{lang}").read_bytes()
    assert "CC BY 2.0 FR" in (prepared / "corpora/general/raw/licences.tsv").read_text()


def test_dev_and_test_are_taken_out_of_a_corpus_that_lacks_them(places, prepared):
    split = prepared / "corpora" / "suttas" / "split"
    numbers = [set(read_lines(split / f"{name}.lines")) for name in SPLITS]
    assert all(numbers) and len(set.union(*numbers)) == sum(map(len, numbers))
    left_out = count_lines(split / "left-out.tsv") - 1
    assert sum(map(len, numbers)) + left_out == count_lines(places / "suttas" / "train.de")
    for name in ("dev", "test"):
        text = prepared / "corpora" / "suttas" / "text" / f"{name}.de"
        assert text.read_bytes() == (split / f"{name}.de").read_bytes()


def test_everything_is_prepared_with_one_vocabulary_of_the_kind_asked_for(prepared):
    settings = read_json(prepared / "vocabulary" / "manifest.json")["settings"]
    assert settings["kind"] == "bpe" and settings["size"] == 1000
    for domain in ("general", "suttas"):
        folder = prepared / "corpora" / domain
        counts = read_json(folder / "prepared" / "manifest.json")["counts"]
        for split in SPLITS:
            assert counts[split]["lines"] == count_lines(folder / "text" / f"{split}.de")
            assert counts[split]["pairs"] > 100


def test_a_changed_catalogue_or_held_out_set_is_noticed(places, prepared):
    """Dev of the domain is held out of general text, which is cleaned again when it changes."""
    words = [
        "--catalogue", places / "mine.tsv", "--general", "catalogue", "--domain",
        f"suttas={places / 'suttas'}", "--work", prepared, "--stop-stage", 1,
    ]  # fmt: skip
    again = recipe(*words)
    assert again.returncode == 0, again.stdout
    said = set(again.stdout.splitlines())
    stages = ("general/raw", "suttas/split", "general/text", "suttas/text", "overlap")
    assert {f"corpora/{out}: done before, nothing changed" for out in stages} <= said
    assert not [line for line in said if "to be made" in line or "changed:" in line]
    kept = (places / "mine.tsv").read_text()
    try:
        (places / "mine.tsv").write_text(kept.replace("tatoeba.org", "tatoeba"))
        again = recipe(*words)
    finally:
        (places / "mine.tsv").write_text(kept)
    assert again.returncode == 0, again.stdout
    assert f"corpora/general/raw: input {places / 'mine.tsv'} is changed" in again.stdout
    inputs = read_json(prepared / "corpora" / "general" / "text" / "stage.json")["inputs"]
    assert any(name.endswith("suttas/split/dev.de") for name in inputs)


def dry_run(*options):
    done = recipe("--dry-run", "--work", "nowhere", "--stop-stage", 2, *options)
    assert done.returncode == 0, done.stdout
    return [shlex.split(line) for line in done.stdout.splitlines() if line.startswith("python ")]


def test_places_in_the_catalogue_become_words_of_fetch(places):
    fetches = [
        words for words in dry_run(
            "--general", "catalogue", "--domain", "medical=catalogue:de-en/emea,de-en/ecdc",
            "--domain", f"own={places / 'suttas'}",
        ) if "data_prep.fetch" in words
    ]  # fmt: skip
    assert [words[3:-2] for words in fetches] == [
        ["--pair", "de-en", "--domain", "general"],
        ["--pair", "de-en", "--id", "de-en/emea", "--id", "de-en/ecdc"],
    ]  # fmt: skip


def test_own_cleaning_steps_take_the_place_of_the_pairs_own(places, tmp_path):
    (tmp_path / "steps.txt").write_text("length:max=50\n")
    commands = dry_run(
        "--general", places / "suttas", "--domain", f"own={places / 'suttas'}",
        "--cleaning", tmp_path / "steps.txt",
    )  # fmt: skip
    cleaning = [words for words in commands if "data_prep.clean" in words]
    assert len(cleaning) == 2
    for words in cleaning:
        assert words[words.index("--steps") + 1] == str(tmp_path / "steps.txt")


@pytest.mark.parametrize(
    "options, message",
    [
        (["--vocabulary-kind", "wordpiece"], "unigram, bpe or subword-nmt, not 'wordpiece'"),
        (["--catalogue", "nowhere.tsv"], "there is no file nowhere.tsv"),
        (["--cleaning", "nowhere.txt"], "there is no file nowhere.txt"),
        (["--domain", "x=catalogue:"], "--domain: there is no folder catalogue:"),
    ],
)
def test_bad_places_are_refused_before_anything_is_made(places, tmp_path, options, message):
    done = recipe(
        "--general", places / "suttas", "--domain", f"own={places / 'suttas'}",
        "--work", tmp_path / "work", *options,
    )  # fmt: skip
    assert done.returncode != 0 and message in done.stdout
    assert not (tmp_path / "work").exists()
