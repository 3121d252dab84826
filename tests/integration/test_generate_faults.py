"""dad-generate when things go wrong: killed, no space left, told to stop, its source changed.

Each run is a process of its own, forked from a server that has imported everything, as in
``tests.fixtures.fairseq_cli``, so it costs what it decodes and can be killed for real. Python's
audit hooks tell it what it is about to do to its files; at the steps that a test names it asks
before it goes on, and there it can be killed.
"""

import contextlib
import fcntl
import importlib
import itertools
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import sys
import threading
import time
from multiprocessing.connection import wait as wait_for_any
from pathlib import Path

import pytest
import torch
from tqdm import tqdm

import fairseq_plugins.generation.ctranslate2_backend
import fairseq_plugins.generation.fairseq_backend  # noqa: F401  once, not in every run
from data_prep.manifest import manifest_path, read_json
from fairseq_plugins.generation import generate as module
from fairseq_plugins.generation import job, teacher
from fairseq_plugins.generation.workfolder import WorkFolder, output_paths
from tests.fixtures.faults import on_a_small_disk, show_on
from tests.fixtures.models import (
    read_text,
    toy_lines,
    toy_model,
    toy_vocabulary,
    write_text,
)

BACKENDS = ["ctranslate2", "fairseq"]
LONGEST_WAIT = 60  # seconds
KILLS = 15  # for each backend

# pytest's name of this module is one that no other process could import
HERE = "tests.integration.test_generate_faults"
SERVER = multiprocessing.get_context("forkserver")

