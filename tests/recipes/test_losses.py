"""--loss and --adapt of the recipes: what each makes of which stage, in words and for real."""

import shlex
import shutil

import pytest

from data_prep.manifest import read_json
from tests.fixtures.models import read_text
from tests.fixtures.toy_chain import run_chain, toy_corpora


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    return toy_corpora(tmp_path_factory.mktemp("corpora"))


def dry_run(corpora, *options):
    """Commands of a dry run, lists of words."""
    done = run_chain(corpora, corpora / "nowhere", "--dry-run", *options)
    assert done.returncode == 0, done.stdout
    return [shlex.split(line) for line in done.stdout.splitlines() if line and line[0].islower()]


def value(words, flag):
    """What follows a flag, or None."""
    return words[words.index(flag) + 1] if flag in words else None


def trainings(commands):
    """{model: words of its training}"""
    found = {}
    for words in commands:
        if words[0] == "fairseq-train":
            found[value(words, "--save-dir").removesuffix("/checkpoints")] = words
    return found


def names(commands, program, flag):
    return [value(words, flag) for words in commands if words[0] == program]


GENERAL, DOMAIN = "distilled/general/general", "distilled/odd/odd"


@pytest.mark.parametrize(
    "model, data, start, criterion, learns_from",
    [
        ("distilled/general", GENERAL, None, "label_smoothed_cross_entropy", None),
        ("distilled-word/general", GENERAL, None, "word_distillation", GENERAL),
        ("distilled-selective/general", GENERAL, None, "selective_distillation", GENERAL),
        ("9/odd", DOMAIN, "distilled", "label_smoothed_cross_entropy", None),
        ("9-word/odd", DOMAIN, "distilled-word", "word_distillation", DOMAIN),
        ("9-selective/odd", DOMAIN, "distilled-selective", "selective_distillation", DOMAIN),
        ("7-word/odd", "corpora/odd", "distilled-word", "label_smoothed_cross_entropy", None),
        ("6-word/odd", DOMAIN, "references", "word_distillation", DOMAIN),
        ("3-word/odd", DOMAIN, None, "word_distillation", DOMAIN),
    ],
)  # fmt: skip
def test_students_learn_the_distribution_of_the_teacher_whose_output_they_learn(
    corpora, model, data, start, criterion, learns_from
):
    commands = dry_run(corpora, "--configuration", "3,6,7,9", "--loss", "plain,word,selective")
    words = trainings(commands)[f"student/miniature/{model}"]
    assert words[1] == f"{data}/prepared"
    start = f"student/miniature/{start}/general/model.pt" if start else None
    assert value(words, "--finetune-from-model") == start
    assert value(words, "--criterion") == criterion
    cache = f"cached/{learns_from}/distribution" if learns_from else None
    assert value(words, "--teacher-cache") == cache
    if cache:
        caching = [words for words in commands if words[0] == "dad-cache-teacher"]
        (made,) = [words for words in caching if value(words, "--out") == cache]
        assert value(made, "--data") == f"{learns_from}/prepared"
        assert value(made, "--teacher") == f"teacher/{learns_from.split('/')[-1]}"


def test_minimum_risk_goes_on_from_the_finished_student(corpora):
    commands = dry_run(corpora, "--configuration", "9", "--loss", "sequence-risk")
    students = [name for name in trainings(commands) if name.endswith("/odd") and "student" in name]
    assert students == ["student/miniature/9/odd", "student/miniature/9-sequence-risk/odd"]
    words = trainings(commands)["student/miniature/9-sequence-risk/odd"]
    assert value(words, "--finetune-from-model") == "student/miniature/9/odd/model.pt"
    assert value(words, "--criterion") == "minimum_risk"
    assert value(words, "--candidates") == "candidates/odd/odd"
    (made,) = [w for w in commands if w[0] == "dad-candidates"]
    assert value(made, "--nbest") == "distilled/odd/odd/decoded/train.en.nbest"
    assert names(commands, "dad-generate", "--n-best") == [None, "4"]  # general, odd
    assert names(commands, "dad-cache-teacher", "--out") == []


def test_students_without_a_teacher_are_trained_once(corpora):
    losses = "plain,word,sequence-risk"
    models = trainings(dry_run(corpora, "--configuration", "1,4", "--loss", losses))
    students = [name for name in models if name.startswith("student/")]
    assert students == [
        "student/miniature/references/general",
        "student/miniature/1/odd",
        "student/miniature/4/odd",
    ]  # fmt: skip


def adapted_models(corpora, *options):
    """Trainings of a run that start from a general model, and those that do not."""
    models = trainings(dry_run(corpora, "--configuration", "1,4,9", *options))
    adapted = {name: words for name, words in models.items() if "--finetune-from-model" in words}
    assert set(adapted) == {
        "teacher/odd", "student/miniature/4/odd", "student/miniature/9/odd",
    }  # fmt: skip
    return adapted, [words for name, words in models.items() if name not in adapted]


@pytest.mark.parametrize(
    "adapt, flag, values",
    [
        ("anchored", "--criterion", ["anchored_adaptation"] * 3),
        ("ewc", "--fisher", [
            "fisher/teacher/general/fisher.pt",
            "fisher/student/miniature/references/general/fisher.pt",
            "fisher/student/miniature/distilled/general/fisher.pt",
        ]),
        ("anchored=0.2", "--anchor-weight", ["0.2"] * 3),
        ("ewc=10", "--ewc-weight", ["10"] * 3),
        ("replay=0.25", "--replay", [
            "corpora/general/prepared=0.25",
            "corpora/general/prepared=0.25",
            "distilled/general/general/prepared=0.25",  # what that student has learnt before
        ]),
        ("lora", "--lora-rank", ["8"] * 3),
    ],
)  # fmt: skip
def test_adapting_concerns_every_model_that_is_adapted_and_no_other(corpora, adapt, flag, values):
    plain, _ = adapted_models(corpora)
    adapted, others = adapted_models(corpora, "--adapt", adapt)
    assert [value(words, flag) for words in adapted.values()] == values
    assert all(value(words, flag) != plain[name] for name, words in adapted.items())
    plain_criterion = "label_smoothed_cross_entropy"
    assert all(value(words, "--criterion") == plain_criterion for words in others)
    assert all(flag == "--criterion" or flag not in words for words in others)


