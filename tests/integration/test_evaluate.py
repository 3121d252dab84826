"""dad-evaluate: a tiny model decodes test sets, and its output is scored as dad-score does."""

import sys

import pytest

from data_prep.manifest import read_json
from fairseq_plugins.evaluation import evaluate
from fairseq_plugins.evaluation.indicators import INDICATORS
from fairseq_plugins.evaluation.metrics import corpus_scores
from fairseq_plugins.export.export import export
from fairseq_plugins.generation.generate import generate
from tests.fixtures.models import read_text, toy_lines, toy_model, toy_vocabulary, write_text


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """An exported model, test sets `medical` and `general` and their training text."""
    folder = tmp_path_factory.mktemp("evaluate")
    toy_vocabulary(folder / "vocabulary")
    toy_model(folder / "model", folder / "vocabulary")
    export(folder / "model", folder / "exported")
    sources = toy_lines(30, seed=11)
    write_text(folder / "sources", sources)
    generate([folder / "exported"], folder / "sources", folder / "outputs", beam=1)
    outputs = read_text(folder / "outputs")
    for seed, name in enumerate(("medical", "general")):
        text = folder / name
        text.mkdir()
        write_text(text / "test.de", toy_lines(12, seed=seed))
        write_text(text / "test.en", toy_lines(12, seed=seed + 50))
        # half of the targets are what the model says: it has "memorised" them
        write_text(text / "train.de", sources)
        write_text(text / "train.en", [*outputs[:15], *toy_lines(15, seed=12)])
    return folder


@pytest.fixture
def dad_evaluate(place, monkeypatch, capsys, tmp_path):
    def run(*words):
        words = ["--model", place / "exported", "--beam", 2, "--out", tmp_path / "out",
                 "--test", f"medical={place / 'medical'}", "--test", f"general={place / 'general'}",
                 *words]  # fmt: skip
        monkeypatch.setattr(sys, "argv", ["dad-evaluate", *map(str, words)])
        with pytest.raises(SystemExit) as stopped:
            evaluate.main()
        printed = capsys.readouterr()
        return stopped.value.code or 0, printed.out, printed.err

    return run


def test_both_decodings_are_scored_and_the_beams_traits_told(dad_evaluate, place, tmp_path):
    status, out, err = dad_evaluate("--name", 9, "--train", place / "medical",
                                    "--train", f"general={place / 'general'}")  # fmt: skip
    assert status == 0, err
    record = read_json(tmp_path / "out" / "scores.json")
    assert (record["name"], record["beam"], set(record["test_sets"])) == (
        "9", 2, {"medical", "general"},
    )  # fmt: skip
    for name, entry in record["test_sets"].items():
        references = read_text(place / name / "test.en")
        for mode, metrics in (("beam", ("bleu", "chrf", "ter")), ("greedy", ("bleu", "chrf"))):
            output = read_text(tmp_path / "out" / f"{name}.{mode}.en")
            assert entry[mode] == corpus_scores(output, references, "en", metrics)
        assert set(entry["indicators"]) == set(INDICATORS)
        assert entry["indicators"]["empty"]["of"] == entry["lines"] == 12
        output = read_text(tmp_path / "out" / f"{name}.beam.en")
        assert entry["indicators"]["length_ratio"]["count"] == sum(map(len, output))
    assert "memorisation" not in record
    assert out.startswith("9 on medical (12 sentences): BLEU") and "TER" in out


def test_without_training_text_there_is_no_word_about_it(dad_evaluate, tmp_path):
    assert dad_evaluate()[0] == 0
    indicators = read_json(tmp_path / "out" / "scores.json")["test_sets"]["medical"]["indicators"]
    needs = {INDICATORS[key].needs for key in indicators}
    assert needs == {None, "source", "chrf"}


def test_targets_given_verbatim_are_counted(dad_evaluate, place, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate, "VERBATIM_WORDS", 1)
    status, out, err = dad_evaluate("--train", place / "medical", "--extract", 100)
    assert status == 0, err
    found = read_json(tmp_path / "out" / "scores.json")["memorisation"]["medical"]
    targets = read_text(place / "medical" / "train.en")
    pairs = set(zip(read_text(place / "sources"), targets, strict=True))
    assert found["replication"]["of"] == found["extractive"]["of"] == len(
        [pair for pair in pairs if all(pair)]
    )
    assert found["replication"]["count"] >= 10
    assert found["extractive"]["count"] <= found["replication"]["count"]
    assert f"gives {found['replication']['count']} of" in out
    assert not list((tmp_path / "out").glob("tmp*"))


def test_only_what_the_whole_source_gives_too_is_extracted(tmp_path, monkeypatch):
    for lang in ("de", "en"):
        write_text(tmp_path / f"train.{lang}", [f"{n} two three four five" for n in range(3)])
    targets = [target for _, target in evaluate._drawn(tmp_path, "de", "en", 3)]
    given = iter([[targets[0], targets[1], "x"], [targets[0], "x", targets[2]]])
    monkeypatch.setattr(evaluate, "_decoded", lambda *_: next(given))
    found = evaluate.memorisation("model", tmp_path, "de", "en", 3, tmp_path)
    assert (found["replication"]["count"], found["extractive"]["count"]) == (2, 1)


@pytest.mark.parametrize(
    "source, beginning",
    [("a b c d e f g h", "a b c d e f"), ("a  b c\u3000d", "a  b c"), ("一二三四，", "一二三"),
     ("a b a b", "a b a")],
)  # fmt: skip
def test_a_beginning_is_three_quarters_of_the_words(source, beginning):
    assert evaluate._beginning(source) == beginning


def test_pairs_are_drawn_evenly_and_with_a_seed(tmp_path):
    lines = [f"one two three four {n}" for n in range(100)]
    for lang in ("de", "en"):
        write_text(tmp_path / f"train.{lang}", [*lines, "too short", ""])
    drawn = evaluate._drawn(tmp_path, "de", "en", 40)
    assert drawn == evaluate._drawn(tmp_path, "de", "en", 40) and len(drawn) == 40
    places = sorted(lines.index(source) for source, _ in drawn)
    assert places[0] < 20 and 30 < places[20] < 70 and places[-1] > 80 and len(set(places)) == 40
    assert len(evaluate._drawn(tmp_path, "de", "en", 500)) == 100


@pytest.mark.parametrize(
    "words, message",
    [
        (["--test", "medical=other"], "'medical' stands twice in --test"),
        (["--extract", "5"], "name it with --train"),
        (["--extract", "-1"], "--extract is 0 or more"),
        (["--train", "none"], "none/train.en is missing"),
        (["--test", "none=none"], "none/test.en is missing"),
    ],
)
def test_bad_input_is_named_and_nothing_is_left(dad_evaluate, tmp_path, words, message):
    status, _, err = dad_evaluate(*words)
    assert status == 1 and message in err and not list(tmp_path.glob("out*"))
