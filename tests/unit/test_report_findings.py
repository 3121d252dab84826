"""What a report finds in a run, and the verdict in words."""

import json
import shutil

import pytest

from data_prep.manifest import read_json, write_json
from data_prep.pipeline.graph import PlannedStage, read_plan, write_plan
from fairseq_plugins.report.comparisons import over_seeds, signed
from fairseq_plugins.report.findings import find
from fairseq_plugins.report.run import open_run
from fairseq_plugins.report.verdict import judge, times
from tests.fixtures.models import write_text
from tests.fixtures.run_folder import DOMAIN, LINES, ROWS, STEPS, TEXTS, make_run


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="module")
def found(made):
    return find(open_run(made), DOMAIN)


@pytest.fixture
def work(made, tmp_path):
    """A copy of the run that a test may spoil."""
    return shutil.copytree(made, tmp_path / "run")


def report_of(work):
    return find(open_run(work), DOMAIN)


def plan_also(work, *stages):
    write_plan(
        work / "plan/stages.json", [*read_plan(work), *(PlannedStage(*stage) for stage in stages)]
    )


def titles(report):
    return [part["title"] for part in report["verdict"]]


def part(report, title):
    return next(part for part in report["verdict"] if part["title"] == title)


# -- numbers -------------------------------------------------------------------------------


def test_a_finished_run_is_finished_though_its_report_is_still_to_come(found):
    assert found["finished"] and found["problems"] == []
    assert {row["state"] for row in found["rows"]} == {"scored"}


def test_everything_can_be_written_as_strict_json(found):
    text = json.dumps(found, allow_nan=False)
    assert json.loads(text).keys() == found.keys()


def test_steps_have_differences_and_p_values(found):
    steps = {step["words"]: step for step in found["steps"]}
    assert len(steps) == len(STEPS)
    assert steps["adapting the teacher"]["seeds"][0]["p_value"] < 0.05
    assert steps["distilling again"]["seeds"][0]["p_value"] >= 0.05
    assert [step["kind"] for step in found["steps"]] == ["step", "step", "step", "distance"]


def test_the_student_with_the_best_dev_bleu_is_recommended_with_its_rivals_on_test(found):
    recommended = found["recommended"]
    assert (recommended["name"], recommended["by"], recommended["dev"]) == ("9", "dev", 12.0)
    assert [rival["new"] for rival in recommended["rivals"]] == ["7"]
    assert (recommended["teacher"], recommended["start"]) == (
        "adapted teacher", "general student D",
    )  # fmt: skip


def test_a_model_that_another_beats_in_both_is_not_on_the_front(found):
    # 9 is faster than 7 and better; the adapted teacher is slower but better still
    assert found["fronts"]["speed"] == ["9", "adapted teacher"]
    assert found["fronts"]["size"] == ["general student D", "7", "9", "adapted teacher"]


def test_forgetting_goes_from_the_general_model_to_the_adapted_one(found):
    pairs = [(entry["start"], entry["name"]) for entry in found["forgetting"]]
    assert pairs == [
        ("teacher", "adapted teacher"), ("general student D", "7"), ("general student D", "9"),
    ]  # fmt: skip


def test_time_is_split_by_kind_and_nothing_is_lost(found):
    seconds = found["seconds"]
    assert seconds["training"] == sum(100 + number for number in range(len(ROWS)))
    assert seconds["decoding"] == 60 + 5 * len(ROWS)
    assert seconds["all"] == sum(stage["seconds"] or 0 for stage in found["stages"])


def test_both_kinds_of_ledger_have_one_shape(found):
    kinds = {ledger["folder"]: ledger["kind"] for ledger in found["ledgers"]}
    assert kinds == {
        "corpora/general/text": "cleaning", f"corpora/{DOMAIN}/text": "cleaning",
        f"distilled/{DOMAIN}/{DOMAIN}/text": "selection",
    }  # fmt: skip
    for ledger in found["ledgers"]:
        assert ledger["kept"] + sum(step["dropped"] for step in ledger["steps"]) == ledger["read"]


def test_provenance_names_test_sets_by_their_hash(found):
    provenance = found["provenance"]
    assert len({entry["sha256"] for entry in provenance["test_sets"]}) == 2  # sides exchanged
    assert {entry["lines"] for entry in provenance["test_sets"]} == {LINES}
    assert provenance["seeds"] == [1] and provenance["commits"] == ["0123456789ab"]
    assert set(provenance["signatures"]) == {"bleu", "chrf"}


def test_indicators_keep_what_is_not_known(found):
    copied, length, terms = (
        next(entry for entry in found["indicators"] if entry["key"] == key)
        for key in ("copied", "length_ratio", "term_recall")
    )
    assert copied["rows"]["9"]["count"] == 1
    assert length["rows"]["9"]["shown"] == "0.90" and terms["rows"]["9"]["shown"] == "–"


