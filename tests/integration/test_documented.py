"""What our pages and helps tell people to type is understood by what they would call.

Python commands parse the words and stop there; recipes are run dry, on stand-in corpora of the
names used; fairseq's commands parse theirs with our plugin.
"""

import argparse
import importlib
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures.documented import ROOT, documented, header, scripts
from tests.fixtures.models import write_text

COMMANDS = documented()
SCRIPTS = [c for c in COMMANDS if c.program.endswith(".sh")]
RECIPES = [c for c in SCRIPTS if c.typed and re.search("/(run|submit|train|distil).sh$", c.program)
           and c.program.startswith("recipes/")]  # fmt: skip
FAIRSEQ = [c for c in COMMANDS if c.program.startswith("fairseq-") and c.typed]
PYTHON = [
    c for c in COMMANDS
    if c.program.startswith(("dad-", "data_prep", "tests/benchmarks/")) and c.words[-1] != "--help"
]  # fmt: skip
NAMED = [c for c in PYTHON if not c.typed]
ENTRY_POINTS = dict(re.findall(r'"(dad-[\w-]+) = ([\w.]+):main"', (ROOT / "setup.py").read_text()))


def ids(commands):
    return [f"{command.place} {command.program}" for command in commands]


class Understood(BaseException):
    """In place of what a command would do once it has parsed its words."""


@pytest.fixture
def stop_after_parsing(monkeypatch):
    parse = argparse.ArgumentParser.parse_args

    def parse_and_stop(parser, args=None, namespace=None):
        parse(parser, args, namespace)
        raise Understood(parser)

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)
    monkeypatch.setattr(signal, "signal", lambda number, handler: None)


def call(command, monkeypatch, words):
    """Call a Python command as its console script would."""
    monkeypatch.setattr(sys, "argv", [command.program, *words])
    monkeypatch.chdir(ROOT)
    if command.program.endswith(".py"):
        monkeypatch.setattr(sys, "path", [str(Path(command.program).parent), *sys.path])
        return runpy.run_path(command.program, run_name="__main__")
    return importlib.import_module(ENTRY_POINTS.get(command.program, command.program)).main()


@pytest.mark.parametrize(
    "command", [c for c in PYTHON if c.typed], ids=ids([c for c in PYTHON if c.typed])
)
def test_a_documented_command_is_understood(command, stop_after_parsing, monkeypatch):
    with pytest.raises(Understood):
        call(command, monkeypatch, command.arguments)


@pytest.mark.parametrize("command", NAMED, ids=ids(NAMED))
def test_a_command_that_prose_names_is_there_with_the_flags_named(
    command, stop_after_parsing, monkeypatch
):
    if command.program == "data_prep.NAME":
        return
    monkeypatch.setattr(argparse.ArgumentParser, "error", _tell_parser)
    with pytest.raises(Understood) as understood:
        call(command, monkeypatch, [])
    (parser,) = understood.value.args
    assert set(command.flags) <= parser._option_string_actions.keys()


def _tell_parser(parser, message):
    raise Understood(parser)


@pytest.mark.parametrize("command", FAIRSEQ, ids=ids(FAIRSEQ))
def test_fairseq_understands_its_documented_commands(command, monkeypatch):
    from fairseq import options

    monkeypatch.chdir(ROOT)
    makers = {
        "fairseq-train": options.get_training_parser,
        "fairseq-generate": options.get_generation_parser,
    }
    # what fairseq does not know it calls an error and exits
    words = options.parse_args_and_arch(
        makers[command.program](), input_args=list(command.arguments)
    )
    assert words.task == "sequence_distillation"


@pytest.mark.parametrize("command", RECIPES, ids=ids(RECIPES))
def test_a_documented_recipe_runs_dry(command, tmp_path):
    done = run_dry(command, tmp_path)
    assert done.returncode == 0, done.stderr
    if "--plan" not in command.words:
        commands = "^(fairseq-train|dad-generate|python -m data_prep|sbatch) "
        assert re.search(commands, done.stdout, re.M)


def run_dry(command, folder):
    """The recipe of a command with --dry-run, where all that it reads is there."""
    words = list(command.arguments)
    own = words[: words.index("--")] if "--" in words else words
    make_places(command, own, folder)
    dry = [] if "--plan" in own else ["--dry-run"]
    return subprocess.run(
        ["bash", ROOT / command.program, *dry, *words], cwd=folder, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT),
             "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
    )  # fmt: skip


def make_places(command, words, folder):
    """Corpora, files and experiments of the names that a command has."""
    values = dict(zip(words, words[1:]))  # of its flags
    domains = [value for flag, value in zip(words, words[1:]) if flag == "--domain"]
    places = [value.partition("=")[2] for value in domains if "=catalogue" not in value]
    places = [place for place in places if place]
    if values.get("--general", "catalogue").partition(":")[0] != "catalogue":
        places.append(values["--general"])
    if "--corpora" in values:
        names = values.get("--domain", "medical").split(",")
        places += [f"{values['--corpora']}/{name}" for name in ("general", *names)]
    languages = re.search("recipes/(..)-(..)/", command.program) or re.match("(..)(..)", "deen")
    for place in places:
        for name in (f"{split}.{lang}" for split in ("train", "dev", "test")
                     for lang in languages.groups()):  # fmt: skip
            (folder / place).mkdir(parents=True, exist_ok=True)
            write_text(folder / place / name, ["1 2 3"])
    for flag in {"--catalogue", "--cleaning"} & values.keys():
        write_text(folder / values[flag], [])
    if command.program.endswith("submit.sh"):
        shutil.copy(ROOT / "recipes" / "slurm" / "experiment.sh", folder / words[-1])


@pytest.mark.parametrize("command", SCRIPTS, ids=ids(SCRIPTS))
def test_a_script_that_is_named_is_there_with_the_flags_named(command):
    script = ROOT / command.program
    assert script.is_file()
    if not command.typed and command.flags:
        assert set(command.flags) <= {"--help", *(flag for flag, _ in options_of(script))}


def options_of(script):
    """(flag, whether a value follows) of the options that a script's help lists."""
    return re.findall(r"^  (--[a-z-]+)( [A-Z][\w-]*)?(?:  |$|\n)", header(script), re.M)


LISTED = [
    (script, flag, value)
    for script in scripts() if script.name != "bootstrap.sh"
    for flag, value in options_of(script) if flag != "--help"
]  # fmt: skip


@pytest.mark.parametrize(
    "script, flag, value", LISTED, ids=[f"{s.relative_to(ROOT)} {flag}" for s, flag, _ in LISTED]
)
def test_a_script_knows_the_options_that_its_help_lists(script, flag, value):
    words = [flag, "1"] if value else [flag]
    done = subprocess.run(["bash", script, *words, "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith(header(script).split("\n")[1])


def test_all_kinds_of_places_are_looked_at():
    seen = {command.place.partition(":")[0] for command in COMMANDS if command.typed}
    assert {"README.md", "data_prep/README.md", "fairseq_plugins/README.md", "tests/run.sh",
            "recipes/quickstart/RESULTS.md", "tests/benchmarks/README.md", "data_prep/clean.py",
            "fairseq_plugins/report/report.py", "tests/benchmarks/memory.py"} <= seen  # fmt: skip
    assert RECIPES and FAIRSEQ and len(PYTHON) > 100
