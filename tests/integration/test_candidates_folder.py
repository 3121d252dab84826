"""dad-candidates: every sentence gets the candidates of its own line, and what they cost."""

import json

import numpy as np
import pytest
import sacrebleu
from fairseq.data import Dictionary
from fairseq.data.indexed_dataset import MMapIndexedDataset

from data_prep.binarise import binarise
from fairseq_plugins.data.candidates import Candidates, CandidatesFolders
from fairseq_plugins.selection import candidates as module
from fairseq_plugins.selection.candidates import summary
from fairseq_plugins.selection.select import select
from tests.fixtures.bitext import run_module
from tests.fixtures.candidates import toy_candidates, toy_nbest, write_nbest
from tests.fixtures.models import read_text, write_text

WORD = "fairseq_plugins.selection.candidates"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return toy_nbest(tmp_path_factory.mktemp("candidates") / "made")


def lists_of(folder, prepared):
    """[(ids of the candidates, costs)] of all sentences."""
    dictionary = Dictionary.load(str(prepared / "dict.en.txt"))
    found = Candidates(folder, 1024, dictionary, left_pad=False)
    return [([row.tolist() for row in found[i][0]], found[i][1]) for i in range(len(found))]


def texts_of(folder, prepared):
    """[{candidate's text: its cost}] of all sentences."""
    from data_prep.vocabulary import read_vocabulary

    subwords = read_vocabulary(prepared).subwords("de")
    dictionary = Dictionary.load(str(prepared / "dict.en.txt"))
    return [
        {
            subwords.decode([dictionary[i] for i in ids[:-1]]): cost
            for ids, cost in zip(rows, costs, strict=True)
        }
        for rows, costs in lists_of(folder, prepared)
    ]


def nbest_of(made):
    rows = [line.split(" ||| ") for line in read_text(made / "train.nbest")]
    lists = [[] for _ in range(int(rows[-1][0]) + 1)]
    for number, text, *_ in rows:
        lists[int(number)].append(text)
    return lists


@pytest.mark.parametrize("metric", ["chrf", "bleu"])
def test_costs_are_those_of_sacrebleu(made, tmp_path, metric):
    counts = toy_candidates(made, tmp_path / "out", metric=metric)
    score = {
        "chrf": sacrebleu.sentence_chrf,
        "bleu": lambda *texts: sacrebleu.sentence_bleu(*texts, use_effective_order=True),
    }[metric]
    references = read_text(made / "text" / "train.en")
    found = texts_of(tmp_path / "out", made / "prepared")
    everything = []
    for row, texts, reference in zip(found, nbest_of(made), references, strict=True):
        distinct = list(dict.fromkeys(texts))
        assert list(row) == (distinct if len(distinct) > 1 else [])
        for text, cost in row.items():
            assert cost == pytest.approx(1 - score(text, [reference]).score / 100, abs=1e-6)
        everything += row.values()
    assert counts["mean_cost"] == pytest.approx(np.mean(everything), abs=1e-5)
    lowest = [min(row.values()) for row in found if row]
    assert counts["mean_lowest_cost"] == pytest.approx(np.mean(lowest), abs=1e-5)
    assert counts["mean_lowest_cost"] < counts["mean_first_cost"]


def test_a_candidate_equal_to_the_target_has_the_ids_of_the_binaries(made, tmp_path):
    toy_candidates(made, tmp_path / "out", reference_too=True)
    targets = MMapIndexedDataset(str(made / "prepared" / "train.de-en.en"))
    lists = lists_of(tmp_path / "out", made / "prepared")
    for number, (rows, costs) in enumerate(lists):
        if rows:
            assert rows[0] == targets[number].tolist()
            assert costs[0] == 0 and costs[1:].all()
    assert sum(bool(rows) for rows, _ in lists) > 30


def test_every_candidate_is_accounted_for(made, tmp_path):
    lists = nbest_of(made)
    lists[0] = [""] * 4  # was not decoded
    lists[1] = ["ba be"] * 4
    lists[2] = ["ba be", "", "ba " * 30, "be ba"]
    root = {"nbest": write_nbest(tmp_path / "nbest", lists), "max_pieces": 25}
    counts = toy_candidates(made, tmp_path / "out", **root)
    found = texts_of(tmp_path / "out", made / "prepared")
    assert found[0] == found[1] == {}
    assert list(found[2]) == ["ba be", "be ba"]
    left_out = sum(count for key, count in counts.items() if key.startswith("left_out"))
    assert counts["candidates_read"] == left_out + counts["candidates_kept"] == 160
    assert counts["left_out_empty"] == 5 and counts["left_out_too_long"] >= 1
    assert counts["sentences_without_candidates"] == sum(not row for row in found)
    assert "5 empty" in summary(counts)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["counts"] == counts
    assert manifest["settings"]["metric"].startswith("chrf|nrefs:1|")


