"""The report as HTML, Markdown, tables and files."""

import re
import sys
from html.parser import HTMLParser

import pytest
from markupsafe import escape

from data_prep.manifest import read_json
from fairseq_plugins.report import figures, page, report, tables, two_runs
from fairseq_plugins.report.findings import find
from fairseq_plugins.report.run import open_run
from tests.fixtures.models import write_text
from tests.fixtures.run_folder import DOMAIN, ROWS, STEPS, STUDENT, TEXTS, make_run, row

EVIL = '<script>alert("x")</script><img src=http://x onerror=alert(1)> {{ 7*7 }} | `a` [b](c) &amp;'
FILES = {"report.html", "report.md", "report.json", "table.txt", "table.md", "scores.tsv"}


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="module")
def found(work):
    return find(open_run(work), DOMAIN)


@pytest.fixture(scope="module")
def html(found):
    return page.as_html(found)


@pytest.fixture(scope="module")
def drawn(found):
    """Every figure by name: they take a second each."""
    draw = (figures.front, figures.curves, figures.forgetting)
    return {function.__name__: function(found) for function in draw}


@pytest.fixture
def undrawn(monkeypatch):
    """For tests of what stands around the figures."""
    monkeypatch.setattr(figures, "_figure", lambda *_: figures.Figure("<svg/>", "<svg/>", "x"))


@pytest.fixture
def dad_report(dad_report, undrawn):
    return dad_report