SHARD_LINES = 6
LINES = toy_lines(64, seed=7)
SHARDS = -(-len(LINES) // SHARD_LINES)
LINES[3], LINES[20], LINES[40] = "", "ba be bi bo bu " * 12, "   "  # so that there is a ledger
FLAGS = {
    "shard-lines": SHARD_LINES, "beam": 2, "n-best": 2, "max-source-pieces": 40, "workers": 1,
    "threads": 1, "batch-tokens": 512, "calibrate": "off",
}  # fmt: skip


# -- in the process of a run -----------------------------------------------------------------


class Steps:
    """What a run does to the files of its output; asks before it takes the steps that are named.

    A step is a verb and a file or a number: "rename settings.json.part", "claim 3".

    Args:
        out: path of the output.
        pauses: regular expressions, or numbers of steps from 0, each for one pause.
        line: connection over which to ask.
    """

    VERBS = {
        "open": "open", "os.mkdir": "mkdir", "os.remove": "remove", "os.rename": "rename",
        "os.rmdir": "rmdir", "shutil.rmtree": "rmtree",
    }  # fmt: skip
    LOCKS = {
        fcntl.LOCK_EX | fcntl.LOCK_NB: "try to lock", fcntl.LOCK_EX: "lock",
        fcntl.LOCK_SH | fcntl.LOCK_NB: "try to share", fcntl.LOCK_SH: "share",
        fcntl.LOCK_UN: "unlock",
    }  # fmt: skip
    CONVERSION = 1 << 30

    def __init__(self, out, pauses, line):
        self._out, self._pauses, self._line = str(out), list(pauses), line
        self.taken = []

    def watch(self):
        """Begin; there is no end, as audit hooks stay."""
        self._fsync = os.fsync
        os.fsync = self._note_fsync  # it raises no audit event
        sys.addaudithook(self._note_event)

    def _note_event(self, event, args):
        if event in self.VERBS:
            path = os.fsdecode(args[0]) if not isinstance(args[0], int) else ""
            reading = event == "open" and isinstance(args[1], str) and args[1][0] == "r"
            if path.startswith(self._out) and not reading:
                self._note(f"{self.VERBS[event]} {Path(path).name}")
        elif event == "fcntl.flock":
            self._note(self.LOCKS[args[1]])
        elif event == "fcntl.lockf":
            _, operation, _, number, *_ = args
            verb = "release" if operation == fcntl.LOCK_UN else "claim"
            self._note(f"{verb} {'conversion' if number == self.CONVERSION else number}")

    def _note_fsync(self, file):
        path = os.readlink(f"/proc/self/fd/{file}")
        if path.startswith(self._out) and self._note(f"write {Path(path).name}", ask=False):
            # a kill in the middle of writing leaves a part
            os.ftruncate(file, os.fstat(file).st_size // 2)
            self._ask()
        self._fsync(file)

    def _note(self, step, ask=True):
        number = len(self.taken)
        self.taken.append(step)
        for pause in self._pauses:
            if pause == number or isinstance(pause, str) and re.fullmatch(pause, step):
                self._pauses.remove(pause)
                if ask:
                    self._ask()
                return True
        return False

    def _ask(self):
        self._line.send(self.taken[-1])
        self._line.recv()


def work(words, screen, pauses, line, slow_from):
    """Run the command; at its end send the steps that it took."""
    show_on(screen)
    torch.set_num_threads(1)
    tqdm.set_lock(threading.RLock())  # its usual one outlives a kill
    if slow_from is not None:
        batches, finish = itertools.count(), teacher.Shard.finish_batch

        def finish_slowly(*args):
            if next(batches) >= slow_from:
                time.sleep(LONGEST_WAIT)
            return finish(*args)

        teacher.Shard.finish_batch = finish_slowly
    steps = Steps(words[words.index("--out") + 1], pauses, line)
    steps.watch()
    sys.argv = words
    try:
        module.main()
    finally:
        line.send(steps.taken)


def work_on_a_small_disk(words, disk, screen, report):
    """Run the command on a disk with a little more room every time, until it succeeds.

    Leaves its final files, its manifest, and a report beside the folder ``disk``: a list of
    (status, what was said, what lies there, finished shards), or why there is no such disk.
    """
    torch.set_num_threads(1)
    out = Path(words[words.index("--out") + 1])
    try:
        entries = [
            [status, said, sorted(str(path.relative_to(disk)) for path in Path(disk).rglob("*")),
             sorted(shards_done(out))]
            for status, said in on_a_small_disk(
                module.main, words, disk, range(16, 824, 8), screen
            )
        ]
    except OSError as error:
        Path(report).write_text(json.dumps(str(error)))
        return
    for path in Path(disk).glob("out*"):
        if path.is_file():
            shutil.copy(path, Path(disk).parent)
    Path(report).write_text(json.dumps(entries))


# -- in the process of the tests -------------------------------------------------------------


class Run:
    """A dad-generate that has been started.

    Args:
        words: its command line.
        pauses: steps before which it asks, see ``Steps``.
        slow_from: number of the batch, from 0, from which on it takes all too long.
    """

    started = []

    def __init__(self, words, pauses=(), slow_from=None):
        words = [str(word) for word in words]
        out = Path(words[words.index("--out") + 1])
        self._screen = out.parent / f"screen{len(self.started)}"
        self._screen.touch()
        self.line, far_end = SERVER.Pipe()
        self.process = SERVER.Process(
            target=importlib.import_module(HERE).work,
            args=(words, str(self._screen), list(pauses), far_end, slow_from), daemon=True,
        )  # fmt: skip
        self.process.start()
        self.started.append(self.process)
        far_end.close()
        self.steps = None

    @property
    def said(self):
        return self._screen.read_text()

    def pause(self):
        """The step before which it asks, or None when it has ended."""
        with contextlib.suppress(EOFError, ConnectionResetError):
            assert self.line.poll(LONGEST_WAIT), f"it hangs: {self.said}"
            step = self.line.recv()
            if isinstance(step, str):
                return step
            self.steps = step
        self.process.join(LONGEST_WAIT)
        return None

    def go_on(self):
        self.line.send("go on")

    def kill(self):
        """End it with -9, unless it has ended well."""
        self.process.kill()
        self.process.join(LONGEST_WAIT)
        assert self.process.exitcode in (-signal.SIGKILL, 0), self.said
        return self.process.exitcode != 0

    def wait_for(self, text):
        """Wait until it has said something."""
        until = time.monotonic() + LONGEST_WAIT
        while text not in self.said:
            assert time.monotonic() < until and self.process.is_alive(), self.said
            time.sleep(0.005)


def finish(*runs):
    """Let runs go on to their end, which is a good one."""
    under_way = {run.line: run for run in runs}
    while under_way:
        ready = wait_for_any(under_way, LONGEST_WAIT)
        assert ready, [run.said for run in under_way.values()]
        for line in ready:
            if under_way[line].pause() is None:
                ended = under_way.pop(line)
                assert ended.process.exitcode == 0, ended.said
            else:
                under_way[line].go_on()


def command(source, out, teacher_words, **flags):
    pairs = [(f"--{name}", value) for name, value in {**FLAGS, **flags}.items()]
    return ["dad-generate", *teacher_words, "--source", source, "--out", out,
            *itertools.chain(*pairs)]  # fmt: skip


def outcome(out):
    """Name after that of OUT, and bytes, of each final file that is there."""
    return {kind: path.read_bytes() for kind, path in output_paths(out).items() if path.exists()}


def shards_done(out):
    """Number and time of each shard that lies there whole."""
    work = WorkFolder(out)
    return {
        number: (work.path / f"{number:06d}.json").stat().st_mtime_ns
        for number in range(SHARDS) if work.finished(number, lines_in([number]))
    }  # fmt: skip


def lines_in(shards):
    return sum(min(SHARD_LINES, len(LINES) - number * SHARD_LINES) for number in shards)


def tidy(out):
    """Whether nothing but the output is left."""
    names = {path.name for path in output_paths(out).values()} | {manifest_path(out).name}
    return {path.name for path in out.parent.glob(f"{out.name}*")} == names


@pytest.fixture(autouse=True)
def end_of_all_runs():
    """After a test that failed some may be waiting for an answer, or deaf to other signals."""
    yield
    for process in Run.started:
        process.kill()
        process.join(LONGEST_WAIT)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a model, a source, and what each backend makes of it, undisturbed."""
    folder = tmp_path_factory.mktemp("faults")
    toy_vocabulary(folder / "vocabulary")
    toy_model(folder / "model", folder / "vocabulary")
    write_text(folder / "source", LINES)
    return folder


@pytest.fixture(scope="module")
def undisturbed(place):
    """{backend: final files, seconds of a shard, seconds from the merge to the end}."""
    found = {}
    for backend in BACKENDS:
        out = place / backend
        run = Run(model_command(place, out, backend), ["claim [0-9]+", "open merged"])
        times = []
        for pause in ("claim 0", "open merged"):
            assert run.pause() == pause, run.said
            times.append(time.monotonic())
            run.go_on()
        finish(run)
        times.append(time.monotonic())
        assert tidy(out) and set(outcome(out)) == {"text", "nbest", "ledger"}
        found[backend] = outcome(out), (times[1] - times[0]) / SHARDS, times[2] - times[1]
    return found


def model_command(place, out, backend, **flags):
    return command(
        place / "source", out, ["--model", place / "model"], backend=backend, **flags
    )  # fmt: skip


# -- killed ----------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_killed_at_random_moments_it_goes_on_and_ends_with_the_same_bytes(
    backend, place, undisturbed, tmp_path
):
    expected, shard_seconds, end_seconds = undisturbed[backend]
    chance, out = random.Random(backend), tmp_path / "out"
    kills, progress, kept = 0, [], {}
    while kills < KILLS:
        # a shard to kill it in, or soon after it; one too many stands for the end
        shard = chance.choice([n for n in range(SHARDS + 1) if n not in kept])
        pause = "open merged" if shard == SHARDS else f"open {shard:06d}.txt.part"
        run = Run(model_command(place, out, backend), [pause])
        if kills % 5 == 4:  # or while it begins
            time.sleep(chance.uniform(0, 0.2))
        elif run.pause() is not None:
            run.go_on()
            time.sleep(chance.uniform(0, end_seconds if shard == SHARDS else shard_seconds))
        killed = run.kill()
        if kept and "going on" in run.said:  # the kill may have come sooner
            assert f"going on after {lines_in(kept)} of {len(LINES)} lines" in run.said
        ended = manifest_path(out).exists()
        for kind, made in outcome(out).items():
            assert made == expected[kind]
        if not ended:
            now = shards_done(out)
            assert kept.items() <= now.items(), "work that was done is lost"
            kept = now
        kills += killed
        progress.append(SHARDS if ended else len(kept))
        if ended:
            finish(Run(model_command(place, out, backend)))
            assert outcome(out) == expected and tidy(out)
            for path in tmp_path.glob("out*"):
                path.unlink()
            kept = {}
    finish(Run(model_command(place, out, backend)))
    assert outcome(out) == expected and tidy(out)
    between = {done for done in progress if 0 < done < SHARDS}
    assert len(between) >= 4 and SHARDS in progress, f"the kills hit after {progress} shards"


def take_command(place, out):
    """The command that takes translations made elsewhere, so that there is nothing to load."""
    return ["dad-generate", "--translations", place / "ctranslate2.nbest", "--n-best", 2,
            "--source", place / "source", "--out", out, "--shard-lines", 30]  # fmt: skip


def test_killed_at_any_step_it_goes_on_and_ends_with_the_same_bytes(place, undisturbed, tmp_path):
    (tmp_path / "whole").mkdir()
    whole = Run(take_command(place, tmp_path / "whole" / "out"))
    finish(whole)
    steps = whole.steps
    expected = outcome(tmp_path / "whole" / "out")
    alike = {}  # what is done to every shard is tried with one
    for number, step in enumerate(steps):
        alike.setdefault(re.sub(r"00000\d|(?<= )\d$", "SHARD", step), []).append(number)
    assert len(alike) >= 30
    chance, phases = random.Random(5), set()
    for numbers in alike.values():
        number = chance.choice(numbers)
        out = tmp_path / str(number) / "out"
        out.parent.mkdir()
        run = Run(take_command(place, out), [number])
        assert run.pause() == steps[number]
        assert run.kill()
        phases.add(phase(out))
        for kind, made in outcome(out).items():
            assert made == expected[kind], steps[number]
        finish(Run(take_command(place, out)))
        assert outcome(out) == expected and tidy(out), steps[number]
    assert phases == {"beginning", "shards", "merging", "renaming", "tidying up"}


def phase(out):
    """How far a run has come, by what lies there."""
    part = out.with_name("out.part")
    if manifest_path(out).exists():
        return "tidying up"
    if outcome(out):
        return "renaming"
    if (part / "merged").exists():
        return "merging"
    return "shards" if list(part.glob("0*.txt")) else "beginning"


# -- two runs in the folder ------------------------------------------------------------------


@pytest.mark.parametrize("together", range(1, 4))
def test_one_of_two_runs_is_killed_and_the_other_ends_with_the_same_bytes(
    together, place, undisturbed, tmp_path
):
    expected, shard_seconds, _ = undisturbed["fairseq"]
    chance, out = random.Random(together), tmp_path / "out"
    words = model_command(place, out, "fairseq")
    pauses = [r"open \d+\.json\.part"] * together
    runs = [Run(words, [*pauses, "open merged"]) for _ in range(2)]
    for _ in range(together):  # each stores a shard, and goes on to the next one
        for run in runs:
            assert run.pause().endswith("json.part"), run.said
        for run in runs:
            run.go_on()
    time.sleep(chance.uniform(0, shard_seconds))
    victim, survivor = chance.sample(runs, 2)
    assert victim.kill()
    kept = shards_done(out)
    assert survivor.pause() == "open merged"
    assert len(kept) >= 2 * together - 1
    assert kept.items() <= shards_done(out).items(), "work that was done is lost"
    survivor.go_on()
    finish(survivor)
    assert outcome(out) == expected and tidy(out)


def both_at_the_end(words):
    """Two runs, one about to merge, the other waiting until it may."""
    runs = [Run(words, ["claim 0", "lock", "open merged"]) for _ in range(2)]
    for step in ("claim 0", "lock"):  # they begin together and end together
        for run in runs:
            assert run.pause() == step, run.said
        for run in runs:
            run.go_on()
    (line, *more) = wait_for_any([run.line for run in runs], LONGEST_WAIT)
    assert not more
    merging, waiting = sorted(runs, key=lambda run: run.line is not line)
    assert merging.pause() == "open merged", merging.said
    return merging, waiting


@pytest.mark.parametrize("victim", ["merging", "waiting"])
def test_one_of_two_runs_is_killed_at_the_end_and_the_other_ends_the_work(
    victim, place, undisturbed, tmp_path
):
    out = tmp_path / "out"
    merging, waiting = both_at_the_end(take_command(place, out))
    if victim == "merging":
        assert merging.kill()
        assert waiting.pause() == "open merged"
        waiting.go_on()
        finish(waiting)
    else:
        assert waiting.kill()
        merging.go_on()
        finish(merging)
    finish(Run(take_command(place, tmp_path / "whole")))
    assert outcome(out) == outcome(tmp_path / "whole") and tidy(out)


def test_whoever_comes_during_the_merge_waits_and_returns_its_manifest(
    place, undisturbed, tmp_path, monkeypatch, capsys
):
    out = tmp_path / "out"
    merging, waiting = both_at_the_end(take_command(place, out))
    late = Run(take_command(place, out))
    returned = []
    monkeypatch.setattr(job, "_decode_missing", None)  # it has nothing to decode
    latest = threading.Thread(
        target=lambda: returned.append(
            module.take_translations(
                place / "ctranslate2.nbest", place / "source", out, n_best=2, shard_lines=30
            )
        )
    )
    latest.start()
    late.wait_for("waiting for another process")
    time.sleep(0.1)
    assert latest.is_alive() and late.process.is_alive() and waiting.process.is_alive()
    assert not outcome(out)
    merging.go_on()
    finish(merging, waiting, late)
    latest.join(LONGEST_WAIT)
    assert returned == [read_json(manifest_path(out))]
    assert "waiting for another process" in capsys.readouterr().err
    assert tidy(out)
    steps = [step for run in (merging, waiting, late) for step in run.steps]
    assert steps.count("open merged") == 1
    assert len([step for step in steps if re.match("rename 0.*json", step)]) == 3
    assert not any(re.match("claim|open 0|rename", step) for step in late.steps)


def until_finished(out, *numbers):
    """Wait until shards of ``take_command`` lie there whole."""
    work, latest = WorkFolder(out), time.monotonic() + LONGEST_WAIT
    lines = [min(30, len(LINES) - 30 * number) for number in numbers]
    while not all(map(work.finished, numbers, lines)):
        assert time.monotonic() < latest
        time.sleep(0.005)


def test_what_another_run_has_finished_is_not_done_again(place, undisturbed, tmp_path):
    out = tmp_path / "out"
    slow = Run(take_command(place, out), ["open 000000.txt.part"])
    assert slow.pause(), slow.said
    quick = Run(take_command(place, out))
    until_finished(out, 1, 2)
    slow.go_on()
    finish(slow, quick)
    stored = [step for run in (slow, quick) for step in run.steps
              if re.match("rename 0.*json", step)]  # fmt: skip
    assert sorted(stored) == [f"rename 00000{number}.json.part" for number in range(3)]


def test_work_that_others_began_with_other_settings_is_not_taken_for_ours(place, tmp_path):
    """We wait to be alone; another run empties the folder, ends its shards and dies."""
    out, whole = tmp_path / "out", tmp_path / "whole"
    ours = Run(take_command(place, out), ["lock"])
    assert ours.pause() == "lock", ours.said
    words = take_command(place, out)
    words[words.index("--n-best") + 1] = 1
    words[words.index("--translations") + 1] = place / "fairseq"
    theirs = Run(words, ["open merged"])
    assert theirs.pause() == "open merged", theirs.said
    ours.go_on()
    time.sleep(0.2)  # so that it waits
    theirs.kill()
    finish(ours)
    finish(Run(take_command(place, whole)))
    assert outcome(out) == outcome(whole)


# -- told to stop ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "backend"), [(signal.SIGINT, "fairseq"), (signal.SIGTERM, "ctranslate2")]
)
def test_a_second_signal_stops_at_once_and_what_was_finished_is_kept(
    number, backend, place, undisturbed, tmp_path
):
    out = tmp_path / "out"
    run = Run(model_command(place, out, backend), ["open 000002.json.part"], slow_from=12)
    assert run.pause() is not None, run.said
    run.go_on()
    time.sleep(0.3)  # it is in a batch that takes a minute
    os.kill(run.process.pid, number)
    run.wait_for("finishing the batches under way")
    time.sleep(0.2)
    assert run.process.is_alive()
    began = time.monotonic()
    os.kill(run.process.pid, number)
    assert run.pause() is None
    assert run.process.exitcode == 128 + number, run.said
    assert time.monotonic() - began < 20
    assert "Traceback" not in run.said and not outcome(out)
    kept = shards_done(out)
    assert 0 < len(kept) < SHARDS
    run = Run(model_command(place, out, backend))
    finish(run)
    assert f"going on after {lines_in(kept)} of {len(LINES)} lines" in run.said
    assert outcome(out) == undisturbed[backend][0] and tidy(out)


# -- the source changes ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "changed",
    [LINES[:60] + ["ba be"], LINES[:59], ["ba ba", *LINES[1:60]]],
    ids=["a line more after full shards", "a line less", "another line"],
)
def test_a_source_that_changes_during_the_run_is_noticed(changed, place, tmp_path):
    source, out = write_text(tmp_path / "source", LINES[:60]), tmp_path / "out"
    words = command(source, out, ["--model", place / "model"], backend="ctranslate2")
    run = Run(words, ["rename settings.json.part"])  # the lines have been counted
    assert run.pause() is not None, run.said
    write_text(source, changed)
    run.go_on()
    assert run.pause() is None
    assert run.process.exitcode == 1
    assert re.search("dad-generate: error: .*source.* was changed during the run. Run", run.said)
    assert not outcome(out) and not manifest_path(out).exists()
    run = Run(words)
    finish(run)
    assert "starting afresh, because the source text changed" in run.said
    finish(Run(command(source, tmp_path / "whole", words[1:3], backend="ctranslate2")))
    assert outcome(out) == outcome(tmp_path / "whole")
    assert len(read_text(out)) == len(changed)


def test_references_that_change_during_the_run_are_noticed(place, tmp_path):
    source, out = write_text(tmp_path / "source", LINES), tmp_path / "out"
    references = write_text(tmp_path / "references", LINES)
    words = command(source, out, ["--model", place / "model"], backend="ctranslate2")
    run = Run([*words, "--references", references, "--on-empty", "reference"],
              ["rename settings.json.part"])  # fmt: skip
    assert run.pause() is not None, run.said
    write_text(references, LINES[:10])
    run.go_on()
    assert run.pause() is None
    assert run.process.exitcode == 1 and "references was changed during the run" in run.said
    assert not outcome(out)


# -- no space left ---------------------------------------------------------------------------


def test_a_full_disk_leaves_nothing_half_written_and_more_room_lets_it_go_on(
    place, undisturbed, tmp_path
):
    disk, report = tmp_path / "disk", tmp_path / "report"
    disk.mkdir()
    words = [str(word) for word in model_command(place, disk / "out", "fairseq")]
    process = SERVER.Process(
        target=importlib.import_module(HERE).work_on_a_small_disk,
        args=(words, str(disk), str(tmp_path / "screen"), str(report)), daemon=True,
    )  # fmt: skip
    process.start()
    process.join(LONGEST_WAIT)
    assert process.exitcode == 0
    entries = json.loads(report.read_text())
    if isinstance(entries, str):
        pytest.skip(f"a disk of a few kilobytes cannot be mounted: {entries}")
    *failures, (status, said, names, _) = entries
    assert status == 0, said
    assert names == ["out", "out.ledger.tsv", "out.manifest.json", "out.nbest"]
    assert outcome(tmp_path / "out") == undisturbed["fairseq"][0]
    kept = []
    for status, said, names, shards in failures:
        assert status == 1
        (complaint,) = [line for line in said.splitlines() if "error" in line.lower()]
        assert complaint.startswith("dad-generate: error: ")
        assert complaint.endswith("out.part: No space left on device")
        assert "Traceback" not in said and "ignored" not in said
        assert all(name.startswith("out.part") for name in names)
        assert not any(name.endswith(".part") for name in names[1:])
        assert set(kept) <= set(shards), "work that was done is lost"
        kept = shards
    finished = [len(shards) for *_, shards in failures]
    assert len(set(finished)) >= 3
    assert finished[-1] == SHARDS, "it never failed in the merge"
