"""Check that this machine and this Python environment can do the work; name each fault's cure.

One line per check: `ok`, `warn` (something is slower or missing that you may not need) or
`FAULT` (something that you do need does not work), the fact, and below it what to do. The exit
status is 1 when there is a fault.

Example: dad-doctor, or without an installation: python3 data_prep/doctor.py
"""

import concurrent.futures
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
if not __package__:  # started as a file, so the project itself may not be installed
    sys.path[0] = str(ROOT)

from data_prep import command  # noqa: E402

GB = 1 << 30
NEEDED_DISK = 5 * GB  # environment 2 GB, a quickstart run 1 GB, room for checkpoints
NEEDED_MEMORY = 4 * GB
PROBE_SECONDS = 180  # first imports after an installation compile bytecode and read a cold disk
SET_UP = "bash recipes/bootstrap.sh --again"


class Finding(NamedTuple):
    """What one check saw."""

    name: str
    status: str  # "ok", "warn" or "FAULT"
    fact: str
    cure: str = ""


# --- probes: short programs in a process of their own, so that a crash there is a finding here ---


def probe(program, *arguments):
    """What ``program`` (Python source) leaves in its variable ``facts``, or a string on failure.

    Runs in another process, in an empty folder, so that nothing lying around here is imported.
    """
    ending = "\nimport json, sys\nsys.stdout.flush()\nprint('\\nFACTS ' + json.dumps(facts))"
    with tempfile.TemporaryDirectory() as empty:
        try:
            done = subprocess.run(
                [sys.executable, "-c", program + ending, *arguments],
                cwd=empty, stdin=subprocess.DEVNULL, timeout=PROBE_SECONDS, encoding="utf-8",
                errors="replace", stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return f"no answer within {PROBE_SECONDS} s"
        except OSError as error:
            return str(error)
    for line in reversed(done.stdout.splitlines()):
        if line.startswith("FACTS "):
            return json.loads(line[len("FACTS ") :])
    if done.returncode < 0:
        return f"the process was killed by signal {-done.returncode}"
    words = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    return words[-1] if words else f"the process ended with status {done.returncode}"


TORCH = """
import torch
facts = {"version": torch.__version__, "cuda": torch.version.cuda, "gpus": []}
if torch.cuda.is_available():
    for number in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(number)
        facts["gpus"].append({"name": about.name, "gb": round(about.total_memory / 2**30),
                              "bf16": about.major >= 8})
"""

FAIRSEQ = """
import importlib
import fairseq
facts = {"version": fairseq.__version__, "broken": []}
for name in ("fairseq.data.data_utils_fast", "fairseq.data.token_block_utils_fast",
             "fairseq.libbleu"):
    try:
        importlib.import_module(name)
    except Exception as error:
        facts["broken"].append(name + " (" + str(error).splitlines()[0] + ")")
"""

CTRANSLATE2 = """
import ctypes
import ctranslate2
facts = {"version": ctranslate2.__version__, "gpus": ctranslate2.get_cuda_device_count()}
try:
    ctypes.CDLL("libcublas.so.12")
    facts["cublas"] = True
except OSError:
    facts["cublas"] = False
"""

PLUGIN = """
import argparse, sys
from fairseq import utils
utils.import_user_module(argparse.Namespace(user_dir=sys.argv[1]))
from fairseq.tasks import TASK_REGISTRY
facts = {"missing": [name for name in ("sequence_distillation", "domain_adaptation")
                     if name not in TASK_REGISTRY]}
"""

INSTALLED = """
import importlib.util
facts = {}
for name in ("data_prep", "fairseq_plugins"):
    found = importlib.util.find_spec(name)
    facts[name] = found.origin if found else None
"""

PACKAGE = """
import importlib, importlib.metadata, sys
importlib.import_module(sys.argv[1])
facts = importlib.metadata.version(sys.argv[2])
"""


def last_sentence(failure):
    """A probe's failure, short enough for one line."""
    return failure if len(failure) <= 160 else failure[:157] + "..."


# --- the checks; each returns a Finding ---


def check_python():
    version = platform.python_version()
    fact = f"{version}, {sys.executable}"
    if (3, 11) <= sys.version_info[:2] <= (3, 13):
        return Finding("Python", "ok", fact)
    return Finding(
        "Python", "FAULT", f"{fact}: this project needs 3.11, 3.12 or 3.13",
        "PYTHON=/path/to/python3.12 bash recipes/bootstrap.sh makes a .venv with another Python",
    )  # fmt: skip


def check_torch(facts):
    """Finding about torch from what ``TORCH`` saw."""
    if isinstance(facts, str):
        cure = f"{SET_UP} (TORCH_SPEC chooses the build; bash recipes/bootstrap.sh --help)"
        venv = ROOT / ".venv"
        if (venv / "bin" / "dad-doctor").exists() and Path(sys.prefix).resolve() != venv:
            cure = f"this is not the project's environment; ask that one: {venv}/bin/dad-doctor"
        return Finding("torch", "FAULT", f"cannot be imported: {last_sentence(facts)}", cure)
    version = facts["version"]
    if release(version) < (2, 6):
        return Finding(
            "torch", "FAULT", f"{version}: checkpoints are loaded as data only since 2.6",
            "pip install 'torch>=2.6', or in a .venv of the project: " + SET_UP,
        )  # fmt: skip
    build = f"CUDA {facts['cuda']} build" if facts["cuda"] else "CPU build"
    return Finding("torch", "ok", f"{version}, {build}")


def check_gpu(facts):
    """Finding about the GPUs from what ``TORCH`` saw."""
    if isinstance(facts, str):
        return Finding("GPU", "warn", "unknown, since torch cannot be imported", "mend torch first")
    if facts["gpus"]:
        said = ", ".join(
            f"{gpu['name']} ({gpu['gb']} GB, {'bf16' if gpu['bf16'] else 'fp16, no bf16'})"
            for gpu in facts["gpus"]
        )
        return Finding("GPU", "ok", said)
    if shutil.which("nvidia-smi") and not facts["cuda"]:
        return Finding(
            "GPU", "warn", "this machine seems to have one, but torch is a CPU build",
            "TORCH_SPEC='torch==VERSION+cuNNN ...' bash recipes/bootstrap.sh --again",
        )  # fmt: skip
    if shutil.which("nvidia-smi"):
        return Finding(
            "GPU", "warn", f"torch (for CUDA {facts['cuda']}) does not see one",
            "compare with the driver's CUDA version, which nvidia-smi shows; check "
            "CUDA_VISIBLE_DEVICES; an older torch build works with an older driver",
        )  # fmt: skip
    return Finding(
        "GPU", "warn", "none: fine for the quickstart and the tests",
        "train real models on a machine with an NVIDIA GPU",
    )  # fmt: skip


def check_fairseq(facts):
    """Finding about fairseq from what ``FAIRSEQ`` saw."""
    if isinstance(facts, str):
        return Finding(
            "fairseq", "FAULT", f"cannot be imported: {last_sentence(facts)}",
            f"{SET_UP}, or in an environment of your own: pip install --no-deps "
            "--no-build-isolation -r requirements-fairseq.txt, after torch and requirements.txt",
        )  # fmt: skip
    if facts["broken"]:
        return Finding(
            "fairseq", "FAULT",
            f"{facts['version']}, but compiled parts are missing: {', '.join(facts['broken'])}",
            "pip uninstall -y fairseq-fixed fairseq; then, with a C++ compiler: " + SET_UP,
        )  # fmt: skip
    if release(facts["version"]) != (0, 12):
        return Finding(
            "fairseq", "warn", f"{facts['version']}: tried only with the 0.12 line",
            "pip uninstall -y fairseq; " + SET_UP,
        )  # fmt: skip
    return Finding("fairseq", "ok", f"{facts['version']}, compiled parts load")


def check_ctranslate2(facts, torch_facts):
    """Finding about CTranslate2 from what ``CTRANSLATE2`` and ``TORCH`` saw."""
    if isinstance(facts, str):
        return Finding(
            "ctranslate2", "FAULT", f"cannot be imported: {last_sentence(facts)}",
            f"{SET_UP}, or: pip install ctranslate2; without it: dad-generate --backend fairseq",
        )  # fmt: skip
    gpus = [] if isinstance(torch_facts, str) else torch_facts["gpus"]
    fact = f"{facts['version']}, sees {facts['gpus'] or 'no'} GPU{'s'[: facts['gpus'] != 1]}"
    if gpus and not (facts["gpus"] and facts["cublas"]):
        lacks = "its wheels need CUDA 12 libraries (libcublas.so.12), which are not to be found"
        return Finding(
            "ctranslate2", "warn", f"{fact}; {lacks if not facts['cublas'] else 'torch sees one'}",
            "decode with dad-generate --backend fairseq, or install CUDA 12's cuBLAS and cuDNN "
            "(pip install nvidia-cublas-cu12 nvidia-cudnn-cu12) and put their lib folders on "
            "LD_LIBRARY_PATH",
        )  # fmt: skip
    return Finding("ctranslate2", "ok", fact)


def check_package(name, facts, least, needed_for):
    """Finding about a package from what ``PACKAGE`` saw.

    Args:
        name: what pip calls it.
        facts: its version, or the failure in words.
        least: smallest version that works, as a tuple.
        needed_for: what cannot be done without it.
    """
    if not facts[:1].isdigit():
        return Finding(
            name, "FAULT", f"cannot be imported ({last_sentence(facts)}); {needed_for}",
            f"{SET_UP}, or: pip install {name}",
        )  # fmt: skip
    if release(facts) < least:
        wanted = ".".join(str(part) for part in least)
        return Finding(
            name, "FAULT", f"{facts} is older than {wanted}; {needed_for}",
            f"{SET_UP}, or: pip install '{name}>={wanted}'",
        )  # fmt: skip
    return Finding(name, "ok", facts)


def check_compiler(fairseq_installed):
    """Finding about what compiles fairseq; a warning only, once fairseq is there."""
    lacking = "warn" if fairseq_installed else "FAULT"
    needed = "only for building fairseq, which is installed" if fairseq_installed else (
        "fairseq is built from source"
    )  # fmt: skip
    named = os.environ.get("CXX", "").split()[:1]
    compiler = next(filter(None, map(shutil.which, [*named, "c++", "g++", "clang++"])), None)
    if compiler is None:
        return Finding(
            "compiler", lacking, f"no C++ compiler; needed: {needed}",
            "apt-get install build-essential python3-dev, dnf install gcc-c++ python3-devel, "
            "xcode-select --install, or conda install cxx-compiler -c conda-forge",
        )  # fmt: skip
    header = Path(sysconfig.get_paths()["include"]) / "Python.h"
    if not header.exists():
        return Finding(
            "compiler", lacking, f"{compiler}, but {header} is missing; needed: {needed}",
            "apt-get install python3-dev or dnf install python3-devel, for this Python's version",
        )  # fmt: skip
    return Finding("compiler", "ok", f"{compiler}, with Python.h")


def check_plugin(facts):
    """Finding about ``--user-dir fairseq_plugins`` from what ``PLUGIN`` saw."""
    if isinstance(facts, str):
        return Finding(
            "--user-dir", "FAULT", f"fairseq_plugins cannot be loaded: {last_sentence(facts)}",
            "mend the faults above first; if there are none: pip install -e . --no-deps "
            "--no-build-isolation",
        )  # fmt: skip
    if facts["missing"]:
        return Finding(
            "--user-dir", "FAULT", f"does not register {', '.join(facts['missing'])}",
            "is this checkout whole? git status",
        )  # fmt: skip
    return Finding("--user-dir", "ok", "registers sequence_distillation and domain_adaptation")


def check_copies(installed):
    """Finding about copies of the project: fairseq refuses a second one of the same name."""
    if isinstance(installed, str):
        installed = {}
    places = {}
    for name in ("data_prep", "fairseq_plugins"):
        origins = {ROOT / name / "__init__.py"}
        if installed.get(name):
            origins.add(Path(installed[name]).resolve())
        for entry in [*sys.path, "."]:  # from here --user-dir would take the one that lies here
            candidate = Path(entry or ".") / name / "__init__.py"
            if candidate.exists():
                origins.add(candidate.resolve())
        places[name] = sorted(str(origin.parent.parent) for origin in origins)
    folders = sorted({folder for found in places.values() for folder in found})
    if len(folders) > 1:
        return Finding(
            "one copy", "FAULT", f"{len(folders)} copies of this project: {', '.join(folders)}",
            "keep one: pip uninstall -y distill-adapt-distill, then in the checkout that you use: "
            "pip install -e . --no-deps --no-build-isolation",
        )  # fmt: skip
    if not installed.get("data_prep"):
        return Finding(
            "one copy", "warn", f"{ROOT}, not installed: the dad-* commands are missing",
            "pip install -e . --no-deps --no-build-isolation",
        )  # fmt: skip
    return Finding("one copy", "ok", folders[0])


def check_disk():
    free = shutil.disk_usage(".").free
    fact = f"{free / GB:,.0f} GB free in {Path.cwd()}"
    if free < NEEDED_DISK:
        return Finding(
            "disk", "FAULT", f"{fact}; about {NEEDED_DISK // GB} GB are needed",
            "free some, or work on another disk (--work DIR)",
        )  # fmt: skip
    return Finding("disk", "ok", fact)


def check_writing():
    try:
        with tempfile.NamedTemporaryFile(dir=".", prefix=".dad-doctor-"):
            pass
    except OSError as error:
        return Finding(
            "writing", "FAULT", f"{Path.cwd()}: {error.strerror}",
            "change to a folder that you may write to, or name one with --work DIR",
        )  # fmt: skip
    return Finding("writing", "ok", f"files can be made in {Path.cwd()}")


def check_memory():
    total = memory()
    if total is None:
        return Finding("memory", "ok", "unknown on this system")
    fact = f"{total / GB:,.1f} GB"
    if total < NEEDED_MEMORY:
        return Finding(
            "memory", "warn", f"{fact}; {NEEDED_MEMORY // GB} GB are comfortable",
            "lower --max-tokens, or close other programs",
        )  # fmt: skip
    return Finding("memory", "ok", fact)


def check_cores():
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    policy = os.environ.get("OMP_WAIT_POLICY", "")
    fact = f"{cores} core{'s'[: cores != 1]}, OMP_WAIT_POLICY={policy or 'not set'}"
    if policy.upper() != "PASSIVE":
        return Finding(
            "cores", "warn", f"{fact}: beside another busy process, waiting threads spin and "
            "training on the CPU slows down",
            "export OMP_WAIT_POLICY=PASSIVE (the recipes set it)",
        )  # fmt: skip
    return Finding("cores", "ok", fact)


def memory():
    """Bytes of memory that this process may use, or None where the system does not say."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None
    try:  # a container may be given less than the machine has
        total = min(total, int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="utf-8")))
    except (OSError, ValueError):
        pass
    return total


def release(version):
    """First two numbers of a version: ``release("2.13.0+cpu") == (2, 13)``."""
    found = re.match(r"(\d+)\.(\d+)", version)
    return (int(found[1]), int(found[2])) if found else (0, 0)


PACKAGES = (  # pip's name, module, smallest version, needed for
    ("numpy", "numpy", (1, 26), "fairseq and the binarised data need it"),
    ("sentencepiece", "sentencepiece", (0, 2), "subwords need it"),
    ("subword-nmt", "subword_nmt", (0, 3), "models with joint BPE need it"),
    ("sacrebleu", "sacrebleu", (2, 0), "every score needs it"),
    ("mtdata", "mtdata", (0, 5), "public corpora are fetched with it"),
    ("ftfy", "ftfy", (6, 3), "cleaning repairs text with it"),
    ("OpenCC", "opencc", (1, 2), "cleaning converts Chinese with it"),
    ("py3langid", "py3langid", (0, 4), "cleaning and selection tell languages with it"),
    ("xxhash", "xxhash", (3, 0), "cleaning finds duplicates with it"),
    ("sacremoses", "sacremoses", (0, 1), "tokenised vocabularies need it"),
)


def examine():
    """All findings, in the order in which they are best mended."""
    with concurrent.futures.ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        torch_facts = pool.submit(probe, TORCH)
        fairseq_facts = pool.submit(probe, FAIRSEQ)
        plugin_facts = pool.submit(probe, PLUGIN, str(ROOT / "fairseq_plugins"))
        ctranslate2_facts = pool.submit(probe, CTRANSLATE2)
        installed = pool.submit(probe, INSTALLED)
        packages = [
            (name, pool.submit(probe, PACKAGE, module, name), least, needed_for)
            for name, module, least, needed_for in PACKAGES
        ]
    torch_facts, fairseq_facts = torch_facts.result(), fairseq_facts.result()
    return [
        check_python(),
        check_compiler(fairseq_installed=not isinstance(fairseq_facts, str)),
        check_torch(torch_facts),
        check_gpu(torch_facts),
        *(check_package(name, facts.result(), *rest) for name, facts, *rest in packages),
        check_fairseq(fairseq_facts),
        check_ctranslate2(ctranslate2_facts.result(), torch_facts),
        check_copies(installed.result()),
        check_plugin(plugin_facts.result()),
        check_disk(),
        check_writing(),
        check_memory(),
        check_cores(),
    ]


def render(findings):
    """The findings as people read them, ending with a line that counts them."""
    width = max(len(finding.name) for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f"{finding.status:<5}  {finding.name:<{width}}  {finding.fact}")
        if finding.cure:
            lines.append(f"{'':<5}  {'':<{width}}  -> {finding.cure}")
    faults = sum(finding.status == "FAULT" for finding in findings)
    warnings = sum(finding.status == "warn" for finding in findings)
    lines.append("")
    lines.append(
        f"{faults} fault{'s'[: faults != 1]}, {warnings} warning{'s'[: warnings != 1]}"
        + (": mend the first fault first" if faults else "; ready to work")
    )
    return "\n".join(lines)


def main():
    command.run(_main, "dad-doctor")


def _main():
    parser = command.parser(__doc__, "dad-doctor")
    parser.add_argument("--json", action="store_true", help="print a list of objects instead")
    args = parser.parse_args()
    findings = examine()
    if args.json:
        print(json.dumps([finding._asdict() for finding in findings], indent=2))
    else:
        print(render(findings))
    return 1 if any(finding.status == "FAULT" for finding in findings) else 0


if __name__ == "__main__":
    main()
