"""dad-export: parity on text, the card's snippet, model.safetensors, averages; disks that fill."""

import contextlib
import io
import json
import multiprocessing
import re
import shutil
import sys
from pathlib import Path

import ctranslate2
import pytest
import torch
from safetensors.torch import load_file, save_file

from data_prep.files import sha256
from data_prep.manifest import read_json, read_manifest
from data_prep.vocabulary import make_vocabulary
from fairseq_plugins.checkpoints import load_checkpoint
from fairseq_plugins.export import export as module
from fairseq_plugins.export import weights
from fairseq_plugins.export.export import export
from fairseq_plugins.export.safe_weights import METADATA, read_safetensors, write_safetensors
from fairseq_plugins.export.weights import count_parameters, keep_weights
from fairseq_plugins.generation.generate import generate
from tests.fixtures.faults import on_a_small_disk
from tests.fixtures.models import (
    read_text,
    toy_checkpoint,
    toy_lines,
    toy_model,
    toy_vocabulary,
    write_text,
)

# pytest's name of this module is one that no other process could import
HERE = "tests.integration.test_export_parity"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """``vocabulary``, the MODEL folder ``model``, and ``text``, whose dev set it translates right.

    ``ruined`` computes the same as ``model`` in float32, but not in int8: a unit of every layer
    has small weights before it and large ones behind it, which take the digits of all others.
    """
    folder = tmp_path_factory.mktemp("parity")
    toy_vocabulary(folder / "vocabulary")
    toy_model(folder / "model", folder / "vocabulary")
    text = folder / "text"
    text.mkdir()
    write_text(text / "dev.de", toy_lines(30, seed=5))
    generate([folder / "model"], text / "dev.de", folder / "translated", beam=2, backend="fairseq")
    shutil.copy(folder / "translated", text / "dev.en")
    shutil.copytree(folder / "model", folder / "ruined")
    state = load_checkpoint(folder / "model" / "model.pt")
    weights = {name: tensor.clone() for name, tensor in state["model"].items()}
    for name in weights:
        for before, behind in (("fc1", "fc2"), ("v_proj", "out_proj")):
            if f".{before}." in name:  # weight and bias
                weights[name][0] /= 4096
                if name.endswith("weight"):
                    weights[name.replace(before, behind)][:, 0] *= 4096
    state["model"] = weights
    torch.save(state, folder / "ruined" / "model.pt")
    return folder


def run(monkeypatch, capsys, function, *words):
    """(exit status, stderr) of a command in this process."""
    monkeypatch.setattr(sys, "argv", [str(word) for word in words])
    with pytest.raises(SystemExit) as stopped:
        function()
    return stopped.value.code or 0, capsys.readouterr().err


# -- parity --------------------------------------------------------------------------------------


def test_an_export_in_float32_translates_as_fairseq_does(place, tmp_path):
    counts = export(place / "model", tmp_path / "exported", "float32", dev=place / "text", beam=2)
    parity = counts["parity"]
    assert (parity["lines"], parity["of"], parity["beam_size"]) == (30, 30, 2)
    assert (parity["device"], parity["computed_in"]) == ("cpu", "float32")
    for search in ("beam", "greedy"):
        entry = parity[search]
        assert entry["identical"] == 1 and entry["bleu_loss"] == 0
        assert entry["fairseq"] == entry["exported"]
    assert parity["beam"]["exported"]["bleu"]["score"] == 100
    assert parity["greedy"]["exported"]["bleu"]["score"] < 100
    assert "tok:13a" in parity["beam"]["exported"]["bleu"]["signature"]
    assert read_manifest(tmp_path / "exported")["counts"] == counts
    assert read_json(tmp_path / "exported" / "card.json")["parity"] == parity
    assert counts["decode_seconds"] > 0
    assert not (tmp_path / "exported" / "parity").exists()


def test_a_model_that_int8_ruins_is_refused_and_nothing_is_written(
    place, tmp_path, monkeypatch, capsys
):
    words = ["dad-export", "--model", place / "ruined", "--out", tmp_path / "exported", "--dev",
             place / "text", "--beam", "2"]  # fmt: skip
    status, said = run(monkeypatch, capsys, module.main, *words)
    assert status == 1 and not list(tmp_path.iterdir())
    found = re.search(
        r"loses ([\d.]+) BLEU on 30 lines of .*text \((beam 2|greedy): ([\d.]+), fairseq ([\d.]+); "
        r"(\d+)% of the translations are the same\), more than --max-loss 0.5", said,
    )  # fmt: skip
    assert found and float(found[1]) == pytest.approx(float(found[4]) - float(found[3]), abs=0.006)
    assert float(found[1]) > 20
    # the same model in float32 is as good as fairseq's, and whoever can spare it may lose more
    for more in (["--compute-type", "float32"], ["--max-loss", "100", "--overwrite"]):
        status, said = run(monkeypatch, capsys, module.main, *words, *more)
        assert status == 0 and "on 30 lines of the dev set beam 2 BLEU" in said
    assert read_manifest(tmp_path / "exported")["counts"]["parity"]["max_loss"] == 100


