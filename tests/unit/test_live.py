"""The live view: what a look at a run finds while others write it, and how it is shown."""

import contextlib
import fcntl
import json
import os
import re
import shutil
import sys
import threading
import time
from pathlib import Path

import pytest
from rich.console import Console

from data_prep.manifest import write_json
from data_prep.pipeline import lock_holders, progress
from data_prep.pipeline.graph import PlannedStage, write_plan
from data_prep.pipeline.lock_holders import held
from data_prep.pipeline.progress import Decodings, Progress, StageLog, left
from data_prep.pipeline.stage import beside
from fairseq_plugins.report import live, report
from fairseq_plugins.report.live import Told, watch
from fairseq_plugins.report.moment import FAILED, Watcher, covered
from fairseq_plugins.report.run import DONE, RUNNING, STOPPED, TO_COME
from fairseq_plugins.report.run import ROWS as COLUMNS
from fairseq_plugins.report.view import View, standing
from tests.fixtures.models import write_text
from tests.fixtures.run_folder import row

STAGES = [
    (1, "corpora", "corpora/general/text"),
    (1, "corpora", "corpora/med/text"),
    (4, "teacher", "teacher/general"),
    (5, "distilled data", "distilled/general/general"),
    (9, "students, in domain", "student/small/1/med"),
    (9, "students, in domain", "student/small/9/med"),
    (11, "report", "report/med"),
]
ROWS = [
    row("teacher", "general references", "teacher/general", "teacher"),
    row("1", "references", "student/small/1/med"),
]
FIRST = STAGES[0][2]
CONFIG = "2026-11-21 20:00:00 | INFO | fairseq_cli.train | {'max_update': 700, 'patience': 3}\n"


FAILED_WITH_7 = "dad-stage: error: the command failed with status 7\n"


def update(number, wall, loss="5.5", **more):
    entry = {"loss": loss, "wps": "900", "num_updates": str(number), "wall": str(wall), **more}
    return f"2026-11-21 20:00:00 | INFO | train_inner | {json.dumps(entry)}\n"


def valid(number, bleu, **more):
    entry = {"valid_loss": "5", "valid_bleu_greedy": str(bleu), "valid_num_updates": str(number)}
    return f"2026-11-21 20:00:00 | INFO | valid | {json.dumps({**entry, **more})}\n"


def ago(seconds):
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - seconds))


class Work:
    """A run's folder, written as the recipes and dad-stage would."""

    def __init__(self, path):
        self.path, self._locks = path, {}
        self.plan()

    def plan(self, stages=STAGES, rows=ROWS, **more):
        (self.path / "plan").mkdir(parents=True, exist_ok=True)
        run = {
            "source_lang": "de", "target_lang": "en", "domains": ["med"], "sizes": ["small"],
            "configurations": [1, 9], "started": ago(1000), "pid": os.getpid(), **more,
        }  # fmt: skip
        write_json(self.path / "plan" / "run.json", run)
        write_plan(self.path / "plan" / "stages.json", [PlannedStage(*stage) for stage in stages])
        lines = ["\t".join(cells) for cells in (COLUMNS, *rows)]
        write_text(self.path / "plan" / "med.rows.tsv", lines)

    def done(self, folder, seconds=60.0, since=100.0, log=None):
        out = self.path / folder
        out.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(beside(out, ".part"), ignore_errors=True)
        beside(out, ".log").unlink(missing_ok=True)
        self.let_go(folder)
        write_json(out / "stage.json", {"seconds": seconds, "finished": ago(since)})
        if log is not None:
            (out / "log.txt").write_text(log)

    def begin(self, folder, log="", hold=True):
        """A stage that has begun; returns its log. Its lock is held as long as this object."""
        out = self.path / folder
        beside(out, ".part").mkdir(parents=True, exist_ok=True)
        write_json(beside(out, ".request.json"), {})
        path = beside(out, ".log")
        path.write_text("$ train.sh\n" + log)
        self.let_go(folder)
        lock = open(beside(out, ".lock"), "a")
        if hold:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._locks[folder] = lock
        else:
            lock.close()
        return path

    def let_go(self, folder):
        """The process of a stage ends."""
        if folder in self._locks:
            self._locks.pop(folder).close()

    def score(self, model, **bleu):
        test_sets = {
            name: {"beam": {"bleu": {"score": score, "interval": 0.5}}}
            for name, score in bleu.items()
        }
        path = self.path / "scores" / "med" / model / "scores.json"
        path.parent.mkdir(parents=True)
        write_json(path, {"name": model, "test_sets": test_sets})

    def states(self):
        return {stage.folder: stage.state for stage in Watcher(self.path).look().stages}


