"""How far a stage has come: from its log, read as it grows, and from the files in its folder.

Everything is read while others write it. A line that is not whole yet is left for the next look, a
file that has gone is no error, and a look costs what was added since the last one.
"""

import contextlib
import json
import math
import os
import re
import time
from dataclasses import dataclass, field
from pathlib import Path

from data_prep.pipeline.stage import FAILURE, beside, duration
from data_prep.training_log import read_entries

CHUNK = 1 << 20  # bytes that are read at a time
LONGEST_LINE = 300  # characters of a line that is shown
LONGEST_TAIL = 1 << 16  # bytes of a line without an end that are kept
_SETTING = re.compile(r"'(max_update|patience)': (\d+)")
_BAR = re.compile(
    r"(?P<what>.*?): +(?P<percent>\d+)%\|.*\| *(?P<done>[\d.]+[kMGT]?)/(?P<all>[\d.]+[kMGT]?) "
    r"\[[\d:]+<(?P<left>[\d:]+)?"
)
_UNITS = {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}


@dataclass(frozen=True)
class Progress:
    """What people want to know of a stage under way.

    Attributes:
        words: phrases, such as "update 400 of 700" and "loss 5.85".
        share: done, 0 to 1, or None where it cannot be told.
        seconds_left: of this work, estimated from its speed so far, or None.
        may_end_early: whether ``seconds_left`` is the longest that it can take at this speed.
        is_whole: whether ``seconds_left`` is that of the whole stage, not of one of its parts.
    """

    words: tuple = ()
    share: float | None = None
    seconds_left: float | None = None
    may_end_early: bool = False
    is_whole: bool = False


def left(progress):
    """What is done of a piece of work and how long the rest takes; '' where that is not known."""
    words = [f"{100 * progress.share:.0f} %"] if progress.share is not None else []
    if (progress.seconds_left or 0) >= 1:  # else it is over at any moment, or slower than it was
        most = "at most" if progress.may_end_early else "about"
        words.append(f"{most} {duration(progress.seconds_left)} left")
    return ", ".join(words)


@dataclass
class Training:
    """What a training log has told so far.

    Attributes:
        update: last one that was logged, or None.
        most_updates: that it may make, or None.
        patience: validations without a better score after which it ends; 0: never.
        loss, tokens_per_second: of the last log interval, or None.
        dev: {update: BLEU of greedily decoded dev text, or with --valid-beam 0 None}.
        general: (BLEU of general dev text, what was lost of it) in adapting, or None.
    """

    update: float | None = None
    most_updates: float | None = None
    patience: int = 0
    loss: float | None = None
    tokens_per_second: float | None = None
    dev: dict = field(default_factory=dict)
    general: tuple | None = None
    _first: tuple | None = None  # update and wall seconds, of this attempt
    _last: tuple | None = None

    def begin_again(self):
        """A new attempt begins, perhaps at an earlier update."""
        self._first = self._last = None

    def take_settings(self, line):
        """Take the line in which fairseq tells its settings."""
        settings = {name: int(value) for name, value in _SETTING.findall(line)}
        self.most_updates = settings.get("max_update") or None
        self.patience = settings.get("patience", 0)

    def take(self, kind, entry):
        """Take an entry of the log."""
        if kind == "train_inner":
            self.update, self.loss = entry.get("num_updates"), entry.get("loss")
            self.tokens_per_second = entry.get("wps")
            if self.update is not None and math.isfinite(entry.get("wall", math.nan)):
                self._last = self.update, entry["wall"]
                self._first = self._first or self._last
        elif kind == "valid":
            self.update = entry.get("valid_num_updates", self.update)
            score = entry.get("valid_bleu_greedy", entry.get("valid_bleu"))
            if score is not None and math.isfinite(score):
                self.dev[self.update] = score
            general = [entry.get(f"valid_general_bleu_{name}") for name in ("greedy", "lost")]
            if None not in general:
                self.general = tuple(general)

    @property
    def best(self):
        """The highest dev BLEU, or None."""
        return max(self.dev.values(), default=None)

    @property
    def without_better(self):
        """Validations since the best one."""
        scores = list(self.dev.values())
        return len(scores) - 1 - scores.index(max(scores)) if scores else 0

    def seconds_left(self, silent):
        """Until the last update at the speed of this attempt, validations included, or None.

        Args:
            silent: seconds since the last entry.
        """
        if not self.most_updates or not self._last or self._last[0] <= self._first[0]:
            return None
        seconds = (self._last[1] - self._first[1]) / (self._last[0] - self._first[0])
        return max(0.0, (self.most_updates - self._last[0]) * seconds - silent)

    def progress(self, silent=0.0):
        """``Progress``; ``silent`` as for ``seconds_left``."""
        if self.update is None:
            return Progress(("preparing",))
        words = [f"update {self.update:,.0f}"]
        if self.most_updates:
            words[0] += f" of {self.most_updates:,.0f}"
        if self.loss is not None:
            words.append(
                f"loss {self.loss:.2f}" if math.isfinite(self.loss) else "the loss is not a number!"
            )
        if self.dev:
            newest = list(self.dev.values())[-1]
            best = "the best so far" if newest == self.best else f"best {self.best:.1f}"
            words.append(f"dev BLEU {newest:.1f} ({best})")
            if self.patience and self.without_better:
                words.append(f"{self.without_better} of {self.patience} tries without a better one")
        if self.general:
            words.append("general dev BLEU {:.1f} ({:.1f} lost)".format(*self.general))
        if self.tokens_per_second is not None:
            words.append(f"{self.tokens_per_second:,.0f} tokens/s")
        share = min(1.0, self.update / self.most_updates) if self.most_updates else None
        left = self.seconds_left(silent)
        return Progress(tuple(words), share, left, self.patience > 0, left is not None)


