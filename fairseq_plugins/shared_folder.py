"""A work folder that any number of processes may share, and that a kill does not spoil.

``settings.json`` tells what the work in it belongs to. ``lock`` is held by all processes
together, and by one alone while it begins or ends the work; a byte of ``claims`` is locked for
every shard that somebody is working on. The system takes the locks from a process that dies, so
its shards are free again. The processes may be on one machine or share a disk that has locks.
"""

import contextlib
import fcntl
import os
import shutil
from pathlib import Path

from data_prep.manifest import read_json, write_json

SETTINGS, LOCK, CLAIMS = "settings.json", "lock", "claims"


class SharedFolder:
    """Locks and settings of a work folder.

    Args:
        path: the folder.
        worth_keeping: pattern of the files in it that are work; without any, whoever leaves
            last removes the folder.
    """

    def __init__(self, path, worth_keeping):
        self.path, self._worth_keeping = Path(path), worth_keeping
        self._lock_file = self._claims_file = None

    @contextlib.contextmanager
    def entered(self, say=lambda text: None):
        """Be in the folder; yields whether this process is the only one, and keeps others out.

        Call :meth:`share` to let them in. At the end the folder goes, unless there is work
        in it or somebody else.
        """
        alone = self._enter(say)
        try:
            yield alone
        finally:
            if self._take(fcntl.LOCK_EX | fcntl.LOCK_NB) and self._still_there():
                if not self._has_work():
                    self._remove()
            self._leave()

    def share(self):
        """Let others in."""
        self._take(fcntl.LOCK_SH)

    def be_alone(self):
        """Wait until all others have left; False if one of them ended the work meanwhile."""
        self._take(fcntl.LOCK_UN)  # two that wait for each other would wait for ever
        self._take(fcntl.LOCK_EX)
        return self._still_there()

    def claim(self, number):
        """Take shard ``number`` for this process; False if another has it."""
        return self._lock_byte(number, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def release(self, number):
        """Give a shard that was claimed back."""
        self._lock_byte(number, fcntl.LOCK_UN)

    def _enter(self, say):
        while True:
            self.path.mkdir(exist_ok=True)
            try:
                self._lock_file = open(self.path / LOCK, "ab")
                alone = self._take(fcntl.LOCK_EX | fcntl.LOCK_NB)
                if not alone and not self._take(fcntl.LOCK_SH | fcntl.LOCK_NB):
                    say(f"{self.path}: waiting for another process that begins or ends the work")
                    self._take(fcntl.LOCK_SH)
                # a run that has just ended may have removed the folder under our hands
                if self._still_there():
                    self._claims_file = open(self.path / CLAIMS, "ab")
                    return alone
            except FileNotFoundError:
                pass
            self._leave()

    def _leave(self):
        for file in (self._claims_file, self._lock_file):
            if file is not None:
                file.close()
        self._lock_file = self._claims_file = None

    def _take(self, operation):
        try:
            fcntl.flock(self._lock_file, operation)
        except BlockingIOError:
            return False
        return True

    def _still_there(self):
        try:
            found = os.stat(self.path / LOCK)
        except FileNotFoundError:
            return False
        return os.path.samestat(os.fstat(self._lock_file.fileno()), found)

    def _lock_byte(self, number, operation):
        try:
            fcntl.lockf(self._claims_file, operation, 1, number)
        except (BlockingIOError, PermissionError):
            return False
        return True

    # -- settings ----------------------------------------------------------------------------

    def settings(self):
        """What the work in the folder belongs to, a dictionary, or None."""
        path = self.path / SETTINGS
        return read_json(path) if path.exists() else None

    def begin(self, settings):
        """Empty the folder for new work."""
        self.clear()
        write_json(self.path / SETTINGS, settings)

    def clear(self):
        """Remove all but the locks."""
        for file in self.path.iterdir():
            if file.is_dir():
                shutil.rmtree(file)
            elif file.name not in (LOCK, CLAIMS):
                file.unlink()

    def _has_work(self):
        return any(self.path.glob(self._worth_keeping))

    def _remove(self):
        self.clear()
        for name in (CLAIMS, LOCK):
            (self.path / name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # the next process may be in it already
            self.path.rmdir()


def differences(before, now, changed=()):
    """What differs between two settings, as sentences for people.

    Args:
        before, now: dictionaries.
        changed: {name: sentence} for settings whose values tell people nothing.
    """
    changes = []
    for name in sorted({*before, *now}):
        old, new = before.get(name), now.get(name)
        if old != new:
            flag = f"--{name.replace('_', '-')} was {old}, is {new}"
            changes.append(changed[name] if name in changed else flag)
    return changes


def is_made(out, changes, overwrite):
    """Whether a finished output is what this command would make; False: it may be replaced.

    Args:
        out: path of the output.
        changes: in what it is something else, sentences; none: it is not.
        overwrite: whether it may be replaced.

    Raises:
        FileExistsError: it is something else, and may not be replaced.
    """
    if not changes:
        return True
    if overwrite:
        return False
    raise FileExistsError(
        f"{out} exists and is not what this command would make: {'; '.join(changes)}; "
        f"pass --overwrite to replace it"
    )