@pytest.fixture
def work(tmp_path, monkeypatch):
    now = float(int(time.time()))  # files written from now on are not older
    monkeypatch.setattr(time, "time", lambda: now)
    return Work(tmp_path / "run")


def shown(found, width=80, height=40, whole=False):
    """Lines of the page."""
    console = Console(width=width, height=height, no_color=True, highlight=False)
    options = console.options.update(height=height)
    lines = console.render_lines(View(found, whole), options, pad=False)
    return ["".join(segment.text for segment in line).rstrip() for line in lines]


# -- locks ----------------------------------------------------------------------------------------


def test_a_lock_is_seen_and_not_taken(tmp_path, monkeypatch):
    taken, free = tmp_path / "taken", tmp_path / "free"
    free.touch()
    with open(taken, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        monkeypatch.delattr(fcntl, "flock")
        monkeypatch.delattr(fcntl, "lockf")
        assert held([taken, free, tmp_path / "missing"]) == {taken}


@pytest.mark.parametrize(
    "locks",
    [
        None,
        "1: POSIX  ADVISORY  WRITE 7 00:01:5 0 EOF\n",
        "1: FLOCK  ADVISORY  WRITE 7 00:01:5 0 EOF\n1: -> FLOCK  ADVISORY  WRITE 8 00:01:5 0 EOF\n",
        "nonsense\n",
    ],
)
def test_a_lock_that_is_not_listed_is_held_if_a_process_has_it_open(tmp_path, monkeypatch, locks):
    processes, lock = tmp_path / "proc", tmp_path / "a.lock"
    (processes / "12" / "fd").mkdir(parents=True)
    (processes / "13" / "fd").mkdir(parents=True)
    if locks:
        (processes / "locks").write_text(locks)
    lock.touch()
    monkeypatch.setattr(lock_holders, "PROCESSES", processes)
    assert held([lock]) == set()
    (processes / "13" / "fd" / "3").symlink_to(lock)
    assert held([lock]) == {lock}


def test_a_command_that_waits_for_a_lock_does_not_hold_it(tmp_path, monkeypatch):
    lock = tmp_path / "a.lock"
    lock.touch()
    stat = lock.stat()
    place = f"{os.major(stat.st_dev):02x}:{os.minor(stat.st_dev):02x}:{stat.st_ino}"
    (tmp_path / "locks").write_text(f"1: -> FLOCK  ADVISORY  WRITE 8 {place} 0 EOF\n")
    monkeypatch.setattr(lock_holders, "PROCESSES", tmp_path)
    assert held([lock]) == set()
    (tmp_path / "locks").write_text(f"1: FLOCK  ADVISORY  WRITE 8 {place} 0 EOF\n")
    assert held([lock]) == {lock}


def test_where_the_system_tells_nothing_a_lock_file_counts(tmp_path, monkeypatch):
    (tmp_path / "a.lock").touch()
    monkeypatch.setattr(lock_holders, "PROCESSES", tmp_path / "nowhere")
    assert held([tmp_path / "a.lock", tmp_path / "b.lock"]) == {tmp_path / "a.lock"}


# -- logs -----------------------------------------------------------------------------------------


def log_of(tmp_path, text):
    (tmp_path / "a.log").write_text(text)
    log = StageLog(tmp_path / "a.log")
    log.look()
    return log


@pytest.mark.parametrize(
    "text, words, share, left",
    [
        ("", ("preparing",), None, None),
        (update(50, 10), ("update 50 of 700", "loss 5.50", "900 tokens/s"), 50 / 700, None),
        (update(50, 10) + update(100, 20), ("update 100 of 700", "loss 5.50", "900 tokens/s"),
         1 / 7, 120),
        # validation takes its time too
        (update(50, 10) + valid(75, 3) + update(100, 30),
         ("update 100 of 700", "loss 5.50", "dev BLEU 3.0 (the best so far)", "900 tokens/s"),
         1 / 7, 240),
        (valid(10, 9.04) + valid(20, 7) + valid(30, 8),
         ("update 30 of 700", "dev BLEU 8.0 (best 9.0)", "2 of 3 tries without a better one"),
         30 / 700, None),
        (valid(10, 5, valid_general_bleu_greedy="20.5", valid_general_bleu_lost="1.25"),
         ("update 10 of 700", "dev BLEU 5.0 (the best so far)",
          "general dev BLEU 20.5 (1.2 lost)"), 10 / 700, None),
        (update(50, 10, loss="nan") + valid(60, "nan"),
         ("update 60 of 700", "the loss is not a number!", "900 tokens/s"), 60 / 700, None),
        (update(50, 10, loss="inf"), ("update 50 of 700", "the loss is not a number!",
                                      "900 tokens/s"), 50 / 700, None),
        (valid(10, "?", valid_general_bleu_lost="3") + update(50, 10, loss="?"),
         ("update 50 of 700", "900 tokens/s"), 50 / 700, None),
        # two processes wrote at once, a line of a dev set of another domain, one without a wall
        (update(50, 10)[:-1] + update(60, 12), ("preparing",), None, None),
        (valid(10, 5).replace("| valid |", "| valid_law |"), ("preparing",), None, None),
        (update(50, "nan") + update(100, 20), ("update 100 of 700", "loss 5.50", "900 tokens/s"),
         1 / 7, None),
    ],
)  # fmt: skip
def test_a_training_is_told_in_words(tmp_path, text, words, share, left):
    found = log_of(tmp_path, CONFIG + text).training.progress()
    assert found.words == words
    assert (found.share, found.seconds_left) == pytest.approx((share, left))
    assert found.is_whole is (left is not None)
    assert found.may_end_early is (words != ("preparing",))


def test_time_since_the_last_entry_counts_and_no_time_left_is_below_nothing(tmp_path):
    training = log_of(tmp_path, CONFIG + update(50, 10) + update(100, 20)).training
    assert training.progress(silent=20).seconds_left == pytest.approx(100)
    assert training.progress(silent=9999).seconds_left == 0


def test_without_patience_the_end_is_known(tmp_path):
    settings = CONFIG.replace("'patience': 3", "'patience': 0")
    log = log_of(tmp_path, settings + valid(1, 5) + valid(2, 4))
    assert not log.training.progress().may_end_early
    assert log.training.progress().words[1:] == ("dev BLEU 4.0 (best 5.0)",)


def test_speed_is_that_of_the_attempt_under_way(tmp_path):
    first = CONFIG + update(50, 10) + update(100, 20)
    log = log_of(tmp_path, first + "$ train.sh\n" + CONFIG + update(150, 5000))
    assert log.training.progress().seconds_left is None
    log.path.write_text(first + "$ train.sh\n" + CONFIG + update(150, 5000) + update(200, 5100))
    log.look()
    assert log.training.progress().seconds_left == pytest.approx(500 * 2)


def test_a_log_may_be_cut_anywhere_and_every_byte_is_read_once(tmp_path, monkeypatch):
    text = (CONFIG + update(50, 10) + "Grüße \u2028\n" + valid(75, 3.5) + update(100, 20)).encode()
    whole = log_of(tmp_path, text.decode()).training
    monkeypatch.setattr(progress, "CHUNK", 7)
    path = tmp_path / "growing.log"
    log, read = StageLog(path), []
    log.look()
    for end in (*range(0, len(text), 11), len(text)):
        path.write_bytes(text[:end])
        log.look()
        read.append(log.training and log.training.update)
    path.write_bytes(b"?" * len(text))  # what was read is not read again
    log.look()
    assert log.training == whole and log.training.update == 100
    assert read.index(50) < read.index(75)


def test_another_log_of_the_same_name_is_read_from_its_beginning(tmp_path):
    log = log_of(tmp_path, CONFIG + update(50, 10) + update(100, 20))
    (tmp_path / "new").write_text(CONFIG + update(50, 10) + update(150, 20))  # as long as it
    os.replace(tmp_path / "new", log.path)
    log.look()
    assert log.training.update == 150
    log.path.write_text(CONFIG + update(3, 1))  # shorter
    log.look()
    assert log.training.update == 3
    log.path.unlink()
    log.look()
    assert log.training.update == 3


@pytest.mark.parametrize(
    "text, words, share, left",
    [
        ("\rtrain.en:   0%|  | 0/30000 [00:00<?, ? lines/s]", "train.en: 0 of 30000", 0, None),
        ("\rx:  1%|  | 1/100 [00:00<?]\rx:  24%|█▍  | 24/100 [00:30<01:34, 24 lines/s]",
         "x: 24 of 100", 0.24, 94),
        ("\rcaching:  50%|█ | 1.5k/3.0k [2:00:30<1:00:05, 2 it/s]", "caching: 1.5k of 3.0k", 0.5,
         3605),
        ("begin\n\rx:  24%|█▍  | 24/100 [00:30<01:34, 24 lines/s]", "x: 24 of 100", 0.24, 94),
        ("\rx: 100%|██| 100/100 [00:30<00:00, 24 lines/s]", None, None, None),
        ("\rx:  24%|█▍  | 24/100 [00:30<01:34, 24 lines/s]\nthen\n", None, None, None),
        ("\rreading: 20.0k pairs [00:01, 15.8k pairs/s]", None, None, None),
        ("\rx:  24%|█▍  | 24/", None, None, None),
    ],
)  # fmt: skip
def test_a_bar_is_read_while_it_is_not_full(tmp_path, text, words, share, left):
    bar = log_of(tmp_path, text).bar
    assert bar == (words and Progress((words,), share, left))


def test_the_end_of_a_log_says_how_the_command_failed(tmp_path):
    log = log_of(tmp_path, "$ x\n\x1b[31mdisk\x07 full\n\n" + FAILED_WITH_7)
    assert log.error == "the command failed with status 7"
    assert log.last_line == "[31mdisk full"
    with open(log.path, "a") as file:
        file.write("$ x\n")
    log.look()
    assert log.error is None and log.last_line == ""


def test_a_line_without_an_end_is_not_kept_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "LONGEST_TAIL", 100)
    log = log_of(tmp_path, "\rx" * 10_000 + "\ry:  24%|█  | 24/100 [00:30<01:34, 24 lines/s]")
    assert len(log._tail) == 100 and log.bar.share == 0.24
    assert len(log_of(tmp_path, "x" * 1000 + "\n").last_line) < 400


