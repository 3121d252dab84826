"""The grid that options of the recipes make: what the plan holds, before anything runs."""

import shutil
import subprocess
from pathlib import Path

import pytest

from data_prep.files import read_lines
from data_prep.manifest import read_json
from data_prep.pipeline.graph import read_plan
from tests.fixtures.toy_chain import CLEANING, CONFIG, ROOT, environment, toy_corpora

STUDENT = "student/miniature"


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    """``general``, ``even`` and ``odd``, and ``news``, which has nothing to train on."""
    root = toy_corpora(tmp_path_factory.mktemp("corpora"))
    shutil.copytree(root / "odd", root / "even")
    shutil.copytree(root / "odd", root / "news")
    for file in (root / "news").glob("train.*"):
        file.unlink()
    return root


@pytest.fixture(scope="module")
def idle(tmp_path_factory):
    """The environment of the chain, in which dad-run does nothing."""
    folder = tmp_path_factory.mktemp("idle")
    (folder / "dad-run").write_text("#!/bin/sh\n")
    (folder / "dad-run").chmod(0o755)
    known = environment()
    return {**known, "PATH": f"{folder}:{known['PATH']}"}


class Planned:
    """What the chain has planned, without running it."""

    def __init__(self, work):
        self.stages = {stage.out: stage for stage in read_plan(work)}
        self.run = read_json(work / "plan/run.json")
        self.work = work

    def table(self, name):
        header, *lines = (line.split("\t") for line in read_lines(self.work / f"plan/{name}.tsv"))
        return [dict(zip(header, line, strict=True)) for line in lines]

    def word(self, out, flag):
        """What follows the last of a flag in the command that makes ``out``, or None."""
        words = self.stages[out].command
        places = [number for number, word in enumerate(words) if word == flag]
        return words[places[-1] + 1] if places else None

    def of_kind(self, kind):
        return {out for out, stage in self.stages.items() if stage.kind == kind}


@pytest.fixture
def plan(corpora, idle, tmp_path):
    def planned(*options):
        done = chain(corpora, idle, tmp_path / "work", *options)
        assert done.returncode == 0, done.stdout
        return Planned(tmp_path / "work")

    return planned


def chain(corpora, env, work, *options):
    return subprocess.run(
        ["bash", str(ROOT / "recipes/chain.sh"), "--config", str(CONFIG), "--corpora", str(corpora),
         "--cleaning", str(CLEANING), "--work", str(work), *options],
        env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


# -- Gordon & Duh 2020 ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "number, start, data",
    [
        (1, None, "corpora/odd"),
        (2, None, "distilled/odd/odd-scratch"),
        (3, None, "distilled/odd/odd"),
        (4, "references", "corpora/odd"),
        (5, "references", "distilled/odd/odd-scratch"),
        (6, "references", "distilled/odd/odd"),
        (7, "distilled", "corpora/odd"),
        (8, "distilled", "distilled/odd/odd-scratch"),
        (9, "distilled", "distilled/odd/odd"),
    ],
)
def test_a_configuration_is_a_start_and_a_target(plan, number, start, data):
    planned = plan("--configuration", str(number), "--domain", "odd")
    student = f"{STUDENT}/{number}/odd"
    start = start and f"{STUDENT}/{start}/general"
    assert planned.word(student, "--init") == start
    assert planned.word(student, "--data") == f"{data}/prepared"
    inputs = {f"{data}/prepared", start} - {None}
    assert set(planned.stages[student].inputs) == inputs


def test_all_are_nine_for_each_domain_and_share_what_is_common(plan):
    planned = plan("--configuration", "all")
    students = {out for out in planned.stages if out.startswith(STUDENT)}
    assert students == {
        f"{STUDENT}/references/general", f"{STUDENT}/distilled/general",
        *(f"{STUDENT}/{number}/{name}" for number in range(1, 10) for name in ("even", "odd")),
    }  # fmt: skip
    teachers = {out for out in planned.stages if out.startswith("teacher/")}
    assert teachers == {
        "teacher/general", "teacher/even", "teacher/odd", "teacher/even-scratch",
        "teacher/odd-scratch",
    }  # fmt: skip
    assert planned.run["configurations"] == [*range(1, 10)]


def test_every_student_of_a_domain_gets_the_same_budget(plan):
    planned = plan("--configuration", "all", "--domain", "odd")
    about = ("--data", "--init", "--out")
    budgets = set()
    for number in range(1, 10):
        words = planned.stages[f"{STUDENT}/{number}/odd"].command[1:]
        pairs = zip(words[::2], words[1::2], strict=True)
        budgets.add(tuple((flag, value) for flag, value in pairs if flag not in about))
    assert len(budgets) == 1


# -- sizes, seeds, domains -----------------------------------------------------------------


