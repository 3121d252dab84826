import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data_prep.manifest import read_json
from data_prep.pipeline import stage as stage_module
from data_prep.pipeline.stage import difference, duration, is_up_to_date, run_stage, times

COPY = "mkdir -p {out}; cat in.txt > {out}/copy; echo ran >> runs.txt"


@pytest.fixture
def work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.txt").write_text("first\n")
    return tmp_path


def runs(work):
    path = work / "runs.txt"
    return len(path.read_text().splitlines()) if path.exists() else 0


def stage(script=COPY, out="stage", inputs=("in.txt",), **options):
    return run_stage(["sh", "-c", script], out, inputs, **options)


def test_a_finished_stage_is_skipped(work, capfd):
    assert stage() == 0 and stage() == 0
    assert runs(work) == 1
    assert "nothing changed" in capfd.readouterr().err


def test_a_changed_input_redoes_the_stage_and_is_named(work, capfd):
    stage()
    (work / "in.txt").write_text("second\n")
    stage()
    assert (work / "stage" / "copy").read_text() == "second\n"
    assert "input in.txt is changed" in capfd.readouterr().err


def test_touching_an_input_does_not_redo_the_stage(work):
    stage()
    os.utime(work / "in.txt", (1, 1))
    stage()
    assert runs(work) == 1


def test_a_changed_setting_redoes_the_stage_and_is_shown(work, capfd):
    run_stage(["sh", "-c", COPY, "--lr", "0.1"], "stage", ["in.txt"])
    run_stage(["sh", "-c", COPY, "--lr", "0.2"], "stage", ["in.txt"])
    assert runs(work) == 2
    assert "settings changed: --lr 0.1 → 0.2" in capfd.readouterr().err


@pytest.mark.parametrize("harm", ["edit", "remove"])
def test_an_output_that_was_tampered_with_is_made_again(work, harm, capfd):
    stage()
    copy = work / "stage" / "copy"
    copy.write_text("edited by hand\n") if harm == "edit" else copy.unlink()
    stage()
    assert copy.read_text() == "first\n"
    assert "output copy is" in capfd.readouterr().err


def test_a_failed_command_leaves_no_folder_and_its_status(work, capfd):
    assert stage("mkdir {out}; echo half > {out}/copy; exit 7") == 7
    assert not (work / "stage").exists()
    assert "failed with status 7" in capfd.readouterr().err
    log = (work / "stage.log").read_text()
    assert log.endswith("\ndad-stage: error: the command failed with status 7\n")


@pytest.mark.parametrize(
    "screen, shown",
    [
        ("all", "cleaning: 0%\rcleaning: 100%\nkept 9 in stage/kept\n"),
        ("lines", "cleaning: 100%\nkept 9 in stage/kept\n"),
        ("train", ""),
        ("none", ""),
    ],
)
def test_of_a_bar_lines_are_shown_alone_where_that_is_wished(work, capfd, screen, shown):
    script = COPY + "; printf 'cleaning: 0%%\\rcleaning: 100%%\\nkept 9 in %s/kept\\n' {out}"
    assert stage(script, screen=screen) == 0
    said = capfd.readouterr().err
    before, after = "stage: to be made\n", "stage: done in 0 s\n"
    assert said == before + shown + after


def test_a_failed_redo_leaves_the_old_result(work):
    stage()
    assert stage("mkdir {out}; exit 1") == 1
    assert (work / "stage" / "copy").read_text() == "first\n"


def test_a_command_that_makes_nothing_is_an_error(work):
    with pytest.raises(ValueError, match="made no folder"):
        stage("echo {out}")


def test_a_command_may_make_a_file_inside_the_folder(work):
    assert run_stage(["cp", "in.txt", "{out}/copy"], "stage", ["in.txt"]) == 0
    assert (work / "stage" / "copy").read_text() == "first\n"


def test_a_missing_input_is_named(work):
    with pytest.raises(FileNotFoundError, match="absent.txt, an input of stage, is missing"):
        stage(inputs=["absent.txt"])


def test_a_folder_that_no_stage_made_is_left_alone(work):
    (work / "stage").mkdir()
    (work / "stage" / "precious").write_text("mine")
    with pytest.raises(ValueError, match="no stage made it"):
        stage()
    assert (work / "stage" / "precious").read_text() == "mine"


def test_resume_keeps_what_a_stopped_run_left_and_otherwise_it_is_wiped(work):
    script = (
        "mkdir -p {out}; [ -e {out}/half ] && touch {out}/went_on; touch {out}/half; test -e go"
    )
    assert stage(script, resume=True) != 0
    (work / "go").touch()
    assert stage(script, resume=True) == 0
    assert (work / "stage" / "went_on").exists()

    (work / "go").unlink()
    assert stage(script, out="other") != 0
    (work / "go").touch()
    assert stage(script, out="other") == 0
    assert not (work / "other" / "went_on").exists()


def test_resume_with_other_settings_starts_afresh(work):
    assert stage("mkdir {out}; touch {out}/old; exit 1", resume=True) == 1
    assert stage("mkdir -p {out}; touch {out}/new", resume=True) == 0
    assert not (work / "stage" / "old").exists()


def test_the_next_stage_sees_content_and_not_records(work):
    stage(out="first")
    run_stage(["sh", "-c", "mkdir {out}; cp first/copy {out}"], "second", ["first"])
    shutil.rmtree("first")
    time.sleep(1.1)  # the record of the same stage, run later, holds another time
    stage(out="first")
    inputs = read_json("second/stage.json")["inputs"]
    assert list(inputs) == ["first/copy"]
    assert run_stage(["sh", "-c", "mkdir {out}; cp first/copy {out}"], "second", ["first"]) == 0
    assert runs(work) == 2


