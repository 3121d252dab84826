"""The whole chain on a toy language: what is made from what, and what survives kill -9."""

import os
import random
import shutil
import signal
import subprocess
import time

import pytest

from data_prep.manifest import read_json
from data_prep.pipeline.graph import read_plan
from fairseq_plugins.checkpoints import load_checkpoint
from fairseq_plugins.generation.generate import generate
from fairseq_plugins.generation.nbest import read_nbest
from fairseq_plugins.report.run import read_curve
from tests.fixtures.models import read_text
from tests.fixtures.toy_chain import ROOT, chain_command, environment, run_chain, toy_corpora
from tests.fixtures.warm import warm_commands


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    return toy_corpora(tmp_path_factory.mktemp("corpora"))


@pytest.fixture(scope="module")
def finished(corpora, tmp_path_factory):
    """Work folder of a run of configurations 1, 3, 4 and 9."""
    work = tmp_path_factory.mktemp("run") / "work"
    done = run_chain(corpora, work, "--configuration", "1,3,4,9")
    assert done.returncode == 0, done.stdout
    return work


def made_from(stage):
    """Input files of a stage, relative to the work folder."""
    return set(read_json(stage / "stage.json")["inputs"])


def test_the_table_is_printed_and_kept(finished):
    table = (finished / "report" / "odd" / "table.txt").read_text()
    names = [line.split("  ")[0] for line in table.splitlines()[2:10]]
    assert names == [
        "teacher", "adapted teacher", "general student R", "general student D", "1", "3", "4", "9",
    ]  # fmt: skip
    assert "tok:13a" in table and "What each step bought on odd" in table


@pytest.mark.parametrize(
    "stage, model, data",
    [
        ("teacher/general", None, "corpora/general"),
        ("teacher/odd", "teacher/general", "corpora/odd"),
        ("student/miniature/references/general", None, "corpora/general"),
        ("student/miniature/distilled/general", None, "distilled/general/general"),
        ("student/miniature/1/odd", None, "corpora/odd"),
        ("student/miniature/3/odd", None, "distilled/odd/odd"),
        ("student/miniature/4/odd", "student/miniature/references/general", "corpora/odd"),
        ("student/miniature/9/odd", "student/miniature/distilled/general", "distilled/odd/odd"),
    ],
)
def test_every_model_starts_from_and_learns_from_what_the_method_says(finished, stage, model, data):
    inputs = made_from(finished / stage)
    assert f"{data}/prepared/train.de-en.en.bin" in inputs
    models = {name.removesuffix("/model.pt") for name in inputs if name.endswith("model.pt")}
    assert models == ({model} if model else set())
    command = (finished / stage / "command.txt").read_text()
    assert f"fairseq-train {data}/prepared " in command
    assert ("--task domain_adaptation" in command) is bool(model)
    assert (f"--finetune-from-model {model}/model.pt " in command) is bool(model)


@pytest.mark.parametrize("domain, teacher", [("general", "general"), ("odd", "odd")])
def test_distilled_targets_are_the_teachers_output(finished, tmp_path, domain, teacher):
    text = finished / "distilled" / domain / teacher / "text"
    source = finished / "corpora" / domain / "text" / "train.de"
    generate([finished / "teacher" / teacher], source, tmp_path / "again.en", beam=2)
    assert (text / "train.en").read_bytes() == (tmp_path / "again.en").read_bytes()
    assert (text / "train.de").read_bytes() == source.read_bytes()
    assert read_text(text / "train.en") != read_text(source.with_suffix(".en"))