def test_seeds_are_of_students_and_teachers_are_trained_once(plan):
    one = plan("--configuration", "1,9", "--domain", "odd")
    three = plan("--configuration", "1,9", "--domain", "odd", "--seed", "1,2,3")
    made = set(three.stages) - set(one.stages)
    assert set(one.stages) < set(three.stages)
    assert {out.partition("student/")[1] for out in made} == {"student/"}
    for seed in (2, 3):
        student = f"{STUDENT}/9-seed{seed}/odd"
        assert three.word(student, "--seed") == str(seed)
        assert three.word(student, "--init") == f"{STUDENT}/distilled-seed{seed}/general"
    assert three.word(f"{STUDENT}/9/odd", "--seed") == "1"


def test_the_folder_of_a_seed_does_not_depend_on_the_others(plan):
    several = plan("--configuration", "9", "--domain", "odd", "--seed", "3,1")
    alone = plan("--configuration", "9", "--domain", "odd", "--seed", "3")
    student = f"{STUDENT}/9-seed3/odd"
    assert several.stages[student] == alone.stages[student]


def test_rows_of_several_seeds_share_a_group(plan):
    rows = plan("--configuration", "9", "--domain", "odd", "--seed", "2,5").table("odd.rows")
    found = [(row["name"], row["group"], row["seed"]) for row in rows]
    assert found == [
        ("teacher", "teacher", "2"), ("adapted teacher", "adapted teacher", "2"),
        ("general student D (seed 2)", "general student D", "2"),
        ("general student D (seed 5)", "general student D", "5"),
        ("9 (seed 2)", "9", "2"), ("9 (seed 5)", "9", "5"),
    ]  # fmt: skip


def test_speed_and_shipping_are_of_the_first_seed(plan):
    planned = plan("--configuration", "9", "--domain", "odd", "--seed", "2,5")
    timed = [word for word in planned.stages["speed/odd"].command if word.startswith("exported/")]
    assert f"exported/{STUDENT}/9-seed2/odd" in timed
    assert not [model for model in timed if "seed5" in model]
    assert planned.of_kind("ship") == {"shipped/odd/miniature/9"}
    assert planned.word("shipped/odd/miniature/9", "--model") == f"{STUDENT}/9-seed2/odd"


def test_sizes_share_everything_but_the_students(plan):
    planned = plan("--configuration", "9", "--domain", "odd", "--size", "l2_w128,miniature")
    assert planned.word("student/l2_w128/9/odd", "--size") == "l2_w128"
    assert planned.word("student/miniature/9/odd", "--size") == "miniature"
    assert len(planned.of_kind("distil")) == 2
    groups = [row["group"] for row in planned.table("odd.rows")]
    assert groups[-3:] == ["l2_w128 9", "miniature general student D", "miniature 9"]
    steps = [(step["new"], step["old"]) for step in planned.table("odd.steps")]
    assert ("miniature 9", "miniature general student D") in steps
    assert ("l2_w128 9", "adapted teacher") in steps


def test_all_domains_are_those_with_text_to_train_on(plan):
    planned = plan("--domain", "all")
    assert planned.run["domains"] == ["even", "odd"]
    assert "report/all" in planned.stages


def test_one_domain_has_no_page_of_all(plan):
    assert "report/all" not in plan("--domain", "odd").stages


def test_domains_of_a_folder_and_from_elsewhere_go_together(plan, corpora):
    planned = plan("--domain", "odd", "--domain", f"other={corpora / 'even'}")
    assert planned.run["domains"] == ["odd", "other"]


# -- more than the grid --------------------------------------------------------------------


def test_a_last_fine_tune_is_given_to_every_configuration(plan):
    planned = plan("--configuration", "1,9", "--domain", "odd", "--final", "references")
    for number in (1, 9):
        student = f"{STUDENT}/{number}-final/odd"
        assert planned.word(student, "--init") == f"{STUDENT}/{number}/odd"
        assert planned.word(student, "--data") == "corpora/odd/prepared"
        assert planned.word(student, "--lr") == "0.0005"
    steps = [(step["new"], step["old"]) for step in planned.table("odd.steps")]
    assert {("1 final", "1"), ("9 final", "9")} < set(steps)


def test_mixed_targets_are_the_teachers_and_the_references(plan):
    planned = plan("--configuration", "7,9", "--domain", "odd", "--targets", "best,mixed")
    student = f"{STUDENT}/9-mixed/odd"
    assert planned.word(student, "--mixture") == (
        "distilled/odd/odd/prepared=1,corpora/odd/prepared=1"
    )
    assert planned.word(student, "--mixture-temperature") == "inf"
    assert {"distilled/odd/odd/prepared", "corpora/odd/prepared"} < set(
        planned.stages[student].inputs
    )
    # 7 learns references alone, which nothing can be mixed with
    assert f"{STUDENT}/7-mixed/odd" not in planned.stages


