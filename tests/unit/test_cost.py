"""What the time of a run went into, and what of it is overhead."""

import sys
import time

import pytest

from data_prep.manifest import write_json
from data_prep.pipeline import cost, stage
from data_prep.pipeline.graph import KINDS

TRAINING_LOG = """\
$ train.sh --data somewhere
2026-01-01 10:00:00 | INFO | fairseq_cli.train | Start iterating over samples
2026-01-01 10:05:00 | INFO | fairseq_cli.train | begin validation on "valid" subset
$ train.sh --data data
no stamp | INFO | begins this line
2026-01-01 11:00:00 | INFO | fairseq.trainer | begin training epoch 1
2026-01-01 11:00:00 | INFO | fairseq_cli.train | Start iterating over samples
2026-01-01 11:00:20 | INFO | fairseq_cli.train | begin validation on "valid" subset
2026-01-01 11:00:23 | INFO | valid | {"valid_bleu": "3"}
2026-01-01 11:00:25 | INFO | valid_general | {"valid_general_bleu": "3"}
2026-01-01 11:00:27 | INFO | fairseq.checkpoint_utils | Saved checkpoint (writing took 2.0 seconds)
2026-01-01 11:00:27 | INFO | fairseq.trainer | begin training epoch 2
2026-01-01 11:00:27 | INFO | fairseq_cli.train | Start iterating over samples
2026-01-01 11:00:57 | INFO | fairseq_cli.train | begin validation on "valid" subset
2026-01-01 11:01:00 | INFO | valid | {"valid_bleu": "4"}
2026-01-01 11:01:00 | INFO | fairseq_cli.train | done training in 60.0 seconds
dir: 5 parameters
"""


def finish(folder, *command, begin=0, seconds=10, cpu=None):
    """The record of a stage that began at a second of a day and took so long."""
    folder.mkdir(parents=True)
    end = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(1_000_000_000 + begin + seconds))
    record = {"command": list(command), "seconds": seconds, "finished": end}
    write_json(folder / "stage.json", {**record, **({"cpu_seconds": cpu} if cpu else {})})
    return folder


def parts_of(found):
    return {entry["part"]: entry["seconds"] for entry in found["parts"]}


@pytest.mark.parametrize(
    "spans, started, shares, gaps",
    [
        ({"a": (0, 10)}, None, {"a": 10}, []),
        ({"a": (0, 10), "b": (10, 15)}, None, {"a": 10, "b": 5}, []),
        ({"a": (0, 10), "b": (0, 10)}, None, {"a": 5, "b": 5}, []),
        ({"a": (0, 12), "b": (0, 12), "c": (6, 12)}, None, {"a": 5, "b": 5, "c": 2}, []),
        ({"a": (0, 10), "b": (12, 13)}, None, {"a": 10, "b": 1}, [2]),
        ({"a": (3, 10)}, 0, {"a": 7}, [3]),
        ({"a": (3, 10)}, 5, {"a": 7}, []),
        ({}, 5, {}, []),
    ],
)
def test_the_clock_is_shared_out_and_every_second_counts_once(spans, started, shares, gaps):
    assert cost.share_out(spans, started) == (shares, gaps)


def test_training_and_decoding_are_no_overhead_and_all_else_is(tmp_path):
    finish(tmp_path / "corpora/text", "python", "-m", "data_prep.clean", seconds=5)
    finish(tmp_path / "teacher", "train.sh", begin=5, seconds=60)
    finish(tmp_path / "distilled", "distil.sh", begin=65, seconds=25)
    finish(tmp_path / "report", "dad-report", begin=95, seconds=5)
    found = cost.split(tmp_path)
    assert found["wall"] == {"training": 60, "decoding": 25, "other": 10, "between": 5, "all": 100}
    assert found["overhead"] == 0.15
    assert parts_of(found) == {
        "updates": 60, "a teacher translates": 25, "text": 5, "reports": 5, "between stages": 5,
    }  # fmt: skip
    assert [entry["seconds"] for entry in found["parts"]] == [60, 25, 5, 5, 5]