class StageLog:
    """What the log of a stage has told, followed as it grows.

    Attributes:
        training: ``Training``, or None where nothing trains.
        bar: ``Progress`` of the last progress bar while it is not full, else None.
        last_line: the last line that was no bar.
        error: how the command failed, or None.
        changed: time of the last change, seconds since the epoch, or None.
    """

    def __init__(self, path):
        self.path = Path(path)
        self._forget()

    def _forget(self):
        self.training, self.bar, self.last_line, self.error = None, None, "", None
        self.changed, self._file, self._read, self._tail = None, None, 0, b""

    def look(self):
        """Read what was added."""
        try:
            with open(self.path, "rb") as log:
                stat = os.fstat(log.fileno())
                if stat.st_ino != self._file or stat.st_size < self._read:  # another log by now
                    self._forget()
                    self._file = stat.st_ino
                self.changed = stat.st_mtime
                log.seek(self._read)
                while chunk := log.read(CHUNK):
                    self._read += len(chunk)
                    *lines, self._tail = (self._tail + chunk).split(b"\n")
                    self._tail = self._tail[-LONGEST_TAIL:]
                    for line in lines:
                        self._take(line.decode("utf-8", "replace"))
        except FileNotFoundError:
            return
        self._take_bar(self._tail.decode("utf-8", "replace"))

    def _take(self, line):
        if "\r" in line:
            self._take_bar(line)
        elif line.startswith("$ "):  # an attempt begins
            self.bar, self.last_line, self.error = None, "", None
            if self.training:
                self.training.begin_again()
        elif line.startswith(FAILURE):
            self.error = line.removeprefix(FAILURE)
        elif line.strip():
            self.bar, self.last_line = None, _printable(line)
            if "| INFO | " in line:
                self._take_entry(line)

    def _take_entry(self, line):
        if "| fairseq_cli.train | {" in line:
            self.training = self.training or Training()
            self.training.take_settings(line)
        try:
            for kind, entry in read_entries([line]):
                self.training = self.training or Training()
                numbers = {name: value for name, value in entry.items() if isinstance(value, float)}
                self.training.take(kind, numbers)
        except json.JSONDecodeError:  # two processes wrote at once
            pass

    def _take_bar(self, text):
        """Read what tqdm drew last, which begins with a carriage return."""
        if match := _BAR.match(text.rpartition("\r")[2]):
            share = min(1.0, _number(match["done"]) / max(1.0, _number(match["all"])))
            words = f"{match['what']}: {match['done']} of {match['all']}"
            left = _seconds(match["left"]) if match["left"] else None
            self.bar = Progress((words,), share, left) if share < 1 else None