def test_other_targets_are_decoded_for_domains_alone(plan):
    planned = plan("--configuration", "9", "--domain", "odd", "--targets", "best,best-of-4-chrf")
    assert planned.of_kind("distil") == {
        "distilled/general/general", "distilled/odd/odd", "distilled/odd/odd-best-of-4-chrf",
    }  # fmt: skip
    assert planned.word("distilled/odd/odd-best-of-4-chrf", "--targets") == "best-of-4-chrf"
    assert planned.word(f"{STUDENT}/9-best-of-4-chrf/odd", "--data") == (
        "distilled/odd/odd-best-of-4-chrf/prepared"
    )


def test_one_student_serves_all_domains_each_shown_equally_often(plan):
    planned = plan("--configuration", "9", "--multi-domain")
    student = f"{STUDENT}/9-multi-domain/all"
    assert planned.word(student, "--mixture") == (
        "distilled/even/even/prepared=1,distilled/odd/odd/prepared=1"
    )
    assert planned.word(student, "--mixture-temperature") == "inf"
    # all dev sets choose its checkpoint, and it is trained as long as the two that it stands for
    assert planned.word(student, "--data") == "corpora/all/prepared"
    assert planned.word(student, "--valid-domains") == (
        "even=corpora/even/prepared,odd=corpora/odd/prepared"
    )
    assert planned.word(student, "--updates") == "60"
    for name in ("even", "odd"):
        rows = {row["name"]: row["model"] for row in planned.table(f"{name}.rows")}
        assert rows["9 multi-domain"] == student


def test_rows_say_what_they_are(plan):
    planned = plan("--configuration", "4", "--domain", "odd", "--final", "references")
    columns = ("size", "configuration", "variant")
    found = {row["name"]: tuple(row[name] for name in columns) for row in planned.table("odd.rows")}
    assert found == {
        "teacher": ("miniature_teacher", "teacher", "plain"),
        "adapted teacher": ("miniature_teacher", "adapted-teacher", "plain"),
        "general student R": ("miniature", "references", "plain"),
        "4": ("miniature", "4", "plain"),
        "4 final": ("miniature", "4", "final"),
    }


def test_every_row_is_scored_and_every_comparison_is_of_groups_that_have_rows(plan):
    planned = plan(
        "--configuration", "all", "--seed", "1,2", "--size", "miniature,l2_w128", "--multi-domain",
        "--final", "references", "--targets", "best,mixed", "--loss", "plain,word",
    )  # fmt: skip
    for name in ("even", "odd"):
        rows = planned.table(f"{name}.rows")
        assert len({row["name"] for row in rows}) == len(rows)
        assert {f"scores/{name}/{row['model']}" for row in rows} <= set(planned.stages)
        groups = {row["group"] for row in rows}
        steps = planned.table(f"{name}.steps")
        assert {step[side] for step in steps for side in ("new", "old")} <= groups
        assert len({(step["new"], step["old"]) for step in steps}) == len(steps)


