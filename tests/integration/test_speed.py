"""dad-speed on real models: in fairseq, exported, and what it does when one of them fails."""

import os
import signal
import sys

import pytest
import torch

from data_prep.manifest import read_json
from fairseq_plugins.evaluation import speed, speed_process
from fairseq_plugins.evaluation.speed_process import LEAST_BATCHES, Translator, load
from fairseq_plugins.export.export import export
from fairseq_plugins.generation import backends
from fairseq_plugins.generation.ctranslate2_backend import CTranslate2Backend
from fairseq_plugins.generation.decoding import Decoding
from fairseq_plugins.generation.fairseq_backend import FairseqBackend
from fairseq_plugins.generation.models import open_model
from tests.fixtures.models import toy_lines, toy_model, toy_vocabulary, write_text

LINES = toy_lines(30)
GREEDY, BEAM = Decoding(beam=1), Decoding(beam=3)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with ``model``, the same ``exported``, and ``source``."""
    place = tmp_path_factory.mktemp("speed")
    toy_vocabulary(place / "vocabulary")
    toy_model(place / "model", place / "vocabulary")
    export(place / "model", place / "exported", "float32")
    write_text(place / "source", [*LINES[:5], "", *LINES[5:], "  "])
    return place


@pytest.fixture
def dad_speed(monkeypatch, capsys):
    """Runs the command in this process; returns its status and what it printed."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["dad-speed", *map(str, words)])
        with pytest.raises(SystemExit) as stopped:
            speed.main()
        return stopped.value.code, capsys.readouterr()

    return run


# -- backends ------------------------------------------------------------------------------


def backend(kind, place, decoding):
    if kind == "fairseq":
        return FairseqBackend([open_model(place / "model")], decoding, device="cpu",
                              compute_type="float32", threads=1)  # fmt: skip
    return CTranslate2Backend(place / "exported", decoding, device="cpu", compute_type="float32",
                              workers=1, threads=1)  # fmt: skip


def translations(backend, sentences):
    session = backend.session(seed=0)
    return [session.begin([sentence])()[0][0].pieces for sentence in sentences]


@pytest.mark.parametrize("kind", ["fairseq", "ctranslate2"])
def test_one_model_searches_in_several_ways_and_its_first_piece_is_the_greedy_one(kind, place):
    sentences = open_model(place / "model").codec().encode_batch(LINES)
    beam = backend(kind, place, BEAM)
    greedy = translations(backend(kind, place, GREEDY), sentences)
    assert translations(beam.searching(GREEDY), sentences) == greedy
    found = translations(beam, sentences)
    assert found == translations(backend(kind, place, BEAM), sentences) != greedy
    assert [beam.first_piece(sentence) for sentence in sentences] == [best[0] for best in greedy]


# -- the command ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def measured(place, tmp_path_factory):
    """What was recorded of ``model`` in fairseq and ``exported`` in CTranslate2."""
    out = tmp_path_factory.mktemp("measured") / "speed"
    words = ["dad-speed", "--source", place / "source", "--out", out, "--beam", "3",
             "--rounds", "2", "--seconds", "1", "--limit", "20", "--workers", "1",
             place / "model", place / "exported"]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as stopped:
        patch.setattr(sys, "argv", list(map(str, words)))
        speed.main()
    assert not stopped.value.code
    return out


def test_a_model_in_fairseq_and_exported_stand_in_one_record(measured, place):
    record = read_json(measured / "speed.json")
    assert record["sentences"] == 20 and record["lines"] == 32 and record["beam"] == 3
    assert record["cores"] == len(os.sched_getaffinity(0)) and record["processor"]
    assert (record["workers"], record["threads_per_worker"], record["rounds"]) == (1, 1, 2)
    assert list(record["models"]) == [str(place / "model"), str(place / "exported")]
    for model, kind in zip(record["models"].values(), ("fairseq", "ctranslate2"), strict=True):
        assert (model["backend"], model["compute_type"]) == (kind, "float32")
        for mode in ("beam", "greedy"):
            slowest, fastest = model[mode]["sentences_per_second_range"]
            assert 0 < slowest <= model[mode]["sentences_per_second"] <= fastest
            single = model[mode]["one_by_one"]
            steps = list(single["sentence_ms"].values())
            assert steps == sorted(steps) and 10 <= single["sentences"] <= 20
            mean = 1000 / single["sentences_per_second"]
            assert steps[0] / 3 < mean < 3 * steps[-1]
        greedy = model["greedy"]["one_by_one"]
        assert greedy["first_token_ms"]["p50"] > 0
        assert "first_token_ms" not in model["beam"]["one_by_one"]
        assert model["embedding_parameters"] < model["parameters"]