def test_replayed_text_has_a_cache_of_its_own(corpora):
    commands = dry_run(corpora, "--configuration", "6,9", "--loss", "word", "--adapt", "replay=0.5")
    caches = {
        name: value(words, "--teacher-cache") for name, words in trainings(commands).items()
        if "-word/odd" in name
    }  # fmt: skip
    assert caches == {
        "student/miniature/6-word/odd":
            "cached/distilled/odd/odd/distribution:cached/corpora/general/distribution",
        "student/miniature/9-word/odd":
            "cached/distilled/odd/odd/distribution:cached/distilled/general/general/distribution",
    }  # fmt: skip
    made = names(commands, "dad-cache-teacher", "--out")
    assert {part for list_ in caches.values() for part in list_.split(":")} == set(made)


def test_every_loss_has_a_row_and_is_compared(corpora, tmp_path):
    options = ["--configuration", "4,9", "--loss", "plain,word,selective,sequence-risk"]
    rows = names(dry_run(corpora, *options), "dad-evaluate", "--name")
    assert rows[-5:] == ["4", "9", "9 word", "9 selective", "9 risk"]
    assert set(rows[:-5]) == {
        "teacher", "adapted teacher", "general student R", "general student D",
        "general student D word", "general student D selective",
    }  # fmt: skip
    done = run_chain(corpora, tmp_path / "work", *options, "--stop-stage", "1")
    assert done.returncode == 0, done.stdout
    steps = read_text(tmp_path / "work" / "plan" / "odd.steps.tsv")
    compared = [line.split("\t")[:2] for line in steps[1:]]
    for pair in (["9 word", "9"], ["9 selective", "9"], ["9 risk", "9"],
                 ["9 word", "general student D word"],
                 ["9 risk", "general student D"]):  # fmt: skip
        assert pair in compared
    assert all(set(pair) <= set(rows) for pair in compared)


@pytest.mark.parametrize("layers", ["first", "every-other"])
def test_general_students_may_start_from_the_teachers_layers(corpora, layers):
    plain = trainings(dry_run(corpora, "--configuration", "1,4,9"))
    models = trainings(dry_run(corpora, "--configuration", "1,4,9", "--student-init", layers))
    students = [name for name in models if value(models[name], "--init-from-teacher")]
    assert students == [
        "student/miniature/distilled/general", "student/miniature/references/general",
    ]  # fmt: skip
    assert value(models[students[0]], "--init-from-teacher") == f"{layers}=teacher/general"
    assert not any("--init-from-teacher" in words for words in plain.values())


@pytest.mark.parametrize(
    "options, message",
    [
        (["--loss", "hinton"], "--loss is plain, word, selective or sequence-risk"),
        (["--loss", "plain,hinton"], "not 'hinton'"),
        (["--adapt", "replay=1"], "SHARE between 0 and 1, not 'replay=1'"),
        (["--adapt", "replay=0.0"], "not 'replay=0.0'"),
        (["--adapt", "prompt"], "lora or replay=SHARE with SHARE between 0 and 1, not 'prompt'"),
        (["--adapt", "ewc=fast"], "not 'ewc=fast'"),
        (["--student-init", "last"], "--student-init is random, first or every-other, not 'last'"),
        (["--adapt", "ewc", "--loss", "plain,word"], "two losses for one training"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_made(corpora, tmp_path, options, message):
    done = run_chain(corpora, tmp_path / "work", *options)
    assert done.returncode != 0 and message in done.stdout
    assert not list(tmp_path.rglob("stage.json"))


# -- for real ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(corpora, tmp_path_factory):
    """Work folder with the students of configuration 9: plain, by words, by minimum risk."""
    work = tmp_path_factory.mktemp("run") / "work"
    done = run_chain(
        corpora, work, "--configuration", "9", "--loss", "word,sequence-risk", "--stop-stage", "9"
    )
    assert done.returncode == 0, done.stdout
    return work


def test_what_the_losses_log_stands_in_the_log(finished):
    logged = {
        loss: (finished / f"student/miniature/9-{loss}/odd/log.txt").read_text()
        for loss in ("word", "sequence-risk")
    }
    for key in ("train_teacher_kl", "valid_teacher_kl", "valid_teacher_agreement"):
        assert f'"{key}"' in logged["word"]
    assert '"train_risk"' in logged["sequence-risk"]


@pytest.mark.parametrize(
    "adapt, first_stage", [("anchored", 9), ("ewc", 6), ("replay=0.25", 9), ("lora", 9)]
)
def test_every_way_of_adapting_runs_through_the_chain(
    finished, corpora, tmp_path, adapt, first_stage
):
    work = tmp_path / "work"
    shutil.copytree(finished, work, copy_function=shutil.copy2)
    done = run_chain(
        corpora, work, "--configuration", "7", "--stage", str(first_stage), "--stop-stage", "9",
        "--adapt", adapt,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    inputs = set(read_json(work / "student/miniature/7/odd/stage.json")["inputs"])
    assert ("distilled/general/general/prepared/train.de-en.en.bin" in inputs) is (
        adapt == "replay=0.25"
    )
    assert (work / "student/miniature/7/odd/model.pt").exists()
