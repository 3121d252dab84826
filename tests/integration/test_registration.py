"""What importing the plugin does: it registers where fairseq is, and costs nothing where it is not.

Each case needs an interpreter that has imported nothing yet. That ``--user-dir`` registers is what
every test of a training shows.
"""

import subprocess
import sys

import pytest

LIGHT = (
    "evaluation.evaluate", "evaluation.score", "evaluation.speed", "generation.generate",
    "report.report", "selection.select", "serving.translate",
)  # fmt: skip
REGISTERED = """
from fairseq.criterions import CRITERION_REGISTRY
from fairseq.models import ARCH_MODEL_REGISTRY
from fairseq.tasks import TASK_REGISTRY
import argparse, torch
print(
    {"sequence_distillation", "domain_adaptation"} <= TASK_REGISTRY.keys(),
    {"word_distillation", "minimum_risk"} <= CRITERION_REGISTRY.keys(),
    "dad_tiny" in ARCH_MODEL_REGISTRY,
    argparse.Namespace in torch.serialization.get_safe_globals(),
)
"""


def in_a_new_interpreter(program):
    """What a program prints."""
    done = subprocess.run(
        [sys.executable, "-P", "-W", "ignore", "-c", program], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_commands_that_need_no_network_import_neither_torch_nor_fairseq():
    imports = "; ".join(f"import fairseq_plugins.{name}" for name in LIGHT)
    program = f"import sys; {imports}; print({{'torch', 'fairseq'}} & sys.modules.keys())"
    assert in_a_new_interpreter(program) == "set()"


def test_where_fairseq_cannot_be_imported_the_plugin_can():
    program = "import sys; sys.modules['fairseq'] = None; import fairseq_plugins; print('done')"
    assert in_a_new_interpreter(program) == "done"


@pytest.mark.parametrize(
    "first",
    [
        # looking for fairseq is not importing it
        "import fairseq_plugins; import importlib.util; importlib.util.find_spec('fairseq'); "
        "import fairseq",
        "import fairseq_plugins.generation.fairseq_backend",  # which the tasks need themselves
    ],
)
def test_whoever_can_ask_fairseq_finds_what_we_register(first):
    assert in_a_new_interpreter(first + REGISTERED) == "True True True True"