class Elements(HTMLParser):
    """What a page consists of."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def named(self, tag):
        return [attributes for name, attributes in self.found if name == tag]


# -- the page ------------------------------------------------------------------------------


def test_the_page_asks_for_nothing_and_runs_nothing(html):
    elements = Elements(html)
    assert not elements.named("script") and not elements.named("iframe")
    (policy,) = [entry for entry in elements.named("meta") if "http-equiv" in entry]
    assert policy["content"].startswith("default-src 'none'") and "script" not in policy["content"]
    for tag, attributes in elements.found:
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
        for name in ("src", "href", "xlink:href"):
            value = attributes.get(name, "#")
            assert value.startswith("#") or value == "data:,", (tag, value)
    assert "@import" not in html and not re.search(r"url\((?!#)", html)


def test_links_lead_to_sections_and_ids_are_unique(html):
    elements = Elements(html)
    ids = [attributes["id"] for _, attributes in elements.found if "id" in attributes]
    assert len(ids) == len(set(ids))
    for tag, attributes in elements.found:
        for name in ("href", "xlink:href", "aria-labelledby"):
            target = attributes.get(name, "").removeprefix("#")
            assert not target or target in ids or target == "data:,", (tag, target)


def test_sections_come_in_the_order_of_the_readers_questions(html):
    places = [html.index(f'<h2 id="{name}"') for name in
              ("verdict", "scores", "front", "curves", "forgetting", "dropped", "cost",
               "indicators", "sentences", "provenance")]  # fmt: skip
    assert places == sorted(places)


def test_the_page_says_what_the_clock_went_into(found, html):
    wall = found["cost"]["wall"]
    assert f"{100 * wall['training'] / wall['all']:.1f} % training" in html
    assert f"{100 * found['cost']['overhead']:.1f} % everything else, which is overhead" in html
    for part in found["cost"]["parts"]:
        assert f'<th scope="row">{escape(part["part"])}</th>' in html


def test_every_table_has_a_caption_and_scoped_headers(html):
    elements = Elements(html)
    assert len(elements.named("caption")) == len(elements.named("table")) > 5
    assert all("scope" in header for header in elements.named("th"))


def test_the_recommended_row_is_marked_for_all_readers(html):
    assert '<tr class="shipped">\n<th scope="row">9<span class="hidden"> (recommended)' in html


def test_the_same_run_gives_the_same_page(found, drawn, undrawn, html):
    assert page.as_html(found) == page.as_html(found)
    assert all(figure.wide in html and figure.narrow in html for figure in drawn.values())


@pytest.fixture(scope="module")
def evil(tmp_path_factory):
    """A run whose sentences, labels, logs and ledgers try to break out."""
    src = [EVIL, "\x00\x1b[31m\u202eabc", *TEXTS["de"][2:]]
    outputs = {"9": [EVIL + " x", "", *TEXTS["en"][2:]]}
    rows = [*ROWS[:-2], row("9", EVIL, f"{STUDENT}/9/{DOMAIN}")]
    made = make_run(tmp_path_factory.mktemp("runs") / "run", rows=rows, src=src, outputs=outputs,
                    steps=[STEPS[0], ("9", "adapted teacher", EVIL)])  # fmt: skip
    return find(open_run(made), DOMAIN)


def test_markup_in_text_is_text(evil, undrawn):
    html = page.as_html(evil)
    elements = Elements(html)
    assert not elements.named("script") and not elements.named("img")
    assert "&lt;script&gt;" in html and "49" not in re.findall(r"\{\{.*?\}\}|= 49", html)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", html)
    assert "(empty)" in html


def test_markup_in_text_is_text_in_markdown_too(evil):
    text = page.as_markdown(evil)
    assert "<script" not in text.replace("\\<script", "")
    assert "\\<script\\>" in text and "\\[b\\](c)" in text
    header = next(line for line in text.split("\n") if line.startswith("| step |"))
    cells = [line for line in text.split("\n") if "adapted teacher | 9 |" in line]
    assert len(re.findall(r"(?<!\\)\|", cells[0])) == header.count("|")


def test_markdown_is_what_people_wrote():
    assert page.markdown_text("a*b_c | <d>\n e") == "a\\*b\\_c \\| \\<d\\> e"
    assert page.markdown_text("9 is 7.5 ± 1.4 (p = 0.01)!") == "9 is 7.5 ± 1.4 (p = 0.01)!"


def test_numbers_stay_with_their_units():
    assert page.tie("7.5 ± 1.4 BLEU, p = 0.01, 60 % of it") == (
        "7.5\u00a0±\u00a01.4\u00a0BLEU, p\u00a0=\u00a00.01, 60\u00a0% of it"
    )


def test_chinese_is_compared_by_characters_and_named_as_such(tmp_path):
    lines = ["我们今天去学校", "这是一只猫", *["他说的话很有道理"] * 18]
    made = ["我们今天去公园", *lines[1:]]
    work = make_run(tmp_path / "run", langs=("de", "zh"), src=TEXTS["de"][:20], references=lines,
                    outputs={"adapted teacher": lines, "9": made})  # fmt: skip
    found = find(open_run(work), DOMAIN)
    text = page.as_markdown(found)
    assert "公园" in text and "tok:zh" in text
    (worst,) = found["sentences"]["worst"]
    assert worst["student"]["marks"][0] == ["same", "我们今天去"]


def test_a_run_without_anything_but_its_plan_has_a_page(tmp_path):
    work = make_run(tmp_path / "run")
    for place in work.iterdir():
        if place.name != "plan":
            place.rename(tmp_path / place.name)
    found = find(open_run(work), DOMAIN)
    html = page.as_html(found)
    assert "This run is not finished" in html and "No training log holds dev scores yet" in html
    assert "(to come)" in html and "<svg" not in html
    assert "This run is not finished: 0 of" in tables.as_text(found)
    page.as_markdown(found)


MARKS = [(0.9, "significant", "good"), (-0.9, "significant", "loss"),
         (0.9, "within noise", "noise"), (0.0, "no difference", "noise")]  # fmt: skip


@pytest.mark.parametrize("difference, outcome, mark", MARKS)
def test_a_significant_loss_does_not_look_like_a_gain(found, difference, outcome, mark):
    step = {**found["steps"][0], "difference": difference, "outcome": outcome}
    html = page.as_html({**found, "steps": [step]})
    assert re.findall(r'<span class="mark (\w+)">', html) == [mark]
    assert f".mark.{mark} " in html


# -- figures -------------------------------------------------------------------------------


def test_figures_take_their_colours_and_font_from_the_page(drawn):
    for figure in drawn.values():
        for svg in (figure.wide, figure.narrow):
            assert not re.search(r"#[0-9a-f]{6}|DejaVu|<style|<metadata|<\?xml", svg)
            assert "var(--" in svg and "system-ui" in svg and "<text" in svg


def test_figures_say_what_they_show(drawn):
    assert "Best trade-offs of BLEU and sentences a second" in drawn["front"].description
    assert "9 5.5 to 12.0 in 200 updates" in drawn["curves"].description
    assert "medical 74.2 to 92.0, general 76.5 to 90.9" in drawn["forgetting"].description


def test_names_in_the_front_cover_each_other_nowhere(found):
    """However many models there are: 30 students in a heap."""
    from matplotlib import pyplot, rc_context
    from matplotlib.text import Text

    points = []
    for number in range(30):
        bleu = {"score": 20 + 0.2 * (number % 7), "interval": 0.1}
        row = {"name": f"student {number}", "in_domain": {"beam": {"bleu": bleu}}}
        points.append((row, 900 + number))
    with rc_context(figures.SETTINGS):
        figure, axis = pyplot.subplots(figsize=(figures.WIDE / 72, 8))
        axis.set(xlim=(800, 1030), ylim=(18, 23))
        figure.canvas.draw()
        boxes = figures._label_points(axis, points, [])
        renderer = figure.canvas.get_renderer()
        for box, text in zip(boxes, axis.texts, strict=True):
            text.update_positions(renderer)
            drawn = Text.get_window_extent(text, renderer)  # without the line to the point
            assert abs(drawn.x0 - box[0]) < 3 and abs(drawn.x1 - box[2]) < 3
            assert box[1] - 3 < drawn.y0 and drawn.y1 < box[3] + 3
        pyplot.close(figure)
    assert len(boxes) == 30
    hits = [(one, other) for place, one in enumerate(boxes) for other in boxes[:place]
            if figures._overlap(one, other)]  # fmt: skip
    assert not hits


def test_thirty_rows_make_a_page(found):
    groups = [{**found["groups"][-1], "name": f"9 variant {number}"} for number in range(30)]
    forgetting = [{**found["forgetting"][0], "name": group["name"]} for group in groups]
    many = {**found, "groups": groups, "curves": {}, "forgetting": forgetting, "recommended": None,
            "sentences": None}  # fmt: skip
    assert page.as_html(many).count("9 variant 29") > 5


def test_a_log_with_one_validation_and_a_score_of_zero_can_be_drawn(found):
    curve = {"name": "9", "group": "9", "dev": DOMAIN, "kept": None, "training": [],
             "validations": [{"update": 10, "bleu": 0.0}]}  # fmt: skip
    assert figures.curves({**found, "curves": {"9": curve}}) is not None
    zero = {"name": "9", "start": "x", "in_domain": [0.0, 0.0], "general": [0.0, 0.0]}
    assert figures.forgetting({**found, "forgetting": [zero]}) is not None


def test_what_is_not_known_is_not_drawn(found):
    bare = {**found, "groups": [], "curves": {}, "forgetting": []}
    assert figures.front(bare) is figures.curves(bare) is figures.forgetting(bare) is None


# -- tables and files ----------------------------------------------------------------------


def test_the_table_shows_every_system_with_intervals_and_signature(work, found):
    text = tables.as_text(found)
    score = read_json(work / f"scores/{DOMAIN}/{STUDENT}/9/{DOMAIN}/scores.json")
    bleu = score["test_sets"][DOMAIN]["beam"]["bleu"]
    line = next(line for line in text.split("\n") if line.startswith("9 "))
    assert f"{bleu['score']:.1f} ± {bleu['interval']:.1f}" in line and "0.50 M" in line
    assert "1,004" in line and bleu["signature"] in text
    assert "adapting the teacher" in text and "significant; teacher → adapted teacher" in text
    assert text.endswith("in batches\n")


def test_every_score_is_in_the_tsv(found):
    rows = [line.split("\t") for line in tables.as_tsv(found).splitlines()]
    assert len(rows) == 1 + 5 * 2 * 2 * 2 + len(STEPS)  # systems, test sets, decodings, metrics
    assert {len(row) for row in rows} == {9}


def test_the_command_writes_every_file_and_prints_the_table(dad_report, work, tmp_path):
    status, printed, _ = dad_report("--work", work, "--out", tmp_path / "out")
    assert status == 0 and {path.name for path in (tmp_path / "out").iterdir()} == FILES
    assert printed.startswith((tmp_path / "out/table.txt").read_text())
    assert str(tmp_path / "out/report.html") in printed
    assert read_json(tmp_path / "out/report.json")["recommended"]["name"] == "9"


def test_the_same_scores_give_the_same_bytes(dad_report, work, tmp_path):
    for name in ("a", "b"):
        dad_report("--work", work, "--domain", DOMAIN, "--out", tmp_path / name)
    for name in FILES:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_report_is_replaced_by_a_newer_one_and_nothing_else_is(dad_report, work, tmp_path):
    assert dad_report("--work", work)[0] == dad_report("--work", work)[0] == 0
    assert (work / "report" / f"{DOMAIN}-by-hand" / "report.html").exists()
    (tmp_path / "mine").mkdir()
    status, _, complaint = dad_report("--work", work, "--out", tmp_path / "mine")
    assert status == 1 and "mine exists" in complaint
    (work / "report" / f"{DOMAIN}-by-hand" / "stage.json").write_text("{}")  # a stage's own
    assert dad_report("--work", work)[0] == 1


def test_several_domains_get_a_folder_each(dad_report, tmp_path):
    work = make_run(tmp_path / "run")
    text = (work / "plan/run.json").read_text()
    (work / "plan/run.json").write_text(text.replace(f'"{DOMAIN}"', f'"{DOMAIN}",\n"law"'))
    for name in ("rows", "steps"):
        header = (work / f"plan/{DOMAIN}.{name}.tsv").read_text().split("\n")[0]
        write_text(work / f"plan/law.{name}.tsv", [header])
    assert dad_report("--work", work, "--out", tmp_path / "out")[0] == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {DOMAIN, "law"}
    assert dad_report("--work", work, "--domain", "law", "--out", tmp_path / "law")[0] == 0
    assert (tmp_path / "law/report.html").exists()


@pytest.mark.parametrize(
    "words, status, message",
    [
        (["--work", "nowhere"], 1, "there is no folder nowhere"),
        (["--work", "RUN", "--domain", "law"], 1, f"no domain 'law' in .*only {DOMAIN}"),
        ([], 2, "--work WORK says which run"),
        (["--compare", "RUN", "RUN"], 2, "goes with --out"),
        (["--compare", "RUN", "RUN", "--work", "RUN", "--out", "x"], 2, "goes with --out"),
    ],
)
def test_mistakes_are_told_with_the_next_step(dad_report, work, words, status, message):
    words = [str(work) if word == "RUN" else word for word in words]
    found, _, complaint = dad_report(*words)
    assert found == status and re.search(message, complaint) and "Traceback" not in complaint


def test_another_folder_is_refused_before_the_work(dad_report, work, tmp_path, monkeypatch):
    monkeypatch.setattr(report.findings, "find", None)  # would fail if it were called
    (tmp_path / "mine").mkdir()
    status, _, said = dad_report("--work", work, "--out", tmp_path / "mine")
    assert status == 1 and "is not a report that dad-report may replace" in said


def test_watching_is_handed_over(dad_report, work, monkeypatch):
    from types import SimpleNamespace

    watched = []
    live = SimpleNamespace(watch=lambda work, once: watched.append((work, once)))
    monkeypatch.setitem(sys.modules, "fairseq_plugins.report.live", live)
    monkeypatch.setattr("fairseq_plugins.report.live", live, raising=False)
    assert dad_report("--work", work, "--watch")[0] == 0
    assert dad_report("--work", work, "--watch", "--once")[0] == 0
    assert watched == [(str(work), False), (str(work), True)]


# -- two runs ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """The same run with a better student 9, trained at another rate, and no 7."""
    rows = [row for row in ROWS if row[0] != "7"]
    work = make_run(tmp_path_factory.mktemp("runs") / "other", rows=rows, steps=[],
                    outputs={"9": TEXTS["en"]})  # fmt: skip
    path = work / f"{STUDENT}/9/{DOMAIN}/stage.json"
    path.write_text(path.read_text().replace("0.002", "0.004"))
    return work


def compared(first, second):
    return two_runs.find(open_run(first), open_run(second), DOMAIN)


def test_two_runs_differ_in_settings_and_scores(work, other):
    found = compared(work, other)
    assert found["settings"] == [
        {"folder": f"{STUDENT}/9/{DOMAIN}", "words": "--lr 0.002 → 0.004"}
    ]
    assert found["only"] == [[f"{STUDENT}/7/{DOMAIN}"], []]
    nine = next(row for row in found["rows"] if row["name"] == "9")
    assert nine["comparison"]["difference"] > 5 and nine["comparison"]["outcome"] == "significant"
    seven = next(row for row in found["rows"] if row["name"] == "7")
    assert seven["b"] is None and seven["comparison"] is None
    assert found["verdict"][0]["title"] == f"{other} is better"
    back = compared(other, work)
    gains = [way["best"]["comparison"]["difference"] for way in (found, back)]
    assert gains[0] == -gains[1]
    assert back["verdict"][0]["title"] == f"{other} is better"


def test_a_run_against_itself_differs_in_nothing(work):
    found = compared(work, work)
    assert found["settings"] == [] and found["only"] == [[], []] and found["versions"] == []
    assert {row["comparison"]["difference"] for row in found["rows"]} == {0}
    assert found["verdict"][0]["title"] == "No difference that could be told from noise"


def test_scores_of_different_test_sets_are_not_compared(work, tmp_path):
    third = make_run(tmp_path / "third", references=[*TEXTS["en"][1:], "another"])
    found = compared(work, third)
    assert found["same_test"] == {"in_domain": False, "general": False}
    assert {row["comparison"] for row in found["rows"]} == {None} and found["best"] is None
    assert found["verdict"][0]["title"] == "The scores do not compare"
    assert all(row["a"] and row["b"] for row in found["rows"])  # they are shown, though
    assert any("not the same text" in problem for problem in found["problems"])


def test_the_command_lays_two_runs_side_by_side(dad_report, work, other, tmp_path):
    status, printed, _ = dad_report("--compare", work, other, "--out", tmp_path / "out")
    assert status == 0 and f"{other} is better" in printed
    html = (tmp_path / "out/report.html").read_text()
    assert "--lr 0.002 → 0.004" in html
    assert not Elements(html).named("script")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "report.html", "report.md", "report.json", "table.txt",
    }  # fmt: skip


def test_runs_without_a_common_domain_are_refused(dad_report, work, other, tmp_path):
    law = make_run(tmp_path / "law")
    text = (law / "plan/run.json").read_text()
    (law / "plan/run.json").write_text(text.replace(f'"{DOMAIN}"', '"law"'))
    status, _, complaint = dad_report("--compare", work, law, "--out", tmp_path / "out")
    assert status == 1 and f"no domain in common: {DOMAIN} and law" in complaint
