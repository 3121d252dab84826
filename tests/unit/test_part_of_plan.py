"""dad-run --domain: the part of a plan that one domain needs."""

import pytest

from data_prep.pipeline.graph import PlannedStage
from data_prep.pipeline.schedule import of_domain


def stage(number, out, *inputs):
    return PlannedStage(number, "", out, inputs)


PLAN = [
    stage(4, "teacher/general"),
    stage(7, "teacher/medical-scratch"),
    stage(7, "teacher/medical", "teacher/general"),
    stage(7, "teacher/it", "teacher/general"),
    stage(9, "student/small/2/medical", "teacher/medical-scratch"),
    stage(9, "student/small/9/it", "teacher/it"),
    stage(11, "report/medical", "student/small/2/medical", "teacher/medical"),
    stage(11, "report/all", "report/medical", "report/it"),
]


def test_a_domain_is_its_own_stages_and_those_that_they_need_in_order():
    assert [stage.out for stage in of_domain(PLAN, "medical")] == [
        "teacher/general", "teacher/medical-scratch", "teacher/medical",
        "student/small/2/medical", "report/medical",
    ]  # fmt: skip
    assert [stage.out for stage in of_domain(PLAN, "it")] == [
        "teacher/general", "teacher/it", "student/small/9/it"
    ]  # fmt: skip


def test_a_domain_that_the_plan_has_not_is_refused():
    with pytest.raises(ValueError, match="--domain law: no stage of the plan is of that domain"):
        of_domain(PLAN, "law")
