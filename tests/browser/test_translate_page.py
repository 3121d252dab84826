"""The page of dad-translate --serve in a real browser."""

import threading

import pytest
from playwright.sync_api import expect

from fairseq_plugins.serving import service
from fairseq_plugins.serving.service import Model, make_app, make_server
from fairseq_plugins.serving.translator import Translator
from tests.fixtures.exported import exported_models

expect.set_options(timeout=30_000)  # on a busy machine, too
NAMES = ("adapted teacher", "general student", "student 9")
SCRIPT = "<script>document.title = 'taken'</script><img src=x onerror=\"document.title='taken'\">"


@pytest.fixture(scope="module")
def page_address():
    translators = [Translator(path, workers=1, threads=1) for path in exported_models()]
    models = [Model(name, f"made as {name}", one) for name, one in zip(NAMES, translators)]
    server = make_server(make_app(models, beam=5), "127.0.0.1", 0)
    threading.Thread(target=server.run, daemon=True).start()
    yield f"http://127.0.0.1:{server.effective_port}/"
    server.close()
    server.task_dispatcher.shutdown()


def translate(opened, text):
    """Type a text and wait for its translations; the cards."""
    page = opened.page
    page.get_by_label("Text to translate").fill(text)
    page.get_by_role("button", name="Translate").click()
    expect(page.get_by_role("status")).to_contain_text("3 translations with beam")
    return page.get_by_role("article")


def clean(opened):
    """Nothing was complained of, and nobody else was asked."""
    assert opened.complaints == []
    origin = "/".join(opened.requests[0].split("/")[:3])
    assert {"/".join(url.split("/")[:3]) for url in opened.requests} == {origin}
    return True


def test_a_sentence_is_translated_by_all_models_side_by_side(visit, page_address):
    opened = visit(page_address)
    cards = translate(opened, "ba be bi\nbo bu da")
    expect(cards).to_have_count(3)
    answer = opened.page.request.post(
        page_address + "translate", data={"text": "ba be bi\nbo bu da"}
    ).json()
    for number, found in enumerate(answer["translations"]):
        card = cards.nth(number)
        expect(card.get_by_role("heading")).to_have_text(NAMES[number])
        expect(card).to_contain_text(f"made as {NAMES[number]}")
        expect(card).to_contain_text("M parameters")
        expect(card.locator(".translation p")).to_have_count(2)
        # without what is read out where words are left out
        texts = card.locator(".translation").evaluate(
            "e => { const c = e.cloneNode(true);"
            "c.querySelectorAll('.aside, .missing').forEach(x => x.remove());"
            "return [...c.children].map(p => p.textContent) }"
        )
        assert texts == [line["text"] for line in found["lines"]]
        expect(card.locator(".speed")).to_contain_text(" ms, ")
        assert (card.locator("mark, .missing").count() > 0) == (number > 0)
    expect(cards.nth(1)).to_contain_text("Differs from adapted teacher in ")
    tops = [cards.nth(number).bounding_box()["y"] for number in range(3)]
    assert len(set(tops)) == 1, "the cards do not stand side by side"
    widths = [card.locator(".bar > div").bounding_box()["width"] for card in cards.all()]
    whole = cards.first.locator(".bar").bounding_box()["width"]
    assert max(widths) == pytest.approx(whole, abs=1)
    assert clean(opened)


def test_markup_in_a_sentence_stays_text(visit, page_address):
    opened = visit(page_address)
    translate(opened, SCRIPT)
    assert opened.page.get_by_label("Text to translate").input_value() == SCRIPT
    assert opened.page.title() == "Translate, side by side"
    assert opened.page.locator("main script, main img").count() == 0
    assert clean(opened)


@pytest.fixture
def others_write(monkeypatch):
    """Lets all models but the first one translate the first line by a given text."""

    def let(text):
        decode = Translator.translate

        def write(self, lines, *args):
            translated = decode(self, lines, *args)
            found = translated.candidates[0]
            if self.path != exported_models()[0]:
                found[:] = [candidate._replace(text=text) for candidate in found]
            return translated

        monkeypatch.setattr(Translator, "translate", write)

    return let


def test_markup_that_a_model_writes_stays_text(visit, page_address, others_write):
    others_write(SCRIPT)
    opened = visit(page_address)
    opened.page.get_by_label("Alternatives").select_option("3")
    cards = translate(opened, "ba")
    expect(cards.nth(1).locator("mark")).to_have_text(SCRIPT)
    expect(cards.nth(1).locator("li").first).to_contain_text(SCRIPT)
    assert opened.page.title() == "Translate, side by side"
    assert opened.page.locator("main script, main img").count() == 0
    assert clean(opened)


