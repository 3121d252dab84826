"""A run of several seeds, sizes and domains: its table, its pages, its choice."""

import re
import shutil

import pytest

from data_prep.files import sha256
from data_prep.manifest import read_json, write_json
from fairseq_plugins.report import all_domains, figures, page, tables
from fairseq_plugins.report.findings import find
from fairseq_plugins.report.run import open_run
from tests.fixtures.run_folder import (
    DOMAIN,
    ROWS,
    TEXTS,
    add_domain,
    make_run,
    row,
    seeds_of,
)

SEVERAL = [
    *ROWS[:3], *seeds_of("7", (1, 2)), *seeds_of("9", (1, 2)),
    row("small 9", "text of 9", f"student/small/9/{DOMAIN}", "9", size="small"),
    row("9 multi-domain", "all domains", "student/tiny/9-multi-domain/all",
        variant="multi-domain"),
]  # fmt: skip
STEPS = [("9", "7", "distilling again"), ("9", "adapted teacher", "9 against its teacher")]
DEV = {"9 (seed 1)": 20.0, "9 (seed 2)": 24.0, "7 (seed 1)": 21.0, "7 (seed 2)": 21.0,
       "small 9": 19.0}  # fmt: skip
OUTPUTS = {  # seeds of 7 get a word wrong in every line, those of 9 in a few
    "7 (seed 1)": [" ".join(["zz", *line.split()[1:]]) for line in TEXTS["en"]],
    "7 (seed 2)": [" ".join([*line.split()[:-1], "zz"]) for line in TEXTS["en"]],
    "9 (seed 1)": ["zz", *TEXTS["en"][1:]],
    "9 (seed 2)": ["zz", "zz", *TEXTS["en"][2:]],
}


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "run", rows=SEVERAL, steps=STEPS, dev=DEV,
                    outputs=OUTPUTS)  # fmt: skip


@pytest.fixture(scope="module")
def found(work):
    return find(open_run(work), DOMAIN)


@pytest.fixture
def dad_report(dad_report, monkeypatch):
    """Without figures, which take their time."""
    monkeypatch.setattr(figures, "_figure", lambda *_: figures.Figure("<svg/>", "<svg/>", "x"))
    return dad_report


def part(found, words):
    return next(part for part in found["verdict"] if words in part["title"])


# -- one domain ----------------------------------------------------------------------------


def test_the_table_has_a_row_for_each_group_and_the_data_one_for_each_seed(found):
    assert [group["name"] for group in found["groups"]] == [
        "teacher", "adapted teacher", "general student D", "7", "9", "small 9", "9 multi-domain",
    ]  # fmt: skip
    assert len(found["rows"]) == len(SEVERAL) and found["provenance"]["seeds"] == [1, 2]
    line = next(line for line in tables.as_text(found).split("\n") if line.startswith("9  "))
    assert re.search(r" 2 +\d+\.\d ± \d+\.\d \(sd \d+\.\d\)", line)


def test_a_step_has_a_difference_and_a_p_value_for_each_seed(found):
    step = found["steps"][0]
    assert [entry["seed"] for entry in step["seeds"]] == [1, 2]
    assert all(entry["p_value"] is not None for entry in step["seeds"])
    assert [(entry["new"], entry["old"]) for entry in step["seeds"]] == [
        (f"9 (seed {seed})", f"7 (seed {seed})") for seed in (1, 2)
    ]  # fmt: skip
    assert "over 2 seeds; p = " in part(found, "What each step bought")["points"][0]
    against = found["steps"][1]
    assert {entry["old"] for entry in against["seeds"]} == {"adapted teacher"}
    assert len(against["seeds"]) == 2 and against["kind"] == "distance"