@pytest.mark.parametrize("search", ["beam", "greedy"])
def test_either_search_may_fail_alone(search):
    from fairseq_plugins.export.parity import check

    entry = {"fairseq": {"bleu": {"score": 20.0}}, "exported": {"bleu": {"score": 19.4}},
             "identical": 0.5}  # fmt: skip
    record = {"lines": 9, "beam_size": 5,
              **{name: {**entry, "bleu_loss": 0.6 if name == search else -3.0}
                 for name in ("beam", "greedy")}}  # fmt: skip
    with pytest.raises(ValueError, match=f"loses 0.60 BLEU .*{search}"):
        check(record, 0.5, "text")
    check(record, 0.6, "text")


def test_a_sample_is_spread_evenly(place, tmp_path):
    from fairseq_plugins.export.parity import sample_dev
    from fairseq_plugins.generation.models import open_model

    vocabulary = open_model(place / "model").vocabulary
    lines, references = read_text(place / "text/dev.de"), read_text(place / "text/dev.en")
    for number, step in ((10, 3), (30, 1), (99, 1)):
        source, chosen, total = sample_dev(place / "text", vocabulary, tmp_path, number)
        assert read_text(source) == lines[::step] and chosen == references[::step]
        assert total == 30


@pytest.mark.parametrize(
    "files, flags, message",
    [
        ({"dev.fr": ["a"], "dev.en": ["a"]}, {}, "dev.de is missing.*folder has dev.en, dev.fr"),
        ({}, {}, r"it has no dev.\*"),
        ({"dev.de": [], "dev.en": []}, {}, "dev.de has no lines"),
        ({"dev.de": ["a", "b"], "dev.en": ["a"]}, {}, "stop being parallel at line 2"),
        ({"dev.de": ["a"], "dev.en": ["a"]}, {"dev_lines": 0}, "--dev-lines is 1 or more, not 0"),
        ({"dev.de": ["a"], "dev.en": ["a"]}, {"beam": 0}, "--beam is 1 or more, not 0"),
        ({}, {"max_loss": float("nan")}, "--max-loss is in BLEU, 0 or more, not nan"),
        ({}, {"max_loss": -1}, "--max-loss is in BLEU, 0 or more, not -1"),
    ],
)
def test_a_bad_dev_set_or_limit_is_refused(files, flags, message, place, tmp_path):
    (tmp_path / "text").mkdir()
    for name, lines in files.items():
        write_text(tmp_path / "text" / name, lines)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        export(place / "model", tmp_path / "exported", dev=tmp_path / "text", **flags)
    assert [path.name for path in tmp_path.iterdir()] == ["text"]


def test_a_model_with_nan_is_refused(place, tmp_path):
    shutil.copytree(place / "model", tmp_path / "model")
    state = load_checkpoint(place / "model" / "model.pt")
    name = "encoder.layers.0.fc1.weight"
    state["model"][name] = state["model"][name].clone().fill_(torch.nan)
    torch.save(state, tmp_path / "model" / "model.pt")
    with pytest.raises(ValueError, match=f"model.pt holds NaN or infinity in {name}"):
        export(tmp_path / "model", tmp_path / "exported")
    with pytest.raises(ValueError, match=f"model.pt holds NaN or infinity in {name}"):
        keep_weights(tmp_path / "model" / "model.pt", place / "vocabulary", tmp_path / "kept")
    write_safetensors(tmp_path / "model" / "nan.safetensors", state)
    with pytest.raises(ValueError, match=f"nan.safetensors holds NaN or infinity in {name}"):
        keep_weights(
            tmp_path / "model" / "nan.safetensors", place / "vocabulary", tmp_path / "kept"
        )
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


# -- the card ------------------------------------------------------------------------------------


def snippet(folder):
    """The Python code in a model card."""
    return re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.S)[1]


def make_pair_codes(place, tmp_path):
    make_vocabulary(place / "vocabulary-text", "de", "en", 330, tmp_path / "codes",
                    kind="subword-nmt", vocabulary_threshold=1)  # fmt: skip
    return toy_model(tmp_path / "model", tmp_path / "codes")


