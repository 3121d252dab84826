"""data_prep/command.py: what the shell and the user see of each way to end."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import os, signal, sys, time
from data_prep import command

def work():
{body}

command.run(work, "dad-test")
"""


def run(*lines):
    body = "\n".join(f"    {line}" for line in lines)
    return subprocess.run(
        [sys.executable, "-c", PROGRAM.format(body=body)],
        cwd=ROOT, capture_output=True, text=True, timeout=60, preexec_fn=heed_ctrl_c,
    )  # fmt: skip


def heed_ctrl_c():
    """A test runner that was started in the background ignores it, and so would its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize("result, status", [("None", 0), ("0", 0), ("3", 3)])
def test_what_the_function_returns_is_the_exit_status(result, status):
    assert run(f"return {result}").returncode == status


@pytest.mark.parametrize(
    "mistake, message",
    [
        ("raise ValueError('--beam is 0')", "--beam is 0"),
        ("raise FileNotFoundError('train.de is missing')", "train.de is missing"),
        ("open('no-such-file')", "no-such-file: No such file or directory"),
    ],
)
def test_a_users_mistake_is_one_line_without_a_traceback(mistake, message):
    done = run(mistake)
    assert done.returncode == 1
    assert done.stderr == f"dad-test: error: {message}\n"


def test_our_own_mistake_keeps_its_traceback():
    done = run("raise TypeError('ours')")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


@pytest.mark.parametrize(
    "name, status, word",
    [("SIGTERM", 143, "terminated"), ("SIGINT", 130, "interrupted")],
)
def test_a_signal_is_told_calmly_and_by_its_usual_status(name, status, word):
    done = run(f"os.kill(os.getpid(), signal.{name})", "time.sleep(30)")
    assert done.returncode == status
    assert done.stderr == f"dad-test: {word}; run the same command again to go on\n"


def test_a_signal_lets_unfinished_files_be_removed():
    done = run("try:", "    os.kill(os.getpid(), signal.SIGTERM); time.sleep(30)",
               "finally:", "    print('removed')")  # fmt: skip
    assert done.stdout == "removed\n"


def test_a_reader_that_has_gone_is_no_error():
    script = [sys.executable, "-c", PROGRAM.format(body="    print('line\\n' * 100000)")]
    writer = subprocess.Popen(script, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    writer.stdout.close()
    assert writer.stderr.read() == b""
    writer.stderr.close()
    assert writer.wait(timeout=60) == 128 + signal.SIGPIPE
