"""Reading a run's folder: finished, half done, damaged."""

import fcntl
import shutil

import pytest

from data_prep.manifest import read_json, write_json
from fairseq_plugins.report.run import DONE, RUNNING, STOPPED, TO_COME, open_run, read_curve
from tests.fixtures.models import write_text
from tests.fixtures.run_folder import COLUMNS, DOMAIN, ROWS, log, make_run, row


@pytest.fixture
def work(tmp_path):
    return make_run(tmp_path / "run")


def states(work):
    return {stage.folder: stage.state for stage in open_run(work).stages()}


def test_stages_are_done_running_stopped_or_to_come(work):
    assert states(work)["teacher/general"] == DONE
    for folder in ("teacher/general", f"teacher/{DOMAIN}"):
        (work / folder).rename(work / f"{folder}.part")
    shutil.rmtree(work / "student")
    with open(work / "teacher/general.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = states(work)
        assert found["teacher/general"] == RUNNING
    assert found[f"teacher/{DOMAIN}"] == STOPPED
    assert found[f"student/tiny/9/{DOMAIN}"] == TO_COME
    assert states(work)["teacher/general"] == STOPPED  # its process has gone


def test_a_stage_that_only_finds_out_that_it_is_done_is_done(work):
    with open(work / "teacher/general.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert states(work)["teacher/general"] == DONE
        (work / "teacher/general.part").mkdir()
        assert states(work)["teacher/general"] == RUNNING  # it is made again


def test_rows_know_what_kind_of_model_they_are(work):
    kinds = {row.name: row.kind for row in open_run(work).rows(DOMAIN)}
    assert kinds == {
        "teacher": "teacher", "adapted teacher": "teacher", "general student D": "general student",
        "7": "student", "9": "student",
    }  # fmt: skip


def test_a_resumed_log_counts_every_update_once(tmp_path):
    path = tmp_path / "log.txt"
    path.write_text(log(0, (1, 2)) + log(0, (3, 4)))
    curve = read_curve(path)
    assert [(point["update"], point["bleu"]) for point in curve.validations] == [(100, 3), (200, 4)]
    assert len(curve.training) == 2


def test_values_that_are_no_numbers_and_lines_cut_short_are_counted_and_left_out(tmp_path):
    path = tmp_path / "log.txt"
    good = log(0)
    path.write_text(good + good.replace('"100"', '"300"').replace('"1.5"', '"nan"')
                    + 'x | INFO | valid | {"valid_bleu": "3", oops}\n'
                    + 'x | INFO | valid | {"valid_bleu": "3"')  # fmt: skip
    curve = read_curve(path)
    assert (curve.not_numbers, curve.damaged) == (2, 1)  # BLEU of both decodings
    assert [point.get("bleu") for point in curve.validations] == [1.5, 8, None]


@pytest.mark.parametrize(
    "name", [f"scores/{DOMAIN}/teacher/general/scores.json", f"speed/{DOMAIN}/speed.json",
             "teacher/general/stage.json", f"corpora/{DOMAIN}/text/ledger.json"],
)  # fmt: skip
@pytest.mark.parametrize("text", ['{"cut', "[]", "\x00\xff"])
def test_a_damaged_file_is_left_out_and_named(work, name, text):
    (work / name).write_text(text, encoding="latin-1")
    run = open_run(work)
    run.rows(DOMAIN), run.speed(DOMAIN), run.ledgers()
    assert run.problems == [f"{name} is damaged and was left out"]


def test_files_of_older_versions_are_left_out_and_named(work):
    write_json(work / f"speed/{DOMAIN}/speed.json", {"sentences_per_second": {}})
    write_json(work / f"corpora/{DOMAIN}/text/ledger.json", {"dropped": {}})
    write_json(work / f"scores/{DOMAIN}/teacher/general/scores.json", {"bleu": 3})
    run = open_run(work)
    assert run.speed(DOMAIN) is None and run.rows(DOMAIN)[0].scores is None
    assert f"corpora/{DOMAIN}/text" not in run.ledgers()
    assert len(run.problems) == 3 and all(DOMAIN in problem for problem in run.problems)


def make_old(work):
    """A plan of the time when a run had one size."""
    path = work / "plan/run.json"
    plan = {**read_json(path), "size": "tiny"}
    write_json(path, {name: value for name, value in plan.items() if name != "sizes"})


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda work: shutil.rmtree(work), "there is no folder .*name the --work of a recipe"),
        (lambda work: [shutil.rmtree(place) for place in work.iterdir()], "holds no run"),
        (lambda work: shutil.rmtree(work / "plan"), "run.json is missing.*start its recipe again"),
        (lambda work: (work / "plan/run.json").write_text("{"), "run.json is not JSON"),
        (lambda work: write_json(work / "plan/run.json", {"domains": []}), "lacks source_lang"),
        (lambda work: make_old(work), "lacks sizes; start the recipe again"),
    ],
)
def test_what_is_no_run_is_refused_with_the_next_step(work, spoil, message):
    spoil(work)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        open_run(work)


@pytest.mark.parametrize(
    "lines, message",
    [
        (["name\tlabel\tmodel"], "a line of name, group, label, .*; start the recipe again"),
        (["\t".join(COLUMNS), "9\tx"], "line 2: 2 cells, not 8"),
        (["\t".join(COLUMNS), "\t".join(row("9", "", "x", "10"))], "line 2: .* configuration '10'"),
        (["\t".join(COLUMNS), "\t".join(row("9", "", "x", seed="x"))], "line 2: a seed .* 'x'"),
        ([], "does not begin"),
    ],
)
def test_a_damaged_plan_is_refused(work, lines, message):
    write_text(work / f"plan/{DOMAIN}.rows.tsv", lines)
    with pytest.raises(ValueError, match=message):
        open_run(work).rows(DOMAIN)


def test_a_line_separator_in_a_label_ends_no_line(work):
    path = work / f"plan/{DOMAIN}.rows.tsv"
    path.write_text(path.read_text().replace("general references", "general\u2028references"))
    assert open_run(work).rows(DOMAIN)[0].label == "general\u2028references"


def test_a_curve_is_found_while_the_training_runs(work):
    model = ROWS[0][3]
    (work / model / "log.txt").rename(work / f"{model}.log")
    assert len(open_run(work).curve(model).validations) == 2
    (work / f"{model}.log").unlink()
    assert open_run(work).curve(model) is None


def test_the_test_set_that_scores_rest_on_is_known(work):
    run = open_run(work)
    row = run.rows(DOMAIN)[0]
    recorded = read_json(work / f"scores/{DOMAIN}/teacher/general/stage.json")["inputs"]
    assert run.scored_on(row, DOMAIN) == recorded[f"corpora/{DOMAIN}/text/test.en"]["sha256"]
    assert run.scored_on(row, "general") != run.scored_on(row, DOMAIN)