# -- decoding -------------------------------------------------------------------------------------


def shard(folder, number, lines, seconds, written):
    path = folder / f"{number:06d}.json"
    write_json(path, {"counts": {"lines": lines}, "seconds": seconds})
    os.utime(path, (written, written))


@pytest.mark.parametrize("place", ["train.en.part", "decoded/train.en.part"])
def test_decoded_lines_are_counted_from_finished_shards(tmp_path, place):
    folder, decodings = tmp_path / place, Decodings(tmp_path)
    assert decodings.progress() is None
    folder.mkdir(parents=True)
    assert decodings.progress() is None
    (folder / "settings.json").write_text('{"settings": {"sour')
    assert decodings.progress() is None
    write_json(folder / "settings.json", {"settings": {"source": {"lines": 10_000}}, "speed": {}})
    assert decodings.progress() == Progress(("decoding train.en: 0 of 10,000 lines",), 0, None)
    shard(folder, 0, 2000, 10.0, 1000.0)
    write_json(folder / "000001.partial.json", {"found": ""})
    (folder / "000002.json").write_text('{"counts"')
    words = ("decoding train.en: 2,000 of 10,000 lines", "200 lines/s")
    assert decodings.progress() == Progress(words, 0.2, 40.0)
    # two processes share the work: the clock tells the speed, not the sum of their seconds
    shard(folder, 1, 2000, 10.0, 1005.0)
    words = ("decoding train.en: 4,000 of 10,000 lines", "400 lines/s")
    assert decodings.progress() == Progress(words, 0.4, 15.0)
    # shards of yesterday count as lines and not as speed
    assert decodings.progress(since=1001.0).words == (words[0], "200 lines/s")
    assert decodings.progress(since=2000.0) == Progress(words[:1], 0.4, None)


