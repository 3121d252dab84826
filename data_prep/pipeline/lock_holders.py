"""Which stages are being made now, seen from outside.

``dad-stage`` holds flock on FOLDER.lock. To try that lock, even shared and without waiting, could
make a stage that begins at that moment wait for us, so we only look at what the system tells.
"""

import contextlib
import os
from pathlib import Path

PROCESSES = Path("/proc")


def held(paths):
    """Those of the lock files that some process holds, a set.

    A lock that the system does not list may belong to a command that outlived its dad-stage, so
    one that a process has open counts as held. Where the system shows neither (that is Linux's
    way), every lock file that exists does.

    Args:
        paths: lock files; those that do not exist are held by nobody.
    """
    found = {}
    for path in map(Path, paths):
        try:
            found[path] = path.stat()
        except OSError:
            continue
    if not PROCESSES.is_dir():
        return set(found)
    listed = _listed()
    holding = {path for path, stat in found.items() if _key(stat) in listed}
    rest = {str(path.resolve()): path for path in found.keys() - holding}
    return holding | _opened(rest) if rest else holding


def _listed():
    """(major, minor, inode) of the files on which some process holds flock."""
    keys = set()
    try:
        lines = (PROCESSES / "locks").read_text().splitlines()
    except OSError:
        return keys
    for line in lines:
        words = line.split()  # 1: FLOCK ADVISORY WRITE 29105 fe:00:2491645 0 EOF
        if len(words) > 5 and words[1] == "FLOCK":  # words[1] of one that waits is ->
            major, minor, inode = words[5].split(":")
            keys.add((int(major, 16), int(minor, 16), int(inode)))
    return keys


def _key(stat):
    return os.major(stat.st_dev), os.minor(stat.st_dev), stat.st_ino


def _opened(files):
    """Which of {absolute path: path} a process has open."""
    found = set()
    for folder in PROCESSES.glob("[0-9]*/fd"):
        with contextlib.suppress(OSError):  # it has ended, or belongs to somebody else
            for name in os.listdir(folder):
                with contextlib.suppress(OSError):
                    target = os.readlink(folder / name)
                    if target in files:
                        found.add(files[target])
    return found
