"""How far every stage of a plan is, and what would become of it now. Looks only, changes nothing.

A stage whose words, inputs and outputs are as its record says is done. One that reads what will be
made again will be made again itself: that is told here before anything runs, where ``dad-stage``
would find it out when its turn comes.
"""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from data_prep.manifest import read_json
from data_prep.pipeline.graph import PLAN, dependencies
from data_prep.pipeline.lock_holders import held
from data_prep.pipeline.stage import (
    RECORD,
    beside,
    comparable,
    describe,
    difference,
    fingerprint_inputs,
    why_redo,
)

DONE = "done"
RUNNING = "is being made"
GOES_ON = "goes on"
AGAIN = "will be made again"
NEW = "will be made"
BLOCKED = "cannot be made"
LEFT_OUT = "not asked for"  # by --stage and --stop-stage
WORK_TO_DO = (RUNNING, GOES_ON, AGAIN, NEW)


@dataclass(frozen=True)
class State:
    """What is to become of a stage: ``name``, one of the words above, and ``reasons`` in words."""

    name: str
    reasons: tuple = ()

    @property
    def runs(self):
        """Whether there is work to do."""
        return self.name in WORK_TO_DO


def states(stages, plan=PLAN, first=1, last=12):
    """{out: ``State``} of every stage of a plan, in the order of the stages.

    Paths are relative to the folder of the run, which is the working directory.

    Args:
        stages: ``PlannedStage`` in the order of the chain.
        plan: folder of the plan that holds them, whose tables are inputs of the reports.
        first, last: numbers of the stages that are asked for.
    """
    needs = dependencies(stages)
    making = held(beside(Path(stage.out), ".lock") for stage in stages)
    found = {}
    for stage in stages:
        if beside(Path(stage.out), ".lock") in making:
            found[stage.out] = State(RUNNING, ("by a process that runs now",))
            continue
        upstream = {out: found[out] for out in needs[stage.out]}
        state = _state(stage, upstream, plan)
        if not first <= stage.number <= last and state.name != DONE:
            state = State(LEFT_OUT)
        found[stage.out] = state
    return found


def _state(stage, upstream, plan):
    """``State`` of a stage, from its folder and from the states of the stages that it reads."""
    out = Path(stage.out)
    command = list(stage.command)
    if absent := [name for name, state in upstream.items()
                  if state.name in (BLOCKED, LEFT_OUT) and not Path(name).exists()]:  # fmt: skip
        return State(BLOCKED, (f"{absent[0]} is missing and {upstream[absent[0]].name}",))
    if missing := _missing(stage.inputs, upstream):
        return State(BLOCKED, (f"{missing[0]} is missing",))
    changing = [name for name, state in upstream.items() if state.runs]
    comes_from = [f"comes from {_some(changing)}"] if changing else []
    if not out.exists():
        return _unmade(stage, out, command, upstream, plan)
    if not (out / RECORD).exists():
        return State(BLOCKED, (f"{out} exists but no stage made it; move it away",))
    if not changing:
        reasons = why_redo(out, {"command": command, "inputs": _inputs(stage, out, plan)})
        return State(AGAIN, tuple(reasons)) if reasons else State(DONE)
    # its inputs will differ, which nothing can be compared with yet; its words can be
    record = read_json(out / RECORD)
    if record["command"] != command:
        comes_from.insert(0, "settings changed: " + difference(record["command"], command))
    return State(AGAIN, tuple(comes_from))


def _unmade(stage, out, command, upstream, plan):
    """State of a stage whose folder is not there: new, or one that can go on."""
    making = [name for name, state in upstream.items() if state.name == RUNNING]
    new = State(NEW, (f"waits for {_some(making)}",) if making else ())
    left = beside(out, ".request.json")
    if not beside(out, ".part").exists() or not left.exists():
        return new
    before = read_json(left)
    if before["command"] != command:
        changed = difference(before["command"], command)
        return State(NEW, (f"from the beginning: settings changed: {changed}",))
    changing = [name for name, state in upstream.items() if state.runs]
    if changing:
        return State(NEW, (f"from the beginning: comes from {_some(changing)}",))
    if comparable(before) != comparable({"command": command, "inputs": _inputs(stage, out, plan)}):
        return State(NEW, ("from the beginning: an input has changed",))
    if not stage.resume:
        return State(NEW, ("from the beginning: this command cannot go on after a stop",))
    return State(GOES_ON, ("where it was stopped",))


def _inputs(stage, out, plan):
    """{file: size, time, SHA-256} of what a stage reads; tables of the plan as they are now."""
    tables = [name for name in stage.inputs if _is_table(name)]
    found = fingerprint_inputs([name for name in stage.inputs if name not in tables], out)
    for name in tables:
        found[name] = describe(Path(plan) / PurePosixPath(name).name)
    return found


def _is_table(name):
    return PurePosixPath(name).parent == PurePosixPath(PLAN)


def _missing(inputs, upstream):
    """Inputs that are not there and that no stage makes."""
    def is_made(path):
        return any(path.is_relative_to(out) or Path(out).is_relative_to(path) for out in upstream)

    return [
        name for name in inputs
        if not Path(name).exists() and not is_made(Path(name)) and not _is_table(name)
    ]  # fmt: skip


def _some(names):
    """A few names in words."""
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
