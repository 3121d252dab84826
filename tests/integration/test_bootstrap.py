"""recipes/bootstrap.sh with a stand-in Python that records what it is asked and installs nothing.

The stand-in answers small questions (``-c``) with the real Python's help, makes an environment by
copying itself, and writes down every ``-m pip`` call.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = (
    "recipes/bootstrap.sh", "setup.py", "requirements.txt", "requirements-torch.txt",
    "requirements-fairseq.txt", "requirements-test.txt", "requirements-ray.txt",
)  # fmt: skip

STAND_IN = r"""#!/bin/bash
note() { printf '%s\n' "$*" >>"$CALLS"; }
case "$*" in
  *version_info*) echo "${STAND_IN_VERSION:-3.11.7}" ;;
  *sys.version\)*) echo "${STAND_IN_VERSION:-3.11.7}" ;;
  *"import ensurepip"*) [[ -z "${STAND_IN_WITHOUT_VENV:-}" ]] ;;
  *sysconfig*) echo "$STAND_IN_INCLUDE" ;;
  *"import pip"*) [[ -f "${0%/*}/pip" ]] ;;
  *"import torch; print"*) [[ -n "${STAND_IN_TORCH:-}" ]] && echo "$STAND_IN_TORCH" ;;
  *"import torch, fairseq"*) note verify ;;
  *importlib.metadata*" ${STAND_IN_FAIRSEQ:-none}") echo "0.12.3.1" ;;
  *importlib.metadata* | *"import fairseq") ;;
  "-m venv "*)
    note "$*"
    mkdir -p "$3/bin" && cp "$0" "$3/bin/python"
    if [[ "${STAND_IN_STOPS_AT:-}" == venv ]]; then touch "$CALLS.stopped"; sleep 60; fi
    touch "$3/bin/pip"
    ;;
  "-m pip install "*)
    note "$*"
    if [[ "$*" == *"${STAND_IN_FAILS_AT:-never}"* ]]; then echo "no such release"; exit 1; fi
    if [[ "$*" == *"${STAND_IN_STOPS_AT:-never}"* ]]; then touch "$CALLS.stopped"; sleep 60; fi
    ;;
  *) exec "$REAL_PYTHON" "$@" ;;
