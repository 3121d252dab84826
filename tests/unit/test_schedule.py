"""Which stage is next: laws of the schedule, without processes."""

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.manifest import write_json
from data_prep.pipeline import schedule as module
from data_prep.pipeline.graph import PlannedStage, dependencies
from data_prep.pipeline.progress import Progress
from data_prep.pipeline.resources import ALONE, ON_GPU, Machine, shares
from data_prep.pipeline.schedule import Memory, Schedule, check_needs, select
from data_prep.pipeline.time_left import TimeLeft

COMMANDS = {
    "train": "train.sh", "distil": "distil.sh", "speed": "dad-speed", "score": "dad-evaluate",
    "text": "data_prep.clean",
}  # fmt: skip


def stage(kind, out, *inputs, number=1):
    return PlannedStage(number, kind, out, inputs, (COMMANDS[kind], "{out}"))


def make(stages, machine=Machine(2), jobs=None, wanted=None, **options):
    needs = dependencies(stages)
    return Schedule(
        wanted or stages, needs, shares(stages, needs, machine, jobs), machine, jobs, **options
    )


def enqueue_all(schedule):
    while schedule.fresh:
        schedule.enqueue(schedule.fresh.popleft())


def started(schedule):
    """Folders of the stages that are started now, in their order."""
    enqueue_all(schedule)
    found = []
    while following := schedule.next_stage():
        found.append(following[0].out)
    return found


@st.composite
def plans(draw):
    """Stages of random kinds, each reading some that stand before it."""
    stages = []
    for number in range(draw(st.integers(1, 14))):
        earlier = [other.out for other in stages]
        inputs = draw(st.lists(st.sampled_from(earlier), max_size=3)) if earlier else []
        stages.append(stage(draw(st.sampled_from(sorted(COMMANDS))), f"s{number:02}", *inputs))
    return stages


