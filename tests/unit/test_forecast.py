"""What stages cost together: one after another, side by side, at the peak."""

import pytest

from data_prep.pipeline.estimate import Estimate
from data_prep.pipeline.forecast import Forecast, critical_path, makespan, slowdown
from data_prep.pipeline.graph import PlannedStage, dependencies
from data_prep.pipeline.resources import Share


def graph(**needs):
    """Stages by name with what they need; the name's first letter chooses the kind."""
    return [
        PlannedStage(1, "", name, tuple(inputs),
                     ("dad-speed",) if name.startswith("speed") else ("train.sh",))
        for name, inputs in needs.items()
    ]  # fmt: skip


DIAMOND = graph(a=[], b=["a"], c=["a"], d=["b", "c"])
APART = graph(a=[], b=[], c=[], d=[])
SPEED = graph(a=[], speed=[], b=[])
SECONDS = {"a": 1.0, "b": 2.0, "c": 5.0, "d": 1.0, "speed": 3.0}


@pytest.mark.parametrize(
    ("made", "jobs", "expected"),
    [
        (DIAMOND, 1, 9), (DIAMOND, 2, 7), (DIAMOND, 9, 7),
        (APART, 1, 9), (APART, 2, 6), (APART, 3, 5), (APART, 4, 5),
        (SPEED, 3, 5),  # alone: a and b beside each other, then the measurement
        ([], 2, 0),
    ],
)  # fmt: skip
def test_stages_start_as_soon_as_what_they_need_is_there(made, jobs, expected):
    assert makespan(made, dependencies(made), SECONDS, jobs) == expected


def test_the_critical_path_is_the_longest_way():
    assert critical_path(DIAMOND, dependencies(DIAMOND), SECONDS) == 7
    assert critical_path(APART, dependencies(APART), SECONDS) == 5


@pytest.mark.parametrize("made", [DIAMOND, APART, SPEED])
@pytest.mark.parametrize("jobs", [1, 2, 3, 8])
def test_time_lies_between_critical_path_and_sum(made, jobs):
    needs = dependencies(made)
    total = sum(SECONDS[stage.out] for stage in made)
    found = makespan(made, needs, SECONDS, jobs)
    assert critical_path(made, needs, SECONDS) <= found <= total


def test_stages_that_share_the_cores_are_slower_and_those_alone_are_not():
    needs = dependencies(DIAMOND)
    threads = {"a": 8, "b": 4, "c": 2, "d": 8}
    slower = slowdown({out: Share(n, n) for out, n in threads.items()}, 8, 0.5)
    assert slower == {"a": 1, "b": 2, "c": 4, "d": 1}
    assert makespan(DIAMOND, needs, SECONDS, 2, slower) == 1 + 4 * 5 + 1
    assert set(slowdown({"a": Share(1, 1)}, 4, 1.0).values()) == {1}


def test_what_needs_a_stage_that_is_done_waits_for_nothing():
    going = [stage for stage in DIAMOND if stage.out != "a"]
    assert makespan(going, dependencies(DIAMOND), SECONDS, 2) == 6


def forecast(costs, jobs=1, made=APART):
    return Forecast.of(made, dependencies(made), costs, jobs)


def test_memory_of_stages_side_by_side_adds_up_and_a_gpu_takes_one():
    costs = {name: Estimate(1, 1, memory=memory, extra=memory) for name, memory in
             zip("abcd", (3, 9, 5, 1), strict=True)}  # fmt: skip
    assert (forecast(costs).ram, forecast(costs, 2).ram, forecast(costs).ram_stage) == (9, 14, "b")
    assert forecast(costs, 2).extra == 14
    on_gpu = costs | {"c": Estimate(1, 1, memory=70, on="GPU")}
    assert (forecast(on_gpu, 4).gpu, forecast(on_gpu, 4).gpu_stage) == (70, "c")


def test_what_is_not_known_is_counted_and_left_out_of_the_sums():
    costs = {name: Estimate(1, 2, disk=10) for name in "abc"} | {"d": Estimate(disk=None, limit=7)}
    found = forecast(costs)
    assert (found.low, found.high, found.disk, found.unknown, found.limit) == (3, 6, 30, 1, 13)
    assert found.as_json()["seconds"] == [3, 6]