def test_targets_and_filters_change_what_the_student_learns(finished, corpora, tmp_path):
    work = tmp_path / "work"
    shutil.copytree(finished, work, copy_function=shutil.copy2)
    done = run_chain(
        corpora, work, "--configuration", "9", "--stage", "8", "--stop-stage", "8",
        "--targets", "best-of-4-chrf", "--filter", "repetition:max=2", "--rejected", "reference",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    distilled = work / "distilled" / "odd" / "odd"
    assert "settings changed: " in done.stdout and "--targets best-of-4-chrf" in done.stdout
    settings = read_json(distilled / "text" / "manifest.json")["settings"]
    assert settings["steps"] == [
        "best-of-n:metric=chrf,top=1", "repetition:max=2",
    ] and settings["rejected"] == "reference"  # fmt: skip
    candidates = list(read_nbest(distilled / "decoded" / "train.en.nbest"))
    source = read_text(finished / "corpora" / "odd" / "text" / "train.de")
    assert [len(found) for found in candidates] == [4] * len(source)
    chosen = read_text(distilled / "text" / "train.en")
    assert chosen != read_text(finished / "distilled" / "odd" / "odd" / "text" / "train.en")
    ledger = read_json(distilled / "text" / "ledger.json")
    assert ledger["read"] == len(source) == len(chosen) + ledger["rejected"]["dropped"]


def test_references_of_dev_and_test_are_never_touched(finished, corpora):
    for prepared in finished.rglob("prepared"):
        domain = prepared.relative_to(finished).parts[1]
        for split, name in (("dev", "valid"), ("test", "test")):
            for lang in ("de", "en"):
                untouched = (corpora / domain / f"{split}.{lang}").read_bytes()
                assert (prepared / f"{name}.{lang}").read_bytes() == untouched


def test_one_vocabulary_for_every_model(finished):
    ours = read_json(finished / "vocabulary" / "vocabulary.json")["files"]
    models = list(finished.glob("teacher/*/model.pt")) + list(finished.glob("student/**/model.pt"))
    assert len(models) == 8
    for model in models:
        assert load_checkpoint(model)["task_state"]["vocabulary"] == ours


def test_equal_tries_for_all_students_of_a_domain(finished):
    def settings(number):
        words = read_json(finished / f"student/miniature/{number}/odd/stage.json")["command"]
        return words[words.index("--schedule") :][
            : words.index("--size") - words.index("--schedule")
        ]

    assert settings(1) == settings(3) == settings(4) == settings(9)


def test_the_plan_lists_every_stage_and_no_other(finished):
    planned = [stage.out for stage in read_plan(finished)]
    made = {str(path.parent.relative_to(finished)) for path in finished.rglob("stage.json")}
    assert len(planned) == len(made) and set(planned) == made


def test_the_plan_names_the_rows_of_the_table(finished):
    rows = [line.split("\t") for line in read_text(finished / "plan" / "odd.rows.tsv")[1:]]
    table = (finished / "report" / "odd" / "table.txt").read_text().splitlines()
    assert [name for name, *_ in rows] == [line.split("  ")[0] for line in table[2:10]]
    assert all((finished / model / "model.pt").is_file() for _, _, _, model, *_ in rows)


def test_a_student_of_all_domains_is_trained_on_all_and_validated_on_each(
    finished, corpora, tmp_path
):
    work = shutil.copytree(finished, tmp_path / "work")
    done = run_chain(
        corpora, work, "--domain", f"again={corpora / 'odd'}", "--multi-domain", "--stop-stage", "9"
    )
    assert done.returncode == 0, done.stdout
    student = work / "student/miniature/9-multi-domain/all"
    log = (student / "log.txt").read_text()
    for name in ("odd", "again"):
        assert f"distilled/{name}/{name}/prepared: " in log
    together, *apart = (
        [point["update"] for point in read_curve(student / "log.txt", subset).validations]
        for subset in ("valid", "valid_odd", "valid_again")
    )  # fmt: skip
    assert together and apart == [together, together]
    kept = read_json(student / "manifest.json")["counts"]["updates"]
    best = max(read_curve(student / "log.txt").validations, key=lambda point: point["bleu_greedy"])
    assert kept == best["update"]


def test_run_again_nothing_is_redone(finished, corpora):
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("stage.json")}
    done = run_chain(corpora, finished, "--configuration", "1,3,4,9")
    assert done.returncode == 0, done.stdout
    assert "to be made" not in done.stdout and "changed:" not in done.stdout
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("stage.json")} == before


def test_changed_settings_redo_what_depends_on_them_and_say_why(finished, corpora, tmp_path):
    work = tmp_path / "work"
    shutil.copytree(finished, work, copy_function=shutil.copy2)
    done = run_chain(
        corpora, work, "--configuration", "9", "--stage", "8", "--stop-stage", "9", "--updates", "2"
    )
    assert done.returncode == 0, done.stdout
    assert "distilled/odd/odd: done before" in done.stdout
    assert "student/miniature/9/odd: settings changed: nothing → --updates 2" in done.stdout


def alive(session):
    """Processes of a run, which has a session, that have not ended."""
    listing = subprocess.run(
        ["ps", "-eo", "sid=,pid=,stat="], capture_output=True, text=True
    ).stdout
    rows = (line.split() for line in listing.splitlines())
    sessions = {session, *warm_commands().sessions()}
    return [int(pid) for sid, pid, stat in rows if int(sid) in sessions and stat[0] != "Z"]


def stop_hard(process):
    """kill -9 the whole run at once, as a power cut would."""
    while left := alive(process.pid):
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
    process.wait()