def test_both_backends_write_the_same_number_of_tokens(measured):
    ours, theirs = read_json(measured / "speed.json")["models"].values()
    for mode in ("beam", "greedy"):
        pieces = [
            model[mode]["tokens_per_second"] / model[mode]["sentences_per_second"]
            for model in (ours, theirs)
        ]
        assert pieces[0] == pytest.approx(pieces[1], rel=0.03) and pieces[0] > 2  # ties


def test_an_exported_model_is_measured_without_pytorch_around_it(measured, place):
    fairseq, exported = read_json(measured / "speed.json")["models"].values()
    for model in (fairseq, exported):
        assert model["library_memory_bytes"] < model["peak_memory_bytes"]
        assert 0 < model["load_seconds"] and 0 < model["start_seconds"]
    assert exported["peak_memory_bytes"] < fairseq["library_memory_bytes"] / 2
    assert fairseq["bytes"] == (place / "model" / "model.pt").stat().st_size
    names = ("model.bin", "config.json", "shared_vocabulary.json")
    assert exported["bytes"] == sum((place / "exported" / name).stat().st_size for name in names)


def test_the_manifest_names_what_was_measured(measured, place):
    manifest = read_json(measured / "manifest.json")
    assert set(manifest["inputs"]) == {
        str(place / name) for name in ("source", "model/model.pt", "exported/model.bin")
    }
    assert manifest["settings"]["workers"] == 1 and manifest["counts"]["sentences"] == 20


def test_an_int8_model_is_called_int8_and_a_folder_is_replaced_when_asked(
    place, tmp_path, dad_speed
):
    export(place / "model", tmp_path / "int8", "int8")
    words = ["--source", place / "source", "--out", tmp_path / "speed", "--rounds", 1, "--limit",
             3, tmp_path / "int8"]  # fmt: skip
    status, said = dad_speed(*words)
    assert not status and "ctranslate2 int8 " in said.out and "3 sentences" in said.out
    status, said = dad_speed(*words)
    assert status == 1 and "speed exists" in said.err
    status, said = dad_speed(*words, "--overwrite")
    assert not status
    (model,) = read_json(tmp_path / "speed" / "speed.json")["models"].values()
    assert model["compute_type"] == "int8"


def test_a_folder_of_ctranslate2s_own_converters_is_measured_too(place, tmp_path, dad_speed):
    other = tmp_path / "other"
    other.mkdir()
    for name in ("model.bin", "config.json", "shared_vocabulary.json"):
        os.link(place / "exported" / name, other / name)
    os.link(place / "exported" / "subwords.model", other / "subwords.model")
    status, said = dad_speed("--source", place / "source", "--out", tmp_path / "speed",
                             "--rounds", 1, "--limit", 3, other)  # fmt: skip
    assert not status and " ? " in said.out
    (model,) = read_json(tmp_path / "speed" / "speed.json")["models"].values()
    assert model["parameters"] is None and model["bytes"] > 0


