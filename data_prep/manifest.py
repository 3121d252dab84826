"""Manifests: beside every output, what made it.

A file ``X`` has ``X.manifest.json``, a folder ``X`` has ``X/manifest.json``.
"""

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

from data_prep.files import sha256, write_whole

PACKAGES = (
    "ctranslate2", "fairseq-fixed", "fairseq", "fastchrf", "ftfy", "mtdata", "numpy", "OpenCC",
    "py3langid", "ray", "sacrebleu", "sacremoses", "safetensors", "scikit-learn", "sentencepiece",
    "subword-nmt", "torch", "varikn",
)  # fmt: skip


def manifest_path(output):
    """Where the manifest of a file or folder lies."""
    output = Path(output)
    return output / "manifest.json" if output.is_dir() else Path(f"{output}.manifest.json")


def write_manifest(output, *, settings, inputs, counts, seconds, seed=None, command=None,
                   outputs=None):  # fmt: skip
    """Write the manifest of a finished output and return its path.

    Args:
        output: the file or folder, complete and under its final name (or its
            ``.part`` folder, shortly before it is renamed).
        settings: dictionary of the options that shaped the output.
        inputs: paths of the files that were read.
        counts: dictionary of numbers, lines in and lines out among them.
        seconds: wall time, float.
        seed: random seed, where chance played a part.
        command: list of words; the command line of this process by default.
        outputs: dictionary of file name and SHA-256 of what was made, so that a
            later change by hand is noticed.
    """
    path = manifest_path(output)
    record = {
        "command": list(command or [Path(sys.argv[0]).name, *sys.argv[1:]]),
        "settings": settings,
        "inputs": {str(name): sha256(name) for name in inputs},
        "counts": counts,
        "outputs": outputs or {},
        "seed": seed,
        "seconds": round(seconds, 3),
        "versions": package_versions(),
        "commit": commit(),
    }
    write_json(path, record)
    return path


def read_manifest(output):
    """Manifest of a file or folder as a dictionary.

    Raises:
        FileNotFoundError: the output has no manifest.
        ValueError: the manifest is not JSON.
    """
    return read_json(manifest_path(output))


def write_json(path, record):
    """Write a dictionary as indented JSON, whole or not at all."""
    with write_whole(path) as out:
        json.dump(record, out, indent=2, ensure_ascii=False)
        out.write("\n")


def read_json(path):
    """Read a JSON file; a damaged one is named in the error."""
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}); remove it and run again") from None


def package_versions():
    """Versions of Python and of the packages that results depend on."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def machine():
    """What this machine is: ``cpu``, ``cores``, ``memory_bytes``, ``gpus`` (names)."""
    return {
        "cpu": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "gpus": _gpus(),
    }


def processor():
    """Name of the processor, as the system tells it."""
    about = Path("/proc/cpuinfo")
    if about.exists():
        for line in about.read_text().split("\n"):
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _gpus():
    try:
        listed = subprocess.run(
            ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"],
            capture_output=True, text=True, timeout=10,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return []
    return listed.stdout.strip().split("\n") if listed.returncode == 0 else []


def commit():
    """Commit of this project's checkout, with ``-dirty`` where it was edited; else None."""
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return described.stdout.strip() or None if described.returncode == 0 else None
