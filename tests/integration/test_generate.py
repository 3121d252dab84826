"""dad-generate: every line in gives one line out, whatever happens on the way."""

import gzip
import json
import os
import pickle
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from fairseq_plugins.generation import calibration, job
from fairseq_plugins.generation import generate as module
from fairseq_plugins.generation import teacher as teacher_module
from fairseq_plugins.generation.generate import generate
from tests.fixtures.models import (
    read_text,
    toy_checkpoint,
    toy_lines,
    toy_model,
    toy_vocabulary,
    write_text,
)

ROOT = Path(__file__).parents[2]
BACKENDS = ["ctranslate2", "fairseq"]

ODD_LINES = [
    "",
    "   ",
    "ba\u2028be",
    "ba\rbe",
    "ba\x85be\x0bbi\x0cbo",
    "\u3000\u00a0",
    "!?!...,;",
    "\U0001f600\U0001f680\u2764\ufe0f",
    "ba be\r",
    "ba " * 10_000,
    "</s> <s> <pad> <unk> <blank>",
    "\u200b",
    "\x00",
]
BLANK = [line for line in ODD_LINES if not line.strip(" \u3000\u00a0\x00")]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a vocabulary and three models that share it."""
    folder = tmp_path_factory.mktemp("generate")
    toy_vocabulary(folder / "vocabulary")
    for seed in (1, 2, 3):
        toy_model(folder / f"model{seed}", folder / "vocabulary", seed=seed)
    return folder


@pytest.fixture
def model(place):
    return place / "model1"


def translate(model, lines, folder, name="out", **settings):
    """Translations of lines, through files."""
    source = write_text(folder / f"{name}.src", lines)
    generate([model], source, folder / f"{name}.tgt", **{"workers": 1, **settings})
    return read_text(folder / f"{name}.tgt")


def command(model, source, out, *flags):
    words = [sys.executable, "-m", "fairseq_plugins.generation.generate",
             "--model", model, "--source", source, "--out", out, *flags]  # fmt: skip
    return [str(word) for word in words]


def environment():
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


@pytest.mark.parametrize("backend", BACKENDS)
def test_101_lines_in_give_101_lines_out_in_order(backend, model, tmp_path):
    lines = (toy_lines(101 - len(ODD_LINES)) + ODD_LINES)[:101]
    random.Random(3).shuffle(lines)
    out = translate(model, lines, tmp_path, backend=backend, shard_lines=17)
    assert len(out) == 101
    alone = translate(model, lines[:40:8], tmp_path, "alone", backend=backend, batch_tokens=1)
    assert out[:40:8] == alone
    for line, translation in zip(lines, out, strict=True):
        assert translation.splitlines() in ([translation], [])
        assert (line in BLANK) <= (translation == "")
    record = json.loads((tmp_path / "out.tgt.manifest.json").read_text())
    assert record["counts"]["lines"] == 101
    assert record["counts"]["empty_sources"] == len(BLANK)
    assert record["counts"]["too_long"] == 1
    assert not (tmp_path / "out.tgt.part").exists()


@pytest.mark.parametrize(("beam", "alike"), [(1, 1.0), (4, 0.7)])
def test_both_backends_translate_alike(beam, alike, model, tmp_path):
    # the two beams stop by slightly other rules, which shows in a model that has learnt nothing
    lines = toy_lines(60, seed=9)
    ours, theirs = (
        translate(model, lines, tmp_path, backend, backend=backend, beam=beam)
        for backend in BACKENDS
    )
    assert len(set(ours)) > 30  # the model does read its source
    same = sum(one == other for one, other in zip(ours, theirs, strict=True))
    assert same >= alike * len(lines)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_translation_does_not_depend_on_its_batch_or_shard(backend, model, tmp_path):
    lines = toy_lines(50, seed=4)
    expected = translate(model, lines, tmp_path, "a", backend=backend)
    assert expected == translate(
        model, lines, tmp_path, "b", backend=backend, batch_tokens=40, shard_lines=7
    )
    backwards = translate(model, lines[::-1], tmp_path, "c", backend=backend)
    assert expected == backwards[::-1]


def test_the_number_of_workers_does_not_change_a_byte(model, tmp_path):
    lines = toy_lines(80, seed=6)
    one, many = (
        translate(model, lines, tmp_path, f"w{workers}", workers=workers, shard_lines=20)
        for workers in (1, 3)
    )
    assert one == many


def test_over_long_lines_are_cut_dropped_or_replaced_as_asked(model, tmp_path):
    lines = ["ba be", "ba be bi bo bu " * 20, ""]
    references = write_text(tmp_path / "references", ["one", "two", "three"])
    cut, drop, reference = (
        translate(
            model, lines, tmp_path, policy, max_source_pieces=10, on_long=policy,
            references=references, on_empty="reference" if policy == "reference" else "empty",
        )
        for policy in ("truncate", "drop", "reference")
    )  # fmt: skip
    assert cut[0] == drop[0] == reference[0] != ""
    assert cut[1] not in ("", "two") and drop[1] == "" and reference[1] == "two"
    assert cut[2] == drop[2] == "" and reference[2] == "three"
    header, *rows = read_text(tmp_path / "drop.tgt.ledger.tsv")
    assert header == "line\twhat\taction\tpieces"
    line, what, action, pieces = rows[0].split("\t")
    assert (line, what, action) == ("2", "too long", "dropped") and int(pieces) >= 100
    assert rows[1:] == ["3\tempty source\tleft empty\t0"]
    counts = json.loads((tmp_path / "reference.tgt.manifest.json").read_text())["counts"]
    assert counts["from_reference"] == 2 and counts["lines"] == 3


def test_max_length_limits_translations(model, tmp_path):
    lines = toy_lines(30, seed=2)
    free = translate(model, lines, tmp_path, "free")
    short = translate(model, lines, tmp_path, "short", max_length=2)
    assert max(map(len, short)) < max(map(len, free))


def test_beam_and_length_penalty_reach_the_search(model, tmp_path):
    lines = toy_lines(60, seed=8)
    for backend in BACKENDS:
        greedy = translate(model, lines, tmp_path, f"{backend}1", backend=backend, beam=1)
        beam = translate(model, lines, tmp_path, f"{backend}5", backend=backend, beam=5)
        long = translate(
            model, lines, tmp_path, f"{backend}l", backend=backend, beam=5, length_penalty=5.0
        )
        assert greedy != beam != long
        assert sum(map(len, long)) > sum(map(len, beam))


def test_a_compressed_source_gives_the_same_translations(model, tmp_path):
    lines = toy_lines(20)
    plain = translate(model, lines, tmp_path, "plain")
    packed = tmp_path / "packed.de.gz"
    packed.write_bytes(gzip.compress((tmp_path / "plain.src").read_bytes()))
    generate([model], packed, tmp_path / "packed.en")
    assert read_text(tmp_path / "packed.en") == plain


def test_several_models_decode_as_an_ensemble(place, tmp_path):
    lines = toy_lines(20, seed=5)
    source = write_text(tmp_path / "src", lines)
    both = [place / "model1", place / "model2"]
    record = generate(both, source, tmp_path / "both")
    assert record["settings"]["backend"] == "fairseq"
    assert len(read_text(tmp_path / "both")) == 20
    single = translate(place / "model1", lines, tmp_path, "single", backend="fairseq")
    assert read_text(tmp_path / "both") != single
    generate([both[0], both[0]], source, tmp_path / "twice")
    assert read_text(tmp_path / "twice") == single


# -- killed, and run again -------------------------------------------------------------------


def test_killed_at_any_moment_the_next_run_ends_with_the_same_bytes(model, tmp_path):
    source = write_text(tmp_path / "src", toy_lines(400, seed=7))
    settings = {"backend": "fairseq", "shard_lines": 5, "batch_tokens": 20, "workers": 1}
    flags = [word for name, value in settings.items()
             for word in (f"--{name.replace('_', '-')}", value)]  # fmt: skip
    generate([model], source, tmp_path / "whole", **settings)
    out, part, kept = tmp_path / "out", tmp_path / "out.part", {}
    for wait in (0.0, 0.013):
        process = subprocess.Popen(
            command(model, source, out, *flags), env=environment(), stderr=subprocess.PIPE
        )
        while process.poll() is None and len(finished_shards(part)) < len(kept) + 3:
            time.sleep(0.002)
        time.sleep(wait)
        process.kill()  # -9
        process.communicate()
        assert not out.exists()
        now = finished_shards(part)
        assert kept.items() <= now.items() and len(kept) < len(now) < 80
        kept = now
    last = {}
    with pytest.MonkeyPatch.context() as patch:
        finish = job.WorkFolder.finish
        patch.setattr(
            job.WorkFolder, "finish",
            lambda *args: (last.update(finished_shards(part)), finish(*args)),
        )  # fmt: skip
        generate([model], source, out, **settings)
    assert out.read_bytes() == (tmp_path / "whole").read_bytes()
    assert kept.items() <= last.items()  # what was finished was not done again
    assert not part.exists()


def finished_shards(part):
    """Name and time of the record of each finished shard."""
    return {path.name: path.stat().st_mtime_ns for path in part.glob("0*.json")}


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


@pytest.mark.parametrize("moment", range(11))
def test_stopped_before_any_rename_the_next_run_ends_with_the_same_bytes(
    moment, model, tmp_path, monkeypatch
):
    lines = toy_lines(30, seed=7)
    expected = translate(model, lines, tmp_path, "whole", shard_lines=10)
    source, out = write_text(tmp_path / "src", lines), tmp_path / "out"
    replace, calls = os.replace, iter(range(100))

    def fatal(old, new):
        if next(calls) == moment:
            raise Killed
        replace(old, new)

    monkeypatch.setattr(os, "replace", fatal)
    with pytest.raises(Killed):
        generate([model], source, out, shard_lines=10, workers=1)
    monkeypatch.setattr(os, "replace", replace)
    assert next(calls) == moment + 1, "there are fewer renames than moments"
    generate([model], source, out, shard_lines=10, workers=1)
    assert read_text(out) == expected
    record = json.loads((tmp_path / "out.manifest.json").read_text())
    assert record["counts"]["lines"] == 30
    assert sorted(path.name for path in tmp_path.glob("out*")) == ["out", "out.manifest.json"]


@pytest.mark.parametrize("moment", range(3))
def test_stopped_while_cleaning_up_the_next_run_finishes_that(moment, model, tmp_path, monkeypatch):
    source, out = write_text(tmp_path / "src", toy_lines(30, seed=7)), tmp_path / "out"
    unlink, calls = Path.unlink, iter(range(100))

    def fatal(path, missing_ok=False):
        if out.exists() and next(calls) == moment:
            raise Killed
        unlink(path, missing_ok)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Path, "unlink", fatal)
        generate([model], source, out, shard_lines=10, workers=1)
    made = out.read_bytes()
    assert (tmp_path / "out.part").exists()
    generate([model], source, out, shard_lines=10, workers=1)
    assert out.read_bytes() == made
    assert sorted(path.name for path in tmp_path.glob("out*")) == ["out", "out.manifest.json"]


def interrupted(model, source, out, monkeypatch, **settings):
    """Leave a work folder with every shard finished, but nothing merged."""
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(job.WorkFolder, "merge", lambda *_: (_ for _ in ()).throw(Killed))
        generate([model], source, out, workers=1, **settings)
    return out.with_name(out.name + ".part")


@pytest.mark.parametrize("damage", ["edited", "cut", "deleted", "no record", "bad record"])
def test_a_damaged_shard_is_decoded_again(damage, model, tmp_path, monkeypatch, capsys):
    lines = toy_lines(30, seed=7)
    expected = translate(model, lines, tmp_path, "whole", shard_lines=10)
    source, out = write_text(tmp_path / "src", lines), tmp_path / "out"
    part = interrupted(model, source, out, monkeypatch, shard_lines=10)
    shard, record = part / "000001.txt", part / "000001.json"
    if damage == "edited":
        shard.write_text(shard.read_text().replace("a", "e", 1))
    elif damage == "cut":
        shard.write_bytes(shard.read_bytes()[:-9])
    elif damage == "deleted":
        shard.unlink()
    elif damage == "no record":
        record.unlink()
    else:
        record.write_text("{")
    generate([model], source, out, shard_lines=10, workers=1)
    assert read_text(out) == expected
    said = capsys.readouterr().err
    assert "shard 1 is damaged or unfinished; decoding it again" in said
    assert "going on after 20 of 30 lines" in said


def test_other_settings_start_afresh_and_say_which(model, tmp_path, monkeypatch, capsys):
    source, out = write_text(tmp_path / "src", toy_lines(30, seed=7)), tmp_path / "out"
    interrupted(model, source, out, monkeypatch, shard_lines=10, beam=2)
    generate([model], source, out, shard_lines=10, beam=1, workers=1)
    said = capsys.readouterr().err
    assert "starting afresh, because --beam was 2, is 1" in said
    assert read_text(out) == translate(model, toy_lines(30, seed=7), tmp_path, "whole", beam=1)


def test_another_source_starts_afresh(model, tmp_path, monkeypatch, capsys):
    source, out = write_text(tmp_path / "src", toy_lines(30, seed=7)), tmp_path / "out"
    interrupted(model, source, out, monkeypatch)
    write_text(source, toy_lines(30, seed=8))
    generate([model], source, out, workers=1)
    assert "starting afresh, because the source text changed" in capsys.readouterr().err
    assert read_text(out) == translate(model, toy_lines(30, seed=8), tmp_path, "whole")


def test_a_finished_output_is_not_made_again(model, place, tmp_path, monkeypatch, capsys):
    source, out = write_text(tmp_path / "src", toy_lines(10)), tmp_path / "out"
    first = generate([model], source, out)
    made = out.stat().st_mtime_ns
    monkeypatch.setattr(job, "_decode_missing", None)
    assert generate([model], source, out, workers=2) == first
    assert out.stat().st_mtime_ns == made
    assert "is there already" in capsys.readouterr().err
    for changed, why in (
        ({"beam": 2}, "--beam was 5, is 2"),
        ({"models": [place / "model2"]}, "the model changed"),
    ):
        with pytest.raises(FileExistsError, match=f"{why}; pass --overwrite"):
            generate(**{"models": [model], "source": source, "out": out, **changed})


def test_an_output_made_otherwise_is_replaced_only_when_asked(model, tmp_path):
    source, out = write_text(tmp_path / "src", toy_lines(10)), tmp_path / "out"
    generate([model], source, out)
    before = out.read_bytes()
    out.write_bytes(before + b"one more\n")
    with pytest.raises(FileExistsError, match="its text was changed after it was made"):
        generate([model], source, out)
    generate([model], source, out, overwrite=True)
    assert out.read_bytes() == before
    out.with_name("out.manifest.json").unlink()
    with pytest.raises(FileExistsError, match="has no manifest"):
        generate([model], source, out)
    assert out.read_bytes() == before


def start(model, source, out, *flags, **settings):
    return subprocess.Popen(
        command(model, source, out, *flags), env=environment(), stderr=subprocess.PIPE, text=True,
        **settings,
    )  # fmt: skip


SLOW = ("--backend", "fairseq", "--batch-tokens", 20, "--shard-lines", 5, "--workers", 1)


def test_runs_started_at_once_share_the_work(model, tmp_path):
    source, out = write_text(tmp_path / "src", toy_lines(400, seed=7)), tmp_path / "out"
    generate([model], source, tmp_path / "whole", backend="fairseq", batch_tokens=20,
             shard_lines=5, workers=1)  # fmt: skip
    runs = [start(model, source, out, *SLOW) for _ in range(3)]
    said = [run.communicate(timeout=100)[1] for run in runs]
    assert [run.returncode for run in runs] == [0, 0, 0], said
    assert sum("sharing the work with another process" in text for text in said) >= 1
    assert "is damaged" not in "".join(said)
    assert out.read_bytes() == (tmp_path / "whole").read_bytes()
    assert sorted(path.name for path in tmp_path.glob("out*")) == ["out", "out.manifest.json"]


def test_the_shards_of_a_run_that_dies_are_taken_over(model, tmp_path):
    source, out = write_text(tmp_path / "src", toy_lines(400, seed=7)), tmp_path / "out"
    generate([model], source, tmp_path / "whole", backend="fairseq", batch_tokens=20,
             shard_lines=5, workers=1)  # fmt: skip
    first = start(model, source, out, *SLOW)
    second = start(model, source, out, *SLOW)
    while first.poll() is None and len(finished_shards(tmp_path / "out.part")) < 5:
        time.sleep(0.002)
    first.kill()
    said = second.communicate(timeout=100)[1]
    first.communicate()
    assert second.returncode == 0, said
    assert out.read_bytes() == (tmp_path / "whole").read_bytes()


def test_a_run_with_other_settings_in_a_busy_folder_is_refused(model, tmp_path):
    source, out = write_text(tmp_path / "src", toy_lines(400, seed=7)), tmp_path / "out"
    first = start(model, source, out, *SLOW)
    while first.poll() is None and not finished_shards(tmp_path / "out.part"):
        time.sleep(0.002)
    with pytest.raises(ValueError, match="another process is working in .*: --beam was 5, is 2"):
        generate([model], source, out, backend="fairseq", shard_lines=5, beam=2)
    assert first.wait(timeout=100) == 0
    first.communicate()
    assert len(read_text(out)) == 400


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_batches_under_way_and_keeps_them(number, model, tmp_path):
    source, out = write_text(tmp_path / "src", toy_lines(400, seed=7)), tmp_path / "out"
    # one shard, so that what is kept is a part of it
    flags = ("--backend", "fairseq", "--batch-tokens", 20, "--shard-lines", 1000, "--workers", 1)
    generate([model], source, tmp_path / "whole", backend="fairseq", batch_tokens=20,
             shard_lines=1000, workers=1)  # fmt: skip
    run = start(
        model, source, out, *flags,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    said = ""
    while run.poll() is None and "%|" not in said:  # the bar: from then on sentences are decoded
        said += run.stderr.read(1)
    time.sleep(0.3)
    run.send_signal(number)
    said = run.communicate(timeout=60)[1]
    assert run.returncode == 128 + number, said
    assert "finishing the batches under way" in said
    partial = json.loads((tmp_path / "out.part" / "000000.partial.json").read_text())
    kept = json.loads(partial["found"])
    assert 0 < sum(found is not None for found in kept) < 400
    with pytest.MonkeyPatch.context() as patch:
        begun = {}
        begin = teacher_module.Shard.begin_batch
        patch.setattr(
            teacher_module.Shard, "begin_batch",
            lambda shard: begun.setdefault(len(begun), begin(shard)),
        )  # fmt: skip
        generate([model], source, out, backend="fairseq", batch_tokens=20, shard_lines=1000,
                 workers=1)  # fmt: skip
    assert sum(len(batch) for batch, _ in begun.values()) < 400
    assert out.read_bytes() == (tmp_path / "whole").read_bytes()


def test_what_was_calibrated_is_remembered(model, tmp_path, monkeypatch, capsys):
    source, out = write_text(tmp_path / "src", toy_lines(60, seed=7)), tmp_path / "out"
    monkeypatch.setattr(calibration, "SHARE_OF_RUN", 1000)  # so that 60 lines are enough
    monkeypatch.setattr(calibration, "SAMPLE_SECONDS", 0.05)
    interrupted(model, source, out, monkeypatch, shard_lines=20)
    assert "calibrated on" in capsys.readouterr().err
    monkeypatch.setattr(module, "calibrate", None)  # from here on it must not be done again
    settings = generate([model], source, out, shard_lines=20, workers=1)["settings"]
    tried = {(entry["compute_type"], entry["batch_tokens"]) for entry in settings["calibration"]}
    assert {("float32", 1024), ("int8", 1024)} <= tried
    assert (settings["compute_type"], settings["batch_tokens"]) in tried
    assert {entry["workers"] for entry in settings["calibration"]} == {1}  # as asked for
    # what is left open fits whatever was chosen, what is set does not
    assert generate([model], source, out, shard_lines=20)["settings"] == settings
    with pytest.raises(FileExistsError, match="--batch-tokens was"):
        generate([model], source, out, shard_lines=20, batch_tokens=77)


def test_a_run_that_was_told_to_ignore_ctrl_c_ignores_it(model, tmp_path):
    source, out = write_text(tmp_path / "src", toy_lines(400, seed=7)), tmp_path / "out"
    run = start(model, source, out, *SLOW,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))  # fmt: skip
    while run.poll() is None and not finished_shards(tmp_path / "out.part"):
        time.sleep(0.002)
    run.send_signal(signal.SIGINT)
    said = run.communicate(timeout=100)[1]
    assert run.returncode == 0 and "finishing the batches" not in said, said
    assert len(read_text(out)) == 400


# -- bad input -------------------------------------------------------------------------------


def test_a_changed_vocabulary_is_refused(model, place, tmp_path):
    source = write_text(tmp_path / "src", ["ba"])
    edited = shutil.copytree(model, tmp_path / "edited")
    dictionary = edited / "dict.en.txt"
    rows = dictionary.read_text().splitlines(keepends=True)
    dictionary.write_text("".join([rows[1], rows[0], *rows[2:]]))
    with pytest.raises(ValueError, match="dict.en.txt is not the file that"):
        generate([edited], source, tmp_path / "out")
    other = toy_vocabulary(tmp_path / "other", seed=50)
    swapped = shutil.copytree(model, tmp_path / "swapped")
    other.copy_to(swapped)
    with pytest.raises(ValueError, match="trained with another vocabulary"):
        generate([swapped], source, tmp_path / "out")
    foreign = toy_model(tmp_path / "foreign", tmp_path / "other")
    with pytest.raises(ValueError, match="cannot decode together: .*subwords.model"):
        generate([model, foreign], source, tmp_path / "out")
    assert not list(tmp_path.glob("out*"))


def test_missing_files_are_named(model, tmp_path):
    source, out = write_text(tmp_path / "src", ["ba"]), tmp_path / "out"
    with pytest.raises(FileNotFoundError, match="model folder .*nowhere is missing"):
        generate([tmp_path / "nowhere"], source, out)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="holds neither model.pt"):
        generate([tmp_path / "empty"], source, out)
    with pytest.raises(ValueError, match="is a file; name the folder"):
        generate([model / "model.pt"], source, out)
    with pytest.raises(FileNotFoundError, match="source .*none is missing"):
        generate([model], tmp_path / "none", out)
    with pytest.raises(FileNotFoundError, match="folder .*gone for out is missing"):
        generate([model], source, tmp_path / "gone" / "out")
    assert not list(tmp_path.glob("out*"))


def test_bad_source_text_is_refused_with_its_line(model, tmp_path):
    source, out = tmp_path / "src", tmp_path / "out"
    source.write_bytes(b"ba\nbe\nb\xe4\n")
    with pytest.raises(ValueError, match="src, line 3: not UTF-8"):
        generate([model], source, out)
    source.write_bytes(b"")
    with pytest.raises(ValueError, match="src is empty"):
        generate([model], source, out)
    source.write_bytes(b"ba")
    with pytest.raises(ValueError, match="same file"):
        generate([model], source, source, overwrite=True)
    assert not list(tmp_path.glob("out*"))
    generate([model], source, out)  # a last line without its line feed is a line
    assert len(read_text(out)) == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"beam": 0}, "--beam is 1 or more, not 0"),
        ({"shard_lines": -1}, "--shard-lines is 1 or more, not -1"),
        ({"max_source_pieces": 5000}, "--max-source-pieces 5000 is more than the 1023"),
        ({"on_long": "empty"}, "--on-long is truncate, reference or drop, not empty"),
        ({"on_empty": "reference"}, "name them with --references"),
        ({"n_best": 3, "beam": 2}, "--beam 2 finds 2 translations, not the 3 of --n-best"),
        ({"backend": "marian"}, "--backend is one of auto, ctranslate2, fairseq, not marian"),
        ({"backend": "fairseq", "compute_type": "int8"}, "fairseq computes in float32"),
        ({"compute_type": "float16", "device": "cpu"}, "float16 is for GPUs"),
    ],
)
def test_impossible_settings_are_refused(settings, message, model, tmp_path):
    source = write_text(tmp_path / "src", ["ba"])
    with pytest.raises(ValueError, match=message):
        generate([model], source, tmp_path / "out", **settings)
    assert not list(tmp_path.glob("out*"))


class Evil:
    """What a hostile checkpoint may hold."""

    def __reduce__(self):
        return os.system, ("touch executed",)


def test_a_hostile_checkpoint_is_refused_by_name_and_not_executed(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hostile = shutil.copytree(model, tmp_path / "hostile")
    state = torch.load(hostile / "model.pt", weights_only=True)
    torch.save({**state, "extra_state": Evil()}, hostile / "model.pt", pickle_module=pickle)
    source = write_text(tmp_path / "src", ["ba"])
    for backend in ("auto", *BACKENDS):
        with pytest.raises(ValueError, match="needs the type (posix|os).system"):
            generate([hostile], source, tmp_path / "out", backend=backend)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_unusual_checkpoint_is_read_when_trusted(backend, model, tmp_path):
    unusual = shutil.copytree(model, tmp_path / "unusual")
    state = torch.load(unusual / "model.pt", weights_only=True)
    torch.save({**state, "made_in": Path("there")}, unusual / "model.pt")
    source = write_text(tmp_path / "src", ["ba"])
    with pytest.raises(ValueError, match="needs the type pathlib"):
        generate([unusual], source, tmp_path / "out", backend=backend)
    generate([unusual], source, tmp_path / "out", backend=backend, trust=True)
    assert len(read_text(tmp_path / "out")) == 1
    assert "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD" not in os.environ


def test_a_checkpoint_without_fingerprint_needs_an_opt_in(place, tmp_path):
    stock = shutil.copytree(place / "model1", tmp_path / "stock")
    toy_checkpoint(stock / "model.pt", place / "vocabulary", task="translation", task_state={})
    source = write_text(tmp_path / "src", ["ba"])
    with pytest.raises(ValueError, match="carries no vocabulary fingerprint"):
        generate([stock], source, tmp_path / "out")
    generate([stock], source, tmp_path / "out", allow_unknown_vocabulary=True)
    assert len(read_text(tmp_path / "out")) == 1


def test_a_full_disk_leaves_nothing_half_written(model, tmp_path, monkeypatch, capsys):
    source, out = write_text(tmp_path / "src", toy_lines(400, longest=30)), tmp_path / "out"
    expected = translate(model, toy_lines(400, longest=30), tmp_path, "whole", shard_lines=200)
    part = interrupted(model, source, out, monkeypatch, shard_lines=200)
    (part / "000001.json").unlink()
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    monkeypatch.setattr(sys, "argv", command(model, source, out, "--shard-lines", "200")[2:])
    try:
        with pytest.raises(SystemExit) as stopped:
            module.main()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert stopped.value.code == 1
    said = capsys.readouterr().err
    (complaint,) = [line for line in said.splitlines() if line.startswith("dad-generate: error:")]
    assert "out.part" in complaint and "File too large" in complaint
    assert not out.exists() and not list(part.glob("*.part"))
    generate([model], source, out, shard_lines=200, workers=1)
    assert read_text(out) == expected


# -- the command -----------------------------------------------------------------------------


def test_the_command_translates_and_says_what_it_did(model, tmp_path):
    source = write_text(tmp_path / "src", ["ba be", "", "bi " * 300])
    done = subprocess.run(
        command(model, source, tmp_path / "out"), env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "3 lines (1 empty (empty), 1 too long (truncate))" in done.stderr
    assert done.stdout == ""
    assert len(read_text(tmp_path / "out")) == 3


def test_the_command_takes_several_sources_each_with_its_output(model, tmp_path, monkeypatch):
    sources = [write_text(tmp_path / f"{n}.src", toy_lines(4, seed=n)) for n in (1, 2)]
    for source in sources:
        generate([model], source, source.with_suffix(".alone"), workers=1)
    outs = [source.with_suffix(".tgt") for source in sources]
    for given, status in ((outs[:1], 1), (outs, 0)):
        words = ["--model", model, "--source", *sources, "--out", *given, "--workers", 1]
        monkeypatch.setattr(sys, "argv", ["dad-generate", *map(str, words)])
        with pytest.raises(SystemExit) as stopped:
            module.main()
        assert (stopped.value.code or 0) == status
        assert all(out.exists() for out in outs) is (status == 0)
    for source, out in zip(sources, outs, strict=True):
        assert out.read_bytes() == source.with_suffix(".alone").read_bytes()


def test_the_command_turns_mistakes_into_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", command(tmp_path / "m", tmp_path / "s", tmp_path / "o")[2:])
    with pytest.raises(SystemExit) as stopped:
        module.main()
    assert stopped.value.code == 1
    said = capsys.readouterr().err
    assert said == f"dad-generate: error: source {tmp_path / 's'} is missing\n"