# -- what is refused -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, message",
    [
        (["--configuration", "0"], "a configuration is a number from 1 to 9, or all, not '0'"),
        (["--size", "miniature,huge"], "--size 'huge' is unknown"),
        (["--seed", "1,x"], "--seed is a number, or several with commas, not 'x'"),
        (["--seed", "1,2,1"], "names a seed twice"),
        (["--domain", "general"], "a domain cannot be called general"),
        (["--domain", "all=odd"], "a domain cannot be called all"),
        (["--domain", "odd,odd"], "the domain odd is named twice"),
        (["--domain", "nowhere"], "there is no folder"),
        (["--domain", "a b=odd"], "NAME of letters"),
        (["--corpora", "nowhere"], "--corpora: there is no folder nowhere"),
        (["--domain", "odd", "--multi-domain"], "--multi-domain is one student for several"),
        (["--final", "output"], "--final is none or references, not 'output'"),
        (["--targets", "mixed"], "--targets mixed adds references to other targets"),
        (["--targets", "best,worst"], "not 'worst'"),
        (["--preset", "phone"], "there is no preset 'phone'; there are: cpu"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_made(
    corpora, idle, tmp_path, options, message
):
    done = chain(corpora, idle, tmp_path / "work", *options)
    assert done.returncode == 1 and message in done.stdout
    assert not (tmp_path / "work").exists()


def test_a_preset_is_a_config_of_every_pair():
    presets = sorted(path.stem for path in Path(ROOT / "recipes/presets").glob("*.sh"))
    assert presets == ["cpu"]
    for pair in ("de-en", "ru-en", "zh-en"):
        done = subprocess.run(
            ["bash", "-euc", "recipes=recipes; source recipes/$0/config.sh; "
             'source recipes/presets/$1.sh; echo "$student_size ${student_final[*]}"', pair, "cpu"],
            cwd=ROOT, text=True, capture_output=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("miniature --schedule")


# -- starting in the middle ----------------------------------------------------------------


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """What a user hands over: a model folder with its vocabulary, translations, a checkpoint."""
    root = tmp_path_factory.mktemp("theirs")
    (root / "model").mkdir()
    for name in ("model/model.pt", "model/vocabulary.json", "train.en", "checkpoint_last.pt"):
        (root / name).write_text("")
    return root


def test_a_teacher_that_is_handed_over_is_checked_and_not_trained(plan, places):
    planned = plan("--domain", "odd", "--use", f"teacher={places}/model")
    stage = planned.stages["teacher/general"]
    assert stage.kind == "hand over" and str(places / "model/model.pt") in stage.inputs
    # odd's teacher starts from its weights, so its shape counts
    assert planned.word("teacher/general", "--size") == "miniature_teacher"
    assert planned.word("vocabulary", "--from-folder") == str(places / "model")
    assert planned.stages["teacher/odd"].kind == "train"
    labels = {row["name"]: row["label"] for row in planned.table("odd.rows")}
    assert labels["teacher"] == "handed over"
    assert labels["adapted teacher"] == "handed over, then odd references"


def test_a_teacher_that_only_translates_may_have_any_shape(plan, places):
    model = f"{places}/model"
    planned = plan("--domain", "odd", "--use", f"teacher={model}", "--use", f"teacher/odd={model}")
    assert planned.word("teacher/general", "--size") is None
    assert planned.stages["teacher/odd"].kind == "hand over"


def test_a_general_student_that_is_handed_over_is_adapted_for_every_seed(plan, places):
    planned = plan("--domain", "odd", "--seed", "1,2", "--use", f"student={places}/model")
    for name in ("distilled", "distilled-seed2"):
        assert planned.stages[f"{STUDENT}/{name}/general"].kind == "hand over"
    assert planned.word(f"{STUDENT}/9-seed2/odd", "--init") == f"{STUDENT}/distilled-seed2/general"


@pytest.mark.parametrize(
    "what, out, other",
    [
        ("distilled", "distilled/general/general", "distilled/odd/odd"),
        ("distilled/odd", "distilled/odd/odd", "distilled/general/general"),
    ],
)
def test_translations_that_are_handed_over_are_chosen_from_and_not_made(
    plan, places, what, out, other
):
    planned = plan("--domain", "odd", "--use", f"{what}={places}/train.en")
    assert planned.word(out, "--translations") == str(places / "train.en")
    assert planned.word(out, "--teacher") is None and planned.word(other, "--teacher")


@pytest.mark.parametrize("model, out", [
    ("teacher", "teacher/general"), ("student", f"{STUDENT}/distilled/general"),
])  # fmt: skip
def test_a_training_goes_on_or_starts_from_weights(plan, places, model, out):
    vocabulary = ("--use", f"vocabulary={places}/model", "--domain", "odd")
    planned = plan(*vocabulary, "--continue", f"{model}={places}/checkpoint_last.pt")
    assert planned.word(out, "--continue") == str(places / "checkpoint_last.pt")
    planned = plan(*vocabulary, "--init", f"{model}={places}/model", "--allow-unknown-vocabulary")
    assert planned.word(out, "--from-model") == f"handed-over/{model}"
    handed = planned.stages[f"handed-over/{model}"]
    assert "--allow-unknown-vocabulary" in handed.command and f"handed-over/{model}" in (
        planned.stages[out].inputs
    )


@pytest.mark.parametrize(
    "options, message",
    [
        (["--use", "teacher=nowhere"], "--use teacher: there is no file or folder nowhere"),
        (["--use", "teacher"], "--use teacher: there is no file or folder"),
        (["--use", "optimiser=."], "--use takes vocabulary, teacher, teacher/DOMAIN, student"),
        (["--continue", "vocabulary=."], "--continue takes teacher or student"),
        (["--use", "teacher/law=."], "law is no domain of this run"),
        (["--use", "teacher=.", "--init", "teacher=."], "teacher is handed over twice"),
        (["--use", "teacher=setup.py"], "comes without its vocabulary"),
        (["--use", "vocabulary=.", "--use", "student=.", "--size", "tiny,small"], "has one size"),
        (["--use", "vocabulary=.", "--use", "student=.", "--student-init", "first"],
         "leave one out"),
    ],
)  # fmt: skip
def test_what_cannot_be_handed_over_is_refused(corpora, idle, tmp_path, options, message):
    done = chain(corpora, idle, tmp_path / "work", "--domain", "odd", *options)
    assert done.returncode == 1 and message in done.stdout