@pytest.mark.parametrize(("model", "name"), [("model", "fairseq"), ("exported", "ctranslate2")])
def test_a_gpu_that_is_asked_for_and_missing_is_an_error(model, name, place, tmp_path, dad_speed,
                                                         monkeypatch):  # fmt: skip
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(backends, "_gpus", lambda: 0)
    status, said = dad_speed("--source", place / "source", "--out", tmp_path / "speed",
                             "--device", "cuda", place / model)  # fmt: skip
    assert status == 1 and f"--device cuda: {name} finds no GPU here" in said.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["none"], "model folder none is missing"),
        (["{place}/vocabulary"], "holds neither model.pt"),
        (["{place}/exported", "--source", "none"], "none is missing"),
        (["{place}/exported", "--rounds", "0"], "--rounds is 1 or more, not 0"),
        (["{place}/exported", "{place}/exported"], "exported is named twice"),
        (["{place}/exported", "--workers", "99999"], "more than the"),
    ],
)
def test_bad_wishes_are_refused_and_leave_nothing(words, message, place, tmp_path, dad_speed):
    out = tmp_path / "speed"
    given = [word.format(place=place) for word in words]
    status, said = dad_speed("--source", place / "source", "--out", out, *given)
    assert status == 1 and message in said.err and said.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("kind", "folder", "batches", "threads"),
    [("fairseq", "model", LEAST_BATCHES, [6, 3]),
     ("ctranslate2", "exported", 2 * LEAST_BATCHES, None)],
)  # fmt: skip
def test_fairseq_takes_a_batch_at_a_time_with_all_threads(
    kind, folder, batches, threads, place, monkeypatch
):
    monkeypatch.setattr(speed_process, "LEAST_SECONDS", 0.0)
    before = torch.get_num_threads()
    used = []
    try:
        torch.set_num_threads(1)
        found = load(
            started=0.0, backend=kind, folder=str(place / folder), beams={"greedy": 1},
            device="cpu", compute_type="float32", workers=2, threads=3,
        )  # fmt: skip
        found.take([["▁ba"]])
        assert found.batched("greedy", [0])["sentences"] == batches
        used.append(torch.get_num_threads())
        found.one_by_one("greedy", [0])
        used.append(torch.get_num_threads())
    finally:
        torch.set_num_threads(before)
    assert threads in (used, None)


# -- processes -----------------------------------------------------------------------------


def settings(folder):
    return {
        "backend": "ctranslate2", "folder": str(folder), "beams": {"greedy": 1}, "device": "cpu",
        "compute_type": "default", "workers": 1, "threads": 1,
    }  # fmt: skip


def test_a_process_that_was_killed_is_an_error_that_names_the_model(place):
    translator = Translator("my model", settings(place / "exported"))
    os.kill(translator._process.pid, signal.SIGKILL)
    translator._process.wait()
    with pytest.raises(ValueError, match="my model: the process .* ended .by signal 9, perhaps"):
        translator.ask("memory")
    translator.close()


def test_a_damaged_model_is_an_error_that_names_it_and_leaves_no_process(
    place, tmp_path, monkeypatch
):
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for file in (place / "exported").iterdir():
        (damaged / file.name).write_bytes(file.read_bytes()[:5000])
    closed = []
    close = Translator.close
    monkeypatch.setattr(Translator, "close", lambda self: (close(self), closed.append(self)))
    with pytest.raises(ValueError, match="my model: CTranslate2 cannot load .*damaged"):
        Translator("my model", settings(damaged))
    (translator,) = closed
    assert translator._process.returncode is not None


def test_the_process_ends_with_the_questions(place):
    translator = Translator("my model", settings(place / "exported"))
    translator._process.stdin.close()
    assert translator._process.wait(timeout=20) == 0
    translator.close()


def test_when_one_model_fails_no_process_is_left(place, tmp_path, monkeypatch):
    begun = []
    ask = Translator.ask

    def fail_at_the_second(self, what, **arguments):
        if what == "load":
            begun.append(self)
        if what == "batched" and self is begun[1]:
            raise ValueError("out of memory")
        return ask(self, what, **arguments)

    monkeypatch.setattr(Translator, "ask", fail_at_the_second)
    other = tmp_path / "other"
    other.symlink_to(place / "exported")
    with pytest.raises(ValueError, match="out of memory"):
        speed.measure(speed.find_all([place / "exported", other], "cpu"), place / "source",
                      workers=1, limit=3)  # fmt: skip
    assert len(begun) == 2
    assert all(translator._process.returncode is not None for translator in begun)


def test_what_a_library_prints_is_no_answer(place, tmp_path, monkeypatch, capfd):
    (tmp_path / "sitecustomize.py").write_text("print('noise', flush=True)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    translator = Translator("my model", settings(place / "exported"))
    assert translator.ask("memory") > 0
    translator.close()
    assert capfd.readouterr() == ("", "noise\n")