@pytest.mark.parametrize("kind, library", [("unigram", "sentencepiece"),
                                           ("subword-nmt", "subword_nmt")])  # fmt: skip
def test_the_snippet_of_the_card_translates_as_dad_generate_does(
    kind, library, place, tmp_path, monkeypatch
):
    model = place / "model" if kind == "unigram" else make_pair_codes(place, tmp_path)
    export(model, tmp_path / "exported")
    lines = toy_lines(4, seed=9, longest=4)
    generate([tmp_path / "exported"], write_text(tmp_path / "src", lines), tmp_path / "out",
             on_fail="stop")  # fmt: skip
    code = snippet(tmp_path / "exported")
    # nothing else is needed
    assert set(re.findall(r"^(?:import|from) (\w+)", code, re.M)) == {"ctranslate2", library}
    monkeypatch.chdir(tmp_path / "exported")
    shown = {}
    for example in (["Guten Morgen."], lines):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(code.replace("['Guten Morgen.']", repr(example)), {})
        shown[len(example)] = printed.getvalue()
    assert len(eval(shown[1])) == 1
    assert eval(shown[4]) == read_text(tmp_path / "out")


def test_plain_ctranslate2_loads_the_folder(place, tmp_path):
    export(place / "model", tmp_path / "exported")
    translator = ctranslate2.Translator(str(tmp_path / "exported"))
    assert translator.translate_batch([["▁ba"]])[0].hypotheses


def test_the_same_model_and_records_give_the_same_bytes_elsewhere(place, tmp_path):
    about = {"domain": "toys", "licence": "MIT"}
    for name in ("a", "b"):
        shutil.copytree(place / "model", tmp_path / name / "model")
        export(tmp_path / name / "model", tmp_path / name / "out", dev=place / "text", beam=2,
               max_loss=100, dev_lines=5, safetensors=True, about=about)  # fmt: skip
    files = sorted(path.name for path in (tmp_path / "a" / "out").iterdir())
    assert {"README.md", "card.json", "model.safetensors"} <= set(files)
    for name in set(files) - {"manifest.json"}:
        ours, theirs = ((tmp_path / folder / "out" / name).read_bytes() for folder in "ab")
        assert ours == theirs
        assert str(tmp_path).encode() not in ours


def test_a_bad_record_leaves_nothing_behind(place, tmp_path):
    for about in ({"scores": tmp_path / "none"}, {"texts": [tmp_path / "none"]},
                  {"speed": tmp_path / "none"}, {"licences": [tmp_path / "none"]}):  # fmt: skip
        with pytest.raises(FileNotFoundError, match="none.* is missing"):
            export(place / "model", tmp_path / "exported", about=about)
    assert not list(tmp_path.iterdir())


# -- model.safetensors ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def safe(place):
    export(place / "model", place / "safe", safetensors=True)
    return place / "safe" / "model.safetensors"


def test_any_tool_reads_the_weights_and_tied_ones_once(place, safe):
    theirs, ours = load_file(safe), load_checkpoint(place / "model" / "model.pt")["model"]
    assert len(theirs) == len(ours) - 2  # the embeddings of both sides and the output
    for name, tensor in theirs.items():
        assert torch.equal(tensor, ours[name])
    read = read_safetensors(safe)
    assert list(read["model"]) == list(ours)
    assert all(torch.equal(read["model"][name], tensor) for name, tensor in ours.items())
    assert count_parameters(read["model"]) == count_parameters(ours)


def test_the_metadata_say_what_it_is(place, safe):
    from safetensors import safe_open

    with safe_open(safe, "pt") as file:
        record = json.loads(file.metadata()[METADATA])
    assert record["format"].startswith("fairseq transformer")
    assert record["vocabulary"] == read_json(place / "vocabulary" / "vocabulary.json")["files"]
    model = record["settings"]["cfg"]["model"]["argparse.Namespace"]
    assert model["encoder_embed_dim"] == 16 and model["encoder_attention_heads"] == 2


def test_a_model_folder_comes_back_byte_for_byte(place, safe, tmp_path):
    keep_weights(safe, place / "safe", tmp_path / "back")
    assert sha256(tmp_path / "back" / "model.pt") == sha256(place / "model" / "model.pt")


