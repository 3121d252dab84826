"""The plan in words: what a newcomer reads, and what programs read."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from data_prep.pipeline import explain as module
from data_prep.pipeline.explain import WIDTH, as_json, as_text, explain, hours, size
from data_prep.pipeline.graph import PlannedStage
from tests.fixtures.planned import finish, plan_folder, raw_text, stages

ROOT = Path(__file__).resolve().parents[2]
HERE = {"cpu": "a processor", "cores": 2, "memory_bytes": 8 * 2**30, "gpus": []}


@pytest.fixture
def raw(tmp_path, monkeypatch):
    monkeypatch.setenv("DAD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "machine", lambda: HERE)
    monkeypatch.chdir(tmp_path)
    return {name: raw_text(tmp_path / "raw" / name) for name in ("general", "medical")}


@pytest.fixture
def finished(raw, monkeypatch):
    """A run in folder ``work`` that is finished."""
    Path("work").mkdir()
    monkeypatch.chdir("work")
    made = stages(raw)
    plan_folder(Path("plan"), made)
    for stage in made:
        finish(stage, seconds=90.0)
    monkeypatch.chdir("..")
    return raw


def text_of(made, work="work", jobs=1, **run):
    shutil.rmtree("plan", ignore_errors=True)
    return as_text(explain(Path(work), plan_folder(Path("plan"), made, **run).resolve(), jobs))


def lines_with(text, word):
    return [line for line in text.split("\n") if word in line]


def test_a_plan_of_a_run_not_begun_teaches_what_it_is(raw):
    text = text_of(stages(raw))
    for words in (
        "German to English, for medical", "small: 3 + 3 layers", "tiny: 1 + 1 layers",
        "distil, adapt, distil", "the same tries: at most 100 updates of 1,000 tokens",
        "4 → 9", "and 1 comparison of students", "student/tiny/{4,9}/medical × 2",
        "dad-calibrate", "dad-report --work work --watch", "as on another machine",
        "at the shortest, with any number side by side",
    ):  # fmt: skip
        assert words in " ".join(text.split()), words


def test_no_line_is_wider_than_a_hundred_columns(raw):
    text = text_of(stages(raw), configurations=list(range(1, 10)), domains=["medical"])
    wide = [line for line in text.split("\n") if len(line) > WIDTH]
    assert wide == []


def test_parts_come_in_order(raw):
    text = text_of(stages(raw))
    order = [text.index(f"\n{heading}\n") for heading in
             ("What will run", "What it costs", "What is not known", "How to go on")]  # fmt: skip
    assert order == sorted(order)


def test_several_seeds_are_said_and_are_no_longer_names(raw):
    assert "trained 3 times with different seeds" in text_of(stages(raw), seeds=[1, 2, 3])
    assert "with different seeds" not in text_of(stages(raw), seeds=[1])


def test_a_name_with_an_option_is_explained(raw):
    assert "A longer name" not in text_of(made := stages(raw))
    made.append(PlannedStage(9, "", "student/tiny/9-word/medical", (), made[5].command))
    assert "A longer name, such as 9-word" in text_of(made)


def test_only_the_configurations_that_are_asked_for_are_in_the_grid(raw):
    text = text_of(stages(raw))
    grid = text[text.index("learns from"):text.index("R and D")]
    assert [word for word in grid.split() if word.isdigit()] == ["4", "9"]


def test_one_configuration_promises_no_comparison_of_steps(raw):
    promise, advice = "finds out which of these steps pays", "--configuration 1,4,7,9 does"
    for configurations, said, unsaid in ((["9"], advice, promise), (["4", "9"], promise, advice)):
        text = " ".join(text_of(stages(raw), configurations=configurations).split())
        assert said in text and unsaid not in text


def test_a_finished_run_says_that_nothing_is_to_be_done_and_what_it_took(finished):
    text = text_of(stages(finished))
    assert "Nothing: all that was asked for is done." in text
    assert "took 1 min 30 s" in lines_with(text, "teacher/general")[0]
    assert "↻" not in text


def test_a_student_option_redoes_students_and_leaves_teachers_and_says_why(finished):
    text = text_of(stages(finished, student=("--dropout", "0.3")))
    for out in "teacher/general", "teacher/medical", "distilled/medical/medical":
        assert "✓" in next(line for line in lines_with(text, out) if line.startswith("     ✓"))
    assert "↻ student/tiny/{4,9}/medical × 2" in text
    assert "because settings changed: nothing → --dropout 0.3" in text
    assert "will be made again" in lines_with(text, "↻ report/medical")[0]
    assert "the whole run, from nothing" in text


def test_a_stage_that_cannot_be_made_is_marked(raw):
    shutil.rmtree(raw["medical"])
    text = text_of(stages(raw))
    assert "✗" in lines_with(text, "corpora/medical/text")[0]
    assert f"because {raw['medical']} is missing" in " ".join(text.split())


def test_what_was_not_asked_for_is_shown_as_such(raw):
    text = text_of(stages(raw), stages=[1, 4])
    assert "not asked for" in lines_with(text, "report/medical")[0]
    made = as_json(explain(Path("work"), Path("plan").resolve()))
    states = {stage["number"]: stage["state"] for stage in made["stages"]}
    assert {number for number, name in states.items() if name == "will be made"} == {1, 2, 3, 4}
    assert {name for number, name in states.items() if number > 4} == {"not asked for"}


def test_a_stage_under_way_is_told_apart_from_what_waits_for_it(raw, monkeypatch):
    Path("work").mkdir()
    (Path("work") / "vocabulary.lock").touch()
    monkeypatch.setattr("data_prep.pipeline.state.held",
                        lambda paths: {path for path in paths if path.exists()})  # fmt: skip
    text = text_of(stages(raw))
    assert "▶ vocabulary" in text and "waits for vocabulary" in text
    assert "because waits" not in text


def test_hours_of_a_plan_with_corpora_to_fetch_are_not_made_up(raw):
    made = stages(raw | {"general": "corpora/general/raw"})
    fetch = PlannedStage(1, "corpora", "corpora/general/raw", (),
                         ("python", "-m", "data_prep.fetch", "--out", "{out}"))  # fmt: skip
    text = text_of([fetch, *made])
    assert "not known for" in lines_with(text, "    time")[0]
    assert "?, at most" in lines_with(text, "teacher/general")[0]
    assert "data_prep.fetch --pair de-en --dry-run" in " ".join(text.split())


def test_a_gpu_that_nobody_measured_is_said_to_be_unknown(raw, monkeypatch):
    monkeypatch.setattr(module, "machine", lambda: HERE | {"gpus": ["NVIDIA H200"]})
    text = text_of(stages(raw))
    assert "of the NVIDIA H200 is not known" in " ".join(text.split())
    assert "?" in lines_with(text, "teacher/general")[0] and "GPU memory at the peak" in text


def test_too_little_memory_is_said(raw, monkeypatch):
    monkeypatch.setattr(module, "machine", lambda: HERE | {"memory_bytes": 2**20})
    assert "more RAM than this machine has" in " ".join(text_of(stages(raw)).split())


def test_too_little_room_on_the_disk_is_said(raw, monkeypatch):
    class Full:
        free = 1000

    monkeypatch.setattr(module.shutil, "disk_usage", lambda place: Full)
    assert "name another place with --work" in text_of(stages(raw))


def test_jobs_side_by_side_are_told(raw):
    assert "time, 3 side by side" in text_of(stages(raw), jobs=3)
    assert "side by side  " not in text_of(stages(raw)).replace("any number side by side", "")


def test_the_json_has_every_stage_with_state_reason_and_cost(finished):
    plan = plan_folder(Path("plan"), made := stages(finished, student=("--dropout", "0.3")))
    found = as_json(explain(Path("work"), plan.resolve()))
    assert [stage["out"] for stage in found["stages"]] == [stage.out for stage in made]
    by_out = {stage["out"]: stage for stage in found["stages"]}
    assert by_out["teacher/general"]["state"] == "done"
    assert by_out["teacher/general"]["took_seconds"] == 90.0
    student = by_out["student/tiny/references/general"]
    assert student["reasons"] == ["settings changed: nothing → --dropout 0.3"]
    assert student["seconds"][0] <= student["seconds"][1] and student["memory_bytes"] > 0
    assert found["now"]["stages"] < found["whole"]["stages"] == len(made)


def test_looking_leaves_the_working_directory_as_it_was(finished):
    before = Path.cwd()
    text_of(stages(finished))
    assert Path.cwd() == before


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (None, None, "?"), (30, 45, "30 to 45 s"), (45, 150, "45 s to 2.5 min"),
        (3 * 3600, 5 * 3600, "3 to 5 h"), (1200, 7200, "20 min to 2 h"),
        (3600, 3600, "about 1 h"), (86400 * 3, 86400 * 250, "3 to 250 d"),
        (3600 * 30, 3600 * 60, "30 h to 2.5 d"),
    ],
)  # fmt: skip
def test_times_are_said_as_people_say_them(low, high, words):
    assert hours(low, high) == words


@pytest.mark.parametrize(
    ("number", "words"), [(5000, "5 kB"), (2.5e6, "2.5 MB"), (13e9, "13 GB"), (2e12, "2 TB")]
)
def test_sizes_are_said_as_people_say_them(number, words):
    assert size(number) == words


@pytest.mark.parametrize(
    ("outs", "words"),
    [
        (["teacher/general"], "teacher/general"),
        (["s/1/a", "s/1/b", "s/4/a", "s/4/b"], "s/{1,4}/{a,b}"),
        (["s/1/a", "s/4/b"], "s/1/a s/4/b"),
        (["d/a/a", "d/b/b"], "d/DOMAIN/DOMAIN"),
        (["d/a/a-scratch", "d/b/b-scratch"], "d/DOMAIN/DOMAIN-scratch"),
        (["s/9", "s/9-seed2", "s/9-seed3"], "s/9, seeds 1, 2 and 3"),
        (["s/9/a", "s/9-seed2/a", "s/4/a", "s/4-seed2/a"], "s/{9,4}/a, seeds 1 and 2"),
        (["s/r/general", "s/1/a", "s/1/b", "s/2/a"], "s/..."),
    ],
)
def test_folders_that_are_alike_are_said_in_few_words(outs, words):
    assert module._name(outs) == words


def test_no_plan_is_an_error_that_says_what_to_do(raw, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["dad-plan", "--work", "nowhere"])
    with pytest.raises(SystemExit) as ended:
        module.main()
    assert ended.value.code == 1 and "holds no plan" in capsys.readouterr().err


def test_it_runs_where_nothing_is_installed(raw):
    """With neither site-packages nor any environment: a fresh clone."""
    plan = plan_folder(Path("plan"), stages(raw))
    start = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from data_prep.pipeline import explain"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"{start}; explain.main()", "--work", "work",
         "--plan", str(plan), "--format", "json"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["stages"][0]["state"] == "will be made"
