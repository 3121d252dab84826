"""data_prep.pipeline.device: how many GPUs a training would use, in which precision, and why."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from data_prep.pipeline import device

ROOT = Path(__file__).resolve().parents[2]
V100 = "7.0, [N/A], Tesla V100-SXM2-16GB"
A100 = "8.0, Disabled, NVIDIA A100-SXM4-80GB"
H200 = "9.0, Disabled, NVIDIA H200"

# a torch that knows two GPUs of different kinds
TORCH = """
class cuda:
    kinds = [((8, 0), True, "A100"), ((7, 5), False, "T4")]
    now = 0
    def is_available(): return True
    def device_count(): return len(cuda.kinds)
    def get_device_capability(number): return cuda.kinds[number][0]
    def get_device_name(number): return cuda.kinds[number][2]
    def is_bf16_supported(including_emulation):
        return True if including_emulation else cuda.kinds[cuda.now][1]
    class device:
        def __init__(self, number): self.number = number
        def __enter__(self): cuda.now = self.number
        def __exit__(self, *_): cuda.now = 0
"""


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Gives ``set_up``, which puts a driver and a PyTorch on this machine."""
    commands, modules = tmp_path / "commands", tmp_path / "modules"
    commands.mkdir()
    (modules / "torch").mkdir(parents=True)
    environment = {
        "PATH": f"{commands}:/usr/bin:/bin", "PYTHONPATH": f"{modules}:{ROOT}"
    }  # fmt: skip

    def set_up(listed, torch="raise ImportError('torch was imported')", cuda="'12.8'",
               visible=None):  # fmt: skip
        if listed is not None:
            driver = commands / "nvidia-smi"
            driver.write_text(f"#!/bin/sh\ncat << EOF\n{listed}\nEOF\n")
            driver.chmod(0o755)
        (modules / "torch" / "__init__.py").write_text(torch)
        (modules / "torch" / "version.py").write_text(f"cuda = {cuda}\n")
        shown = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
        done = subprocess.run(
            [sys.executable, "-P", "-m", "data_prep.pipeline.device"], text=True,
            env={**environment, **shown}, capture_output=True,
        )  # fmt: skip
        return done.stdout.rstrip("\n").split("\t") if done.returncode == 0 else done.stderr

    return set_up


@pytest.mark.parametrize(
    "listed, visible, gpus, precision, reason",
    [
        ("\n".join([A100] * 4), None, "4", "bf16",
         "the GPU has it in hardware (NVIDIA A100-SXM4-80GB, compute capability 8.0)"),
        ("\n".join([H200] * 4), "2,3", "2", "bf16",
         "the GPU has it in hardware (NVIDIA H200, compute capability 9.0)"),
        (V100, "0", "1", "fp16",
         "the GPU has no bf16 in hardware (Tesla V100-SXM2-16GB, compute capability 7.0)"),
        ("6.1, [N/A], Quadro P4000", None, "1", "fp32",
         "the GPU is not faster in fp16 (Quadro P4000, compute capability 6.1)"),
        ("10.0, Disabled, NVIDIA B200", None, "1", "bf16",
         "the GPU has it in hardware (NVIDIA B200, compute capability 10.0)"),
        (A100, "", "0", "fp32", "there is no GPU"),
        (A100, "-1", "0", "fp32", "there is no GPU"),
    ],
)  # fmt: skip
def test_the_driver_answers_without_an_import_of_torch(
    machine, listed, visible, gpus, precision, reason
):
    assert machine(listed, visible=visible) == [gpus, precision, reason]


@pytest.mark.parametrize(
    "listed, visible",
    [
        (f"{A100}\n{V100}", None),  # PyTorch may count them in another order
        ("8.0, Enabled, NVIDIA A100-SXM4-80GB", None),  # a part of a GPU
        (A100, "GPU-4f1c"),
        (A100, "0,1"),  # there is no second one
        ('Field "compute_cap" is not a valid field to query.', None),
    ],
)
def test_where_the_driver_leaves_doubt_torch_is_asked_and_the_least_gpu_counts(
    machine, listed, visible
):
    assert machine(listed, TORCH, visible=visible) == [
        "2", "fp16", "the GPU has no bf16 in hardware (T4, compute capability 7.5)"
    ]  # fmt: skip


def test_a_gpu_that_torch_was_not_built_for_is_none(machine):
    gpus, precision, reason = machine(A100, cuda="None")
    assert (gpus, precision) == ("0", "fp32")
    assert reason.startswith("PyTorch was not built for the GPU (NVIDIA A100")


def test_a_torch_that_sees_nothing_trains_on_the_cpu(machine):
    blind = TORCH.replace("is_available(): return True", "is_available(): return False")
    assert machine("no devices were found", blind) == ["0", "fp32", "PyTorch sees no GPU"]


def test_a_torch_that_cannot_be_asked_is_an_error_that_names_the_next_step(machine):
    said = machine("no devices were found")
    assert "error: PyTorch cannot say which GPUs there are: ImportError: torch was imported" in said
    assert "dad-doctor" in said


def test_without_a_driver_nothing_is_asked(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(device.glob, "glob", lambda pattern: [])
    monkeypatch.setattr(os.path, "exists", lambda path: False)
    assert device.find_device() == (0, "fp32", "there is no GPU")