def test_other_safetensors_and_damaged_ones_are_refused(place, safe, tmp_path):
    other = tmp_path / "other.safetensors"
    save_file({"w": torch.ones(2)}, other)
    with pytest.raises(ValueError, match="not those of a model that dad-export wrote"):
        keep_weights(other, place / "vocabulary", tmp_path / "kept")
    other.write_bytes(safe.read_bytes()[:-9])
    with pytest.raises(ValueError, match="other.safetensors is damaged"):
        keep_weights(other, place / "vocabulary", tmp_path / "kept")
    with pytest.raises(FileNotFoundError, match="none.safetensors is missing"):
        keep_weights(tmp_path / "none.safetensors", place / "vocabulary", tmp_path / "kept")
    toy_vocabulary(tmp_path / "strange", seed=50)
    with pytest.raises(ValueError, match="trained with another vocabulary"):
        keep_weights(safe, tmp_path / "strange", tmp_path / "kept")
    assert not (tmp_path / "kept").exists()


# -- averages ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkpoints(place):
    folder = place / "checkpoints"
    folder.mkdir()
    for number in (1, 2):
        history = [{"criterion_name": "x", "optimizer_name": "y", "num_updates": number}]
        toy_checkpoint(folder / f"checkpoint{number}.pt", place / "vocabulary", seed=number,
                       optimizer_history=history)  # fmt: skip
    return folder


def test_checkpoints_are_averaged_by_name_or_by_choice(
    place, checkpoints, tmp_path, monkeypatch, capsys
):
    one, two = (checkpoints / f"checkpoint{number}.pt" for number in (1, 2))
    kept = []
    ways = (["--checkpoint", one, "--checkpoint", two],
            ["--checkpoints", checkpoints, "--average", "last:2"])  # fmt: skip
    for number, words in enumerate(ways):
        out = tmp_path / str(number)
        status, said = run(monkeypatch, capsys, weights.main, "dad-keep-weights", *words,
                           "--vocabulary", place / "vocabulary", "--out", out)  # fmt: skip
        assert status == 0 and "average of 2 checkpoints" in said
        manifest = read_manifest(out)
        assert manifest["counts"]["checkpoints"] == manifest["counts"]["updates"] == 2
        assert set(manifest["inputs"]) == {str(one), str(two)}
        kept.append((out / "model.pt").read_bytes())
    assert kept[0] == kept[1]
    ours = load_checkpoint(tmp_path / "0" / "model.pt")["model"]
    first, second = (load_checkpoint(path)["model"] for path in (one, two))
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, (first[name] + second[name]) / 2)
    assert export(tmp_path / "0", tmp_path / "exported")["parameters"]
    assert read_json(tmp_path / "exported" / "card.json")["averaged_checkpoints"] == 2


@pytest.mark.parametrize(
    "words, status, message",
    [
        (["--checkpoints", "DIR"], 1, "--checkpoints names a folder: say with --average"),
        (["--checkpoint", "DIR/checkpoint1.pt", "--average", "last:2"], 1,
         "--average chooses among the checkpoints of a folder"),
        (["--checkpoint", "DIR/checkpoint1.pt", "--checkpoints", "DIR"], 2, "not allowed with"),
        ([], 2, "one of the arguments --checkpoint --checkpoints is required"),
        (["--checkpoints", "DIR", "--average", "best:2"], 1, "holds no checkpoint for --average"),
    ],
)  # fmt: skip
def test_words_that_do_not_go_together_are_refused(
    words, status, message, place, checkpoints, tmp_path, monkeypatch, capsys
):
    words = [word.replace("DIR", str(checkpoints)) for word in words]
    found, said = run(monkeypatch, capsys, weights.main, "dad-keep-weights", *words,
                      "--vocabulary", place / "vocabulary", "--out", tmp_path / "kept")  # fmt: skip
    assert found == status and message in said
    assert not (tmp_path / "kept").exists()


def test_every_averaged_checkpoint_must_have_the_vocabulary(place, checkpoints, tmp_path):
    toy_vocabulary(tmp_path / "other", seed=50)
    strange = toy_checkpoint(tmp_path / "strange.pt", tmp_path / "other")
    with pytest.raises(ValueError, match="strange.pt was trained with another vocabulary"):
        keep_weights([checkpoints / "checkpoint1.pt", strange], place / "vocabulary",
                     tmp_path / "kept")  # fmt: skip


# -- faults --------------------------------------------------------------------------------------


def fill_disk(disk, words, report):
    """Run dad-export, in a process of its own, on a memory disk that grows until it succeeds."""
    torch.set_num_threads(1)
    try:
        entries = [
            (status, said, sorted(path.name for path in Path(disk).iterdir()))
            for status, said in on_a_small_disk(
                module.main, words, disk, (16, 100, 200, 4096), f"{report}-"  # it takes some 300
            )
        ]
    except OSError as error:
        entries = str(error)
    Path(report).write_text(json.dumps(entries))