# -- a moment -------------------------------------------------------------------------------------


def test_stages_are_done_running_stopped_failed_or_to_come(work):
    work.done(FIRST)
    work.begin("teacher/general", FAILED_WITH_7)  # its dad-stage is about to end
    work.begin("distilled/general/general", hold=False)
    work.begin("student/small/1/med", "no space\n" + FAILED_WITH_7, hold=False)
    found = Watcher(work.path).look()
    assert {stage.folder: stage.state for stage in found.stages} == {
        FIRST: DONE, "corpora/med/text": TO_COME, "teacher/general": RUNNING,
        "distilled/general/general": STOPPED, "student/small/1/med": FAILED,
        "student/small/9/med": TO_COME, "report/med": TO_COME,
    }  # fmt: skip
    (failed,) = found.in_state(FAILED)
    assert failed.error == "the command failed with status 7: no space"
    (running,) = found.in_state(RUNNING)
    assert 0 <= running.elapsed < 60 and running.silent < 60
    assert [stage.elapsed for stage in found.stages if stage is not running] == [None] * 6


def test_a_stage_that_is_made_again_is_running_though_its_old_result_is_there(work):
    work.done(FIRST)
    work.begin(FIRST)
    assert work.states()[FIRST] == RUNNING


def test_what_is_being_written_is_read_at_the_next_look(work):
    watcher = Watcher(work.path)
    before = watcher.look()
    plan = work.path / "plan"
    for name, text in (("run.json", '{"doma'), ("stages.json", '{"stages": [{"num')):
        kept = (plan / name).read_text()
        (plan / name).write_text(text)
        assert watcher.look() is before
        (plan / name).unlink()
        assert watcher.look() is before
        (plan / name).write_text(kept)
    work.done(FIRST)
    assert watcher.look().stages[0].state == DONE