# -- half done, damaged, not belonging together --------------------------------------------


def test_a_half_done_run_says_so_first_and_shows_what_there_is(work):
    for place in ("student/tiny/9", f"scores/{DOMAIN}/student/tiny/9", "speed"):
        shutil.rmtree(work / place)
    (work / "student/tiny/9").mkdir()
    (work / f"student/tiny/9/{DOMAIN}.part").mkdir()
    report = report_of(work)
    assert not report["finished"] and report["problems"] == []
    first = report["verdict"][0]
    assert first["title"] == "This run is not finished" and first["tone"] == "warning"
    assert "1 stopped half-way, 2 to come" in first["text"]
    assert "4 of 5 models have scores" in first["text"] and "start the recipe" in first["text"]
    assert report["recommended"]["name"] == "7"
    assert report["verdict"][1]["title"] == "Student 7 is the best so far"
    assert [step["words"] for step in report["steps"]] == ["adapting the teacher"]
    assert report["speed"] is None


def test_a_run_that_has_only_begun_has_a_report(work):
    for place in work.iterdir():
        if place.name != "plan":
            shutil.rmtree(place)
    report = report_of(work)
    assert titles(report) == ["This run is not finished", "Nothing to ship yet"]
    assert report["sentences"] is None and report["curves"] == {}


def test_another_domain_that_is_under_way_does_not_make_this_one_unfinished(work):
    plan = read_json(work / "plan/run.json")
    write_json(work / "plan/run.json", {**plan, "domains": [DOMAIN, "law"]})
    plan_also(work, (7, "teacher", "teacher/law"), (7, "teacher", "teacher/law-scratch"))
    assert report_of(work)["finished"]


def test_what_comes_after_the_report_does_not_make_it_unfinished(work):
    plan_also(work, (12, "shipped", f"shipped/{DOMAIN}/9"))
    assert report_of(work)["finished"]


def test_scores_of_another_test_set_are_left_out(work):
    lines = [*TEXTS["en"][1:], "another line"]
    write_text(work / f"corpora/{DOMAIN}/text/test.en", lines)
    report = report_of(work)
    assert {row["state"] for row in report["rows"]} == {"another test set"}
    assert "Nothing to ship" in titles(report) and report["steps"] == []
    assert len(report["problems"]) == len(ROWS)
    assert "another test set" in report["problems"][0] and "run the chain" in report["problems"][0]


def test_without_records_the_number_of_lines_tells_another_test_set(work):
    for path in (work / "scores").rglob("stage.json"):
        path.unlink()
    assert {row["state"] for row in report_of(work)["rows"]} == {"scored"}
    for lang in ("de", "en"):
        write_text(work / f"corpora/{DOMAIN}/text/test.{lang}", TEXTS[lang][:-1])
    assert {row["state"] for row in report_of(work)["rows"]} == {"another test set"}


def test_translations_that_are_cut_short_are_not_compared(work):
    path = work / f"scores/{DOMAIN}/student/tiny/9/{DOMAIN}/{DOMAIN}.beam.en"
    write_text(path, TEXTS["en"][:-3])
    report = report_of(work)
    outcomes = {step["words"]: step["outcome"] for step in report["steps"]}
    assert outcomes["distilling again"] == "not tested"
    assert outcomes["adapting the teacher"] == "significant"
    assert report["sentences"] is None
    assert any("number of lines" in problem for problem in report["problems"])


def test_a_missing_log_and_nan_in_a_log_are_said(work):
    (work / "teacher/general/log.txt").unlink()
    path = work / f"teacher/{DOMAIN}/log.txt"
    path.write_text(path.read_text().replace('"9.0"', '"nan"').replace('"2.5"', '"inf"'))
    report = report_of(work)
    assert "teacher/general has no training log, so it has no learning curve" in report["problems"]
    assert f"teacher/{DOMAIN}/log.txt: 4 values are not numbers" in report["problems"]
    assert "teacher/general" not in report["curves"]
    json.dumps(report, allow_nan=False)


def test_nan_in_scores_is_no_score_and_null_in_json(work):
    path = work / f"scores/{DOMAIN}/student/tiny/9/{DOMAIN}/scores.json"
    record = read_json(path)
    record["test_sets"][DOMAIN]["beam"]["bleu"]["score"] = float("nan")
    record["test_sets"]["general"]["greedy"]["chrf"]["score"] = float("nan")
    path.write_text(json.dumps(record))
    report = report_of(work)
    json.dumps(report, allow_nan=False)
    assert report["recommended"]["name"] == "7"
    assert f"the scores of 9 do not cover the test set {DOMAIN}" in report["problems"]