def test_stages_side_by_side_share_the_clock(tmp_path):
    finish(tmp_path / "one", "train.sh", seconds=40)
    finish(tmp_path / "two", "dad-export", seconds=40)
    found = cost.split(tmp_path)
    assert found["wall"] == {"training": 20, "decoding": 0, "other": 20, "between": 0, "all": 40}
    assert [(entry["kind"], entry["seconds"]) for entry in found["kinds"]] == [
        ("export", 40), ("train", 40),
    ]  # fmt: skip


@pytest.mark.parametrize("gap, between, stopped", [(60, 60, 0), (61, 0, 61)])
def test_a_run_that_stood_still_is_not_charged_for_it(tmp_path, gap, between, stopped):
    finish(tmp_path / "one", "train.sh", seconds=10)
    finish(tmp_path / "two", "train.sh", begin=10 + gap, seconds=10)
    found = cost.split(tmp_path)
    assert (found["wall"]["between"], found["stopped"]) == (between, stopped)
    assert found["wall"]["all"] == 20 + between


def test_the_time_before_the_first_stage_belongs_to_the_run(tmp_path):
    finish(tmp_path / "one", "train.sh", begin=10)
    started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(1_000_000_004))
    assert cost.split(tmp_path, started=started)["wall"]["between"] == 6


def test_a_training_is_taken_apart_by_the_log_of_its_last_attempt(tmp_path):
    folder = finish(tmp_path / "model", "train.sh", seconds=70)
    (folder / "log.txt").write_text(TRAINING_LOG)
    found = cost.split(tmp_path)
    assert parts_of(found) == {
        "updates": 50, "validation": 8, "saving checkpoints": 2,
        "starting a training, keeping its weights": 10,
    }  # fmt: skip
    assert found["wall"]["training"] == 58 and found["overhead"] == round(12 / 70, 4)


CUT_SHORT = TRAINING_LOG.partition("2026-01-01 11:01:00 | INFO | fairseq_cli.train | done")[0]


@pytest.mark.parametrize("log", ["", "no stamps\n", CUT_SHORT])
def test_a_log_that_does_not_tell_leaves_all_of_it_to_training(tmp_path, log):
    folder = finish(tmp_path / "model", "train.sh", seconds=70)
    (folder / "log.txt").write_text(log)
    assert parts_of(cost.split(tmp_path)) == {"updates": 70}


def test_a_distillation_is_translating_choosing_and_binarising(tmp_path):
    folder = finish(tmp_path / "distilled", "distil.sh", seconds=100)
    for name, record in (
        ("decoded/train.en.manifest.json", {"counts": {"decode_seconds": 80.0}}),
        ("text/manifest.json", {"seconds": 5.0}),
        ("prepared/manifest.json", {"seconds": 6.0}),
    ):
        (folder / name).parent.mkdir()
        write_json(folder / name, record)
    found = cost.split(tmp_path)
    assert parts_of(found) == {
        "a teacher translates": 80, "starting to translate, loading a teacher": 9,
        "binarising what a student learns": 6, "choosing what a student learns": 5,
    }  # fmt: skip
    assert found["wall"]["decoding"] == 80 and found["wall"]["other"] == 20


def test_of_scores_the_translating_is_decoding(tmp_path):
    folder = finish(tmp_path / "scores", "dad-evaluate", seconds=10)
    for mode in ("beam", "greedy"):
        write_json(
            folder / f"x.{mode}.en.manifest.json", {"counts": {"decode_seconds": 1.5}}
        )
    assert parts_of(cost.split(tmp_path)) == {
        "translating test sets": 3, "starting to score, metrics": 7,
    }  # fmt: skip


def test_comparing_an_export_with_its_original_is_decoding(tmp_path):
    folder = finish(
        tmp_path / "shipped", "dad-export", "--model", "x", "--domain", "medical", seconds=20
    )
    write_json(folder / "manifest.json", {"counts": {"bytes": 7, "decode_seconds": 14.5}})
    found = cost.split(tmp_path)
    assert parts_of(found) == {
        "comparing exported models with their originals": 14.5, "shipping": 5.5,
    }  # fmt: skip
    assert (found["wall"]["decoding"], found["overhead"]) == (14.5, 0.275)


