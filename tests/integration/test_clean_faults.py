"""data_prep.clean when things go wrong: killed, told to stop, a worker lost, no space left."""

import contextlib
import importlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data_prep import clean as module
from tests.fixtures.bitext import ROOT, TRAIN, write_folder
from tests.fixtures.faults import die_at, on_a_small_disk, show_on

LONGEST_WAIT = 60  # seconds
# pytest's name of this module is one that no other process could import
HERE = "tests.integration.test_clean_faults"
SERVER = multiprocessing.get_context("forkserver")
STEPS = ["--step", "length", "--step", "length-ratio", "--step", "duplicate"]


def words(raw, out, *more):
    given = ["data_prep.clean", "--in", raw, "--source-lang", "de", "--target-lang", "en",
             "--out", out, *more]  # fmt: skip
    return list(map(str, given))


def outputs_of(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()
            if path.name != "manifest.json"}  # fmt: skip


# -- killed at every step --------------------------------------------------------------------


def work(given, screen, step, report):
    """The command in a process of its own, killed at a step; leaves the steps that it took."""
    show_on(screen)
    taken = die_at(step, given[given.index("--out") + 1])
    sys.argv = given
    try:
        module.main()
    finally:
        Path(report).write_text(json.dumps(taken))


def run(raw, out, step=None):
    """Exit status of the command, killed at a step."""
    screen, report = out.with_name("screen"), out.with_name("report")
    process = SERVER.Process(
        target=importlib.import_module(HERE).work, daemon=True,
        args=(words(raw, out, *STEPS, "--workers", 1), str(screen), step, str(report)),
    )  # fmt: skip
    process.start()
    process.join(LONGEST_WAIT)
    assert not process.is_alive()
    return process.exitcode


def test_killed_at_any_step_the_next_run_clears_up_and_writes_the_same(tmp_path):
    raw, out = write_folder(tmp_path / "raw", train=[*TRAIN, ("", "a"), TRAIN[0]]), tmp_path / "out"
    assert run(raw, out) == 0
    expected = outputs_of(out)
    steps = json.loads((tmp_path / "report").read_text())
    assert len(steps) > 20
    whole = steps.index("os.rename out.part")
    for step in range(0, len(steps), 3):
        for path in out.iterdir() if out.exists() else ():
            path.unlink()
        if out.exists():
            out.rmdir()
        assert run(raw, out, step) == -9
        assert out.exists() == (step > whole)
    if out.exists():
        assert outputs_of(out) == expected
    else:
        assert run(raw, out) == 0
        assert outputs_of(out) == expected
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"raw", "out", "screen", "report"}


# -- told to stop, or a worker lost ----------------------------------------------------------


@contextlib.contextmanager
def at_work(tmp_path):
    """A command with two workers in the midst of a large corpus, and the ids of its processes."""
    raw = write_folder(tmp_path / "raw", train=TRAIN * 5000)
    out = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-m", *words(raw, out, "--step", "repetition", "--workers", 2)],
        stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    try:
        deadline = time.monotonic() + LONGEST_WAIT
        # the command, the resource tracker, the fork server and its two workers
        while len(family := descendants(process.pid)) < 4:
            assert process.poll() is None and time.monotonic() < deadline, process.communicate()
            time.sleep(0.01)
        yield process, family
    finally:
        process.kill()
        process.communicate()


def descendants(pid):
    """Ids of the processes that a process has started, and of those that they have."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [*map(int, children), *(one for child in children for one in descendants(int(child)))]


def end_of(process, family, tmp_path):
    """What was said; every process has ended."""
    said = process.communicate(timeout=LONGEST_WAIT)[1]
    deadline = time.monotonic() + LONGEST_WAIT
    while any(Path(f"/proc/{pid}/cmdline").exists() and is_running(pid) for pid in family):
        assert time.monotonic() < deadline, f"{family} outlive the command"
        time.sleep(0.02)
    assert not (tmp_path / "out").exists()
    return said


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.parametrize(
    "sent, status, told",
    [
        (signal.SIGINT, 130, "interrupted; run the same command again"),
        (signal.SIGTERM, 143, "terminated; run the same command again"),
        (signal.SIGKILL, -9, ""),
    ],
)
def test_stopped_it_leaves_neither_processes_nor_an_output(tmp_path, sent, status, told):
    with at_work(tmp_path) as (process, family):
        if sent == signal.SIGINT:
            os.killpg(process.pid, sent)  # as a terminal does
        else:
            process.send_signal(sent)
        said = end_of(process, family, tmp_path)
    assert process.returncode == status
    assert told in said and "Traceback" not in said
    assert (tmp_path / "out.part").exists() == (sent == signal.SIGKILL)


def test_a_killed_worker_is_one_message(tmp_path):
    with at_work(tmp_path) as (process, family):
        os.kill(family[-1], signal.SIGKILL)
        said = end_of(process, family, tmp_path)
    assert process.returncode == 1
    assert said.splitlines()[-1] == (
        "data_prep.clean: error: a worker process was killed, perhaps for want of memory; "
        "try fewer --workers"
    )
    assert not (tmp_path / "out.part").exists()


# -- no space left ---------------------------------------------------------------------------


def work_on_a_small_disk(given, disk, screen, report):
    """Run the command on a disk with a little more room every time, until it succeeds."""
    try:
        entries = [
            [status, said, sorted(path.name for path in Path(disk).iterdir())]
            for status, said in on_a_small_disk(
                module.main, given, disk, range(16, 4000, 40), screen
            )
        ]
    except OSError as error:
        entries = str(error)
    Path(report).write_text(json.dumps(entries))


def test_a_full_disk_is_one_message_and_leaves_nothing(tmp_path):
    train = [(f"{number} {src}", tgt) for number in range(60) for src, tgt in TRAIN]
    raw = write_folder(tmp_path / "raw", train=train)
    disk, report = tmp_path / "disk", tmp_path / "report"
    disk.mkdir()
    process = SERVER.Process(
        target=importlib.import_module(HERE).work_on_a_small_disk, daemon=True,
        args=(words(raw, disk / "out", *STEPS, "--workers", 1), str(disk),
              str(tmp_path / "screen"), str(report)),
    )  # fmt: skip
    process.start()
    process.join(LONGEST_WAIT)
    entries = json.loads(report.read_text())
    if isinstance(entries, str):
        pytest.skip(f"no small disk here: {entries}")
    *full, last = entries
    assert len(full) > 3
    for status, said, there in full:
        assert status == 1 and there == []
        assert "No space left on device" in said.splitlines()[-1] and "Traceback" not in said
    assert last[0] == 0 and last[2] == ["out"]
