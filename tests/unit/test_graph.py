"""The graph of a run: from declared stages to what each needs."""

import pytest

from data_prep.pipeline.graph import (
    DIVIDER,
    PlannedStage,
    declared,
    dependencies,
    read_plan,
    write_plan,
)


def line(*words):
    return DIVIDER.join(map(str, words))


TEXT = line(1, "corpora", "--in", "raw", "--out", "text", "--", "python", "-m", "data_prep.clean")
MODEL = line(4, "teacher", "--resume", "--screen", "train", "--in", "text", "--out", "model", "--",
             "train.sh", "--data", "text", "--in", "x")  # fmt: skip


def test_a_declared_stage_is_read_word_by_word():
    assert declared([TEXT, MODEL]) == [
        PlannedStage(1, "corpora", "text", ("raw",), ("python", "-m", "data_prep.clean")),
        PlannedStage(4, "teacher", "model", ("text",),
                     ("train.sh", "--data", "text", "--in", "x"), True, "train"),
    ]  # fmt: skip


def test_a_plan_is_read_as_it_was_written(tmp_path):
    stages = declared([TEXT, MODEL])
    (tmp_path / "plan").mkdir()
    write_plan(tmp_path / "plan/stages.json", stages)
    assert read_plan(tmp_path) == stages == read_plan(tmp_path / "plan")


def test_what_two_domains_declare_in_the_same_words_is_one_stage():
    assert declared([TEXT, MODEL, TEXT]) == declared([TEXT, MODEL])


def test_two_stages_cannot_make_one_folder():
    with pytest.raises(ValueError, match="two stages make text"):
        declared([TEXT, TEXT + " other"])


def test_nothing_reads_what_is_made_later():
    with pytest.raises(ValueError, match="model reads text, which a later stage makes"):
        declared([MODEL, TEXT])


@pytest.mark.parametrize(
    "path, needed",
    [
        ("a", ["a"]),
        ("a/b/file", ["a"]),
        ("c/d", ["c/d"]),
        ("c", ["c/d", "c/e"]),
        ("c/d/file", ["c/d"]),
        ("ab", []),
        ("/a", []),
    ],
)
def test_a_stage_needs_what_makes_what_lies_in_or_around_its_inputs(path, needed):
    stages = [PlannedStage(1, "", out) for out in ("a", "c/d", "c/e")]
    stages.append(PlannedStage(2, "", "last", (path,)))
    assert dependencies(stages)["last"] == needed


def test_a_stage_does_not_need_itself():
    assert dependencies([PlannedStage(1, "", "a/b", ("a",))]) == {"a/b": []}


@pytest.mark.parametrize(
    "command, title, kind",
    [
        ("train.sh --out {out}", "teacher", "train"),
        ("distil.sh", "distilled data", "distil"),
        ("python -m data_prep.clean", "corpora", "text"),
        ("python -m data_prep.binarise", "prepared data", "prepare"),
        ("dad-export", "scores", "export"),
        ("dad-export", "shipped", "ship"),
        ("dad-speed", "report", "speed"),
        ("", "", "text"),
    ],
)
def test_the_kind_of_a_stage_is_what_its_command_does(command, title, kind):
    assert PlannedStage(1, title, "out", command=tuple(command.split())).kind == kind


@pytest.mark.parametrize("text", ["{}", '{"stages": [{"number": 1}]}', '{"stages": [{"a": 1}]}'])
def test_a_damaged_plan_is_named(tmp_path, text):
    (tmp_path / "stages.json").write_text(text)
    with pytest.raises(ValueError, match="stages.json is damaged"):
        read_plan(tmp_path)
