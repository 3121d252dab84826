"""Print what this machine trains on: GPUs, precision and why, separated by tabs.

The precision is the one that pays here: bf16 where the GPU computes in it (compute capability
8.0 or above), fp16 on an older GPU with tensor cores (7.x), else fp32. Of several kinds of GPU
the least counts. CUDA_VISIBLE_DEVICES is heeded.

Example:
  python -m data_prep.pipeline.device       # 4  bf16  the GPU has it in hardware (NVIDIA ...
"""

import glob
import importlib.util
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from data_prep import command

# nvidia-smi answers at once; PyTorch, which has the last word, takes seconds to import
QUERY = ["nvidia-smi", "--query-gpu=compute_cap,mig.mode.current,name", "--format=csv,noheader"]
ASK_TORCH = """
import json, torch
seen = range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
found = []
for number in seen:
    with torch.cuda.device(number):
        bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    name = torch.cuda.get_device_name(number)
    found.append([*torch.cuda.get_device_capability(number), bf16, name])
print(json.dumps(found))
"""
SECONDS_TO_ANSWER = 120  # a driver that sleeps takes its time


class Gpu(NamedTuple):
    major: int  # compute capability
    minor: int
    bf16: bool  # in hardware
    name: str

    def __str__(self):
        return f"{self.name}, compute capability {self.major}.{self.minor}"


class Device(NamedTuple):
    gpus: int  # visible ones
    precision: str
    reason: str


def main():
    command.run(_main, "data_prep.pipeline.device")


def _main():
    command.parser(__doc__, "python -m data_prep.pipeline.device").parse_args()
    print(*find_device(), sep="\t")
    return 0


def find_device():
    """``Device``: what a training on this machine would use.

    Raises:
        ValueError: PyTorch cannot be asked.
    """
    if not _may_have_gpu():
        return Device(0, "fp32", "there is no GPU")
    gpus = _from_driver()
    if gpus is None:
        gpus = _from_torch()
    elif gpus and not _torch_has_cuda():
        return Device(0, "fp32", f"PyTorch was not built for the GPU ({gpus[0]})")
    if not gpus:
        return Device(0, "fp32", "PyTorch sees no GPU")
    least = min(gpus, key=lambda gpu: (gpu.bf16, gpu.major, gpu.minor))
    if least.bf16:
        return Device(len(gpus), "bf16", f"the GPU has it in hardware ({least})")
    if least.major >= 7:
        return Device(len(gpus), "fp16", f"the GPU has no bf16 in hardware ({least})")
    return Device(len(gpus), "fp32", f"the GPU is not faster in fp16 ({least})")


def _may_have_gpu():
    """False where it is sure that there is none to be seen."""
    if not re.match("[^-]", os.environ.get("CUDA_VISIBLE_DEVICES", "all")):
        return False  # hidden: empty, or -1
    return bool(
        shutil.which("nvidia-smi") or glob.glob("/dev/nvidia[0-9]*") or os.path.exists("/dev/kfd")
    )


def _from_driver():
    """The visible GPUs, a list of ``Gpu``; None where the driver's answer leaves doubt."""
    try:
        answer = subprocess.run(QUERY, capture_output=True, text=True, timeout=SECONDS_TO_ANSWER)
    except (OSError, subprocess.TimeoutExpired):
        return None
    rows = [line.split(", ", 2) for line in answer.stdout.splitlines()]
    try:  # an old driver does not know the field, and says so here
        gpus = [
            Gpu(*map(int, capability.split(".")), float(capability) >= 8, name)
            for capability, _, name in rows
        ]
    except (TypeError, ValueError):
        return None
    parted = any(mig == "Enabled" for _, mig, _ in rows)
    # PyTorch puts the fastest first, the driver goes by the slot
    if answer.returncode or parted or len({gpu[:3] for gpu in gpus}) > 1:
        return None
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return gpus
    try:
        return [gpus[int(number)] for number in visible.split(",")]
    except (IndexError, ValueError):  # a name in place of a number
        return None


def _torch_has_cuda():
    """Whether PyTorch was built for NVIDIA's GPUs, from its version file, without the import."""
    found = importlib.util.find_spec("torch")
    if not found:
        return False
    return bool(runpy.run_path(str(Path(found.origin).with_name("version.py")))["cuda"])


def _from_torch():
    answer = subprocess.run([sys.executable, "-c", ASK_TORCH], capture_output=True, text=True)
    if answer.returncode:
        last = (answer.stderr.strip().splitlines() or ["no word"])[-1]
        raise ValueError(f"PyTorch cannot say which GPUs there are: {last}; dad-doctor says more")
    return [Gpu(*row) for row in json.loads(answer.stdout)]


if __name__ == "__main__":
    main()
