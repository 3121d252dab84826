"""COMET scores by the command of an environment of its own; nothing of COMET is imported here."""

import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from data_prep.files import one_line, read_lines

HELP = (
    "COMET needs an environment of its own: python -m venv comet && "
    "comet/bin/pip install unbabel-comet, then --comet-command comet/bin/comet-score"
)
NAME = "COMET"
LAST_LINES = 5  # of what a command that failed has said


def score(test_set, systems, model, comet_score="comet-score", gpus=0):
    """COMET of systems on one test set.

    Args:
        test_set: ``TestSet`` with source; of several references the first counts, as COMET takes
            one.
        systems: {name: file of translations}.
        model: name on the hub or checkpoint, such as ``Unbabel/wmt22-comet-da``.
        comet_score: the command.
        gpus: number of GPUs.

    Returns:
        {name: {"score": mean of the segments, "model", "version", "signature"}}.

    Raises:
        FileNotFoundError: there is no such command.
        ValueError: no source, the command failed, or it scored another number of lines.
    """
    found = shutil.which(comet_score)
    if not found:
        raise FileNotFoundError(f"there is no command {comet_score!r}. {HELP}")
    if not test_set.source:
        raise ValueError("COMET reads the source, too: give --source, or --source-lang with --test")
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        lines = _copy(test_set.source, folder / "source")
        _copy(test_set.references[0], folder / "reference")
        files = {name: folder / f"system.{place}" for place, name in enumerate(systems)}
        for name, path in files.items():
            _copy(systems[name], path)
        out = folder / "scores.json"
        words = [found, "-s", folder / "source", "-r", folder / "reference",
                 "-t", *files.values(), "--model", model, "--gpus", str(gpus),
                 "--quiet", "--only_system", "--to_json", out]  # fmt: skip
        done = subprocess.run(list(map(str, words)), capture_output=True, text=True)
        if done.returncode or not out.exists():
            said = "\n  ".join(done.stderr.strip().splitlines()[-LAST_LINES:]) or "nothing"
            raise ValueError(f"{found} ended with status {done.returncode}; it said:\n  {said}")
        try:
            segments = [[line["COMET"] for line in system] for system in _read(out, files)]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{found} wrote something else than segments with COMET scores ({error!r}); "
                f"is it comet-score of unbabel-comet 2?"
            ) from None
    version = _version(found)
    entries = {}
    for name, scores in zip(files, segments, strict=True):
        if len(scores) != lines:
            raise ValueError(
                f"{found} scored {len(scores):,} of {lines:,} lines of {systems[name]}"
            )
        entries[name] = {
            "score": round(sum(scores) / len(scores), 4),
            "model": model,
            "version": version,
            "signature": f"model:{re.sub('[|:]', '_', model)}|version:{version}",
        }
    return entries


def _copy(path, out):
    """Write a text such that COMET, which ends lines at carriage returns too, counts as we do."""
    count = 0
    with open(out, "w", encoding="utf-8", newline="\n") as file:
        for line in read_lines(path):
            file.write(one_line(line) + "\n")
            count += 1
    return count


def _read(path, files):
    record = json.loads(path.read_text(encoding="utf-8"))
    # keys are the paths as given
    return [record[str(path)] for path in files.values()]


def _version(found):
    """Version of unbabel-comet in the environment of the command, or ``unknown``."""
    first = Path(found).read_bytes()[:500].split(b"\n", 1)[0]
    if not first.startswith(b"#!"):
        return "unknown"
    words = first[2:].decode("utf-8", "replace").split()
    done = subprocess.run(
        [*words, "-c", "import importlib.metadata as m; print(m.version('unbabel-comet'))"],
        capture_output=True, text=True,
    )  # fmt: skip
    return done.stdout.strip() if not done.returncode else "unknown"