def test_a_reference_without_text_says_nothing_about_candidates(made, tmp_path):
    references = read_text(made / "text" / "train.en")
    references[3] = " "
    path = write_text(tmp_path / "ref", references)
    counts = toy_candidates(made, tmp_path / "out", references=path)
    assert texts_of(tmp_path / "out", made / "prepared")[3] == {}
    assert counts["left_out_without_reference"] == 4


def test_candidates_follow_their_sentences_through_selection(made, tmp_path):
    """dad-select drops, repeats and tags lines; binarise drops what is too long."""
    text = made / "text"
    selected = tmp_path / "selected"
    select(
        text / "train.de", made / "train.nbest", selected, ("de", "en"), workers=1,
        references=text / "train.en", steps=["length-ratio:max=1.05"],
        mix={"distilled": 2.0, "references": 0.5},
        tags={"distilled": "ba", "reference": "lu"},
    )  # fmt: skip
    binarise(selected, made / "vocabulary", tmp_path / "prepared", held_out=text, max_pieces=22)
    counts = toy_candidates(made, tmp_path / "out", data=tmp_path / "prepared")
    toy_candidates(made, tmp_path / "plain")
    plain = lists_of(tmp_path / "plain", made / "prepared")
    found = lists_of(tmp_path / "out", tmp_path / "prepared")

    manifest = json.loads((tmp_path / "prepared" / "manifest.json").read_text())
    dropped = set(sum(manifest["counts"]["train"]["dropped_lines"].values(), []))
    lines = [int(line.split("\t")[0]) for line in read_text(selected / "train.lines")]
    kept = [number for place, number in enumerate(lines, start=1) if place not in dropped]
    assert dropped and len(set(kept)) < len(kept) != len(plain)
    assert len(found) == len(kept) == counts["sentences"]
    for (rows, costs), number in zip(found, kept, strict=True):
        assert rows == plain[number - 1][0]
        assert costs.tolist() == plain[number - 1][1].tolist()
    # lines that were left out are neither scored nor stored, repeated ones once
    assert counts["lines"] == 40 > counts["lines_used"] == len(set(kept)) >= counts["lists"]

    elsewhere = tmp_path / "lines"
    elsewhere.write_bytes((selected / "train.lines").read_bytes())
    (selected / "train.lines").unlink()
    with pytest.raises(ValueError, match="--lines FILE the train.lines that dad-select wrote"):
        toy_candidates(made, tmp_path / "none", data=tmp_path / "prepared")
    assert not (tmp_path / "none").exists()
    again = toy_candidates(made, tmp_path / "again", data=tmp_path / "prepared", lines=elsewhere)
    assert again == counts


def test_the_line_numbers_are_found_in_a_folder_that_was_moved(made, tmp_path):
    text = made / "text"
    select(
        text / "train.de", made / "train.nbest", tmp_path / "old" / "text", ("de", "en"),
        workers=1, references=text / "train.en", steps=["length-ratio:max=1.05"],
    )  # fmt: skip
    binarise(tmp_path / "old" / "text", made / "vocabulary", tmp_path / "old" / "prepared",
             held_out=text)  # fmt: skip
    (tmp_path / "old").rename(tmp_path / "new")
    counts = toy_candidates(made, tmp_path / "out", data=tmp_path / "new" / "prepared")
    assert counts["sentences"] < counts["lines"]
    with open(tmp_path / "new" / "text" / "train.de", "a") as file:
        file.write("ba\n")  # another text than that which was prepared
    with pytest.raises(ValueError, match="is not line"):
        toy_candidates(made, tmp_path / "none", data=tmp_path / "new" / "prepared")