def test_the_record_says_what_was_done(work):
    stage(COPY + "; echo said aloud")
    record = read_json("stage/stage.json")
    assert record["command"] == ["sh", "-c", COPY + "; echo said aloud"]
    assert set(record["outputs"]) == {"copy"}
    assert record["versions"]["python"] and record["seconds"] >= 0
    assert (work / "stage" / "log.txt").read_text().endswith("said aloud\n")


def start(*words, cwd):
    command = [sys.executable, "-m", "data_prep.pipeline.stage", *words]
    return subprocess.Popen(command, cwd=cwd, stderr=subprocess.PIPE, text=True)


def test_two_runs_at_once_do_a_stage_once(work):
    slow = "sleep 1; mkdir {out}; echo ran >> runs.txt"
    words = ("--out", "stage", "--", "sh", "-c", slow)
    both = [start(*words, cwd=work) for _ in range(2)]
    said = "".join(process.communicate(timeout=60)[1] for process in both)
    assert runs(work) == 1
    assert "waiting for another process" in said and "nothing changed" in said
    assert not (work / "stage.lock").exists()


def test_after_kill_9_the_stage_is_done_by_the_next_run(work):
    slow = "echo $$ > pid; mkdir -p {out}; sleep 2; echo ran >> runs.txt; touch {out}/done"
    words = ("--resume", "--out", "stage", "--", "sh", "-c", slow)
    first = start(*words, cwd=work)
    while not (work / "stage.part").exists():
        time.sleep(0.05)
    first.kill()
    first.wait()
    assert not (work / "stage").exists()
    # its command lives on and holds the lock: the second run waits, then goes on in its folder
    second = start(*words, cwd=work)
    assert "waiting for another process" in second.communicate(timeout=60)[1]
    assert second.returncode == 0
    assert (work / "stage" / "done").exists()


def test_sigterm_stops_the_commands_children_too(work):
    first = start(
        "--out", "stage", "--", "sh", "-c", "mkdir {out}; sh -c 'echo $$ > pid; sleep 60'", cwd=work
    )
    while not (work / "pid").exists() or not (work / "pid").read_text().strip():
        time.sleep(0.05)
    first.send_signal(signal.SIGTERM)
    assert first.wait(timeout=20) == 143
    with pytest.raises(ProcessLookupError):
        for _ in range(100):
            os.kill(int((work / "pid").read_text()), 0)
            time.sleep(0.05)


def test_a_command_that_does_not_heed_sigterm_is_killed(work, monkeypatch):
    monkeypatch.setattr(stage_module, "GRACE", 0.3)
    script = "trap '' TERM; echo > ready; while :; do sleep 0.1; done"
    child = subprocess.Popen(["sh", "-c", script], process_group=0)
    while not (work / "ready").exists():
        time.sleep(0.05)
    stage_module.stop(child)
    assert child.returncode == -signal.SIGKILL


def test_whether_a_stage_is_up_to_date_is_told_without_reading_files(work, monkeypatch):
    def is_done(script=COPY):
        return is_up_to_date(["sh", "-c", script], "stage", ["in.txt"])

    assert not is_done()
    stage()
    monkeypatch.setattr(stage_module, "sha256", lambda file: pytest.fail("it reads"))
    assert is_done() and not (work / "stage.lock").exists()
    assert not is_done("true {out}")
    with stage_module.lock(Path("stage")):  # another process makes it
        assert not is_done()
    os.utime(work / "stage" / "copy", (1, 1))
    assert not is_done()
    for damage in ("{}", "{"):  # of an older version, and cut short
        (work / "stage" / "stage.json").write_text(damage)
        assert not is_done()


def test_an_input_made_again_with_the_same_content_is_known_from_its_makers_record(work):
    stage(out="first")
    words = ["sh", "-c", "mkdir {out}; cp first/copy {out}"]
    run_stage(words, "second", ["first"])
    shutil.rmtree("first")
    stage(out="first")
    assert is_up_to_date(words, "second", ["first"])
    (work / "in.txt").unlink()
    assert not is_up_to_date(["sh", "-c", COPY], "first", ["in.txt"])


def test_a_stage_ends_with_the_process_that_it_was_told_of(work):
    """Also where that had ended before the stage could ask."""
    first = start("--parent", "1", "--out", "stage", "--", "sh", "-c", COPY, cwd=work)
    assert first.wait(timeout=60) == 143 and runs(work) == 0


def test_differences_name_the_flag():
    assert difference(["a", "--lr", "1", "--x"], ["a", "--lr", "2", "--x"]) == "--lr 1 → 2"
    assert difference(["a"], ["a", "--new"]) == "nothing → --new"


@pytest.mark.parametrize(
    "seconds, text", [(0.2, "0 s"), (59.4, "59 s"), (61, "1 min 1 s"), (7260, "2 h 1 min")]
)
def test_durations_read_well(seconds, text):
    assert duration(seconds) == text


def test_times_list_every_finished_stage_and_the_sum(work):
    stage()
    table = times(work)
    assert table.splitlines()[0].startswith("stage ")
    assert table.splitlines()[-1].startswith("all ")
    with pytest.raises(ValueError, match="no stage"):
        times(work / "nowhere")