def test_a_folder_without_a_run_is_refused_at_once_and_one_that_goes_after_a_while(
    work, tmp_path, monkeypatch
):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        watch(tmp_path / "nowhere", once=True)
    watcher = Watcher(work.path)
    before = watcher.look()
    os.rename(work.path, tmp_path / "elsewhere")
    assert watcher.look() is before
    monkeypatch.setattr(time, "time", lambda: before.time + 11)
    with pytest.raises(FileNotFoundError):
        watcher.look()


def test_scores_come_as_models_are_finished(work):
    watcher = Watcher(work.path)
    assert watcher.look().dev == {} and not any(row.scores for row in watcher.look().rows["med"])
    work.done("teacher/general", log=CONFIG + valid(10, 21.3) + valid(20, 20))
    work.done("student/small/1/med", log="no training\n")
    assert watcher.look().dev == {"teacher/general": 21.3, "student/small/1/med": None}
    work.score("teacher/general", med=3.0, general=26.2)
    work.done("report/med")
    assert [bool(row.scores) for row in watcher.look().rows["med"]] == [True, False]
    work.done("teacher/general", since=50, log=CONFIG + valid(10, 22))  # trained again
    assert watcher.look().dev["teacher/general"] == 22


def test_the_run_is_alive_as_long_as_its_recipe(work):
    assert Watcher(work.path).look().is_alive and not Watcher(work.path).look().is_still
    for pid in (2**22 + 1, 2**70, None, "x"):
        work.plan(pid=pid)
        assert not Watcher(work.path).look().is_alive and Watcher(work.path).look().is_still
    work.begin(FIRST)
    assert not Watcher(work.path).look().is_still


def test_a_recipe_of_somebody_else_is_alive(work, monkeypatch):
    def refused(pid, number):
        raise PermissionError

    monkeypatch.setattr(os, "kill", refused)
    assert Watcher(work.path).look().is_alive


def test_a_run_on_another_machine_is_judged_by_its_logs(work):
    work.plan(host="another.example")
    log = work.begin(FIRST, hold=False)
    assert work.states()[FIRST] == RUNNING and Watcher(work.path).look().is_alive
    os.utime(log, (1, 1))
    assert work.states()[FIRST] == STOPPED and Watcher(work.path).look().is_still


def test_a_silent_stage_is_called_so(work):
    log = work.begin(FIRST)
    os.utime(log, (time.time() - 1830, time.time() - 1830))
    assert "it has said nothing for 30 min" in "\n".join(shown(Watcher(work.path).look()))


# -- time -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spans, seconds",
    [
        ([], 0), ([None], 0), ([(0, 10), (5, 15)], 15), ([(5, 6), (0, 10)], 10),
        ([(0, 1), (3, 4)], 2),
    ],
)
def test_time_side_by_side_counts_once(spans, seconds):
    assert covered(spans) == seconds


def test_the_rest_takes_as_long_as_its_like_took(work):
    models = [f"student/small/{number}/med" for number in (1, 4, 7, 9)]
    work.plan(stages=[*((9, "students", model) for model in models), (11, "report", "report/med")])
    assert Watcher(work.path).look().seconds_left() is None
    work.done(models[0], seconds=60, since=140)
    work.done(models[1], seconds=60, since=100)  # 20 s of them side by side: 50 s by the clock
    assert Watcher(work.path).look().seconds_left() == (pytest.approx(100), ["report/med"])
    work.begin(models[2])
    began = time.time() - 25
    os.utime(beside(work.path / models[2], ".request.json"), (began, began))
    assert Watcher(work.path).look().seconds_left() == (pytest.approx(85), ["report/med"])
    work.begin(models[2], CONFIG + update(100, 20) + update(600, 420))
    assert Watcher(work.path).look().seconds_left() == (pytest.approx(130, abs=1), ["report/med"])
    for model in models:
        work.done(model)
    work.done("report/med")
    assert Watcher(work.path).look().seconds_left() is None


def test_of_stages_side_by_side_the_slowest_counts(work):
    work.plan(stages=[(9, "students", f"student/small/{number}/med") for number in (1, 9)])
    work.begin("student/small/1/med", CONFIG + update(100, 20) + update(600, 420))
    work.begin("student/small/9/med", CONFIG + update(100, 20) + update(500, 420))
    assert Watcher(work.path).look().seconds_left() == (pytest.approx(200), [])


def test_steps_of_preparing_corpora_are_not_alike(work):
    work.plan(stages=[*STAGES[:2], (1, "corpora", "corpora/overlap")])
    work.done(FIRST)
    assert Watcher(work.path).look().seconds_left() == (
        pytest.approx(60), ["corpora/overlap"],
    )  # fmt: skip