@pytest.mark.parametrize("record", [{}, {"counts": {"bytes": 7}}, {"counts": None}])
def test_what_ships_without_a_comparison_is_overhead(tmp_path, record):
    folder = finish(tmp_path / "shipped", "dad-export", "--domain", "medical", seconds=20)
    write_json(folder / "manifest.json", record)
    assert parts_of(cost.split(tmp_path)) == {"shipping": 20}


def test_parts_never_exceed_their_stage(tmp_path):
    folder = finish(tmp_path / "model", "train.sh", seconds=30)
    (folder / "log.txt").write_text(TRAINING_LOG)  # stamps of whole seconds say 60
    found = cost.split(tmp_path)
    assert sum(parts_of(found).values()) == pytest.approx(30)
    assert parts_of(found)["updates"] == 25


def test_cpu_time_is_that_of_whole_stages_and_not_known_of_old_ones(tmp_path):
    finish(tmp_path / "one", "train.sh", cpu=20.0)
    finish(tmp_path / "two", "dad-evaluate", cpu=4.0)
    finish(tmp_path / "three", "dad-export", cpu=1.0)
    finish(tmp_path / "four", "train.sh")
    found = cost.split(tmp_path)
    assert found["cpu"] == {"training": 20, "decoding": 4, "other": 1, "all": 25}
    assert {entry["kind"]: entry["cpu_seconds"] for entry in found["kinds"]} == {
        "train": 20, "score": 4, "export": 1,
    }  # fmt: skip
    old = finish(tmp_path / "old/one", "train.sh").parent
    assert cost.split(old)["cpu"] is None


@pytest.mark.parametrize(
    "words, kind",
    [
        (["train.sh", "--data", "x"], "train"),
        (["python", "-m", "data_prep.binarise"], "prepare"),
        (["python", "-m", "data_prep.clean"], "text"),
        (["dad-export", "--model", "x"], "export"),
        (["dad-export", "--model", "x", "--domain", "medical"], "ship"),
        ([], "text"),
    ],
)
def test_every_kind_of_stage_has_a_name(words, kind):
    assert cost.kind_of({"command": words}) == kind
    assert kind in cost.PARTS


@pytest.mark.parametrize(
    "words, counts_as",
    [(["train.sh"], "training"), (["dad-estimate-fisher"], "training"), (["distil.sh"], "decoding"),
     (["dad-evaluate"], "decoding"), (["dad-cache-teacher"], "decoding"), (["dad-speed"], "other"),
     ([], "other")],
)  # fmt: skip
def test_stages_are_told_apart_by_their_command(words, counts_as):
    assert cost.counts_as({"command": words}) == counts_as


def test_every_kind_of_the_plan_has_a_part():
    assert {*KINDS.values(), "text", "ship"} == cost.PARTS.keys()


def test_a_record_without_times_is_left_out_and_nothing_is_nothing(tmp_path):
    (tmp_path / "one").mkdir()
    write_json(tmp_path / "one/stage.json", {"command": ["train.sh"], "seconds": None})
    found = cost.split(tmp_path)
    assert found["wall"]["all"] == 0 and found["overhead"] is None and found["parts"] == []
    assert cost.as_text(found) == ""


def test_the_command_shows_the_split_below_the_times(tmp_path, monkeypatch, capsys):
    finish(tmp_path / "one", "train.sh", seconds=90)
    finish(tmp_path / "two", "dad-report", begin=190, seconds=10)
    monkeypatch.setattr(sys, "argv", ["dad-stage", "--times", str(tmp_path)])
    with pytest.raises(SystemExit) as end:
        stage.main()
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.split("\n")]
    assert not end.value.code
    assert lines == [
        "one 1 min 30 s", "two 10 s", "all 1 min 40 s", "",
        "By the clock, stages side by side counted once: 1 min 40 s",
        "training 1 min 30 s 90.0 %", "decoding 0 s 0.0 %", "everything else 10 s 10.0 %",
        "reports 10 s 10.0 %", "Not in it: 1 min 40 s in which the run stood still", "",
    ]  # fmt: skip
