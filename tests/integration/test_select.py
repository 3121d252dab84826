"""dad-select with a reverse model, as a command, and what binarise makes of its output."""

import math
import sys

import pytest
import torch

from data_prep.binarise import binarise
from data_prep.manifest import read_manifest
from fairseq_plugins.export.export import export
from fairseq_plugins.generation.fairseq_backend import load_models
from fairseq_plugins.generation.models import open_model
from fairseq_plugins.selection import select as select_module
from fairseq_plugins.selection.reverse_model import Scorer
from fairseq_plugins.selection.select import select
from fairseq_plugins.selection.steps import Context
from tests.fixtures.models import (
    read_text,
    toy_lines,
    toy_model,
    toy_vocabulary,
    write_text,
)

# the toy model translates de → en, so it is the reverse model of en → de
LANGS = ("en", "de")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with vocabulary, MODEL and EXPORTED folder, source (en) and candidates (de)."""
    folder = tmp_path_factory.mktemp("select")
    toy_vocabulary(folder / "vocabulary")
    toy_model(folder / "model", folder / "vocabulary")
    export(folder / "model", folder / "exported", "float32")
    write_text(folder / "src", toy_lines(40, seed=3))
    write_text(folder / "hyp", toy_lines(40, seed=4))
    return folder


def fairseq_log_prob(folder, read, written):
    """Mean log-probability of the pieces of ``written`` and its end, given ``read``."""
    model = open_model(folder)
    (network,), task = load_models([model])
    subwords = model.vocabulary.subwords("de")

    def ids(dictionary, text):
        return [dictionary.index(piece) for piece in subwords.encode(text)] + [dictionary.eos()]

    src = torch.tensor([ids(task.source_dictionary, read)])
    tgt = torch.tensor(ids(task.target_dictionary, written))
    before = torch.cat([tgt[-1:], tgt[:-1]]).unsqueeze(0)
    with torch.no_grad():
        output = network(src, torch.tensor([src.size(1)]), before)
        lprobs = network.get_normalized_probs(output, log_probs=True)[0]  # (time, vocab)
    return lprobs.gather(-1, tgt.unsqueeze(-1)).mean().item()


@pytest.mark.parametrize("folder", ["model", "exported"])
def test_the_reverse_score_is_fairseqs_mean_log_probability(place, tmp_path, folder):
    sources, targets = read_text(place / "src"), read_text(place / "hyp")
    scorer = Scorer(place / folder, Context(LANGS, tmp_path))
    found = scorer.log_probs(list(zip(sources, targets, strict=True)))
    expected = [
        fairseq_log_prob(place / "model", target, source)
        for source, target in zip(sources[:8], targets[:8], strict=True)
    ]
    assert found[:8] == pytest.approx(expected, abs=2e-3)
    assert len(set(found)) == 40
    # who else is in the batch does not matter
    alone = [scorer.log_probs([pair])[0] for pair in zip(sources[:8], targets[:8], strict=True)]
    assert found[:8] == pytest.approx(alone, abs=1e-4)


def test_a_side_without_text_is_not_judged_and_an_endless_one_is(place, tmp_path):
    scorer = Scorer(place / "exported", Context(LANGS, tmp_path))
    found = scorer.log_probs([("", "ba"), ("ba", " "), ("ba", "ba"), ("ba " * 1500, "ku " * 1500)])
    assert [math.isnan(value) for value in found] == [True, True, False, False]
    assert scorer.log_probs([]) == []


def test_the_pairs_with_the_lowest_scores_go(place, tmp_path):
    sources, targets = read_text(place / "src"), read_text(place / "hyp")
    pairs = list(zip(sources, targets, strict=True))
    values = Scorer(place / "exported", Context(LANGS, tmp_path)).log_probs(pairs)
    worst = sorted(range(40), key=values.__getitem__)[:10]
    ledger = select(
        place / "src", place / "hyp", tmp_path / "out", LANGS, workers=1,
        steps=[f"reverse-model:model={place / 'model'},reject=25"],
    )  # fmt: skip
    kept = [int(line.split("\t")[0]) - 1 for line in read_text(tmp_path / "out" / "train.lines")]
    assert kept == sorted(set(range(40)) - set(worst))
    assert ledger["steps"][0]["rejected"] == 10
    manifest = read_manifest(tmp_path / "out")
    assert str(place / "model" / "model.pt") in manifest["inputs"]
    assert not (tmp_path / "out" / "scratch").exists()


def test_a_model_of_the_same_direction_is_refused(place, tmp_path):
    with pytest.raises(ValueError, match="translates from de to en; .* must translate from en to"):
        select(
            place / "src", place / "hyp", tmp_path / "out", ("de", "en"),
            steps=[f"reverse-model:model={place / 'model'}"],
        )  # fmt: skip
    assert not (tmp_path / "out").exists()


def test_a_missing_reverse_model_is_named(place, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere is missing"):
        select(
            place / "src", place / "hyp", tmp_path / "out", LANGS,
            steps=[f"reverse-model:model={tmp_path / 'nowhere'}"],
        )  # fmt: skip


def test_a_model_that_ctranslate2_lacks_is_refused_in_words_that_help(place, tmp_path):
    model = toy_model(
        tmp_path / "odd", place / "vocabulary", flags=["--no-cross-attention"]
    )  # fmt: skip
    with pytest.raises(ValueError, match="step reverse-model: .*--no-cross-attention") as raised:
        select(place / "src", place / "hyp", tmp_path / "out", LANGS,
               steps=[f"reverse-model:model={model}"])  # fmt: skip
    assert "--backend" not in str(raised.value)


# -- the command ---------------------------------------------------------------------------


def command(monkeypatch, *words):
    """Run dad-select in this process; its exit status."""
    monkeypatch.setattr(sys, "argv", ["dad-select", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        select_module.main()
    return ended.value.code or 0


def common(place, out):
    return ["--source", place / "src", "--candidates", place / "hyp", "--source-lang", "en",
            "--target-lang", "de", "--out", out, "--workers", "1"]  # fmt: skip


def test_the_command_and_the_function_do_the_same(place, tmp_path, monkeypatch, capsys):
    write_text(tmp_path / "steps", ["length-ratio:max=1.5  # strict", "# nothing"])
    write_text(place / "ref", toy_lines(40, seed=5))
    words = [
        *common(place, tmp_path / "a"), "--references", place / "ref",
        "--steps", tmp_path / "steps", "--step", "repetition:max=2",
        "--rejected", "reference", "--mix", "references=0.5", "--tag", "reference", "--seed", "3",
    ]  # fmt: skip
    assert command(monkeypatch, *words) == 0
    screen = capsys.readouterr().err
    ledger = select(
        place / "src", place / "hyp", tmp_path / "b", LANGS, references=place / "ref", workers=1,
        steps=["length-ratio:max=1.5", "repetition:max=2"], rejected="reference",
        mix={"references": 0.5}, tags={"reference": "<reference>"}, seed=3,
    )  # fmt: skip
    for name in ("train.en", "train.de", "train.lines", "ledger.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert "length-ratio:max=1.5" in screen
    assert f"{ledger['kept']:,} of 40 lines kept" in screen
    assert str(tmp_path / "steps") in read_manifest(tmp_path / "a")["inputs"]


def test_mistakes_become_one_line_and_a_status(place, tmp_path, monkeypatch, capsys):
    assert command(monkeypatch, *common(place, tmp_path / "out"), "--step", "mbr:topp=1") == 1
    assert capsys.readouterr().err == (
        "dad-select: error: step mbr: option 'topp' is unknown; it has metric, top\n"
    )


def test_steps_can_be_listed_without_anything_else(monkeypatch, capsys):
    assert command(monkeypatch, "--list-steps") == 0
    assert "best-of-n" in capsys.readouterr().out


def test_help_begins_with_what_it_does_and_tells_the_steps(monkeypatch, capsys):
    assert command(monkeypatch, "--help") == 0
    shown = capsys.readouterr().out
    assert "Choose what the student learns" in shown
    assert "reverse-model" in shown


def test_binarise_reads_the_folder(place, tmp_path):
    vocabulary = place / "vocabulary"  # de → en
    write_text(tmp_path / "hyp", ["", *toy_lines(39, seed=4)])
    select(
        place / "src", tmp_path / "hyp", tmp_path / "out", ("de", "en"), workers=1,
        references=place / "src", mix={"references": 1}, tags={"reference": "<reference>"},
    )  # fmt: skip
    encoded = binarise(tmp_path / "out", vocabulary, tmp_path / "prepared", splits=("train",))
    assert encoded["train"].lines == 79
    assert len(encoded["train"].sizes[0]) == 79
