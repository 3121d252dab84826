"""setup.py and the pinned requirements promise only what is there."""

import ast
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def setup_arguments():
    tree = ast.parse((ROOT / "setup.py").read_text(encoding="utf-8"))
    (call,) = [
        node for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "setup"
    ]  # fmt: skip
    return {
        word.arg: ast.literal_eval(word.value)
        for word in call.keywords if word.arg not in ("packages",)
    }  # fmt: skip


def pins(name):
    """{package in lower case: version} of a requirements file."""
    text = (ROOT / name).read_text(encoding="utf-8")
    return {
        package.lower().replace("_", "-"): version
        for package, version in re.findall(r"^([\w.-]+)==([\w.+]+)", text, flags=re.MULTILINE)
    }


SCRIPTS = setup_arguments()["entry_points"]["console_scripts"]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.split(" = ")[0])
def test_every_console_command_points_to_a_function(script):
    module, function = script.split(" = ")[1].split(":")
    assert callable(getattr(importlib.import_module(module), function))


def test_every_library_that_setup_asks_for_is_pinned():
    pinned = {**pins("requirements.txt"), **pins("requirements-torch.txt")}
    asked = {re.split(r"[<>=]", line)[0] for line in setup_arguments()["install_requires"]}
    assert asked - pinned.keys() == set()


def test_every_requirement_is_pinned_once():
    names = [
        package
        for file in ROOT.glob("requirements*.txt")
        for package in pins(file.name)
    ]  # fmt: skip
    lines = [
        line
        for file in ROOT.glob("requirements*.txt")
        for line in file.read_text(encoding="utf-8").splitlines()
        if line and not line.lstrip().startswith(("#", "--hash"))
    ]
    assert len(names) == len(lines) == len(set(names))


def test_fairseq_is_pinned_by_hash():
    text = (ROOT / "requirements-fairseq.txt").read_text(encoding="utf-8")
    assert re.search(r"^fairseq-fixed==\S+ \\\n +--hash=sha256:[0-9a-f]{64}$", text, re.MULTILINE)
