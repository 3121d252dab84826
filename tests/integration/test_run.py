"""dad-run with stand-in commands: what is seen, what a failure, a signal or a kill leaves."""

import fcntl
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data_prep.pipeline import schedule
from data_prep.pipeline.graph import PlannedStage, write_plan
from data_prep.pipeline.stage import beside

# a command that writes {out}/made; what it does before stands in its first word
STAND_IN = '#!/bin/sh\nset -e\neval "$1"\nmkdir -p "$2"\necho "$2" > "$2"/made\n'
COMMANDS = ("train.sh", "dad-speed", "dad-report", "text")
SECONDS = 60  # that a test waits for something at most


@pytest.fixture
def work(tmp_path, monkeypatch):
    """The run's folder; stand-ins are on PATH."""
    (tmp_path / "bin").mkdir()
    for name in COMMANDS:
        (tmp_path / "bin" / name).write_text(STAND_IN)
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


def stage(out, *inputs, do="true", command="train.sh", number=4, **options):
    return PlannedStage(number, "title", out, inputs, (command, do, "{out}"), **options)


def command(work, *flags):
    return [sys.executable, "-P", "-m", "data_prep.pipeline.schedule", "--work", work, *flags]


def dad_run(work, stages, *flags):
    """Plan and run; (exit status, lines)."""
    if stages:
        plan(work, stages)
    done = subprocess.run(
        command(work, *flags), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    return done.returncode, done.stdout.split("\n")


def plan(work, stages):
    (work / "plan").mkdir(exist_ok=True)
    write_plan(work / "plan" / "stages.json", stages)


def start(work, *flags, **options):
    process = subprocess.Popen(
        command(work, *flags), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True, **options,
    )  # fmt: skip
    return process


def wait_for(path):
    """The number that a command has written into a file."""
    wait_until(lambda: path.exists() and path.read_text().strip())
    return int(path.read_text())


def wait_until(true):
    for _ in range(20 * SECONDS):
        if true():
            return
        time.sleep(0.05)
    raise AssertionError("waited in vain")


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def made(work):
    return {str(path.parent.relative_to(work)) for path in work.rglob("made")}


def test_stages_are_run_and_lines_say_whose_they_are(work):
    stages = [
        stage("a", do="echo one; echo two", number=1),
        stage("b", "a", do="echo three"),
        stage("r", "b", do="echo '  table'", command="dad-report", number=11),
    ]
    status, lines = dad_run(work, stages)
    assert status == 0 and made(work) == {"a", "b", "r"}
    assert [line for line in lines if line] == [
        "Stage 1 of 12: title", "a: to be made", "a: one", "a: two", "a: done in 0 s",
        "Stage 4 of 12: title", "b: to be made", "b: three", "b: done in 0 s",
        "Stage 11 of 12: title", "r: to be made", "  table", "r: done in 0 s",
    ]  # fmt: skip
    assert json.loads((work / "b" / "stage.json").read_text())["inputs"].keys() == {"a/made"}


def test_a_finished_run_starts_no_process(work, monkeypatch, capsys):
    dad_run(work, [stage("a"), stage("b", "a")])
    monkeypatch.chdir(work)
    monkeypatch.setattr(sys, "argv", ["dad-run", "--work", str(work)])
    monkeypatch.setattr(schedule, "Child", None)
    assert schedule._main() == 0
    assert capsys.readouterr().err.count(": done before, nothing changed\n") == 2


def test_what_is_done_is_skipped_and_what_changed_is_not(work):
    stages = [stage("a"), stage("b", "a"), stage("c")]
    dad_run(work, stages)
    (work / "a" / "made").write_text("other\n")
    status, lines = dad_run(work, stages, "--jobs", "1")
    assert status == 0 and "c: done before, nothing changed" in lines
    assert "a: output made is changed" in lines  # and is made as before
    assert "b: done before, nothing changed" in lines
    status, lines = dad_run(work, [stage("a", do="echo new; false || true"), *stages[1:]])
    assert any(line.startswith("a: settings changed: ") for line in lines)


def shares_of(work, out):
    words = (work / out / "shares").read_text().split()
    return dict(word.split("=", 1) for word in words)


ASK = 'mkdir -p "$2"; env | grep -E "^(OMP_NUM_THREADS|PYTHON_CPU_COUNT|CUDA_VISIBLE_DEVICES)=" > "$2"/shares'  # noqa: E501


@pytest.mark.parametrize("omp", [None, "7"])
def test_a_stage_is_told_its_share_of_cores_and_gpus(work, monkeypatch, omp):
    monkeypatch.setenv("PYTHON_CPU_COUNT", "6")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    if omp:
        monkeypatch.setenv("OMP_NUM_THREADS", omp)
    stages = [
        stage("t", do=ASK), stage("a", "t", do=ASK), stage("b", "t", do=ASK),
        stage("text", do=ASK, command="text"), stage("speed", "a", do=ASK, command="dad-speed"),
    ]  # fmt: skip
    assert dad_run(work, stages)[0] == 0
    found = {stage.out: shares_of(work, stage.out) for stage in stages}
    assert {out: told["PYTHON_CPU_COUNT"] for out, told in found.items()} == {
        "t": "6", "a": "3", "b": "3", "text": "6", "speed": "6",
    }  # fmt: skip
    assert all(told["OMP_NUM_THREADS"] == (omp or told["PYTHON_CPU_COUNT"])
               for told in found.values())  # fmt: skip
    visible = {out: told["CUDA_VISIBLE_DEVICES"] for out, told in found.items()}
    assert visible["text"] == "" and visible["speed"] == "3,5" and visible["t"] == "3"
    assert {visible["a"], visible["b"]} <= {"3", "5"}


def test_what_needs_nothing_of_a_failed_stage_is_made_and_the_end_says_what_is_missing(work):
    stages = [
        stage("bad", do="echo seen; echo the reason; exit 7"), stage("after", "bad"),
        stage("last", "after"), stage("other", do="sleep 1"), stage("more", "other"),
    ]  # fmt: skip
    status, lines = dad_run(work, stages)
    assert status == 1 and made(work) == {"other", "more"}
    end = lines[lines.index("dad-run: error: 1 of 5 stages failed") :]
    assert end[2:] == [
        "bad: the command failed with status 7; its whole output is in bad.log",
        "  seen", "  the reason", "", "Left undone: after, last.", "",
        "Mend it and run the same command again: it goes on.", "",
    ]  # fmt: skip
    plan(work, [stage("bad"), *stages[1:]])
    status, lines = dad_run(work, None)
    assert status == 0 and made(work) == {"bad", "after", "last", "other", "more"}


def test_fail_fast_starts_nothing_more_but_finishes_what_runs(work):
    stages = [
        stage("bad", do="exit 7"), stage("other", do="sleep 1"), stage("more", "other"),
    ]  # fmt: skip
    status, lines = dad_run(work, stages, "--fail-fast", "--jobs", "2")
    assert status == 1 and made(work) == {"other"}
    assert "Left undone: more." in lines


def test_a_stage_that_cannot_begin_is_a_failure_and_says_why(work):
    status, lines = dad_run(work, [stage("a", "nowhere")])
    assert status == 1 and "a: nowhere, an input of a, is missing" in lines


@pytest.mark.parametrize("number, expected", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_every_command_and_the_next_run_goes_on(work, number, expected):
    do = 'mkdir -p "$2"; sh -c "echo \\$\\$ > {}.pid; exec sleep 300"'
    if_half = '[ -e "$2"/half ] || { touch "$2"/half; %s; }'
    stages = [
        stage(out, do='mkdir -p "$2"; ' + if_half % do.format(out), resume=True) for out in "ab"
    ]
    plan(work, stages)
    process = start(work, "--jobs", "2")
    pids = [wait_for(work / f"{out}.pid") for out in "ab"]
    process.send_signal(number)
    process.send_signal(number)  # an impatient user
    said = process.communicate(timeout=SECONDS)[0]
    assert process.returncode == expected
    assert said.endswith("; run the same command again to go on\n")
    assert "Traceback" not in said
    assert not any(map(is_alive, pids))
    assert made(work) == set() and beside(work / "a", ".part").is_dir()
    assert dad_run(work, None)[0] == 0
    assert made(work) == {"a", "b"} and (work / "a" / "half").exists()


def test_after_kill_9_no_stage_lives_on_and_the_next_run_goes_on(work):
    do = 'mkdir -p "$2"; [ -e "$2"/half ] || { touch "$2"/half; echo $$ > a.pid; sleep 300; }'
    plan(work, [stage("a", do=do, resume=True)])
    process = start(work)
    pid = wait_for(work / "a.pid")
    process.kill()
    process.wait()
    process.stdout.close()
    wait_until(lambda: not is_alive(pid))
    status, lines = dad_run(work, None)
    assert status == 0 and (work / "a" / "half").exists()
    assert "a: going on after a stop" in lines


def test_a_stage_whose_process_is_killed_has_failed(work):
    do = "echo $$ > command.pid; echo $PPID > a.pid; sleep 300"
    plan(work, [stage("a", do=do), stage("b", "a")])
    process = start(work)
    os.kill(wait_for(work / "a.pid"), signal.SIGKILL)
    said = process.communicate(timeout=SECONDS)[0]
    assert process.returncode == 1
    assert "a: dad-stage was killed by signal 9" in said and "Left undone: b." in said
    # its command lives on and holds the lock; the next run would wait for it
    os.killpg(int((work / "command.pid").read_text()), signal.SIGKILL)


def test_two_runs_of_one_folder_do_each_stage_once(work):
    do = "echo ran >> $2.runs; sleep 1"
    plan(work, [stage("a", do=do), stage("b", "a", do=do), stage("c", do=do)])
    both = [start(work) for _ in range(2)]
    said = [process.communicate(timeout=SECONDS)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert made(work) == {"a", "b", "c"}
    assert all((work / f"{out}.part.runs").read_text() == "ran\n" for out in "abc")
    assert "waiting for another process that is making it" in "".join(said)


def test_filters_leave_out_what_is_done_and_refuse_what_is_needed(work):
    stages = [stage("a", number=1), stage("b", "a", number=2), stage("c", "b", number=3)]
    status, lines = dad_run(work, stages, "--first", "2")
    assert status == 1
    assert lines[0].startswith("dad-run: error: b needs a, which is not done and not among")
    assert dad_run(work, None, "--last", "1")[0] == 0 and made(work) == {"a"}
    assert dad_run(work, None, "--only", "[b]")[0] == 0 and made(work) == {"a", "b"}


def test_commands_are_found_though_no_environment_is_active(work, monkeypatch):
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    words = ("python", "-c", "import data_prep, pathlib; pathlib.Path('{out}').mkdir()")
    stages = [PlannedStage(1, "text", "a", (), words), PlannedStage(
        4, "teacher", "b", ("a",), ("train.sh", "--data", "d", "--size", "tiny", "--out", "{out}")
    )]  # fmt: skip
    status, lines = dad_run(work, stages, "--last", "1")
    assert status == 0, lines
    status, lines = dad_run(work, stages, "--dry-run")
    assert status == 0 and any(line.startswith("fairseq-train d ") for line in lines)
    assert any(line.startswith("python -c ") for line in lines) and not (work / "b").exists()


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--jobs", "0"], "argument --jobs: invalid number above 0 value: '0'"),
        (["--jobs-per-gpu", "x"], "argument --jobs-per-gpu: invalid number above 0 value: 'x'"),
        (["--only", "nothing"], "--only nothing: no stage of the plan makes such a folder"),
    ],
)
def test_bad_options_are_refused(work, flags, message):
    status, lines = dad_run(work, [stage("a")], *flags)
    assert status != 0 and message in "\n".join(lines) and made(work) == set()


def test_a_folder_without_a_plan_is_an_error(work):
    status, lines = dad_run(work, None)
    assert status == 1 and "stages.json is missing" in lines[0]


def on_terminal(work):
    """What dad-run writes to a terminal, without colours and movements."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, 0x5414, b"\x28\x00\x64\x00\x00\x00\x00\x00")  # 40 lines of 100 columns
    process = subprocess.Popen(
        command(work, "--jobs", "2"), stdin=theirs, stdout=theirs, stderr=theirs,
        env={**os.environ, "TERM": "xterm"},
    )  # fmt: skip
    os.close(theirs)
    seen = b""
    while True:
        try:
            seen += os.read(ours, 1 << 16)
        except OSError:  # nobody writes any more
            break
    os.close(ours)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.decode())
    return process.wait(), [line.rstrip() for line in re.split(r"[\r\n]+", text)]


BAR = "printf '\\rcleaning:  50%%|#####     | 10/20 [00:05<00:05]'"


def test_on_a_terminal_a_line_shows_how_far_each_stage_is_and_events_scroll(work):
    plan(work, [
        stage("teacher/a", do=f"{BAR}; sleep 3", screen="train"),
        stage("teacher/b", do="echo failing; exit 3", screen="train"),
        stage("teacher/c", do="echo in the log; true", screen="train"),
    ])  # fmt: skip
    status, lines = on_terminal(work)
    assert status == 1
    (shown, *_) = [line for line in lines if line.startswith("teacher/a  ")and "50 %" in line]
    assert re.search(r"cleaning: 10 of 20 +50 %, about 5 s left$", shown)
    assert any(line.startswith("1 of 3 stages done, 1 failed") for line in lines)
    assert "teacher/c: done in 0 s" in lines and "teacher/b: failing" in lines
    assert "teacher/c: in the log" not in lines
    assert "dad-run: error: 1 of 3 stages failed" in lines
