"""The report in a real browser: nothing asked for, nothing run, readable for everybody."""

import pytest

from fairseq_plugins.report import all_domains, page, two_runs
from fairseq_plugins.report.findings import find
from fairseq_plugins.report.run import open_run
from tests.fixtures.run_folder import (
    DOMAIN,
    ROWS,
    STEPS,
    STUDENT,
    TEXTS,
    add_domain,
    make_run,
    row,
    seeds_of,
)

EVIL = "<script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"
LONG = "Donaudampfschifffahrt" * 40


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """A page with markup, a word without end and 5 more rows in it."""
    folder = tmp_path_factory.mktemp("pages")
    rows = [*ROWS, *(row(f"9 variant {n}", EVIL, f"{STUDENT}/9-{n}/{DOMAIN}", variant=f"variant{n}")
                    for n in range(5))]
    outputs = {name: [EVIL, LONG, *TEXTS["en"][2:]] for name, *_ in rows if name[0] in "79"}
    work = make_run(
        folder / "run", rows=rows, src=[EVIL, LONG, *[EVIL] * 38], outputs=outputs,
        steps=[*STEPS, ("9", "7", EVIL)],
    )  # fmt: skip
    path = folder / "report.html"
    path.write_text(page.as_html(find(open_run(work), DOMAIN)), encoding="utf-8")
    return path.as_uri()


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    runs = [open_run(make_run(folder / name)) for name in ("first", "second")]
    path = folder / "report.html"
    path.write_text(page.difference_as_html(two_runs.find(*runs, DOMAIN)), encoding="utf-8")
    return path.as_uri()


@pytest.fixture(scope="module")
def over_domains(tmp_path_factory):
    """The page of eight domains with long names, several seeds, and markup in the plan."""
    folder = tmp_path_factory.mktemp("pages")
    rows = [*ROWS[:3], *seeds_of("7", (1, 2)), *seeds_of("9", (1, 2))]
    work = make_run(folder / "run", rows=rows, steps=[("9", "7", EVIL), ("9", "7", LONG)])
    found = find(open_run(work), DOMAIN)
    for number in range(7):
        add_domain(work, f"{LONG[:40]}{number}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(all_domains.findings, "find", lambda *_: found)
        everything = all_domains.find(open_run(work), folder)
    path = folder / "report.html"
    path.write_text(page.all_domains_as_html(everything), encoding="utf-8")
    return path.as_uri()


VIEWS = [(1280, "light"), (360, "dark")]


@pytest.mark.parametrize("width, scheme", VIEWS)
def test_the_page_is_quiet_accessible_and_fits(visit, address, width, scheme):
    seen = visit(address, width=width, scheme=scheme)
    for details in seen.page.locator("details").all():
        details.evaluate("element => element.open = true")
    assert seen.complaints == [] and seen.requests == [address]
    assert not seen.overflows()
    assert seen.violations() == []


@pytest.mark.parametrize("width, scheme", VIEWS)
def test_the_comparison_is_quiet_accessible_and_fits(visit, comparison, width, scheme):
    seen = visit(comparison, width=width, scheme=scheme)
    assert seen.complaints == [] and seen.requests == [comparison]
    assert not seen.overflows() and seen.violations() == []


@pytest.mark.parametrize("width, scheme", VIEWS)
def test_the_page_of_all_domains_is_quiet_accessible_and_fits(visit, over_domains, width, scheme):
    seen = visit(over_domains, width=width, scheme=scheme)
    assert seen.complaints == [] and seen.requests == [over_domains]
    assert not seen.overflows() and seen.violations() == []
    assert seen.page.locator("img, script").count() == 0


def test_a_script_in_a_sentence_is_text(visit, address):
    seen = visit(address)
    assert seen.page.title() == "medical, de–en: report of a run"
    assert seen.page.locator(".sentence", has_text="<script>").count() > 0
    assert seen.page.locator("img, script").count() == 0


def test_the_page_follows_light_and_dark(visit, address):
    colours = []
    for scheme in ("light", "dark"):
        seen = visit(address, scheme=scheme)
        text = seen.page.locator("figure .on-wide svg text").first
        paper = seen.page.evaluate("getComputedStyle(document.body).backgroundColor")
        colours.append((text.evaluate("element => getComputedStyle(element).fill"), paper))
    assert colours[0] == ("rgb(27, 35, 39)", "rgb(255, 255, 255)")
    assert colours[1] == ("rgb(230, 235, 237)", "rgb(20, 25, 28)")


def test_a_phone_gets_figures_drawn_for_it_with_text_that_can_be_read(visit, address):
    seen = visit(address, width=360)
    assert not seen.page.locator("figure .on-wide").first.is_visible()
    texts = seen.page.locator("#front ~ figure .on-narrow svg text, figure .on-narrow svg text")
    heights = [text.bounding_box()["height"] for text in texts.all()[:20]]
    assert min(heights) > 9


def test_keyboards_reach_the_verdict_and_scroll_wide_tables(visit, address):
    seen = visit(address, width=360)
    seen.page.keyboard.press("Tab")
    assert seen.page.locator(":focus").inner_text() == "Skip to the verdict"
    region = seen.page.locator(".wide").first
    region.focus()
    seen.page.keyboard.press("ArrowRight")
    assert seen.becomes("document.querySelector('.wide').scrollLeft > 0")


def test_on_paper_nothing_is_cut_and_everything_is_open(visit, address):
    seen = visit(address, width=718, scheme="dark")  # A4 less its margins
    closed = seen.page.locator("details table").first
    assert not closed.is_visible()
    seen.page.emulate_media(media="print")
    assert closed.is_visible()
    assert seen.page.evaluate("getComputedStyle(document.body).backgroundColor") in (
        "rgb(255, 255, 255)", "rgba(0, 0, 0, 0)",
    )  # fmt: skip
    cut = seen.page.evaluate(
        "[...document.querySelectorAll('table')].filter("
        "table => table.getBoundingClientRect().right > innerWidth + 1"
        ").map(table => table.caption.textContent)"
    )
    assert cut == [] and not seen.overflows()