def test_every_seed_and_the_means_are_in_the_tsv(found):
    lines = [line.split("\t") for line in tables.as_tsv(found).splitlines()[1:]]
    bleu = {line[0]: line[4:] for line in lines if line[1:4] == [DOMAIN, "beam", "bleu"]}
    assert bleu.keys() == {row[0] for row in SEVERAL} | {"7", "9"}
    seeds = [float(bleu[f"9 (seed {seed})"][0]) for seed in (1, 2)]
    assert float(bleu["9"][0]) == pytest.approx(sum(seeds) / 2)
    assert [bleu[name][3] for name in ("9", "9 (seed 2)", "teacher")] == ["2", "1", "1"]
    assert float(bleu["9"][4]) > 0 and bleu["teacher"][4] == ""
    steps = {line[0]: line for line in lines if line[3] == "bleu difference"}
    assert "9 (seed 2) - 7 (seed 2)" in steps and steps["9 - 7"][7] == "2"


def test_the_dev_set_chooses_a_group_and_of_its_seeds_one(found):
    recommended = found["recommended"]
    assert (recommended["name"], recommended["row"]) == ("9", "9 (seed 2)")
    assert recommended["model"] == f"student/tiny/9-seed2/{DOMAIN}" and recommended["dev"] == 22
    text = found["verdict"][0]["text"]
    assert "mean of 2 seeds" in text and "take 9 (seed 2)" in text
    assert "The dev BLEU of 9 multi-domain is not known" in text


def test_students_of_another_size_are_named_with_their_difference(found):
    (other,) = found["recommended"]["sizes"]
    assert (other["size"], other["name"]) == ("small", "small 9")
    assert part(found, "Across sizes")["points"][0].startswith("small: small 9, ")
    assert {entry["size"] for entry in found["claims"]} == {"tiny", "small"}


def test_seeds_that_were_not_timed_have_the_speed_of_their_group(found):
    rows = {row["name"]: row for row in found["rows"]}
    first, second = rows["9 (seed 1)"], rows["9 (seed 2)"]
    assert second["speed"] == first["speed"] is not None
    assert second["speed_of"] == first["model"] == first["speed_of"]
    assert rows["7 (seed 2)"]["speed"] != first["speed"]
    assert f"one seed was timed, here {first['model']}" in part(found, "How much faster")["text"]


def test_the_report_says_how_seeds_and_sentences_decide(found):
    text = part(found, "How sure this is")["text"]
    assert "more than half of the seeds" in text and "t interval" in text
    assert "one draw" not in text and "as the teachers are" in text


def test_a_group_with_seeds_to_come_has_those_that_there_are(work, tmp_path):
    work = shutil.copytree(work, tmp_path / "run")
    shutil.rmtree(work / f"scores/{DOMAIN}/student/tiny/9-seed2")
    found = find(open_run(work), DOMAIN)
    nine = next(group for group in found["groups"] if group["name"] == "9")
    assert nine["state"] == "1 of 2 seeds scored" and nine["seeds"] == [1]
    assert [entry["seed"] for entry in found["steps"][0]["seeds"]] == [1]
    assert found["recommended"]["name"] == "7"  # for the dev BLEU of 9 is 20.0 now, it was 22.0
    assert not found["finished"]


def test_without_dev_scores_the_test_set_chooses_and_the_verdict_says_so(work, tmp_path):
    work = shutil.copytree(work, tmp_path / "run")
    for path in (work / "student").rglob("log.txt"):
        path.write_text(path.read_text().replace("bleu_greedy", "other"))
    found = find(open_run(work), DOMAIN)
    assert found["recommended"]["by"] == "test"
    first = found["verdict"][0]
    assert first["tone"] == "warning" and "so the test set chose" in first["text"]
    assert "the first, for no dev BLEU is known" in first["text"]
    assert "nothing was chosen by" not in page._environment().get_template("run.html").render(
        **page._context(found), figures=dict.fromkeys(("front", "curves", "losses", "forgetting"))
    )


