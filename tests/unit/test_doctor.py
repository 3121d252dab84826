"""data_prep/doctor.py: every fault is named with its cure; the doctor never falls ill."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from data_prep import doctor

ROOT = Path(__file__).resolve().parents[2]
CPU = {"version": "2.13.0+cpu", "cuda": None, "gpus": []}
GPU = {
    "version": "2.13.0",
    "cuda": "13.0",
    "gpus": [{"name": "NVIDIA H200", "gb": 140, "bf16": True}],
}
FAIRSEQ = {"version": "0.12.3.1", "broken": []}


def test_a_probe_hands_back_what_it_saw():
    assert doctor.probe("import sys\nfacts = sys.argv[1]", "ü") == "ü"


@pytest.mark.parametrize(
    "program, failure",
    [
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("import os; os.abort()", "killed by signal 6"),
        ("import os; os._exit(7)", "ended with status 7"),
    ],
)
def test_a_probe_that_fails_or_crashes_is_told_in_words(program, failure):
    assert failure in doctor.probe(program)


def test_a_probe_that_hangs_is_given_up(monkeypatch):
    monkeypatch.setattr(doctor, "PROBE_SECONDS", 0.2)
    assert "no answer" in doctor.probe("import time; time.sleep(30)")


@pytest.mark.parametrize(
    "finding",
    [
        doctor.check_torch("ImportError: libtorch.so"),
        doctor.check_torch({**CPU, "version": "2.5.1"}),
        doctor.check_fairseq("ModuleNotFoundError: No module named 'fairseq'"),
        doctor.check_fairseq({**FAIRSEQ, "broken": ["fairseq.libbleu (no such file)"]}),
        doctor.check_ctranslate2("the process was killed by signal 11", CPU),
        doctor.check_package("sacrebleu", "ModuleNotFoundError: x", (2, 0), "scores"),
        doctor.check_package("sacrebleu", "1.5.1", (2, 0), "scores"),
        doctor.check_plugin("ImportError: x"),
        doctor.check_plugin({"missing": ["domain_adaptation"]}),
    ],
    ids=lambda finding: finding.fact[:40],
)
def test_what_does_not_work_is_a_fault_with_a_cure(finding):
    assert finding.status == "FAULT"
    assert finding.cure


@pytest.mark.parametrize(
    "finding",
    [
        doctor.check_torch(CPU),
        doctor.check_gpu(GPU),
        doctor.check_fairseq(FAIRSEQ),
        doctor.check_package("sacrebleu", "2.6.0", (2, 0), "scores"),
        doctor.check_plugin({"missing": []}),
    ],
    ids=lambda finding: finding.name,
)
def test_what_works_is_ok_and_needs_no_cure(finding):
    assert (finding.status, finding.cure) == ("ok", "")


def test_a_gpu_is_named_with_what_it_can_do():
    assert "NVIDIA H200 (140 GB, bf16)" in doctor.check_gpu(GPU).fact


def test_ctranslate2_without_cuda_12_beside_a_cuda_13_torch_points_to_the_fairseq_backend():
    finding = doctor.check_ctranslate2({"version": "4.8.5", "gpus": 1, "cublas": False}, GPU)
    assert finding.status == "warn"
    assert "--backend fairseq" in finding.cure


def test_outside_the_projects_environment_its_own_doctor_is_named(tmp_path, monkeypatch):
    doctor_there = tmp_path / ".venv/bin/dad-doctor"
    doctor_there.parent.mkdir(parents=True)
    doctor_there.touch()
    monkeypatch.setattr(doctor, "ROOT", tmp_path)
    assert str(doctor_there) in doctor.check_torch("no torch").cure
    monkeypatch.setattr(sys, "prefix", str(tmp_path / ".venv"))
    assert "bootstrap.sh" in doctor.check_torch("no torch").cure


def test_an_old_python_is_a_fault(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 9, 2))
    assert doctor.check_python().status == "FAULT"


def test_a_missing_compiler_is_a_fault_only_until_fairseq_is_built(monkeypatch):
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    assert doctor.check_compiler(fairseq_installed=False).status == "FAULT"
    assert doctor.check_compiler(fairseq_installed=True).status == "warn"


def test_a_second_copy_of_the_project_is_a_fault_that_names_both(tmp_path, monkeypatch):
    other = tmp_path / "fairseq_plugins"
    other.mkdir()
    (other / "__init__.py").touch()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    finding = doctor.check_copies({})
    assert finding.status == "FAULT"
    assert str(tmp_path) in finding.fact and str(ROOT) in finding.fact


def test_a_full_disk_is_a_fault(monkeypatch):
    monkeypatch.setattr(doctor, "NEEDED_DISK", 1 << 62)
    assert doctor.check_disk().status == "FAULT"


def test_a_folder_that_cannot_be_written_to_is_a_fault(monkeypatch):
    def refuse(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(doctor.tempfile, "NamedTemporaryFile", refuse)
    assert doctor.check_writing().status == "FAULT"


@pytest.mark.parametrize("policy, status", [("PASSIVE", "ok"), ("", "warn"), ("ACTIVE", "warn")])
def test_threads_that_spin_are_worth_a_warning(monkeypatch, policy, status):
    monkeypatch.setenv("OMP_WAIT_POLICY", policy)
    assert doctor.check_cores().status == status


@pytest.mark.parametrize("version", ["2.13.0+cpu", "2.13", "2.13rc1.dev0"])
def test_a_release_is_its_first_two_numbers(version):
    assert doctor.release(version) == (2, 13)


def test_the_screen_shows_each_cure_and_counts_the_faults():
    shown = doctor.render([
        doctor.Finding("torch", "FAULT", "absent", "install it"),
        doctor.Finding("disk", "ok", "plenty"),
    ])  # fmt: skip
    assert "-> install it" in shown
    assert shown.splitlines()[-1].startswith("1 fault, 0 warnings")


def test_it_runs_as_a_file_where_nothing_is_installed(tmp_path):
    # -S hides the installed packages from the doctor, this file hides them from its probes
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nsys.path[:] = [entry for entry in sys.path if 'site-packages' not in entry]\n",
        encoding="utf-8",
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-S", str(ROOT / "data_prep/doctor.py"), "--json"],
        env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    findings = {finding["name"]: finding for finding in json.loads(done.stdout)}
    assert done.returncode == 1
    assert done.stderr == ""
    assert findings["torch"]["status"] == findings["fairseq"]["status"] == "FAULT"
    assert "bootstrap.sh" in findings["fairseq"]["cure"]