def test_a_step_between_rows_that_do_not_exist_is_said(work):
    path = work / f"plan/{DOMAIN}.steps.tsv"
    path.write_text(path.read_text() + "3\t2\twhat nobody planned\n")
    problems = report_of(work)["problems"]
    assert any("not in the table: what nobody planned" in problem for problem in problems)


# -- verdict -------------------------------------------------------------------------------


def test_the_verdict_begins_with_the_choice_and_says_what_is_noise(found):
    first = found["verdict"][0]
    assert first["title"] == "Ship student 9" and first["tone"] == "warning"  # for it has a rival
    assert "7 (−4.3 BLEU, p = 0.0" in first["text"] and "within noise of it" in first["text"]
    assert "its dev BLEU of 12.0 (greedy decoding) is the highest" in first["text"]
    bought = part(found, "What each step bought")
    assert "1 of 3 within noise" in bought["text"]
    assert any(point.startswith("distilling again: +4.3 BLEU, within noise")
               for point in bought["points"])  # fmt: skip


def test_the_verdict_names_distance_speed_size_and_forgetting(found):
    assert "2.9 BLEU below the adapted teacher" in part(found, "How far from its teacher")["text"]
    speed = part(found, "How much faster and smaller")["text"]
    assert "9.9 × the sentences a second with beam 5 (1,004 against 101)" in speed
    assert "1/8 of the size" in speed
    forgot = part(found, "What it forgot of the general domain")["text"]
    assert "76.5 (general student D) to 90.9" in forgot and "No loss can be told" in forgot


@pytest.mark.parametrize(
    "difference, p_value, said",
    [
        (0.9, 0.012, "significant"), (-0.9, 0.012, "significant"), (0.9, 0.05, "within noise"),
        (0.05, 0.001, "significant"), (0.04, 0.001, "no difference"),
        (-0.04, 0.001, "no difference"), (0.0, 1.0, "no difference"), (0.9, None, "not tested"),
    ],
)  # fmt: skip
def test_a_comparison_in_words(difference, p_value, said):
    entry = {"seed": 1, "difference": difference, "p_value": p_value}
    assert over_seeds([entry])["outcome"] == said


def test_the_verdict_says_that_one_run_is_one_draw_and_how_many_tests_there_were(found):
    text = part(found, "How sure this is")["text"]
    assert "seed 1" in text and "one run is one draw" in text
    assert f"{LINES} test sentences" in text and "Of 4 comparisons of two models about 0.2" in text


def altered(found, **changes):
    return judge({**json.loads(json.dumps(found)), **changes})


def test_a_clear_winner_is_shipped_without_reserve(found):
    recommended = {**found["recommended"], "rivals": []}
    first = altered(found, recommended=recommended)[0]
    assert first["tone"] == "good" and "The other student is significantly worse" in first["text"]


def test_of_many_rivals_the_first_are_named(found):
    (rival,) = found["recommended"]["rivals"]
    rivals = [{**rival, "new": f"9 variant {number}"} for number in range(9)]
    text = altered(found, recommended={**found["recommended"], "rivals": rivals})[0]["text"]
    assert "9 variant 2 (" in text and "9 variant 3" not in text and "and 6 more are" in text


def test_one_student_was_no_choice(found):
    recommended = {**found["recommended"], "rivals": [], "students": 1}
    assert "nothing to choose from" in altered(found, recommended=recommended)[0]["text"]


def test_a_low_score_and_an_adaptation_in_vain_are_said_at_the_top(found):
    groups = json.loads(json.dumps(found["groups"]))
    groups[-1]["in_domain"]["beam"]["bleu"]["score"] = 4.0
    noise = {"difference": -0.1, "outcome": "within noise"}
    steps = [{**step, **noise} for step in found["steps"]]
    first = altered(found, groups=groups, steps=steps)[0]
    assert first["title"] == "Student 9 is the best there is" and first["tone"] == "warning"
    assert "Adapting did not pay" in first["points"][0]
    assert "A BLEU of 4.0 is low" in first["points"][1]


def test_lost_general_bleu_is_said_with_its_share(found):
    entry = found["forgetting"][2]
    lost = {**entry["comparison"], "difference": -18.0, "outcome": "significant"}
    verdict = altered(
        found, forgetting=[{**entry, "general": [30.0, 12.0], "comparison": lost}]
    )
    text = next(part for part in verdict if "forgot" in part["title"])["text"]
    assert "60 % of the general BLEU is lost" in text


def test_numbers_are_written_for_people():
    assert [signed(value) for value in (0.94, -6.4, 0)] == ["+0.9", "−6.4", "+0.0"]
    assert [times(value) for value in (23.4, 2.34, 0.87, 1.0, 1234)] == [
        "23 ×", "2.3 ×", "0.87 ×", "1.00 ×", "1,234 ×",
    ]  # fmt: skip
