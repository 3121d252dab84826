"""What becomes of each stage, told before anything runs."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from data_prep.manifest import write_json
from data_prep.pipeline import lock_holders, state
from data_prep.pipeline.graph import dependencies
from data_prep.pipeline.stage import beside, fingerprint_inputs
from data_prep.pipeline.state import (
    AGAIN,
    BLOCKED,
    DONE,
    GOES_ON,
    LEFT_OUT,
    NEW,
    RUNNING,
    states,
)
from tests.fixtures.planned import finish, plan_folder, raw_text, stages

STUDENTS = {"student/tiny/distilled/general", "student/tiny/references/general",
            "student/tiny/4/medical", "student/tiny/9/medical"}  # fmt: skip


@pytest.fixture
def raw(tmp_path, monkeypatch):
    found = {name: raw_text(tmp_path / "raw" / name) for name in ("general", "medical")}
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return found


@pytest.fixture
def finished(raw):
    """The raw text of a run that is finished."""
    made = stages(raw)
    plan_folder(Path("plan"), made)
    for stage in made:
        finish(stage)
    return raw


def names(made, **options):
    return {out: found.name for out, found in states(made, **options).items()}


def changed(made, **options):
    return {out for out, name in names(made, **options).items() if name != DONE}


def from_these(made, first):
    """Stages that read some of these, directly or not, and these."""
    found = set(first)
    for out, needed in dependencies(made).items():
        if found & set(needed):
            found.add(out)
    return found


def test_of_a_finished_run_all_is_done(finished):
    assert set(names(stages(finished)).values()) == {DONE}


def test_of_a_run_not_begun_all_will_be_made(raw):
    assert set(names(stages(raw)).values()) == {NEW}


def test_a_student_option_redoes_the_students_and_what_follows_and_nothing_else(finished):
    made = stages(finished, student=("--dropout", "0.3"))
    assert changed(made) == from_these(made, STUDENTS)
    assert names(made)["teacher/medical"] == names(made)["distilled/medical/medical"] == DONE


def test_the_reason_is_the_word_that_changed_or_the_stage_it_comes_from(finished):
    found = states(stages(finished, student=("--dropout", "0.3")))
    assert found["student/tiny/references/general"].reasons == (
        "settings changed: nothing → --dropout 0.3",
    )
    # both are told of a student whose own words changed and whose start will be made again
    assert found["student/tiny/9/medical"].reasons == (
        "settings changed: nothing → --dropout 0.3",
        "comes from student/tiny/distilled/general",
    )
    assert found["exported/student/tiny/9/medical"].reasons == (
        "comes from student/tiny/9/medical",
    )


def test_a_changed_text_redoes_what_it_is_made_into(finished):
    (finished["medical"] / "train.de").write_text("anders\n" * 300)
    found = states(made := stages(finished))
    assert "input" in found["corpora/medical/text"].reasons[0]
    assert changed(made) == from_these(made, {"corpora/medical/text"})
    assert found["teacher/general"].name == DONE


def test_a_touched_text_redoes_nothing(finished):
    os.utime(finished["medical"] / "train.de", (1, 1))
    assert changed(stages(finished)) == set()


def test_what_was_removed_will_be_made_and_what_reads_it_again(finished):
    shutil.rmtree("teacher/medical")
    found = names(made := stages(finished))
    assert found["teacher/medical"] == NEW
    assert {out for out, name in found.items() if name == AGAIN} == from_these(
        made, {"teacher/medical"}
    ) - {"teacher/medical"}


def test_an_output_that_was_edited_is_made_again(finished):
    Path("teacher/general/made").write_text("by hand")
    found = states(stages(finished))
    assert found["teacher/general"].reasons == ("output made is changed",)


def test_a_new_row_in_the_table_redoes_the_report_alone(finished, tmp_path):
    plan = plan_folder(tmp_path / "other", made := stages(finished))
    assert changed(made, plan=plan) == set()
    with open(plan / "medical.rows.tsv", "a") as table:
        table.write("10\tstudent\n")
    assert changed(made, plan=plan) == {"report/medical"}


def test_a_text_that_is_nowhere_stops_what_reads_it_and_is_named(finished):
    shutil.rmtree(finished["medical"])
    found = states(stages(finished))
    assert found["corpora/medical/text"].name == BLOCKED
    assert str(finished["medical"]) in found["corpora/medical/text"].reasons[0]


def test_what_needs_a_stage_that_is_not_asked_for_cannot_be_made(raw):
    made = stages(raw)
    for stage in made[:5]:
        finish(stage)
    found = states(made, first=5)
    assert found["teacher/general"].name == LEFT_OUT
    assert found["distilled/general/general"].name == BLOCKED
    assert found["distilled/general/general"].reasons == (
        "teacher/general is missing and not asked for",
    )
    assert names(made, last=4)["teacher/general"] == NEW
    later = {stage.out for stage in made if stage.number > 4}
    assert {names(made, last=4)[out] for out in later} == {LEFT_OUT}


def test_a_stage_that_is_not_asked_for_redoes_nothing_after_it(finished):
    made = stages(finished, teacher=("--dropout", "0.3"))
    assert changed(made, first=8) == {"teacher/general", "teacher/medical"}
    assert names(made, first=8)["teacher/medical"] == LEFT_OUT


def stop(stage, **other):
    """Leave what a kill leaves of a stage."""
    out = Path(stage.out)
    beside(out, ".part").mkdir(parents=True)
    request = {"command": list(stage.command), "inputs": fingerprint_inputs(stage.inputs, out)}
    write_json(beside(out, ".request.json"), request | other)


def with_text_and_teacher(raw):
    made = stages(raw)
    for stage in made[:5]:
        finish(stage)
    stop(made[5])
    return made


def test_a_stopped_training_goes_on_and_what_follows_is_made(raw):
    found = names(with_text_and_teacher(raw))
    assert found["teacher/general"] == GOES_ON
    assert found["distilled/general/general"] == NEW


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        ("words", "settings changed: nothing → --dropout 0.3"),
        ("input", "an input has changed"),
        ("upstream", "comes from corpora/general/prepared"),
        ("command", "cannot go on after a stop"),
    ],
)
def test_a_stopped_training_begins_again_when(raw, harm, reason):
    made = with_text_and_teacher(raw)
    if harm == "words":
        made = stages(raw, teacher=("--dropout", "0.3"))
    elif harm == "command":
        made[5] = replace(made[5], resume=False)
    elif harm == "upstream":
        shutil.rmtree("corpora/general/prepared")
    else:
        shutil.rmtree("corpora/general/prepared")
        changed_stage = replace(made[3], command=(*made[3].command, "--more"))
        made[3] = changed_stage
        finish(changed_stage)
    found = states(made)["teacher/general"]
    assert found.name == NEW and reason in found.reasons[0]
    assert found.reasons[0].startswith("from the beginning: ")


def test_what_a_stopped_stage_read_is_not_hashed_again(raw, monkeypatch):
    made = stages(raw)
    stop(made[0])
    monkeypatch.setattr("data_prep.pipeline.stage.sha256", lambda path: pytest.fail(str(path)))
    assert "cannot go on" in states(made[:1])["corpora/general/text"].reasons[0]


def test_a_stage_that_is_being_made_is_not_looked_into(raw, monkeypatch):
    made = with_text_and_teacher(raw)
    lock = beside(Path("teacher/general"), ".lock")
    lock.touch()
    monkeypatch.setattr(state, "held", lambda paths: {path for path in paths if path == lock})
    found = states(made)
    assert found["teacher/general"].name == RUNNING
    assert found["distilled/general/general"].reasons == ("waits for teacher/general",)


def test_a_folder_that_no_stage_made_is_not_touched(raw):
    Path("vocabulary").mkdir()
    found = states(stages(raw))["vocabulary"]
    assert found.name == BLOCKED and "move it away" in found.reasons[0]


def test_looking_changes_and_locks_nothing(finished):
    def files():
        return {path: path.stat().st_mtime_ns for path in Path().rglob("*")}

    before = files()
    states(stages(finished, student=("--dropout", "0.3")))
    assert files() == before
    assert lock_holders.held(Path().rglob("*.lock")) == set()


def test_files_as_they_were_are_not_hashed(finished, monkeypatch):
    def refuse(path):
        raise AssertionError(f"{path} was hashed")

    monkeypatch.setattr("data_prep.pipeline.stage.sha256", refuse)
    made = stages(finished, student=("--dropout", "0.3"))
    plan = [stage for stage in made if not stage.out.startswith("report")]
    assert states(plan)["teacher/general"].name == DONE
