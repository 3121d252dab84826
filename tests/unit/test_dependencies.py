"""What a stage needs follows from the paths that it reads."""

from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.pipeline.graph import PlannedStage, dependencies


def stage(out, *inputs, number=1, command=("true", "{out}")):
    return PlannedStage(number, "title", out, inputs, command)


@pytest.mark.parametrize(
    "path, needed",
    [
        ("teacher/general", ["teacher/general"]),
        ("teacher/general/model.pt", ["teacher/general"]),
        ("teacher", ["teacher/general", "teacher/med"]),
        ("teacher/gen", []),
        ("teacher/general2", []),
        ("/elsewhere/teacher/general", []),
    ],
)
def test_a_stage_needs_those_whose_folders_hold_what_it_reads_or_lie_in_it(path, needed):
    stages = [stage("teacher/general"), stage("teacher/med"), stage("student", path)]
    assert dependencies(stages)["student"] == needed


def test_a_stage_does_not_need_itself_and_names_each_other_once():
    stages = [stage("a"), stage("b", "a/one", "a/two", "b/part")]
    assert dependencies(stages) == {"a": [], "b": ["a"]}


NAMES = st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map("/".join)


def feeds(out, path):
    out, path = PurePosixPath(out), PurePosixPath(path)
    return out == path or out in path.parents or path in out.parents


@given(
    st.lists(st.tuples(NAMES, st.lists(NAMES, max_size=3)), unique_by=lambda item: item[0])
)
def test_dependencies_are_what_comparing_every_stage_with_every_other_gives(made):
    stages = [stage(out, *inputs) for out, inputs in made]
    assert dependencies(stages) == {
        one.out: [
            other.out for other in stages
            if other is not one and any(feeds(other.out, path) for path in one.inputs)
        ]
        for one in stages
    }  # fmt: skip
