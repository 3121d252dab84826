"""What stages need of each other."""

from pathlib import PurePosixPath

import pytest

from data_prep.pipeline.graph import DIVIDER, PlannedStage, declared, dependencies
from tests.fixtures.planned import stages

RAW = {"general": "/raw/general", "medical": "/raw/medical"}


def feeds(out, inputs):
    """The definition: the folder holds an input, is one, or lies in one."""
    out = PurePosixPath(out)
    return any(out == path or out in path.parents or path in out.parents
               for path in map(PurePosixPath, inputs))  # fmt: skip


def test_a_stage_needs_those_that_make_hold_or_lie_in_what_it_reads():
    made = [
        *stages(RAW),
        PlannedStage(12, "", "all", ("corpora", "student/tiny", "./teacher//general")),
        PlannedStage(12, "", "none", ("corpora-2", "/teacher", "teacher/gene")),
    ]
    assert dependencies(made) == {
        stage.out: [other.out for other in made
                    if other.out != stage.out and feeds(other.out, stage.inputs)]
        for stage in made
    }  # fmt: skip
    assert len(dependencies(made)["all"]) == 9 and dependencies(made)["none"] == []


def line(out, *inputs):
    flags = [word for name in inputs for word in ("--in", name)]
    return DIVIDER.join(["1", "title", *flags, "--out", out, "--", "true", "{out}"])


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([line("a"), line("a")], "two stages make a"),
        ([line("a", "b/x"), line("b")], "a reads b, which a later stage makes"),
        ([line("a", "b"), line("b/x")], "a reads b/x, which a later stage makes"),
    ],
)
def test_a_plan_that_cannot_be_run_is_refused(lines, message):
    with pytest.raises(ValueError, match=message):
        declared(lines)


def test_a_plan_that_can_be_run_keeps_its_order():
    assert [stage.out for stage in declared([line("b"), line("a", "b")])] == ["b", "a"]