def test_seeds_are_lines_of_one_panel(found):
    figure = figures.curves(found)
    assert figure.wide.count('id="curves-bleu-wide-axes_') == len(found["groups"])
    assert "9 (seed 2)" in figure.description


def test_a_rival_that_is_better_on_the_test_set_does_not_take_the_place(work, tmp_path):
    work = shutil.copytree(work, tmp_path / "run")
    for seed, folder in ((1, "9"), (2, "9-seed2")):
        log = work / f"student/tiny/{folder}/{DOMAIN}/log.txt"
        log.write_text(log.read_text().replace(f'"{DEV[f"9 (seed {seed})"]}"', '"2.0"'))
    found = find(open_run(work), DOMAIN)
    assert found["recommended"]["name"] == "7"
    assert re.search(r"On the test set 9 \(.* significantly better", found["verdict"][0]["text"])


def test_the_dev_score_of_a_student_of_all_domains_is_of_this_domain(work, tmp_path):
    work = shutil.copytree(work, tmp_path / "run")
    folder = work / "student/tiny/9-multi-domain/all"
    log = (folder / "log.txt").read_text()
    (folder / "log.txt").write_text(log + log.replace("valid", f"valid_{DOMAIN}"))
    record = read_json(folder / "stage.json")
    name = f"corpora/{DOMAIN}/prepared/valid.en"
    write_json(folder / "stage.json", {**record, "inputs": {name: {"sha256": sha256(work / name)}}})
    run = open_run(work)
    student = next(row for row in run.rows(DOMAIN) if row.name == "9 multi-domain")
    alone = next(row for row in run.rows(DOMAIN) if row.name == "small 9")
    assert run.dev(student)["set"] == run.dev(alone)["set"]
    assert run.dev(student)["bleu"] == run.curve(student.model).validations[-1]["bleu_greedy"]


# -- all domains ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def several(work, tmp_path_factory):
    """The same run with a second domain, in which 7 and 9 do equally well."""
    work = shutil.copytree(work, tmp_path_factory.mktemp("runs") / "several")
    add_domain(work, "law")
    for seed in ("", "-seed2"):
        for test_set in ("law", "general"):
            name = f"law/{test_set}.beam.en"
            copy = work / f"scores/law/student/tiny/9{seed}" / name
            shutil.copy(copy, work / f"scores/law/student/tiny/7{seed}" / name)
    return work


@pytest.fixture(scope="module")
def over(several):
    return all_domains.find(open_run(several), several / "report/all")


def test_the_page_of_all_domains_has_a_table_of_domains_and_models(over, found):
    assert [domain["name"] for domain in over["domains"]] == [DOMAIN, "law"]
    cells = {line[0]: line[1:] for line in all_domains.cells(over)}
    assert list(cells) == [group["name"] for group in found["groups"]]
    assert cells["9"][0] == cells["9"][1] and "(sd " in cells["9"][0]
    nine = next(row for row in over["rows"] if row["name"] == "9")
    assert [nine["cells"][name]["recommended"] for name in (DOMAIN, "law")] == [True, True]


def test_what_a_step_bought_stands_beside_it_for_each_domain(over, found):
    step = next(step for step in over["steps"] if step["words"] == "distilling again")
    (text, outcome), law = all_domains.gains(step, over["domains"])
    assert outcome == found["steps"][0]["outcome"] == "significant" and text.startswith("+")
    assert law == ("+0.0", "no difference")
    bare = {**step, "cells": {"law": step["cells"]["law"]}}
    assert all_domains.gains(bare, over["domains"])[0] == ("–", "")


def test_a_domain_that_lost_is_marked_so(over):
    lost = {**over["steps"][0]["cells"]["law"], "difference": -1.2, "outcome": "significant"}
    step = {**over["steps"][0], "cells": {"law": lost}}
    html = page.all_domains_as_html({**over, "steps": [step], "multi_domain": [], "claims": []})
    assert re.findall(r'<span class="mark (\w+)">', html) == ["loss"]
    assert re.findall(r'<td class="number">(.*?)</td>', html)[-2:] == [
        "–", '−1.2<br><span class="mark loss">significant</span>',
    ]  # fmt: skip