def test_killed_in_every_stage_the_run_goes_on_and_ends_with_the_same_bytes(
    finished, corpora, tmp_path
):
    work = tmp_path / "work"
    command = chain_command(corpora, work, "--configuration", "9")
    killed, chance = set(), random.Random(3)
    with open(tmp_path / "screen.txt", "w") as screen:
        while True:
            process = subprocess.Popen(
                command, env=environment(), stdout=screen, stderr=screen, start_new_session=True
            )
            under_way = wait_for_a_stage(process, work, known=killed)
            if under_way is None:
                break
            killed.add(under_way)
            time.sleep(chance.choice([0, 0.1, 0.3, 1]))  # seconds; a stage takes 0.3 to 3
            stop_hard(process)
    assert process.returncode == 0, (tmp_path / "screen.txt").read_text()
    assert len(killed) >= 15, sorted(killed)
    for path in (p for p in work.rglob("*") if p.suffix in {".pt", ".bin", ".idx", ".de", ".en"}):
        assert path.read_bytes() == (finished / path.relative_to(work)).read_bytes(), path
    ours, theirs = (
        (folder / "report" / "odd" / "scores.tsv").read_text().splitlines()
        for folder in (work, finished)
    )
    assert set(ours) - {line for line in ours if " - " in line} <= set(theirs)
    assert not list(work.rglob("*.part")) and not list(work.rglob("*.lock"))


def heed_ctrl_c():
    """A test runner that was started in the background ignores it, and so would its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_stops_everything_and_says_how_to_go_on(corpora, tmp_path, number):
    with open(tmp_path / "screen.txt", "w+") as screen:
        process = subprocess.Popen(
            chain_command(corpora, tmp_path / "work"), env=environment(), stdout=screen,
            stderr=screen, start_new_session=True, preexec_fn=heed_ctrl_c,
        )  # fmt: skip
        assert wait_for_a_stage(process, tmp_path / "work", known=set())
        if number == signal.SIGINT:
            os.killpg(process.pid, number)  # as the terminal does
        else:
            process.send_signal(number)
        assert process.wait(timeout=30) != 0
        for _ in range(100):
            if not (left := alive(process.pid)):
                break
            time.sleep(0.1)
        assert not left
        screen.seek(0)
        how = "interrupted" if number == signal.SIGINT else "terminated"
        assert screen.read().endswith(f"{how}; run the same command again to go on\n")


def wait_for_a_stage(process, work, known):
    """A stage that is being made and is not in ``known``; None when the run has ended."""
    while process.poll() is None:
        for folder, _, names in os.walk(work):  # folders may go while we look, which it forgives
            for name in names:
                stage = os.path.join(folder, name.removesuffix(".lock"))
                if name.endswith(".lock") and stage not in known and os.path.exists(stage + ".log"):
                    return stage
        time.sleep(0.02)
    return None


@pytest.mark.parametrize(
    "options, message",
    [
        (["--configuration", "10"], "a configuration is a number from 1 to 9, or all, not '10'"),
        (["--stage", "13"], "a stage is a number from 1 to 12, not '13'"),
        (["--size", "huge"], "--size 'huge' is unknown; there are large, medium"),
        (["--teacher-size", "huge"], "--teacher-size 'huge' is unknown"),
        (["--domain", "general=."], "a domain cannot be called general"),
        (["--domain", "x=nowhere"], "there is no folder nowhere"),
        (["--domain", "=x"], "NAME=PLACE"),
        (["--updates", "many"], "expected a number above 0, not 'many'"),
        (["--colour", "red"], "unknown option '--colour'"),
        (["--lines"], "--lines needs a value"),
        (["--targets", "best-of-8-comet"], "METRIC chrf or bleu, not 'best-of-8-comet'"),
        (["--rejected", "keep"], "--rejected is drop or reference, not 'keep'"),
        (["--filter", "nonsense"], "nonsense"),
        (["--work", "/dev/null/work"], "cannot make the folder /dev/null/work"),
    ],
)
def test_bad_options_are_refused_before_anything_is_made(corpora, tmp_path, options, message):
    done = run_chain(corpora, tmp_path / "work", *options)
    assert done.returncode != 0 and message in done.stdout
    assert not list(tmp_path.rglob("stage.json"))


def test_a_dry_run_prints_every_command_and_does_nothing(corpora, tmp_path):
    done = run_chain(corpora, tmp_path / "work", "--configuration", "2,9", "--dry-run")
    assert done.returncode == 0, done.stdout
    for word in ("data_prep.clean", "data_prep.vocabulary", "data_prep.binarise", "fairseq-train",
                 "dad-generate", "dad-select", "dad-keep-weights", "dad-export", "dad-evaluate",
                 "dad-speed", "dad-report", "shipped/odd"):  # fmt: skip
        assert word in done.stdout
    assert "teacher/odd-scratch" in done.stdout and "{out}" not in done.stdout
    assert not (tmp_path / "work").exists()


SCRIPTS = (
    "chain.sh", "quickstart/run.sh", "de-en/run.sh", "ru-en/run.sh", "zh-en/run.sh",
    "stages/train.sh", "stages/distil.sh",
)  # fmt: skip


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_script_explains_itself(name):
    done = subprocess.run(
        ["bash", str(ROOT / "recipes" / name), "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0 and "Usage:" in done.stdout and done.stderr == ""
