"""What a stage gets of a machine."""

import pytest

from data_prep import processes
from data_prep.pipeline import resources
from data_prep.pipeline.graph import PlannedStage, dependencies
from data_prep.pipeline.resources import (
    Machine,
    available_memory,
    find_gpus,
    memory_of,
    shares,
    vocabulary_pieces,
)

COMMANDS = {
    "train": "train.sh", "distil": "distil.sh", "speed": "dad-speed", "score": "dad-evaluate",
    "prepare": "data_prep.binarise", "text": "data_prep.clean", "cache": "dad-cache-teacher",
}  # fmt: skip


def stage(kind, out, *inputs, more=()):
    return PlannedStage(1, kind, out, inputs, (COMMANDS[kind], "{out}", *more))


CHAIN = [
    stage("text", "corpora/general/text"),
    stage("text", "corpora/med/text"),
    stage("prepare", "corpora/med/prepared", "corpora/med/text"),
    stage("train", "teacher/general", "corpora/general/text"),
    stage("distil", "distilled/general/general", "teacher/general"),
    stage("train", "student/s/distilled/general", "distilled/general/general"),
    stage("train", "teacher/med", "teacher/general", "corpora/med/prepared"),
    stage("score", "scores/med/teacher/med", "teacher/med"),
    stage("distil", "distilled/med/med", "teacher/med"),
    stage("train", "student/s/9/med", "student/s/distilled/general", "distilled/med/med"),
    stage("speed", "speed/med", "student/s/9/med"),
]
BESIDE = stage("train", "student/s/1/med", "corpora/med/prepared")
SECOND = stage("train", "student/s/references/general", "corpora/general/text")


def threads(stages, machine, jobs=None):
    found = shares(stages, dependencies(stages), machine, jobs)
    return {out: share.threads for out, share in found.items()}


@pytest.mark.parametrize(
    "stages, cores, jobs, out, expected",
    [
        # no other training can run beside the teacher; text and scores do not count
        (CHAIN, 2, None, "teacher/general", 2),
        (CHAIN, 16, None, "teacher/general", 16),
        (CHAIN, 2, None, "student/s/9/med", 2),
        # a large and a small training share as their work does: 32 to 8, then 32 to 32
        (CHAIN + [BESIDE], 10, None, "teacher/general", 8),
        (CHAIN + [BESIDE, SECOND], 18, None, "teacher/general", 8),
        (CHAIN + [SECOND], 2, None, "teacher/general", 1),
        # little work waits for much
        (CHAIN, 2, None, "scores/med/teacher/med", 1),
        # fewer jobs, more threads for each
        (CHAIN + [BESIDE, SECOND], 18, 1, "student/s/1/med", 18),
        (CHAIN + [BESIDE, SECOND], 18, 2, "student/s/1/med", 9),
        # everything
        (CHAIN, 4, None, "speed/med", 4),
        (CHAIN, 4, None, "corpora/med/text", 4),
        (CHAIN, 1, None, "teacher/med", 1),
    ],
)
def test_threads_follow_from_the_plan_and_the_machine(stages, cores, jobs, out, expected):
    assert threads(stages, Machine(cores), jobs)[out] == expected


def test_stages_that_can_run_side_by_side_never_get_more_cores_than_there_are():
    many = [stage("train", "data/general")] + [
        stage("train", f"student/{n}/med", "data/general") for n in range(3)
    ]
    found = threads(many, Machine(8))
    assert found == {"data/general": 8, **{f"student/{n}/med": 2 for n in range(3)}}


def test_two_stages_of_text_run_at_once_each_with_all_cores():
    share = shares(CHAIN, dependencies(CHAIN), Machine(8))["corpora/med/text"]
    assert (share.threads, share.cores, share.gpus) == (8, 4, 0)


@pytest.mark.parametrize(
    "machine, out, gpus, expected",
    [
        (Machine(8, ("0", "1")), "teacher/general", 1, 8),
        (Machine(8, ("0", "1")), "teacher/med", 1, 4),
        (Machine(8, ("0",)), "teacher/med", 1, 8),
        (Machine(8, ("0",), jobs_per_gpu=2), "teacher/med", 1, 4),
        (Machine(8, ("0", "1"), all_gpus=True), "teacher/general", 2, 8),
        (Machine(8, ("0", "1"), all_gpus=True), "teacher/med", 1, 4),
        (Machine(8, ("0", "1")), "scores/med/teacher/med", 0, 8),
        (Machine(8, ("0", "1")), "corpora/med/text", 0, 8),
    ],
)
def test_gpus_go_to_the_kinds_that_use_them(machine, out, gpus, expected):
    share = shares(CHAIN, dependencies(CHAIN), machine)[out]
    assert (share.gpus, share.threads) == (gpus, expected)