def test_the_verdict_counts_domains(over):
    assert over["verdict"][0]["title"] == f"Students to ship: 9 for {DOMAIN} and law"
    again = part(over, "Distilling a second time")
    assert again["title"] == "Distilling a second time paid in 1 of 2 domains (tiny)"
    assert f"as in the paper in {DOMAIN}; within noise in law" in again["text"]
    one = part(over, "9 multi-domain, one student for all domains")
    assert re.search(r"not worse than 9 in [012] of 2 domains", one["title"])
    advised = part(over, "Advice")["points"]
    assert "The second distillation did not pay: 7 does without it (tiny): law." in advised
    assert f"The second distillation pays (tiny): {DOMAIN}." in advised


def test_the_command_makes_the_page_with_links_to_the_domains_that_have_one(
    dad_report, several, tmp_path
):
    work = shutil.copytree(several, tmp_path / "run")
    assert dad_report("--work", work, "--domain", "law")[0] == 0
    status, printed, _ = dad_report("--work", work, "--all-domains")
    folder = work / "report/all-by-hand"
    assert status == 0 and str(folder / "report.html") in printed
    assert {path.name for path in folder.iterdir()} == {
        "report.html", "report.md", "report.json", "table.txt",
    }  # fmt: skip
    html, text = ((folder / f"report.{kind}").read_text() for kind in ("html", "md"))
    links = re.findall(r'href="([^#"]*)"', html)
    assert links == ["data:,", "../law-by-hand/report.html"]
    assert (folder / links[1]).exists() and "](../law-by-hand/report.html)" in text
    assert f"<li>{DOMAIN} (no page yet)" in html and "<script" not in html
    assert printed.startswith((folder / "table.txt").read_text())
    assert read_json(folder / "report.json")["domains"][1]["page"] == "../law-by-hand/report.html"


def test_a_domain_whose_report_is_made_is_read_and_the_others_are_found(several, monkeypatch):
    asked = []
    made = find(open_run(several), "law")
    monkeypatch.setattr(all_domains.findings, "find", lambda run, name: asked.append(name) or made)
    folder = several / "report/law"
    folder.mkdir(parents=True)
    write_json(folder / "report.json", {**made, "problems": ["it was read"]})
    found = all_domains.find(open_run(several), several)
    assert asked == [DOMAIN, "law"]  # no stage has finished it
    write_json(folder / "stage.json", {})
    asked.clear()
    found = all_domains.find(open_run(several), several)
    assert asked == [DOMAIN] and "law: it was read" in found["problems"]
    shutil.rmtree(folder)


def test_a_run_that_has_only_begun_has_a_page_of_all_domains(dad_report, several, tmp_path):
    shutil.copytree(several / "plan", tmp_path / "plan")
    status, printed, _ = dad_report("--work", tmp_path, "--all-domains", "--out", tmp_path / "out")
    assert status == 0 and "This run is not finished" in printed
    assert "Nothing to ship yet" in (tmp_path / "out/report.html").read_text()


@pytest.mark.parametrize("words", [("--domain", "law"), ("--watch",)])
def test_one_domain_or_a_watch_is_no_page_of_all(dad_report, several, words):
    status, _, complaint = dad_report("--work", several, "--all-domains", *words)
    assert status == 2 and "--all-domains goes with --work and --out alone" in complaint


def test_markup_in_the_plan_is_text_on_the_page_of_all_domains(over):
    evil = "<script>x</script>|[a](b)"
    spoilt = {**over, "problems": [evil], "steps": [{**over["steps"][0], "words": evil}]}
    assert "<script" not in page.all_domains_as_html(spoilt)
    assert "\\<script\\>x" in page.all_domains_as_markdown(spoilt)