MACHINES = st.builds(
    Machine, st.integers(1, 6), st.sampled_from([(), ("0",), ("0", "1", "2")]), st.integers(1, 2),
    st.booleans(),
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(plans(), MACHINES, st.none() | st.integers(1, 4), st.integers(0, 999).map(random.Random))
def test_whatever_the_plan_nothing_starts_early_and_everything_that_can_be_done_is_done(
    stages, machine, jobs, chance
):
    needs, kinds = dependencies(stages), {stage.out: stage.kind for stage in stages}
    schedule, gpus_of = make(stages, machine, jobs), {}
    seen = []
    while True:
        while schedule.fresh:
            fresh = schedule.fresh.popleft()
            assert set(needs[fresh.out]) <= set(schedule.done)
            if chance.random() < 0.3:  # it was done before
                schedule.end(fresh.out, well=True)
                seen.append(fresh.out)
            else:
                schedule.enqueue(fresh)
        while following := schedule.next_stage():
            ours, share, gpus = following
            seen.append(ours.out)
            gpus_of[ours.out] = gpus
            assert set(needs[ours.out]) <= set(schedule.done)
            assert share.threads >= 1
            assert bool(gpus) is bool(machine.gpus and ours.kind in ON_GPU | ALONE)
        running = schedule.running.keys()
        if any(kinds[out] in ALONE for out in running):
            assert len(running) == 1
        assert len(running) <= (jobs or len(stages))
        held = [gpu for out in running for gpu in gpus_of[out]]
        assert all(held.count(gpu) <= machine.jobs_per_gpu for gpu in held)
        if not running:
            break
        schedule.end(chance.choice(sorted(running)), well=chance.random() < 0.8)
    assert len(seen) == len(set(seen))
    failed, lost = set(schedule.failed), set()
    for ours in stages:
        if (failed | lost) & set(needs[ours.out]):
            lost.add(ours.out)
    assert set(schedule.undone) == lost
    assert set(seen) == kinds.keys() - lost == {*schedule.done, *schedule.failed}


def test_the_longest_way_to_the_end_goes_first_and_else_the_order_of_the_chain():
    stages = [
        stage("score", "a"), stage("score", "b"), stage("train", "c"), stage("score", "d"),
        stage("train", "e", "d"), stage("train", "f", "e"),
    ]  # fmt: skip
    assert started(make(stages, Machine(4))) == ["d", "c", "a", "b"]


def test_no_more_stages_run_than_there_are_cores_and_jobs():
    stages = [stage("train", f"s{number}") for number in range(5)]
    assert started(make(stages, Machine(3))) == ["s0", "s1", "s2"]
    assert started(make(stages, Machine(4), jobs=2)) == ["s0", "s1"]
    assert started(make(stages, Machine(9, ("0", "1", "2")), jobs=2)) == ["s0", "s1"]


def test_a_stage_for_all_cores_starts_when_one_is_free():
    stages = [stage("train", "data"), stage("text", "text"), stage("train", "last", "data")]
    schedule = make(stages, Machine(4))
    assert started(schedule) == ["data"]  # its threads take every core
    schedule.end("data", well=True)
    # last is for all cores; text goes beside it only where a core is left
    assert started(schedule) == ["last"]
    schedule.end("last", well=True)
    assert started(schedule) == ["text"]


def test_speed_waits_for_a_gap_and_keeps_nobody_waiting():
    stages = [
        stage("train", "a"), stage("speed", "speed/x", "a"), stage("train", "b"),
        stage("train", "c", "a"), stage("train", "d", "b"), stage("score", "e", "speed/x"),
    ]  # fmt: skip
    schedule = make(stages)
    assert started(schedule) == ["a", "b"]
    schedule.end("a", well=True)
    assert started(schedule) == ["c"]  # not speed, since b runs
    schedule.end("b", well=True)
    assert started(schedule) == ["d"]
    schedule.end("c", well=True)
    assert started(schedule) == []  # nothing is left but speed, and d runs
    schedule.end("d", well=True)
    assert started(schedule) == ["speed/x"]
    schedule.end("speed/x", well=True)
    assert started(schedule) == ["e"]


def test_where_nothing_runs_speed_goes_first_and_alone():
    stages = [stage("speed", "speed/x"), stage("train", "a"), stage("train", "b", "a")]
    schedule = make(stages, Machine(4, ("0", "1")))
    enqueue_all(schedule)
    first, share, gpus = schedule.next_stage()
    assert (first.out, share.threads, gpus) == ("speed/x", 4, ("0", "1"))
    assert schedule.next_stage() is None
    schedule.end("speed/x", well=True)
    assert started(schedule) == ["a"]


def gpus_of(schedule):
    enqueue_all(schedule)
    found = {}
    while following := schedule.next_stage():
        found[following[0].out] = following[2]
    return found


def test_every_training_has_a_gpu_of_its_own_and_scores_go_beside_on_the_cores():
    stages = [stage("train", f"t{number}") for number in range(3)] + [stage("score", "x")]
    schedule = make(stages, Machine(4, ("0", "1")))
    assert gpus_of(schedule) == {"t0": ("0",), "t1": ("1",), "x": ()}
    schedule.end("t1", well=False)
    assert gpus_of(schedule) == {"t2": ("1",)}


def test_stages_that_share_gpus_are_spread_over_them():
    stages = [stage("train", f"t{number}") for number in range(5)]
    schedule = make(stages, Machine(8, ("0", "1"), jobs_per_gpu=2))
    assert gpus_of(schedule) == {"t0": ("0",), "t1": ("1",), "t2": ("0",), "t3": ("1",)}
    schedule.end("t1", well=True)
    schedule.end("t3", well=True)
    assert gpus_of(schedule) == {"t4": ("1",)}


def test_gpu_stages_leave_a_core_for_one_stage_without_a_gpu():
    stages = [stage("train", f"t{number}") for number in range(4)]
    stages += [stage("score", "x"), stage("score", "y")]
    schedule = make(stages, Machine(2, ("0", "1", "2", "3")))
    assert gpus_of(schedule).keys() == {"t0", "t1", "t2", "t3", "x"}


def test_the_only_training_gets_all_gpus_where_that_is_wished():
    stages = [stage("train", "t"), stage("train", "a", "t"), stage("train", "b", "t")]
    for all_gpus, expected in ((True, ("0", "1")), (False, ("0",))):
        schedule = make(stages, Machine(4, ("0", "1"), all_gpus=all_gpus))
        assert gpus_of(schedule) == {"t": expected}
        schedule.end("t", well=True)
        assert {len(gpus) for gpus in gpus_of(schedule).values()} == {1}


def test_what_does_not_fit_into_memory_waits_and_is_not_overtaken_but_one_always_runs():
    stages = [stage("train", "a"), stage("train", "large"), stage("score", "small")]
    schedule = make(stages, Machine(4), fits=lambda stage: stage.out != "large")
    assert started(schedule) == ["a"]
    schedule.end("a", well=True)
    assert started(schedule) == ["large", "small"]


def test_memory_promised_to_a_young_stage_counts_and_want_of_it_is_said_once(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(module, "available_memory", lambda: 5e9)
    memory, said = Memory(None, each=2e9), []
    memory.say = said.append
    first, second, third = (stage("train", name) for name in "abc")
    assert memory.fits(first)
    memory.started(first)
    assert memory.fits(second)
    memory.started(second)
    assert not memory.fits(third) and not memory.fits(third) and memory.is_short
    (text,) = said
    assert "c waits for memory: it may need 2.0 GB and 1.0 GB are free" in text
    now[0] += module.YOUNG  # what they took is gone from what is available
    assert memory.fits(third)
    now[0] = 0.0
    memory.ended("a")
    assert memory.fits(third)


def test_memory_that_is_not_told_is_no_reason_to_wait(monkeypatch):
    monkeypatch.setattr(module, "available_memory", lambda: None)
    assert Memory(None, each=1e20).fits(stage("train", "a"))


def test_stages_that_are_not_asked_for_are_not_waited_for():
    stages = [stage("train", "a"), stage("train", "b", "a"), stage("train", "c", "b")]
    assert started(make(stages, wanted=stages[1:])) == ["b"]


PLAN = [
    stage("text", "corpora/a/text", number=1), stage("train", "student/s/1/a", number=9),
    stage("train", "student/s/9/a", "corpora/a/text", number=9), stage("score", "x", number=10),
]  # fmt: skip


@pytest.mark.parametrize(
    "first, last, patterns, expected",
    [
        (1, 12, (), [0, 1, 2, 3]),
        (9, 9, (), [1, 2]),
        (2, 12, ("*9*",), [2]),
        (1, 12, ("student/*", "x"), [1, 2, 3]),
        (1, 12, ("student/*/1/*",), [1]),
    ],
)
def test_stages_are_chosen_by_number_and_folder(first, last, patterns, expected):
    assert select(PLAN, first, last, patterns) == [PLAN[number] for number in expected]


def test_a_pattern_like_no_folder_is_an_error():
    with pytest.raises(ValueError, match="--only student/1/a: no stage of the plan makes"):
        select(PLAN, patterns=("student/1/a",))


def test_a_stage_whose_needs_are_neither_asked_for_nor_done_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    needs = dependencies(PLAN)
    check_needs(PLAN, needs)
    with pytest.raises(ValueError, match="student/s/9/a needs corpora/a/text, which is not done"):
        check_needs(PLAN[1:], needs)
    (tmp_path / "corpora/a/text").mkdir(parents=True)
    write_json(tmp_path / "corpora/a/text/stage.json", {})
    check_needs(PLAN[1:], needs)


def timed(out, seconds):
    Path(out).mkdir(parents=True)
    write_json(Path(out) / "stage.json", {"seconds": seconds})


def test_the_time_left_follows_from_stages_that_are_alike(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stages = [
        stage("train", "teacher/general"),
        *(stage("train", f"student/s/{number}/a", "teacher/general") for number in range(1, 6)),
        stage("speed", "speed/a", "student"),
    ]
    schedule = make(stages, Machine(2))
    left = TimeLeft(schedule)
    assert left.words({}, {}) == ""
    assert started(schedule) == ["teacher/general"]
    timed("teacher/general", 600)
    schedule.end("teacher/general", well=True)
    assert started(schedule) == ["student/s/1/a", "student/s/2/a"]
    assert left.words({}, {}) == ""  # a general teacher says nothing about students
    for name, seconds in (("student/s/1/a", 60), ("student/s/2/a", 100)):
        timed(name, seconds)
        schedule.end(name, well=True)
    assert started(schedule) == ["student/s/3/a", "student/s/4/a"]
    # 80 s each, 20 of them over; one more waits; speed is not known
    elapsed = dict.fromkeys(("student/s/3/a", "student/s/4/a"), 20.0)
    progress = dict.fromkeys(elapsed, Progress())
    assert left.words(elapsed, progress) == "at least 1 min 40 s left"
    progress["student/s/3/a"] = Progress(seconds_left=300.0, is_whole=True)
    assert left.words(elapsed, progress) == "at least 5 min 0 s left"


def test_a_general_student_says_nothing_about_those_of_a_domain(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stages = [stage("train", "student/s/references/general"), stage("train", "student/s/1/a")]
    timed("student/s/references/general", 600)
    left = TimeLeft(make(stages))
    assert left.words({}, {}) == "at least 10 min 0 s left"


def test_the_time_left_is_that_of_the_longest_way_where_that_is_longer(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stages = [
        stage("train", "teacher/general"), stage("train", "teacher/a", "teacher/general"),
        stage("speed", "speed/a", "teacher/a"),
    ]  # fmt: skip
    for one in stages:
        timed(one.out, 40)
    Path("damaged").mkdir()
    write_json(Path("damaged/stage.json"), {})  # of an older version
    stages.append(stage("score", "damaged"))
    assert TimeLeft(make(stages, Machine(8))).words({}, {}) == "at least 2 min 0 s left"
