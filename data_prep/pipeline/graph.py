"""The graph of a run: every stage that the chain comes to, what it reads and what it makes.

Usage: python -m data_prep.pipeline.graph --declared FILE --out FILE

The recipes declare stages and run none: chain.sh writes a line for each, its words divided by the
character U+001F: number, title, flags of dad-stage, ``--``, command. This module makes
WORK/plan/stages.json of them, from which ``dad-run`` runs the stages, ``dad-plan`` explains them
and ``dad-report`` shows how far they are.
"""

import functools
import json
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from data_prep import command
from data_prep.files import read_lines, write_whole
from data_prep.manifest import read_json

PLAN = "plan"
STAGES = "stages.json"
DIVIDER = "\x1f"  # between the words of a declared stage
KINDS = {  # what the first words of a command do
    "train.sh": "train",
    "distil.sh": "distil",
    "dad-cache-teacher": "cache",
    "dad-candidates": "candidates",
    "dad-estimate-fisher": "fisher",
    "dad-export": "export",
    "dad-evaluate": "score",
    "dad-speed": "speed",
    "dad-report": "report",
    "dad-hand-over": "hand over",
    "data_prep.vocabulary": "vocabulary",
    "data_prep.binarise": "prepare",
}


@dataclass(frozen=True)
class PlannedStage:
    """A stage as the recipes declare it.

    Attributes:
        number, title: as the screen shows them; several stages share a number.
        out: the folder that it makes, relative to the run's folder.
        inputs: files and folders that it reads, relative to the run's folder or absolute.
        command: words; ``{out}`` stands for the folder to fill.
        resume: whether the command can go on in a folder left by a kill.
        screen: what of its output is for the screen; see ``dad-stage --help``.
    """

    number: int
    title: str
    out: str
    inputs: tuple = ()
    command: tuple = ()
    resume: bool = False
    screen: str = "all"

    @property
    def kind(self):
        """What it does, in a word of ``KINDS``; ``text`` for all that prepares text."""
        words = [word for word in self.command if word not in ("python", "-m")]
        return "ship" if self.title == "shipped" else KINDS.get(words[0] if words else "", "text")


def declared(lines):
    """The stages that chain.sh declares, in their order.

    What several domains need may be declared for each of them, in the same words.

    Raises:
        ValueError: two stages make the same folder, or one reads what a later one makes.
    """
    stages = list(dict.fromkeys(_stage(line.split(DIVIDER)) for line in lines))
    outs = Counter(stage.out for stage in stages)
    for out, times in outs.items():
        if times > 1:
            raise ValueError(f"two stages make {out}; a domain or model is named twice")
    made = set()
    for out, needed in dependencies(stages).items():
        early = [other for other in needed if other not in made]
        if early:
            raise ValueError(f"{out} reads {early[0]}, which a later stage makes")
        made.add(out)
    return stages


def _stage(words):
    number, title, *rest = words
    given = {"inputs": [], "resume": False, "screen": "all", "out": None}
    while rest[0] != "--":
        flag = rest.pop(0)
        if flag == "--resume":
            given["resume"] = True
        else:
            value = rest.pop(0)
            if flag == "--in":
                given["inputs"].append(value)
            else:
                given[flag.removeprefix("--")] = value
    inputs = tuple(dict.fromkeys(given.pop("inputs")))
    return PlannedStage(int(number), title, inputs=inputs, command=tuple(rest[1:]), **given)


def read_plan(folder):
    """The stages of a plan, in the order of the chain.

    Args:
        folder: a run's folder, or that of the plan itself.

    Raises:
        FileNotFoundError: there is no plan.
        ValueError: it is damaged.
    """
    path = Path(folder) / STAGES
    if not path.exists():
        path = Path(folder) / PLAN / STAGES
    record = read_json(path)
    try:
        return [
            PlannedStage(**{**stage, "inputs": tuple(stage["inputs"]),
                            "command": tuple(stage["command"])})
            for stage in record["stages"]
        ]  # fmt: skip
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}); start the recipe again") from None


def write_plan(path, stages):
    """Write the stages of a plan as JSON, whole or not at all."""
    with write_whole(path) as out:
        json.dump({"stages": [asdict(stage) for stage in stages]}, out, indent=1,
                  ensure_ascii=False)  # fmt: skip
        out.write("\n")


def dependencies(stages):
    """{out: [out of every stage whose work it reads]}, in the order of the stages.

    A stage reads the work of another where that one's folder holds one of its inputs, or lies in
    one.
    """
    places = {PurePosixPath(stage.out): place for place, stage in enumerate(stages)}
    inside = {}  # folder: places of the stages whose folders lie in it
    for path, place in places.items():
        for folder in path.parents:
            inside.setdefault(folder, []).append(place)

    @functools.cache
    def makers(path):
        path = PurePosixPath(path)
        holding = [places[folder] for folder in (path, *path.parents) if folder in places]
        return holding + inside.get(path, [])

    found = {}
    for own, stage in enumerate(stages):
        needed = {place for path in stage.inputs for place in makers(path)} - {own}
        found[stage.out] = [stages[place].out for place in sorted(needed)]
    return found


def main():
    command.run(_main, "python -m data_prep.pipeline.graph")


def _main():
    parser = command.parser(__doc__, "python -m data_prep.pipeline.graph")
    parser.add_argument("--declared", required=True, help="file that chain.sh wrote")
    parser.add_argument("--out", required=True, help="stages.json to write")
    args = parser.parse_args()
    write_plan(args.out, declared(read_lines(args.declared)))


if __name__ == "__main__":
    main()