def test_workers_change_nothing(made, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BATCH_LINES", 3)
    monkeypatch.setattr(module, "BATCHES_FOR_A_PROCESS", 1)
    toy_candidates(made, tmp_path / "one", workers=1)
    toy_candidates(made, tmp_path / "two", workers=2)
    for name in ("candidates.bin", "candidates.idx", "costs.npy", "first.npy", "lists.npy"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_the_dev_set_can_have_candidates_too(made, tmp_path):
    counts = toy_candidates(made, tmp_path / "out", split="valid")
    assert counts["sentences"] == 9


def test_the_command_teaches_and_reports(made, tmp_path):
    words = ["--data", made / "prepared", "--nbest", made / "train.nbest",
             "--source", made / "text" / "train.de", "--references", made / "text" / "train.en",
             "--out", tmp_path / "out"]  # fmt: skip
    done = run_module(WORD, *words, "--metric", "bleu", "--workers", "1")
    assert done.returncode == 0 and "sentences have candidates" in done.stderr, done.stderr
    again = run_module(WORD, *words)
    assert again.returncode == 1 and "pass --overwrite to replace it" in again.stderr
    assert "Traceback" not in again.stderr


def test_a_folder_is_replaced_on_request_only(made, tmp_path):
    toy_candidates(made, tmp_path / "out")
    before = (tmp_path / "out" / "costs.npy").read_bytes()
    with pytest.raises(FileExistsError):
        toy_candidates(made, tmp_path / "out", metric="bleu")
    toy_candidates(made, tmp_path / "out", metric="bleu", overwrite=True)
    assert (tmp_path / "out" / "costs.npy").read_bytes() != before


@pytest.mark.parametrize(
    "options, message",
    [
        ({"metric": "ter"}, "--metric is one of chrf, bleu, not ter"),
        ({"split": "test"}, "--split is one of train, valid, not test"),
        ({"max_pieces": 0}, "--max-pieces is 1 or more, not 0"),
        ({"workers": 0}, "--workers is 1 or more, not 0"),
        ({"nbest": "text/train.en"}, "is no n-best file, and with one translation a line"),
        ({"nbest": "one"}, "has one candidate a line, so there is nothing to choose between"),
        ({"nbest": "same"}, "has two candidates to choose between"),
        ({"nbest": "short"}, "ends after line 39"),
        ({"source": "text/dev.de"}, "ends after line 9"),
        ({"source": "text/train.en"}, "sentence 1 of .* is not line 1 of .*train.en"),
        ({"lines": "text/train.en"}, "line 1: expected a line number"),
        ({"lines": "falling"}, "line 2: expected a line number"),
        ({"lines": "few"}, "has 2 lines, but .* was prepared from a text of 40"),
        ({"lines": "beyond"}, "has 40 lines, but .* was made from a text of at least 41"),
    ],
)
def test_what_cannot_work_is_refused(made, tmp_path, options, message):
    lists = nbest_of(made)
    write_nbest(made / "one", [row[:1] for row in lists])
    write_nbest(made / "same", [row[:1] * 4 for row in lists])
    write_nbest(made / "short", lists[:-1])
    write_text(made / "falling", ["2\tdistilled", "1\tdistilled"])
    write_text(made / "few", ["1\tdistilled", "2\tdistilled"])
    write_text(made / "beyond", [f"{n}\tdistilled" for n in (*range(1, 40), 41)])
    files = ("nbest", "source", "lines")
    options = {key: made / value if key in files else value for key, value in options.items()}
    with pytest.raises(ValueError, match=message):
        toy_candidates(made, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_one_candidate_a_line_and_the_reference_are_two(made, tmp_path):
    nbest = write_nbest(tmp_path / "one", [row[:1] for row in nbest_of(made)])
    counts = toy_candidates(made, tmp_path / "out", nbest=nbest, reference_too=True)
    assert counts["references_added"] == 40 and counts["lists"] > 20


def test_folders_that_do_not_fit_the_run_are_refused(made, tmp_path):
    from data_prep.vocabulary import make_vocabulary, read_vocabulary

    ours = read_vocabulary(made / "prepared")
    toy_candidates(made, tmp_path / "out")
    with pytest.raises(FileNotFoundError, match="missing; make it with dad-candidates"):
        CandidatesFolders([tmp_path / "none"], ours)
    with pytest.raises(ValueError, match="is not a folder that dad-candidates made"):
        CandidatesFolders([made / "prepared"], ours)
    toy_candidates(made, tmp_path / "second", metric="bleu")
    with pytest.raises(ValueError, match="two folders for the same sentences"):
        CandidatesFolders([tmp_path / "out", tmp_path / "second"], ours)
    make_vocabulary(made / "text", "de", "en", 290, tmp_path / "other")
    with pytest.raises(ValueError, match="made with another vocabulary.*subwords.model differ"):
        CandidatesFolders([tmp_path / "out"], read_vocabulary(tmp_path / "other"))
    unused = CandidatesFolders([tmp_path / "out"], ours)
    with pytest.raises(ValueError, match="which this training does not read; leave them out"):
        unused.check_all_used()
    (tmp_path / "out" / "costs.npy").unlink()
    with pytest.raises(FileNotFoundError, match="costs.npy is missing"):
        CandidatesFolders([tmp_path / "out"], ours)
