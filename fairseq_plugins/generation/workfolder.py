"""The work folder of a decoding, ``OUT.part``: finished shards, their hashes, a lock.

A shard is a fixed number of source lines. ``000042.txt`` holds its translations and
``000042.json`` their SHA-256 and counts; the second file is written last, so a shard
without it, or with another hash, is not finished. ``settings.json`` tells which text,
model and settings the shards belong to.
"""

import contextlib
import fcntl
import os
import shutil
from collections import Counter
from pathlib import Path

from data_prep.files import sha256, write_whole
from data_prep.manifest import manifest_path, read_json, write_json

SETTINGS = "settings.json"
LOCK = "lock"
COUNTS = ("lines", "empty_sources", "too_long", "empty_outputs")


class WorkFolder:
    """Finished shards of the decoding that will become file ``out``.

    Args:
        out: path of the final file; the folder is ``OUT.part`` beside it.
        identity: dictionary of all that shapes the text, JSON types only:
            "source", "models" and the settings by name.
    """

    def __init__(self, out, identity):
        self.out = Path(out)
        self.path = self.out.with_name(self.out.name + ".part")
        self.identity = identity

    @contextlib.contextmanager
    def locked(self):
        """Hold the folder for this process; at the end it goes, unless a shard is left in it.

        Raises:
            ValueError: another process works in it.
        """
        with self._lock():
            try:
                yield self
            finally:
                if not any(self.path.glob("*.txt")):
                    self.clear()
                    (self.path / LOCK).unlink()
                    with contextlib.suppress(OSError):  # the next process may be in it already
                        self.path.rmdir()

    def _lock(self):
        while True:
            self.path.mkdir(exist_ok=True)
            lock = self.path / LOCK
            try:
                file = open(lock, "ab")
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # a run that has just ended may have removed the folder under our hands
                if os.path.samestat(os.fstat(file.fileno()), lock.stat()):
                    return file
                file.close()
            except BlockingIOError:
                file.close()
                raise ValueError(
                    f"another process is working in {self.path}; wait until it has finished"
                ) from None
            except FileNotFoundError:
                continue

    def open(self):
        """Keep what fits this decoding; returns why shards had to go, a list of sentences."""
        settings, changes = self.path / SETTINGS, []
        if self.has_settings():
            changes = differences(read_json(settings), self.identity)
            if not changes:
                return []
        self.clear()
        write_json(settings, self.identity)
        return changes

    def finished(self, number, lines):
        """Record of shard ``number`` if it is whole and has so many lines, else None."""
        text, record = self._files(number)
        if not record.exists() or not text.exists():
            return None
        try:
            found = read_json(record)
        except ValueError:
            return None
        if found.get("lines") != lines or found.get("sha256") != sha256(text):
            return None
        return found

    def was_begun(self, number):
        """Whether a file of shard ``number`` lies there, finished or not."""
        return any(file.exists() for file in self._files(number))

    def store(self, number, translations, counts, seconds):
        """Write a finished shard: ``translations`` is a list of strings, one for each line."""
        text, record = self._files(number)
        record.unlink(missing_ok=True)
        with write_whole(text) as out:
            out.writelines(line + "\n" for line in translations)
        write_json(record, {**counts, "seconds": round(seconds, 3), "sha256": sha256(text)})

    def merge(self, shards):
        """Join the first ``shards`` shards in order; returns the file, sums of counts, seconds."""
        merged = self.path / "merged"
        counts, seconds = Counter(dict.fromkeys(COUNTS, 0)), 0.0
        with open(merged, "wb") as out:
            for number in range(shards):
                text, record = self._files(number)
                found = read_json(record)
                counts.update({name: found[name] for name in COUNTS})
                seconds += found["seconds"]
                with open(text, "rb") as file:
                    shutil.copyfileobj(file, out)
            out.flush()
            os.fsync(out.fileno())
        return merged, dict(counts), seconds

    def finish(self, merged):
        """Give file and manifest their final names and empty the folder."""
        os.replace(merged, self.out)
        os.replace(manifest_path(merged), manifest_path(self.out))
        self.clear()

    def clear(self):
        """Remove all but the lock."""
        for file in self.path.iterdir():
            if file.is_dir():
                shutil.rmtree(file)
            elif file.name != LOCK:
                file.unlink()

    def has_settings(self):
        """Whether a decoding was begun here."""
        return (self.path / SETTINGS).exists()

    def _files(self, number):
        name = f"{number:06d}"
        return self.path / f"{name}.txt", self.path / f"{name}.json"


def differences(before, now):
    """What differs between two identities, as sentences for people."""
    changes = []
    for name in sorted({*before, *now}):
        old, new = before.get(name), now.get(name)
        if old == new:
            continue
        if name == "source":
            changes.append("the source text changed")
        elif name == "models":
            changes.append("the model changed")
        else:
            changes.append(f"--{name.replace('_', '-')} was {old}, is {new}")
    return changes
