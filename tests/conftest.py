"""What all tests share."""

import multiprocessing
import signal
import sys
from multiprocessing import forkserver

import pytest

from data_prep import binarise

# what processes of tests would import for seconds each; what fairseq imports late, too
PRELOAD = [
    "tests.fixtures.fairseq_cli", "torch.fx.experimental.symbolic_shapes",
    "fairseq_plugins.selection.steps", "data_prep.cleaning.engine",
    "tests.integration.test_clean_faults", "tests.integration.test_generate_faults",
    "tests.integration.test_teacher_cache",
]  # fmt: skip


if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # started in the background of a script; what tests start would ignore Ctrl-C as well
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def fork_server():
    """The one server that processes are forked from; whoever starts it decides what it holds."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(PRELOAD)
    forkserver.ensure_running()


@pytest.fixture(scope="module", autouse=True)
def quick_preprocess():
    """fairseq-preprocess without its seconds of imports; test_binarise takes the real one."""
    from tests.fixtures.warm import warm_commands

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(binarise, "find_command", lambda name: str(warm_commands().folder / name))
        yield


@pytest.fixture
def dad_report(monkeypatch, capsys):
    """Run dad-report in this process: its status, what it printed, what it complained."""
    from fairseq_plugins.report import report

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["dad-report", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            report.main()
        printed = capsys.readouterr()
        return end.value.code or 0, printed.out, printed.err

    return call
