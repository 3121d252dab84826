"""The repairs of cleaning, each as a table: what is mended, and what must stay beside it."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.cleaning.kinds import repair_all
from data_prep.cleaning.repairs import broken_part
from data_prep.cleaning.steps import Context, Repair, default_steps, parse

# Tatoeba (CC BY 2.0 FR), TICO-19 and SuttaCentral (CC0)
GERMAN = "Schick mir eine Nachricht oder ruf mich an, falls du interessiert bist."
SHIP = "Dieses Schiff ist zu groß für die Kanaldurchfahrt."
RUSSIAN = "Том раскрыл книгу на случайной странице и начал читать."
CHINESE = "汤姆进了厨房，给自己倒了杯咖啡。"
MASK = "口罩应遮住口鼻，且应大小匹配，避免留缝。"
LADY = "„Während ich noch eine Nonne in Schulung bin, meine Dame,"
SUN = "‘You’re getting up even later in the day—what’s up with you, wench?’"
PALI = "So, wie Herr Gotama andere ergebene Familien in Ukkaṭṭhā besucht"
CLEAN = [GERMAN, SHIP, RUSSIAN, CHINESE, MASK, LADY, SUN, PALI, "", "3 – 5 %", "№ 7 «Да»"]


def repaired(step, text, lang="de"):
    (found,) = parse(step).repair([text], lang)
    return found


def garbled(text, wrong):
    """``text``, written in UTF-8, as one reads it who takes it for another encoding."""
    return text.encode("utf-8").decode(wrong)


# -- Unicode -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bad, good",
    [
        (garbled(SHIP, "cp1252"), SHIP),  # Dieses Schiff ist zu groÃŸ fÃ¼r
        (garbled(garbled(SHIP, "latin-1"), "latin-1"), SHIP),
        (garbled(RUSSIAN, "latin-1"), RUSSIAN),
        ("РџСЂРёРІРµС‚, как дела?", "Привет, как дела?"),
        (garbled(CHINESE, "latin-1"), CHINESE),
        ("Itâ€™s here â€” now", "It’s here — now"),
        ("a fu\u0308r b", "a für b"),
        ("и\u0306", "й"),
        ("\x1b[1mbold\x1b[0m", "bold"),
        ("caf\x92s", "caf’s"),
        ("か\u3099", "が"),
        # only what is broken is mended
        ("“ﬁn” Ａ１， &amp; \u2028\x07schÃ¶n", "“ﬁn” Ａ１， &amp; \u2028\x07schön"),
    ],
)
def test_a_wrong_encoding_is_undone_and_accents_are_composed(bad, good):
    assert repaired("unicode", bad) == good


@pytest.mark.parametrize(
    "text",
    [
        *CLEAN,
        "“curled” ‘quotes’ and 'straight' \"ones\"",
        "full width，。！？（）：Ａ１",
        "ﬁne ligatures ﬂow",
        "»Übliche« Anführung, »ähnlich« «так»",
        "12 °C ± 3 µm × 2², ½ £5 §3 ¶4",
        "Œuvre d'art, mañana, São Paulo, ğüşiöç, Łódź",
        "&amp;",
    ],
)
def test_what_is_no_wrong_encoding_stays_as_it_was_written(text):
    assert repaired("unicode", text) == text


FAULTLESS_LATIN = "ab Z 09.,-~\x1a äöüÖßéАГСРЯагсряЁё’–—…«»„“”‚‘"
FAULTLESS_CHINESE = "ab Z.~ 中国。，「（！‘’“”–—…·ア"


@settings(max_examples=150, deadline=None)
@given(st.text(FAULTLESS_LATIN) | st.text(FAULTLESS_CHINESE) | st.text())
def test_ftfy_would_not_have_changed_what_it_was_not_asked_about(text):
    from ftfy import fix_text

    from data_prep.cleaning.repairs import _is_faultless, _mojibake_settings

    if _is_faultless(text):
        expected = unicodedata.normalize("NFC", text)
        assert fix_text(text, _mojibake_settings()) == expected


@pytest.mark.parametrize("text", ["fГ«С", "Г»Р", "a»ä", "»ß", "é„", "\x1b[1m"])
def test_what_ftfy_may_find_fault_with_is_left_to_it(text):
    from data_prep.cleaning.repairs import _is_faultless

    assert not _is_faultless(text)


@pytest.mark.parametrize(
    "text, part",
    [
        ("Stra\ufffde", "\ufffd"),
        ("schÃ¶n", "Ã¶"),
        *((text, "") for text in CLEAN),
        ("auf die »übliche« Art, ‹ähnlich›", ""),
    ],
)
def test_what_is_still_broken_is_found(text, part):
    assert broken_part(text) == part


# -- controls ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bad, good",
    [
        ("Kanal\u00addurchfahrt", "Kanaldurchfahrt"),
        ("\ufeffTom", "Tom"),
        ("zu\u200bgroß", "zugroß"),
        ("\u202aTom\u202c \u200eist\u200f \u2066da\u2069", "Tom ist da"),
        ("eins\u2028zwei\u2029drei\x85vier\x0bfünf\x00sechs\x07sieben",
         "eins zwei drei vier fünf sechs sieben"),
        ("\uf0b7 Punkt \ue2d1", "  Punkt  "),
        ("a\uffffb\ufdd0c\U0010ffffd", "a b c d"),
        ("Haus\u200dtür К\u200cот 中\u200d国", "Haustür Кот 中国"),
        ("می\u200d", "می"),
        ("👩\u200d", "👩"),
        ("\u200d💻", "💻"),
        ("a\ufff9b\U000e0041", "ab"),
        ("\ufffcBild", "Bild"),
    ],
)  # fmt: skip
def test_what_is_not_seen_goes(bad, good):
    assert repaired("controls", bad) == good


@pytest.mark.parametrize(
    "text",
    [
        *CLEAN,
        "می\u200cخواهم",  # Persian writes so
        "क\u094d\u200dष क\u094d\u200cष",
        "👩\u200d💻 👩🏽\u200d🚀 ❤\ufe0f\u200d🔥",
        "e\u0301\u0301\u0301",
        "שלום",
    ],
)
def test_joiners_stay_where_they_are_needed(text):
    assert repaired("controls", text) == text


# -- white space ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bad, good",
    [
        ("  Tom \t ist\u00a0\u3000da \n", "Tom ist da"),
        ("Tom\r", "Tom"),
        (" Tom", "Tom"),
        ("Tom ", "Tom"),
        ("Tom  ist", "Tom ist"),
        ("u\u0308", "ü"),
        ("a\x00b", "a b"),
        ("\u2009", ""),
        *((text, text) for text in CLEAN),
    ],
)
def test_white_space_is_one_space(bad, good):
    assert repaired("whitespace", bad) == good


# -- HTML ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bad, good",
    [
        # entities
        ("Tom &amp; Maria", "Tom & Maria"),
        ("&quot;Da&quot;, sagte er&hellip;", '"Da", sagte er…'),
        ("f&uuml;r &#8222;uns&#x201C;", "für „uns“"),
        ("x &amp;amp;lt; y", "x < y"),
        ("&amp;quot;Komm&amp;#33;&amp;quot;", '"Komm!"'),
        ("don &apos; t & quot ; x & amp ; y &# 39 ;", "don ' t \" x & y '"),
        ("a&#10;b&nbsp;c", "a b c"),
        # tags that are closed
        ("<i>Том</i> пришёл", "Том пришёл"),
        ("H<sub>2</sub>O und <B>mehr</B>", "H2O und mehr"),
        ("&lt;em&gt;gut&lt;/em&gt;", "gut"),
        ("<title>Haus</title>", "Haus"),
        ("das <title>Haus</title> da", "das Haus da"),
        ("<div><p>汤姆</p></div>", "汤姆"),
        ("gut <script>var x = 1;</script> so", "gut so"),
        ('gut <script type="x">var <b>x</b> = <i id="1">1</script> so', "gut so"),
        # that have attributes or end by themselves
        ('<font color="#ffff00">Ja.</font>', "Ja."),
        ("siehe <a href='x.html'>hier", "siehe hier"),
        ('vor <span class="x">nach', "vor nach"),
        ('das <ph id="1"/> da <x/> so', "das da so"),
        ("bild <img src=x.png> hier", "bild hier"),
        # that break a line
        ("eins<br>zwei<br />drei<BR/>vier<p>fünf", "eins zwei drei vier fünf"),
        # at the ends of a line
        ("<i>- Ja.", "- Ja."),
        ("Ende.</b></i>", "Ende."),
        ("Ende.</title>", "Ende."),
        ("<!-- nav -->Haus<!doctype html>", "Haus"),
        ("<b><i>Haus", "Haus"),
        # cut
        ('klein <a href="http', "klein"),
        ('class="x" href="y">Haus', "Haus"),
        # of subtitles
        ("{\\an8}Tom! {\\i1}Komm{\\i0} {\\pos(10,20)}her", "Tom! Komm her"),
    ],
)
def test_entities_and_left_over_tags_go(bad, good):
    texts, _ = repair_all([parse("html"), parse("whitespace")], [bad], "de")
    assert texts == [good]


@pytest.mark.parametrize(
    "text",
    [
        *CLEAN,
        "x < y and y > z",
        "if a<b and c>d",
        "I <3 you",
        "<unk> says %s to {0} in <file> of {name}",
        "collect<B>() -> B",
        "handles the end tag of an element (e.g. </div>).",
        "a doctype declaration (<!DOCTYPE html>).",
        "characters between the leading <!-- and trailing -->, but not them",
        "the <title> of a page",
        "<title> is the title",
        "set the <title>",
        "AT&T, R&D &c; ?a=1&copy=2 &notit; &unknown;",
        "'&#0;', &#1; and &#xD800; are no characters",
        "{\\it LaTeX} {y}",
        "->",
    ],
)
def test_what_only_looks_like_a_tag_stays(text):
    assert repaired("html", text) == text


@pytest.mark.parametrize(
    "bad, good",
    [
        ("a&#10;b", "a b"),
        ("a <<b></b>b>x</b> c", "a x c"),
        ("&#38;" + "amp;" * 1000 + "lt;", "<"),
        ("&a<b></b>mp;", "&"),
    ],
)
def test_what_stripping_leaves_is_no_entity_and_no_tag(bad, good):
    assert repaired("html", bad) == good


@pytest.mark.parametrize("text", ["<b>x</b>", "<br>", '<a href="x">y', "{\\an8}x"])
def test_tags_may_be_kept(text):
    assert repaired("html:tags=keep", text.replace("<", "&lt;")) == text


@pytest.mark.parametrize(
    "text",
    ["&amp;" + "amp;" * 30_000 + "lt;", "<b>" * 30_000, "<!--" * 30_000, "<a x=1" * 20_000,
     "&" * 100_000, "<a " + " " * 100_000, "{\\" * 50_000],
)  # fmt: skip
def test_a_huge_line_does_not_take_for_ever(text):
    texts, _ = repair_all([parse(step) for step in REPAIRS], [text], "de")
    assert len(texts[0]) <= len(text)


# -- Chinese -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "step, bad, good",
    [
        ("chinese", "湯姆進了廚房，給自己倒了杯咖啡。", CHINESE),
        ("chinese:to=simplified", "皇后乾隆在裡面", "皇后乾隆在里面"),
        ("chinese:to=traditional", CHINESE, "湯姆進了廚房，給自己倒了杯咖啡。"),
        ("chinese", CHINESE, CHINESE),
        # to convert twice would do harm: 干擾 became 幹擾
        ("chinese:to=traditional", "病毒會干擾核准", "病毒會干擾核准"),
        ("chinese", "Tom's 2 cats", "Tom's 2 cats"),
    ],
)
def test_chinese_is_written_in_one_script(step, bad, good):
    assert repaired(step, bad, "zh") == good
    assert repaired(step, bad, "zh-TW") == good


def test_only_the_chinese_side_is_converted():
    assert repaired("chinese", "湯姆進了廚房", "ja") == "湯姆進了廚房"


# -- laws ----------------------------------------------------------------------------------

REPAIRS = ["html", "unicode", "controls", "whitespace"]
NASTY = st.lists(
    st.sampled_from("&#;<>/lt amp=\"'{\\}abÃ¶©Â\u200b\u200c\u200d\u00ad\u0301\x00\x85\u2028")
    | st.sampled_from(["\ufeff", "\ufffe"])
    | st.sampled_from(["&lt;", "&amp;", "<b>", "</b>", "<br", "Ð", "Ÿ", "РЎ", "👩", "\u0308"])
    | st.characters(exclude_categories=["Cs"]),
    max_size=25,
).map("".join)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(NASTY, min_size=1, max_size=3))
@pytest.mark.parametrize("lang", ["de", "zh"])
def test_repairing_twice_is_repairing_once(lang, texts):
    steps = [parse(step) for step in [*REPAIRS, "chinese:to=traditional"]]
    once, _ = repair_all(steps, texts, lang)
    again, changed = repair_all(steps, once, lang)
    assert again == once
    assert not any(changed)
    for text in once:
        assert text.encode().decode() == text
        assert text == " ".join(text.split()) == unicodedata.normalize("NFC", text)


@settings(max_examples=150, deadline=None)
@given(NASTY)
@pytest.mark.parametrize("step", [*REPAIRS, "chinese", "chinese:to=traditional"])
def test_each_repair_alone_does_no_more_the_second_time(step, text):
    once = repaired(step, text, "zh")
    assert repaired(step, once, "zh") == once


def test_a_batch_is_repaired_line_by_line():
    texts = [garbled(SHIP, "cp1252"), "&lt;", " a ", "", CHINESE]
    for step in REPAIRS:
        assert parse(step).repair(texts, "de") == [repaired(step, text) for text in texts]


def test_what_each_repair_has_changed_is_told():
    steps = [parse(step) for step in REPAIRS]
    texts, changed = repair_all(steps, ["&#195;&#182;l", "gut", " gut"], "de")
    assert texts == ["öl", "gut", "gut"]
    assert dict(zip(REPAIRS, changed, strict=True)) == {
        "html": {0}, "unicode": {0}, "controls": set(), "whitespace": {2},
    }  # fmt: skip


@pytest.mark.parametrize("lang", ["de", "ru", "zh", "en"])
def test_good_text_is_not_touched(lang):
    steps = [parse(step) for step in default_steps(lang, "en")]
    texts, changed = repair_all([one for one in steps if isinstance(one, Repair)], CLEAN, lang)
    assert texts == CLEAN
    assert not any(changed)


@pytest.mark.parametrize(
    "step, langs, message",
    [
        ("html:tags=no", ("de", "en"), "tags is one of strip, keep, not no"),
        ("chinese:to=pinyin", ("zh", "en"), "to is one of simplified, traditional, not pinyin"),
        ("chinese", ("de", "en"), "neither de nor en is Chinese; leave the step out"),
    ],
)
def test_a_repair_that_cannot_work_is_refused(step, langs, message):
    with pytest.raises(ValueError, match=message):
        parse(step).check(Context(langs))