esac
"""


def write_program(path, text):
    path.write_text(text, encoding="utf-8", newline="\n")
    path.chmod(0o755)


class Clone:
    """A checkout in a folder with a space in its name, and a PATH with stand-ins first."""

    def __init__(self, folder):
        self.root = folder / "my clone"
        for name in FILES:
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, self.root / name)
        self.bin = folder / "bin"
        self.bin.mkdir()
        include = folder / "include"
        include.mkdir()
        (include / "Python.h").touch()
        for tool in (
            "bash", "cat", "cksum", "cp", "date", "dirname", "grep", "head", "mkdir", "mv",
            "paste", "rm", "sed", "sleep", "tail", "touch", "tr",
        ):  # fmt: skip
            (self.bin / tool).symlink_to(shutil.which(tool))
        write_program(self.bin / "python3", STAND_IN)
        write_program(self.bin / "c++", "#!/bin/bash\ncat >/dev/null\n")
        self.calls_file = folder / "calls"
        self.environment = {
            "PATH": str(self.bin),
            "HOME": str(folder),
            "CALLS": str(self.calls_file),
            "REAL_PYTHON": sys.executable,
            "STAND_IN_INCLUDE": str(include),
        }
        self.venv = self.root / ".venv"

    def start(self, *words, **environment):
        return subprocess.Popen(
            ["bash", str(self.root / "recipes/bootstrap.sh"), *words],
            cwd="/", env={**self.environment, **environment}, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip

    def run(self, *words, **environment):
        process = self.start(*words, **environment)
        process.out, process.err = process.communicate(timeout=60)
        return process

    def calls(self):
        """What the stand-ins were asked since the last time, one string a call."""
        if not self.calls_file.exists():
            return []
        lines = self.calls_file.read_text(encoding="utf-8").splitlines()
        self.calls_file.unlink()
        return lines

    def kill_at(self, place):
        """Start, wait until the stand-in reaches ``place``, kill every process of the run."""
        process = self.start(STAND_IN_STOPS_AT=place)
        stopped = Path(f"{self.calls_file}.stopped")
        end = time.monotonic() + 30
        while not stopped.exists() and time.monotonic() < end:
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        stopped.unlink()


@pytest.fixture
def clone(tmp_path):
    return Clone(tmp_path)


def test_everything_is_installed_in_the_order_that_fairseq_needs(clone):
    done = clone.run()
    assert done.returncode == 0, done.err
    assert done.out == f"{clone.venv}/bin\n"
    venv, tools, torch, libraries, fairseq, project, verify = clone.calls()
    assert venv == f"-m venv {clone.venv}"
    assert tools.endswith("setuptools wheel")
    assert torch == f"-m pip install -r {clone.root}/requirements-torch.txt"
    assert libraries.endswith(f"-r {clone.root}/requirements.txt")
    assert "--no-deps --no-build-isolation" in fairseq and "requirements-fairseq.txt" in fairseq
    assert project == f"-m pip install --no-deps --no-build-isolation -e {clone.root}"
    assert verify == "verify"


def test_an_unchanged_environment_is_left_alone(clone):
    clone.run()
    clone.calls()
    again = clone.run()
    assert (again.returncode, again.err, clone.calls()) == (0, "", [])
    assert again.out == f"{clone.venv}/bin\n"


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-fairseq.txt", "setup.py"])
def test_changed_requirements_are_installed_and_the_reason_is_given(clone, name):
    clone.run()
    clone.calls()
    with open(clone.root / name, "a", encoding="utf-8") as file:
        file.write("# new\n")
    done = clone.run()
    assert f"{name} changed" in done.err
    calls = clone.calls()
    assert not any("-m venv" in call for call in calls)
    assert calls[-1] == "verify"
    assert clone.run().err == ""


def test_tests_are_installed_only_when_asked_for(clone):
    clone.run()
    assert not any("requirements-test.txt" in call for call in clone.calls())
    clone.run("--tests")
    assert clone.calls() == [
        f"-m pip install -r {clone.root}/requirements-test.txt "
        f"-r {clone.root}/requirements-ray.txt"
    ]
    clone.run()
    assert clone.run("--tests").err == ""
    assert clone.calls() == []


def test_again_installs_everything_again(clone):
    clone.run()
    clone.calls()
    clone.run("--again")
    assert clone.calls()[-1] == "verify"


def test_without_python_it_says_which_ones_it_takes(clone):
    (clone.bin / "python3").unlink()
    done = clone.run()
    assert done.returncode == 1
    assert "3.11, 3.12 or 3.13" in done.err and "no python3 was found" in done.err
    assert not clone.venv.exists()


def test_an_old_python_is_named_with_its_version(clone):
    done = clone.run(STAND_IN_VERSION="3.9.2")
    assert done.returncode == 1
    assert "python3 is 3.9.2" in done.err
    assert not clone.venv.exists()


def test_a_newer_python_of_another_name_is_found(clone):
    text = STAND_IN.replace("${STAND_IN_VERSION:-3.11.7}", "3.9.2")
    write_program(clone.bin / "python3", text)
    write_program(clone.bin / "python3.12", STAND_IN)
    done = clone.run(STAND_IN_VERSION="3.12.1")
    assert done.returncode == 0, done.err
    assert "Python 3.12.1" in done.err


def test_a_python_without_venv_is_named_with_the_cure(clone):
    done = clone.run(STAND_IN_WITHOUT_VENV="yes")
    assert done.returncode == 1
    assert "apt-get install python3-venv" in done.err


def test_a_missing_compiler_is_told_before_anything_is_installed(clone):
    (clone.bin / "c++").unlink()
    done = clone.run()
    assert done.returncode == 1
    assert "no C++ compiler" in done.err and "apt-get install build-essential" in done.err
    assert clone.calls() == []


def test_a_compiler_that_fails_is_told_with_its_words(clone):
    write_program(clone.bin / "c++", "#!/bin/bash\necho licence not accepted >&2\nexit 1\n")
    done = clone.run()
    assert done.returncode == 1
    assert "licence not accepted" in done.err
    assert clone.calls() == []


def test_a_missing_python_header_is_told(clone):
    (Path(clone.environment["STAND_IN_INCLUDE"]) / "Python.h").unlink()
    done = clone.run()
    assert done.returncode == 1
    assert "Python.h" in done.err and "python3-dev" in done.err


def test_a_failed_step_shows_the_last_words_and_the_log(clone):
    done = clone.run(STAND_IN_FAILS_AT="requirements-fairseq.txt")
    assert done.returncode == 1
    assert done.out == ""
    assert "| no such release" in done.err and f"{clone.root}/.venv.log" in done.err
    assert clone.run().returncode == 0
    assert clone.calls()[-1] == "verify"


def test_killed_while_the_environment_is_made_it_is_made_anew(clone):
    clone.kill_at("venv")
    clone.calls()
    done = clone.run()
    assert done.returncode == 0, done.err
    assert "making it anew" in done.err
    assert clone.calls()[0] == f"-m venv {clone.venv}"


@pytest.mark.parametrize("place", ["requirements-torch.txt", "requirements-fairseq.txt"])
def test_killed_while_installing_it_goes_on_in_the_same_environment(clone, place):
    clone.kill_at(place)
    clone.calls()
    done = clone.run()
    assert done.returncode == 0, done.err
    calls = clone.calls()
    assert not any("-m venv" in call for call in calls)
    assert any("requirements-fairseq.txt" in call for call in calls)
    assert clone.run().err == ""


def test_a_package_that_was_half_installed_is_forgotten(clone):
    clone.kill_at("requirements-torch.txt")
    packages = clone.venv / "lib/python3.11/site-packages"
    whole, half = packages / "numpy-2.4.6.dist-info", packages / "torch-2.13.0.dist-info"
    for info in (whole, half):
        info.mkdir(parents=True)
    (whole / "RECORD").touch()
    clone.run()
    assert (whole.exists(), half.exists()) == (True, False)


def test_a_moved_checkout_gets_a_new_environment(clone):
    clone.run()
    clone.calls()
    moved = clone.root.with_name("moved")
    clone.root.rename(moved)
    clone.root, clone.venv = moved, moved / ".venv"
    done = clone.run()
    assert done.returncode == 0, done.err
    assert clone.calls()[0] == f"-m venv {moved}/.venv"


def test_a_foreign_venv_is_never_removed(clone):
    clone.venv.mkdir()
    (clone.venv / "precious").touch()
    done = clone.run()
    assert done.returncode == 1
    assert "was not made by this script" in done.err
    assert (clone.venv / "precious").exists()


def test_two_at_once_wait_for_each_other(clone):
    first, second = clone.start(), clone.start()
    outs, errs = zip(first.communicate(timeout=60), second.communicate(timeout=60))
    assert outs == (f"{clone.venv}/bin\n",) * 2
    assert "".join(errs).count("Set up in") == 1
    assert clone.calls().count("verify") == 1


def active_environment(clone, version="3.12.1"):
    folder = clone.root.parent / "my env"
    (folder / "bin").mkdir(parents=True)
    write_program(folder / "bin/python", STAND_IN.replace(":-3.11.7", f":-{version}"))
    (folder / "bin/pip").touch()
    return folder


@pytest.mark.parametrize("variable", ["VIRTUAL_ENV", "CONDA_PREFIX"])
def test_an_active_environment_is_used(clone, variable):
    folder = active_environment(clone)
    done = clone.run(**{variable: str(folder)})
    assert done.returncode == 0, done.err
    assert done.out == f"{folder}/bin\n"
    assert not clone.venv.exists()
    assert clone.calls()[-1] == "verify"
    assert clone.run(**{variable: str(folder)}).err == ""


def test_another_checkout_takes_the_active_environment_over(clone, tmp_path):
    folder = active_environment(clone)
    clone.run(VIRTUAL_ENV=str(folder))
    clone.calls()
    clone.root = shutil.copytree(clone.root, tmp_path / "second clone")
    clone.run(VIRTUAL_ENV=str(folder))
    assert any(call.endswith(f"-e {clone.root}") for call in clone.calls())


def test_an_active_environment_without_fairseq_needs_a_compiler(clone):
    folder = active_environment(clone)
    (clone.bin / "c++").unlink()
    done = clone.run(VIRTUAL_ENV=str(folder))
    assert "no C++ compiler" in done.err
    assert clone.calls() == []


@pytest.mark.parametrize("name", ["fairseq", "fairseq-fixed"])
def test_an_active_environment_with_fairseq_needs_no_compiler(clone, name):
    folder = active_environment(clone)
    (clone.bin / "c++").unlink()
    done = clone.run(VIRTUAL_ENV=str(folder), STAND_IN_FAIRSEQ=name)
    assert done.returncode == 0, done.err
    installed = any("requirements-fairseq.txt" in call for call in clone.calls())
    assert installed == (name == "fairseq-fixed")  # pip finds it satisfied; a fork is not touched


def test_condas_base_is_left_alone(clone):
    folder = active_environment(clone)
    done = clone.run(CONDA_PREFIX=str(folder), CONDA_DEFAULT_ENV="base")
    assert done.out == f"{clone.venv}/bin\n"


def test_an_active_environment_with_an_old_python_is_refused(clone):
    folder = active_environment(clone, version="3.8.18")
    done = clone.run(VIRTUAL_ENV=str(folder))
    assert done.returncode == 1
    assert "3.8.18" in done.err and "Deactivate" in done.err


@pytest.mark.parametrize(
    "version, kept", [("2.6.0+cu124", True), ("2.13.0", True), ("3.0.1", True), ("2.5.1", False)]
)
def test_an_active_environment_keeps_a_torch_that_is_new_enough(clone, version, kept):
    folder = active_environment(clone)
    done = clone.run(VIRTUAL_ENV=str(folder), STAND_IN_TORCH=version)
    assert (f"torch {version} is there; kept" in done.err) == kept
    assert any("requirements-torch.txt" in call for call in clone.calls()) != kept


def test_torch_spec_replaces_the_pinned_torch_and_is_remembered(clone):
    clone.run(TORCH_SPEC="torch==2.8.* --find-links wheels")
    calls = clone.calls()
    assert "-m pip install torch==2.8.* --find-links wheels" in calls
    assert not any("requirements-torch.txt" in call for call in calls)
    assert clone.run().err == ""
    done = clone.run(TORCH_SPEC="")
    assert "TORCH_SPEC changed" in done.err
    assert any("requirements-torch.txt" in call for call in clone.calls())


def test_another_python_that_is_asked_for_remakes_the_environment(clone):
    clone.run()
    clone.calls()
    write_program(clone.bin / "python3.13", STAND_IN.replace(":-3.11.7", ":-3.13.0"))
    done = clone.run(PYTHON="python3.13")
    assert done.returncode == 0, done.err
    assert clone.calls()[0] == f"-m venv {clone.venv}"
    assert clone.run().err == ""


def test_sourced_it_puts_the_environment_first_and_leaves_the_shell_alone(clone):
    clone.run()
    script = (
        'set -euo pipefail; source "$1/recipes/bootstrap.sh"; source "$1/recipes/bootstrap.sh"; '
        'echo "$PATH"; echo "$OMP_WAIT_POLICY"; echo "$-"; echo "${root:-unset}"'
    )
    done = subprocess.run(
        ["bash", "-c", script, "bash", str(clone.root), "--work", "elsewhere"],
        env=clone.environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    path, policy, options, root = done.stdout.splitlines()
    assert path == f"{clone.venv}/bin:{clone.bin}"
    assert (policy, root) == ("PASSIVE", "unset")
    assert "e" in options and "u" in options


def test_sourced_a_failure_stops_the_script(clone):
    (clone.bin / "python3").unlink()
    done = subprocess.run(
        ["bash", "-c", 'set -e; source "$1/recipes/bootstrap.sh"; echo went on', "bash",
         str(clone.root)],
        env=clone.environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1
    assert "went on" not in done.stdout


def test_the_users_own_omp_wait_policy_is_kept(clone):
    clone.run()
    done = subprocess.run(
        ["bash", "-c", 'source "$1/recipes/bootstrap.sh"; echo "$OMP_WAIT_POLICY"', "bash",
         str(clone.root)],
        env={**clone.environment, "OMP_WAIT_POLICY": "ACTIVE"},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.stdout == "ACTIVE\n"


def test_help_is_the_header_and_an_unknown_option_is_refused(clone):
    assert clone.run("--help").out.startswith("Set up the Python environment")
    done = clone.run("--test")
    assert done.returncode == 1
    assert "--test is not an option" in done.err
    assert clone.calls() == []