def test_decoding_uses_one_gpu_though_no_other_stage_is_beside_it():
    line = [stage("train", "a"), stage("distil", "b", "a"), stage("train", "c", "b")]
    found = shares(line, dependencies(line), Machine(4, ("0", "1"), all_gpus=True))
    assert [share.gpus for share in found.values()] == [2, 1, 2]


TWO = """GPU 0: NVIDIA A100 (UUID: GPU-11aa)
GPU 1: NVIDIA A100 (UUID: GPU-22bb)
"""
PARTS = """GPU 0: NVIDIA A100 (UUID: GPU-11aa)
  MIG 3g.20gb Device 0: (UUID: MIG-33cc)
  MIG 3g.20gb Device 1: (UUID: MIG-44dd)
GPU 1: NVIDIA A100 (UUID: GPU-22bb)
"""


@pytest.mark.parametrize(
    "visible, listed, expected",
    [
        (None, TWO, ("GPU-11aa", "GPU-22bb")),
        (None, PARTS, ("MIG-33cc", "MIG-44dd", "GPU-22bb")),
        (None, "No devices were found\n", ()),
        (None, None, ()),
        ("3,1", TWO, ("3", "1")),
        ("GPU-22bb", TWO, ("GPU-22bb",)),
        ("", TWO, ()),
        ("0,-1,1", TWO, ("0",)),
    ],
)
def test_gpus_are_those_that_the_user_lets_us_see(monkeypatch, tmp_path, visible, listed, expected):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    if listed is not None:
        (tmp_path / "listed").write_text(listed)
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n/bin/cat {tmp_path}/listed\n")
        (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_gpus() == expected


def test_memory_of_a_training_grows_with_batch_and_vocabulary():
    def needed(*more, pieces=30_000):
        return memory_of(stage("train", "a", more=more), pieces) / 1e9

    assert needed("--max-tokens", "4096") == pytest.approx(1 + 4 * 4 * 4096 * 30_000 / 1e9)
    # as in a command line, the last word counts
    assert needed("--max-tokens", "4096", "--max-tokens", "100") < 1.1
    assert needed(pieces=None) == needed() == 1
    words = ("python", "-m", "data_prep.vocabulary", "--size", "8000", "--out", "{out}")
    assert vocabulary_pieces([*CHAIN, PlannedStage(2, "v", "vocabulary", (), words)]) == 8000
    assert vocabulary_pieces(CHAIN) is None


@pytest.mark.parametrize(
    "limit, expected", [("max", 8_192_000), (None, 8_192_000), ("5000000", 3_500_000)]
)  # fmt: skip
def test_free_memory_is_that_of_the_container(monkeypatch, tmp_path, limit, expected):
    (tmp_path / "meminfo").write_text("MemTotal:  9999 kB\nMemAvailable:    8000 kB\n")
    monkeypatch.setattr(resources, "MEMORY_INFO", tmp_path / "meminfo")
    monkeypatch.setattr(resources, "MEMORY_GROUP", tmp_path)
    if limit:
        (tmp_path / "memory.max").write_text(f"{limit}\n")
        (tmp_path / "memory.current").write_text("2000000\n")
        (tmp_path / "memory.stat").write_text("anon 1\ninactive_file 500000\n")
    assert available_memory() == expected


def test_free_memory_may_be_unknown(monkeypatch, tmp_path):
    monkeypatch.setattr(resources, "MEMORY_INFO", tmp_path / "none")
    monkeypatch.setattr(resources, "MEMORY_GROUP", tmp_path)
    assert available_memory() is None


@pytest.mark.parametrize(
    "told, quota, expected",
    [
        ("3", "100000 100000", 3), ("", "max 100000", 4), ("", "250000 100000", 2),
        ("", "50000 100000", 1), ("", "900000 100000", 4), ("default", None, 4), ("0", None, 4),
    ],
)  # fmt: skip
def test_cores_are_those_that_one_may_use(monkeypatch, tmp_path, told, quota, expected):
    monkeypatch.setattr(processes.os, "sched_getaffinity", lambda _: range(4))
    monkeypatch.setattr(processes, "CORES_OF_CONTAINER", tmp_path / "cpu.max")
    monkeypatch.setenv("PYTHON_CPU_COUNT", told)
    if quota:
        (tmp_path / "cpu.max").write_text(f"{quota}\n")
    assert processes.usable_cores() == expected