def test_there_is_no_estimate_where_much_has_no_like(work):
    stages = [(9, "students", f"student/small/{n}-{loss}/med") for n in (1, 4, 7) for loss in "ab"]
    work.plan(stages=stages)
    work.done(stages[0][2])
    assert Watcher(work.path).look().seconds_left()[1] == [name for *_, name in stages[1::2]]
    work.plan(stages=[*stages, (11, "report", "report/med")])
    assert Watcher(work.path).look().seconds_left() is None


def test_a_part_of_a_stage_is_not_taken_for_the_stage(work):
    work.plan(stages=STAGES[3:4])
    work.begin(STAGES[3][2], "\rtrain.en:  50%|█ | 5/10 [00:30<00:30, 24 lines/s]")
    found = Watcher(work.path).look()
    assert found.stages[0].progress.seconds_left == 30 and found.seconds_left() is None


# -- the page -------------------------------------------------------------------------------------


@pytest.fixture
def busy(work):
    """A run in the middle, with something in every state."""
    work.done(FIRST, seconds=30, since=200)
    work.done("corpora/med/text", seconds=30, since=190)
    work.done("teacher/general", seconds=100, log=CONFIG + valid(10, 21.3))
    work.score("teacher/general", med=3.0, general=26.2)
    work.begin("distilled/general/general", "killed\n", hold=False)
    work.begin("student/small/1/med", CONFIG + update(50, 10) + valid(75, 3) + update(350, 200))
    return work


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_page_says_everything_in_any_width(busy, width):
    lines = shown(Watcher(busy.path).look(), width)
    text = re.sub(r"\s+", " ", " ".join(lines))
    for words in (
        "de → en, med, student small, configurations 1, 9",
        "3 of 7 steps done, 16 min 40 s since the start",
        " 1 corpora done in 40 s, 2 steps", " 4 teacher done in 1 min 40 s",
        " 5 distilled data stopped", "what it printed: distilled/general/general.log",
        "running, 0 of 2 steps done", "student/small/1/med running for ",
        "update 350 of 700, loss 5.50, dev BLEU 3.0 (the best so far), 900 tokens/s",
        " 50 %, at most 3 min ", " 11 report to come", "BLEU so far, 1 of 2 models scored",
        " 21.3 3.0 ± 0.5 26.2 ± 0.5", "q or Ctrl-C leaves",
    ):  # fmt: skip
        assert words in text, text
    assert max(map(len, lines)) <= width
    assert ("general references" in text) is (width == 120)


def test_a_low_page_folds_what_is_done_then_what_is_to_come_then_the_scores(work):
    titles = [(n, f"stage {n}", f"corpora/{n}") for n in range(1, 15)]
    work.plan(stages=titles)
    for number in range(1, 6):
        work.done(f"corpora/{number}", seconds=1, since=100)
    work.done("teacher/general", log=CONFIG + valid(10, 21.3))
    work.plan(stages=[*titles, (15, "teacher", "teacher/general")])
    work.begin("corpora/6")
    found = Watcher(work.path).look()
    pages = {height: shown(found, height=height) for height in range(11, 31)}
    assert all(len(page) <= height for height, page in pages.items())
    assert all("q or Ctrl-C leaves" in list(filter(None, page))[-1] for page in pages.values())
    assert "   15  teacher  " in "\n".join(pages[13])  # alone it is no range
    text = {height: "\n".join(page) for height, page in pages.items()}
    assert "stage 3 " in text[30] and "stage 9" in text[30] and "greedy" in text[30]
    assert "1–5  stage 1 … stage 5" in text[24] and "stage 9" in text[24] and "greedy" in text[24]
    assert "7–14  stage 7 … stage 14" in text[18] and "greedy" in text[18]
    assert "7–14  stage 7" in text[14] and "teacher  21.3" in text[14] and "greedy" not in text[14]
    assert "7–14  stage 7" in text[11] and "21.3" not in text[11]
    for page in text.values():
        assert "6  stage 6" in page and "corpora/6  running" in page
    assert "stage 3 " in "\n".join(shown(found, height=11, whole=True))


def test_where_there_is_little_room_the_last_models_are_shown(work):
    models = [f"student/small/{number}/med" for number in range(1, 7)]
    work.plan(stages=[(9, "students", model) for model in [*models, "student/small/9/med"]],
              rows=[row(f"model {model[14]}", "", model, "1") for model in models])  # fmt: skip
    for model in models:
        work.done(model, log=CONFIG + valid(10, 21.3))
    work.begin("student/small/9/med")
    found = Watcher(work.path).look()
    page = shown(found, height=12)
    assert len(page) == 12 and [line.strip() for line in page[-4:-1]] == [
        "model     dev", "model 5  21.3", "model 6  21.3",
    ]  # fmt: skip
    assert "model 1" in "\n".join(shown(found, height=20))


