"""How a model came about, as far as the records of a recipe's run tell.

Every stage of a run leaves ``stage.json`` in its folder, with its command. The paths in there
are relative to the folder of the run, which is found from the model's own place.
"""

import os
from pathlib import Path

from data_prep.manifest import read_json

STAGE = "stage.json"


def training_steps(model):
    """Trainings that led to a model, the oldest first; its teachers' trainings come before.

    Args:
        model: MODEL folder, inside the folder of its run.

    Returns:
        list of {"model", "size", "start" (a model, "random weights", or what was handed over),
        "from_teacher" ("first" or "every-other" and the teacher, or None), "learnt_from" and
        "loss" (None of a model that was handed over), "teacher" (whose translations those are, or
        None), "adapt" (how; None where nothing was adapted), "updates" (at most, as text)}. Paths
        are those of the run. Empty where the model was not made by a recipe.
    """
    steps, seen = [], set()
    run = _run_of(Path(model))
    if run is not None:
        _collect(run, os.path.relpath(model, run), steps, seen)
    return steps


def _run_of(model):
    """Folder of the run that a model belongs to, or None."""
    flags = _flags(model)
    if not flags.get("--data"):
        return None
    parents = Path(os.path.abspath(model)).parents
    return next((folder for folder in parents if (folder / flags["--data"]).is_dir()), None)


def _collect(run, model, steps, seen):
    if model in seen:
        return
    seen.add(model)
    flags = _flags(run / model)
    if not flags:
        return
    data = flags.get("--data")
    distilling = _flags(run / Path(data).parent) if data else {}
    teacher, translations = map(distilling.get, ("--teacher", "--translations"))
    layers, _, layers_of = flags.get("--from-teacher", "").partition("=")
    for other in (teacher, layers_of, flags.get("--init"), flags.get("--from-model")):
        if other:
            _collect(run, os.path.normpath(other), steps, seen)
    steps.append(
        {
            "model": _name(model),
            "size": flags.get("--size"),
            "start": _start(flags),
            "from_teacher": f"{layers} layers of {_name(layers_of)}" if layers else None,
            "learnt_from": _name(str(Path(data).parent)) if data else None,
            "teacher": _name(teacher) if teacher else
            f"{_name(translations)}, handed over" if translations else None,
            "loss": flags.get("--loss", "plain") if data else None,
            "adapt": flags.get("--adapt", "plain") if "--init" in flags else None,
            "updates": flags.get("--updates"),
        }
    )


def _start(flags):
    """What a training, or a model that was handed over, started from."""
    for flag, words in (
        ("--init", ""), ("--from-model", ""), ("--continue", "went on from "),
        ("--model", "handed over: "),
    ):  # fmt: skip
        if flag in flags:
            return words + _name(flags[flag])
    return "random weights"


def _flags(folder):
    """{flag: value} of the command that a stage ran; the last one counts, as in the command."""
    path = Path(folder) / STAGE
    if not path.is_file():
        return {}
    words = read_json(path).get("command", [])
    own = words[: words.index("--")] if "--" in words else words
    return {
        word: value for word, value in zip(own, own[1:]) if word.startswith("--")
    }  # fmt: skip


def _name(path):
    """A path of the run, or of a place elsewhere its last two names: no user's folders."""
    return path if not os.path.isabs(path) else "/".join(Path(path).parts[-2:])