class Decodings:
    """Finished lines of the decodings in a stage's folder, from their work folders.

    Args:
        part: the folder while it is being filled.
    """

    def __init__(self, part):
        self._part, self._shards = Path(part), {}

    def progress(self, since=0.0):
        """``Progress`` of the decoding under way, or None.

        Args:
            since: seconds since the epoch; shards from before say nothing about today's speed.
        """
        for pattern in ("*.part", "*/*.part"):
            for work in self._part.glob(pattern):
                if settings := _read(work / "settings.json"):
                    lines = settings.get("settings", settings).get("source", {}).get("lines")
                    if lines:
                        return self._progress(work, lines, since)
        return None

    def _progress(self, work, lines, since):
        shards = self._shards.setdefault(work, {})
        for path in work.glob("*[0-9].json"):  # 000042.json, not 000042.partial.json
            record = _read(path) if path.name not in shards else None
            if record and "counts" in record:
                with contextlib.suppress(FileNotFoundError):
                    written = path.stat().st_mtime
                    shards[path.name] = written, record["counts"]["lines"], record["seconds"]
        done = sum(count for _, count, _ in shards.values())
        name = work.name.removesuffix(".part")
        words = [f"decoding {name}: {done:,} of {lines:,} lines"]
        speed = _lines_per_second([shard for shard in shards.values() if shard[0] >= since])
        if speed:
            words.append(f"{speed:,.0f} lines/s")
        left = (lines - done) / speed if speed else None
        return Progress(tuple(words), done / lines, left)


def _lines_per_second(shards):
    """Of shards (time when it was written, lines, seconds), or None."""
    shards = sorted(shards)[-11:]
    if len(shards) > 1 and shards[-1][0] > shards[0][0]:  # several processes may share the work
        return sum(lines for _, lines, _ in shards[1:]) / (shards[-1][0] - shards[0][0])
    if shards and shards[-1][2]:
        return shards[-1][1] / shards[-1][2]
    return None


class UnderWay:
    """A stage that is being made, or was left half made.

    Args:
        out: folder that the stage makes.
    """

    def __init__(self, out):
        self._out = Path(out)
        self.log = StageLog(beside(self._out, ".log"))
        self._decodings = Decodings(beside(self._out, ".part"))

    def look(self):
        """Read what is new; returns ``Progress``."""
        self.log.look()
        if self.log.training:
            return self.log.training.progress(silent=self.silent)
        if found := self._decodings.progress(since=self.since or 0.0):
            return found
        if self.log.bar:
            return self.log.bar
        return Progress((self.log.last_line,) if self.log.last_line else ())

    @property
    def since(self):
        """When this attempt began, seconds since the epoch, or None."""
        try:
            return beside(self._out, ".request.json").stat().st_mtime
        except FileNotFoundError:
            return None

    @property
    def silent(self):
        """Seconds since the log grew."""
        return max(0.0, time.time() - self.log.changed) if self.log.changed else 0.0


def _read(path):
    """A JSON file that may be missing or half written; None then."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def _printable(line):
    """A line of a log that cannot do harm to a terminal, nor fill it."""
    return "".join(filter(str.isprintable, line)).strip()[:LONGEST_LINE]


def _number(text):
    return float(text[:-1]) * _UNITS[text[-1]] if text[-1] in _UNITS else float(text)


def _seconds(clock):
    """Seconds of a clock such as 01:05 or 2:01:05."""
    seconds = 0
    for part in clock.split(":"):
        seconds = 60 * seconds + int(part or 0)
    return seconds