def test_one_line_for_a_number_however_narrow_the_page(work):
    work.plan(stages=STAGES[:4])
    work.done(FIRST)
    work.begin("corpora/med/text")
    lines = shown(Watcher(work.path).look(), width=40, whole=True)
    assert "    1  corpora   running, 1 of 2 steps …" in lines


@pytest.mark.parametrize(
    "progress, words",
    [
        (Progress(share=0.5, seconds_left=65.0), "50 %, about 1 min 5 s left"),
        (Progress(share=0.5, seconds_left=9.0, may_end_early=True), "50 %, at most 9 s left"),
        (Progress(share=0.999, seconds_left=0.4), "100 %"),
        (Progress(seconds_left=9.0), "about 9 s left"),
        (Progress(), ""),
    ],
)
def test_what_is_left_is_said_where_it_is_known(progress, words):
    assert left(progress) == words


def test_domains_are_told_apart_where_there_are_several(work):
    work.plan(stages=[(7, "teacher", "teacher/med"), (8, "data", "distilled/law/law"), STAGES[0]],
              domains=["med", "law"])  # fmt: skip
    (work.path / "plan" / "law.rows.tsv").write_text("\t".join(COLUMNS) + "\n")
    page = "\n".join(shown(Watcher(work.path).look()))
    assert "teacher (med)" in page and "data (law)" in page and "corpora " in page


def test_names_are_shown_as_they_are(work):
    rows = [row("[red]x", "", "teacher/general", "teacher")]
    work.plan(stages=[(1, "[bold]corpora[/]", FIRST)], rows=rows)
    work.score("teacher/general", med=1.0)
    page = "\n".join(shown(Watcher(work.path).look()))
    assert "[bold]corpora[/]" in page and "[red]x" in page


@pytest.mark.parametrize(
    "situation, words",
    [
        ("fresh", "0 of 7 steps done, 16 min 40 s since the start"),
        ("stopped", "0 of 7 steps done, nothing is running. Start the same recipe again, it goes "
                    "on from here"),
        ("failed", f"0 of 7 steps done, failed: {FIRST}, nothing is running. Once that is mended, "
                   "start the same recipe again, it goes on from here"),
        ("failed, another runs",
         f"0 of 7 steps done, failed: {FIRST}, 16 min 40 s since the start"),
        ("finished", "Finished in 15 min 0 s"),
        ("finished before", "Finished"),
    ],
)  # fmt: skip
def test_how_the_run_stands_is_a_sentence(work, situation, words):
    if "failed" in situation:
        work.begin(FIRST, FAILED_WITH_7, hold=False)
    if situation in ("stopped", "failed"):
        work.plan(pid=None)
    for *_, folder in STAGES if "finished" in situation else ():
        work.done(folder, since=100 if situation == "finished" else 2000)
    assert standing(Watcher(work.path).look()) == words


# -- watching -------------------------------------------------------------------------------------


def test_lines_tell_what_is_new(work):
    watcher, told = Watcher(work.path), Told()

    def news(later=0.0):
        return [line[10:] for line in told.news(at(watcher.look(), later))]

    assert news() == [f"{work.path}: 0 of 7 steps done, 16 min 40 s since the start"]
    log = work.begin("teacher/general", CONFIG + update(50, 10))
    first = "teacher/general: update 50 of 700, loss 5.50, 900 tokens/s, 7 %"
    assert news() == ["teacher/general: running", first]
    append(log, update(100, 20))
    assert news() == []  # only its counts have changed
    (line,) = news(later=live.SECONDS_BETWEEN_LINES)
    assert line.startswith("teacher/general: update 100 of 700")
    append(log, valid(120, 4.0))
    assert "dev BLEU 4.0 (the best so far)" in news(later=61)[0]
    assert news(later=62) == [] and news(later=500) == []
    work.let_go("teacher/general")
    assert news(later=63) == ["teacher/general: stopped"]
    work.score("teacher/general", med=3.0, general=26.2)
    work.done("teacher/general", seconds=70)
    assert news(later=70) == [
        "teacher/general: done in 1 min 10 s",
        "teacher: BLEU on med 3.0 ± 0.5, on general 26.2 ± 0.5",
    ]  # fmt: skip
    assert news(later=200) == []


def at(found, later):
    return type(found)(**{**vars(found), "time": found.time + later})


def append(path, text):
    with open(path, "a") as file:
        file.write(text)


@pytest.fixture
def hurry(monkeypatch):
    """Watching without waiting: a second passes with every look."""
    clock = iter(range(1_800_000_000, 1_900_000_000))
    monkeypatch.setattr(time, "time", lambda: float(next(clock)))
    monkeypatch.setattr(time, "sleep", lambda seconds: None)