def test_on_a_full_disk_there_is_no_folder_and_the_reason_is_said(place, tmp_path):
    import importlib

    disk, report = tmp_path / "disk", tmp_path / "report"
    disk.mkdir()
    words = ["dad-export", "--model", place / "model", "--out", disk / "out", "--safetensors",
             "--compute-type", "float32", "--dev", place / "text", "--beam", "1"]  # fmt: skip
    process = multiprocessing.get_context("forkserver").Process(
        target=importlib.import_module(HERE).fill_disk,
        args=(str(disk), [str(word) for word in words], str(report)),
    )
    process.start()
    process.join(60)
    entries = json.loads(report.read_text())
    if isinstance(entries, str):
        pytest.skip(f"no disk of its own: {entries}")
    *failed, (status, said, left) = entries
    assert (status, left) == (0, ["out"])
    for status, said, left in failed:
        assert status == 1 and left == []
        assert "No space left on device" in said and "Traceback" not in said


# -- shortlist -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def with_shortlist(place):
    (place / "learnt").mkdir()
    shutil.copy(place / "text" / "dev.de", place / "learnt" / "train.de")
    shutil.copy(place / "text" / "dev.en", place / "learnt" / "train.en")
    export(place / "model", place / "short", "float32", shortlist=[place / "learnt"],
           dev=place / "text", beam=2, max_loss=100)  # fmt: skip
    return place / "short"


def pieces_of(folder, text):
    """Target pieces that occur in some translations."""
    from fairseq_plugins.generation.models import open_model

    subwords = open_model(folder).vocabulary.subwords("en")
    return {piece for line in subwords.encode_batch(read_text(text)) for piece in line}


def test_a_shortlist_is_used_and_said_to_be(place, with_shortlist, tmp_path):
    manifest = read_manifest(with_shortlist)
    assert manifest["settings"]["shortlist"] == {"likely": 100, "frequent": 200, "pairs": 30}
    files = ["model.bin", "config.json", "shared_vocabulary.json", "vmap.txt"]
    sizes = [(with_shortlist / name).stat().st_size for name in files]
    assert manifest["counts"]["bytes"] == sum(sizes)
    card = (with_shortlist / "README.md").read_text()
    assert "use_vmap=True" in card and "Jean et al. 2015" in card
    # what may not come does not
    forbidden = tmp_path / "forbidden"
    shutil.copytree(with_shortlist, forbidden)
    allowed = ["▁ba", "▁be"]
    (forbidden / "vmap.txt").write_text("\t" + " ".join(allowed) + "\n")
    source = write_text(tmp_path / "src", toy_lines(10, seed=5))
    record = generate([forbidden], source, tmp_path / "few", beam=2)
    assert pieces_of(forbidden, tmp_path / "few") <= set(allowed)
    assert "vmap.txt" in record["settings"]["models"][0]
    generate([with_shortlist], source, tmp_path / "more", beam=2)
    assert not pieces_of(forbidden, tmp_path / "more") <= set(allowed)


def test_a_vocabulary_map_that_no_export_made_changes_nothing(place, with_shortlist, tmp_path):
    export(place / "model", tmp_path / "plain", "float32")
    source = write_text(tmp_path / "src", toy_lines(10, seed=5))
    generate([tmp_path / "plain"], source, tmp_path / "before", beam=2)
    (tmp_path / "plain" / "vmap.txt").write_text("\t▁ba\n")
    generate([tmp_path / "plain"], source, tmp_path / "after", beam=2)
    assert (tmp_path / "before").read_bytes() == (tmp_path / "after").read_bytes()


def test_a_shortlist_that_forbids_too_much_fails_the_comparison(place, tmp_path):
    (tmp_path / "text").mkdir()
    write_text(tmp_path / "text" / "train.de", ["ba"])
    write_text(tmp_path / "text" / "train.en", ["ba"])
    with pytest.raises(ValueError, match="loses .* BLEU on 30 lines"):
        export(place / "model", tmp_path / "out", "float32", dev=place / "text", beam=2,
               shortlist=[tmp_path / "text"])  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["text"]


def test_parity_with_a_shortlist_is_that_of_single_sentences(place, with_shortlist, monkeypatch):
    from fairseq_plugins.export import parity
    from fairseq_plugins.generation.models import open_model

    calls, real = [], parity.generate
    monkeypatch.setattr(
        parity, "generate", lambda *args, **flags: calls.append(flags) or real(*args, **flags)
    )
    folder = place / "scratch"
    folder.mkdir()
    parity.measure(open_model(place / "model"), with_shortlist, place / "text", folder, lines=5)
    assert [flags.get("batch_tokens") for flags in calls] == [None, 1, None, 1]