def test_it_is_used_by_keyboard_alone(visit, page_address):
    opened = visit(page_address)
    page = opened.page
    page.keyboard.type("ba be")  # the field has the focus from the beginning
    page.keyboard.press("Control+Enter")
    expect(page.get_by_role("status")).to_contain_text("with beam 5")
    reached = []
    for _ in range(5):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.type"))
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none", "where the focus is cannot be seen"
    assert reached[:3] == ["submit", "beam", "nbest"]
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_contain_text("with beam 6")
    assert clean(opened)


def test_beam_and_alternatives_are_chosen(visit, page_address):
    opened = visit(page_address)
    page = opened.page
    page.get_by_label("Beam").fill("1")
    cards = translate(opened, "ba be bi")
    expect(page.get_by_role("status")).to_contain_text("beam 1 ")
    expect(page.locator("details")).to_have_count(0)
    page.get_by_label("Alternatives").select_option("3")
    page.get_by_role("button", name="Translate").click()
    # a beam of 1 finds no more than 1
    expect(page.get_by_role("status")).to_contain_text("beam 3 ")
    for card in cards.all():
        expect(card.get_by_role("listitem")).to_have_count(3)
        best = card.get_by_role("listitem").first.locator("span").first
        assert best.text_content().split()[0] in card.locator(".translation").text_content()
    assert clean(opened)


def test_what_cannot_be_translated_is_said_kindly_and_the_page_goes_on(
    visit, page_address, monkeypatch
):
    opened = visit(page_address)
    page = opened.page
    alert = page.get_by_role("alert")
    page.get_by_role("button", name="Translate").click()
    expect(alert).to_have_text("Type some text first.")
    page.get_by_label("Text to translate").fill("ba " * 35_000)
    page.get_by_role("button", name="Translate").click()
    expect(alert).to_contain_text("too much: 105,000 of 5,000 characters")
    translate(opened, "ba")
    expect(alert).to_be_hidden()
    assert clean(opened)
    # the service knows better than the page
    monkeypatch.setattr(service, "MOST_CHARACTERS", 3)
    page.get_by_label("Text to translate").fill("ba be")
    page.get_by_role("button", name="Translate").click()
    expect(alert).to_contain_text("the text has 5 characters; 3 are the most at once")
    page.route("**/translate", lambda route: route.abort())
    page.get_by_role("button", name="Translate").click()
    expect(alert).to_contain_text("The service does not answer")


def test_programs_that_read_the_page_out_know_languages_and_results(visit, page_address):
    opened = visit(page_address)
    page = opened.page
    field = page.get_by_label("Text to translate")
    assert (field.get_attribute("lang"), field.get_attribute("dir")) == ("de", "auto")
    expect(page.get_by_role("banner")).to_contain_text("German to")
    cards = translate(opened, "ba be bi")
    for card, name in zip(cards.all(), NAMES):
        place = card.locator(".translation")
        assert (place.get_attribute("lang"), place.get_attribute("dir")) == ("en", "auto")
        expect(page.get_by_role("status")).to_contain_text(f"{name}: ")
    assert page.locator("main").count() == page.locator("h1").count() == 1


@pytest.mark.parametrize("width, scheme", [
    (1280, "light"), (1280, "dark"), (360, "light"), (360, "dark"),
])  # fmt: skip
def test_it_fits_every_window_and_breaks_no_rule_of_accessibility(
    visit, page_address, others_write, width, scheme
):
    others_write("ba" * 300)
    opened = visit(page_address, width=width, scheme=scheme)
    opened.page.get_by_label("Alternatives").select_option("3")
    translate(opened, "ba be bi bo bu da de di do du " * 3 + "ba" * 60)
    opened.page.get_by_label("Text to translate").fill("")
    opened.page.get_by_role("button", name="Translate").click()
    expect(opened.page.get_by_role("alert")).to_be_visible()
    assert opened.violations() == []
    assert not opened.overflows()


def test_dark_is_dark(visit, page_address):
    def brightness(scheme):
        page = visit(page_address, scheme=scheme).page
        color = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return sum(int(part) for part in color[4:-1].split(","))

    assert brightness("dark") < 150 < 600 < brightness("light")