def test_watching_ends_with_the_run(work, capsys, hurry):
    for *_, folder in STAGES:
        work.done(folder, since=-10)
    assert watch(work.path) == 0
    first, last = capsys.readouterr().out.splitlines()
    assert "Finished" in last and str(work.path) in first


def test_watching_a_run_that_has_stopped_ends_with_an_error(work, capsys, hurry):
    work.plan(pid=None)
    work.begin(FIRST, FAILED_WITH_7, hold=False)
    assert watch(work.path) == 1
    lines = capsys.readouterr().out.splitlines()
    assert f"{FIRST}: failed: the command failed with status 7" in lines[1]
    assert "nothing is running" in lines[-1]


def test_a_pause_between_two_stages_does_not_end_the_watch(work, monkeypatch, hurry):
    work.plan(pid=None)
    moments = live._moments(Watcher(work.path))
    ended = object()
    assert all(next(moments, ended) is not ended for _ in range(8))
    work.begin(FIRST)
    assert next(moments, ended) is not ended
    work.let_go(FIRST)
    assert all(next(moments, ended) is not ended for _ in range(8))


def test_ctrl_c_leaves_and_the_run_goes_on(work, capsys, monkeypatch):
    def interrupted(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", interrupted)
    assert watch(work.path) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_a_snapshot_is_printed_once_without_colours(busy, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    assert watch(busy.path, once=True) == 0
    text = capsys.readouterr().out
    assert "\x1b" not in text and "student/small/1/med  running" in text and "q or" not in text
    assert max(map(len, text.splitlines())) <= 60


def test_dad_report_has_the_live_view(busy, capsys, monkeypatch):
    words = ["dad-report", "--work", str(busy.path)]
    monkeypatch.setattr(sys, "argv", [*words, "--watch", "--once"])
    assert report._main() == 0
    assert "student/small/1/med  running" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", [*words, "--once"])
    with pytest.raises(SystemExit):
        report._main()
    assert "--once goes with --watch" in capsys.readouterr().err


class Terminal:
    """The standard streams on a pseudo-terminal, which is read all the time, as terminals are."""

    def __init__(self, monkeypatch, **environment):
        self._ours, theirs = os.openpty()
        self._stream = os.fdopen(os.dup(theirs), "w", encoding="utf-8")
        monkeypatch.setattr(sys, "stdin", os.fdopen(theirs))
        monkeypatch.setattr(sys, "stdout", self._stream)
        size = {"TERM": "xterm-256color", "COLUMNS": "80", "LINES": "30"}
        for name, value in {**size, **environment}.items():
            monkeypatch.setenv(name, value)
        self._seen = b""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        with contextlib.suppress(OSError):  # all that write have closed it
            while part := os.read(self._ours, 1 << 16):
                self._seen += part

    def press(self, keys):
        os.write(self._ours, keys.encode())

    def seen(self):
        """What was printed; ends the terminal."""
        self._stream.close()
        sys.stdin.close()
        self._reader.join(10)
        os.close(self._ours)
        return self._seen.decode()


@pytest.mark.parametrize("key", ["q", "Q"])
def test_q_leaves_the_page_and_the_last_one_stays(busy, monkeypatch, key):
    terminal = Terminal(monkeypatch)
    monkeypatch.setattr(live, "SECONDS_BETWEEN_LOOKS", 0.01)
    terminal.press("x" + key)
    assert watch(busy.path) == 0
    page, _, after = terminal.seen().partition("\x1b[?1049l")  # back from the other screen
    assert "\x1b[?1049h" in page and "q or Ctrl-C" in page and "q or Ctrl-C" not in after
    assert "student/small/1/med" in after and "\x1b[" in after


def test_no_color_leaves_the_words(busy, monkeypatch):
    terminal = Terminal(monkeypatch, NO_COLOR="1")
    terminal.press("q")
    watch(busy.path)
    text = terminal.seen()
    assert "student/small/1/med" in text
    assert not re.search(r"\x1b\[[\d;]*\b(3\d|4\d|9\d)m", text)


def test_a_terminal_that_cannot_draw_gets_lines(work, monkeypatch, hurry):
    terminal = Terminal(monkeypatch, TERM="dumb")
    work.plan(pid=None)
    assert watch(work.path) == 1
    assert "\x1b" not in terminal.seen()


def test_signs_that_a_terminal_lacks_do_no_harm(work, monkeypatch, tmp_path):
    with open(tmp_path / "screen", "w", encoding="ascii") as screen:
        monkeypatch.setattr(sys, "stdout", screen)
        assert watch(work.path, once=True) == 0
    # the folder's name may be so long that the line is broken there
    assert "de ? en" in " ".join(Path(tmp_path / "screen").read_text().split())
