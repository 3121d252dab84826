"""The filters of cleaning, each as a table: bad pairs, and good ones that must stay beside them."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.cleaning.kinds import repair_all
from data_prep.cleaning.steps import (
    STEPS,
    Context,
    Corpus,
    Filter,
    Measured,
    Repair,
    default_steps,
    explain_steps,
    parse,
)

# Tatoeba (CC BY 2.0 FR), TICO-19 and SuttaCentral (CC0)
GOOD = {
    "de": [
        ("Tom lebt seit 2013 in Boston.", "Tom has been living in Boston since 2013."),
        ("Eine Hand wäscht die andere.", "You scratch my back and I'll scratch yours."),
        ("Toms Flug nach Boston geht um 14.30 Uhr.", "Tom's plane leaves for Boston at 2:30 p.m."),
        ("Dieses Wörterbuch hat 12 Bände.", "This dictionary has 12 volumes."),
        ("Haben Sie nicht etwas Kleineres?", "Don't you have anything smaller than that?"),
        ("So, wie Herr Gotama andere ergebene Familien in Ukkaṭṭhā besucht, soll er auch meine "
         "Familie besuchen.",
         "Just as Mister Gotama visits other devoted families in Ukkaṭṭhā, may he visit mine."),
        ("Tom war schlechter Laune.", "Tom was in a bad mood."),
        ("Windows 10", "Windows 10"),
    ],
    "ru": [
        ("Мэри отвечает на вопрос учителя.", "Mary is answering the teacher's question."),
        ("Том каждое утро делает сто приседаний.", "Tom does 100 squats every morning."),
        ("Урок английского начался в 8:30.", "The English lesson started at 8:30."),
        ("Рождество отмечается двадцать пятого декабря.",
         "Christmas is celebrated on December 25th."),
        ("Тому надо подстричься.", "Tom needs a haircut."),
        ("Г-н Пол Хантер (Paul Hunter) с коллегами подсчитал, что вспышка COVID-19, который "
         "выглядит намного более заразным, чем SARS, не закончится в 2020 году.",
         "Paul Hunter, et al., estimated that COVID-19, which seems substantially more infectious "
         "than SARS, will not end in 2020."),
        ("Дата появления симптомов", "Date of onset of symptoms"),
    ],
    "zh": [
        ("汤姆进了厨房，给自己倒了杯咖啡。",
         "Tom went into the kitchen and poured himself a cup of coffee."),
        ("一个人只能活七十岁左右。", "Humans only live about 70 years."),
        ("我比你多10支钢笔。", "I have ten pens more than you do."),
        ("佢好失望，因为冇人请佢去。", "He was disappointed at not being invited."),
        ("使用Pillow库的图片格式", "Image formats of the Pillow library"),
        ("Evolution日历", "Evolution calendar"),
        ("中国的一项研究发现，5%的患者需送往重症监护室，"
         "2.3%的患者需机械通气，1.4%的患者将因此致死。",
         "One study in China found 5% were admitted to intensive care units, 2.3% needed "
         "mechanical support of ventilation, and 1.4% died."),
        ("这座城市海拔1600米。", "This city is 1,600 meters above sea level."),
    ],
}  # fmt: skip


def whys(step, pairs, lang="de", tgt="en"):
    step, context = parse(step), Context((lang, tgt))
    step.check(context)
    src, tgt = map(list, zip(*pairs, strict=True))
    if isinstance(step, Measured):
        return step.why(src, tgt, context, step.settle(step.measure(src, tgt)))
    return step.why(src, tgt, context)


def why(step, source, target, lang="de", tgt="en"):
    (found,) = whys(step, [(source, target)], lang, tgt)
    return found


def is_told(found, reason):
    """Whether what a step says begins with a reason; None: it says nothing."""
    return found is None if reason is None else bool(found) and found.startswith(reason)


# -- the default as a whole ----------------------------------------------------------------


NORMAL = {
    "length-ratio": {"de": 1.0, "ru": 0.95, "zh": 3.3},
    "word-ratio": {"de": 1.1, "ru": 1.2, "zh": 0.7},
}


def first_why(pair, lang):
    """(step, why) of the first default step that drops a pair, given what is normal; or None."""
    langs = lang, "en"
    src, tgt = pair
    for text in default_steps(*langs):
        step = parse(text)
        step.check(Context(langs))
        if isinstance(step, Repair):
            (src,), (tgt,) = step.repair([src], lang), step.repair([tgt], "en")
        elif isinstance(step, Measured):
            if found := step.why([src], [tgt], Context(langs), NORMAL[step.name][lang])[0]:
                return step.name, found
        elif isinstance(step, Corpus):
            continue  # the pair is alone
        elif found := step.why([src], [tgt], Context(langs))[0]:
            return step.name, found
    return None


@pytest.mark.parametrize("lang, pair", [(lang, pair) for lang in GOOD for pair in GOOD[lang]])
def test_good_pairs_stay(lang, pair):
    assert first_why(pair, lang) is None


@pytest.mark.parametrize(
    "lang, source, target, step",
    [
        ("de", "", "There is no answer.", "empty"),
        ("de", "<br/>&nbsp;", "There is no answer.", "empty"),
        ("de", "2,4 (1,9–3,1) | 17 | 0,03", "2.4 (1.9–3.1) | 17 | 0.03", "letters"),
        ("ru", "* * * 12.05.2020 14:30", "* * * 05/12/2020 2:30 pm", "letters"),
        ("zh", "========== 3.2.1", "========== 3.2.1", "letters"),
        ("ru", "In case of fire, don't use the elevator.",
         "В случае пожара не пользуйтесь лифтом.", "script"),
        ("zh", "You should make better use of your free time.", "你要更好地利用闲暇时间。",
         "script"),
        ("zh", "��Ҫ���õ�����", "You should make better use of your free time.", "letters"),
        ("de", "Das Stra\ufffdenfest beginnt.", "The street festival begins.", "mojibake"),
        ("de", "Zuerst kamen die Kelten im Jahre 1600.",
         "They felt their candidate would win in 1860.", "numbers"),
        ("ru", "Армения стала членом ВТО в 2003 году.",
         "Moscow is seeing its heaviest snow since 1973.", "numbers"),
        ("zh", "学校8点半开始上课。", "The 21 of them met in 1973.", "numbers"),
        ("de", "Click the Start button to continue.", "Click the Start button to continue.",
         "copy"),
        ("de", "Viel viel viel viel viel viel Glück.", "Good luck to you.", "repetition"),
        ("zh", "谢谢谢谢谢谢谢谢谢谢谢谢", "I thank you.", "repetition"),
        ("de", "Thank you in advance for your cooperation.",
         "Vielen Dank im Voraus für Ihre Mitarbeit.", "language"),
        ("de", "Il se lève tôt tous les matins pour travailler.",
         "He gets up early every morning to work.", "language"),
        ("ru", "Він щоранку дуже рано встає, щоб піти на роботу.",
         "He gets up early every morning to work.", "language"),
        ("zh", "彼は毎朝とても早く起きて仕事に行きます。",
         "He gets up early every morning to work.", "language"),
        ("ru", "Дата", "CDC used the term and had defined the illness very precisely.",
         "length-ratio"),
        ("de", "Hauptmenüeinstellungsmöglichkeitenübersicht",
         "He is in it so he is as if he is in a bit of a do", "word-ratio"),
    ],
)  # fmt: skip
def test_bad_pairs_go_at_the_step_that_is_meant_for_them(lang, source, target, step):
    assert first_why((source, target), lang)[0] == step


# -- lengths -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "step, source, target, reason",
    [
        ("empty", "a", "b", None),
        ("empty", " \u2003", "b", "no source"),
        ("empty", "a", "", "no target"),
        ("length:max=3", "a b c", "d", None),
        ("length:max=3", "a b c d", "d", "source of 4 words"),
        ("length:max=3", "a", "一二三四", "target of 4 words"),
        ("length:max=3", "a", "一二三", None),
        ("length:max=3", "aaaa bbbb cccc", "dddddddd", None),
        ("length", "w " * 1500, "d", "source of 1,500 words"),
        ("length:min=2", "a b", "a", "target of 1 words"),
        ("length:min=2", "a b", "一二", None),
        ("length", "a", "  ", "target of 0 words"),
        ("length", "a", "", "target of 0 words"),
        ("length:min=0", "", "", None),
        ("word-length:max=5", "abcde fghij", "a", None),
        ("word-length:max=5", "abcdef", "a", "source has a word of 6 characters"),
        ("word-length:max=5", "a", "x bcdefghi", "target has a word of 8 characters"),
        ("word-length:max=5", "一二三四五六七", "a", None),
        ("word-length:max=5", "一abcdef二", "a", "source has a word of 6"),
        ("word-length", "iVBORw0KGgo" * 20, "a", "source has a word of 220"),
    ],
)
def test_lengths(step, source, target, reason):
    assert is_told(why(step, source, target, "de"), reason)


@pytest.mark.parametrize(
    "step, source, target, reason",
    [
        ("length-ratio:expected=1", "a" * 20, "b" * 80, None),
        ("length-ratio:expected=1", "a" * 20, "b" * 81, "target of 81 characters where 20 are"),
        ("length-ratio:expected=1", "a" * 81, "b" * 20, "target of 20 characters where 81 are"),
        ("length-ratio:expected=4", "a" * 20, "b" * 81, None),
        ("length-ratio:expected=1,max=2", "a" * 20, "b" * 51, "target of 51 characters"),
        ("length-ratio:expected=1", "a", "b" * 20, None),  # short lines vary most
        ("word-ratio:expected=1", "w " * 10, "w " * 38, None),
        ("word-ratio:expected=1", "w " * 10, "w " * 39, "target of 39 words where 10 are"),
        ("word-ratio:expected=1", "一二三四五六七八九十", "abcd " * 10, None),
        ("word-ratio:expected=0.5", "一" * 60, "word", "target of 1 words where 30 are"),
    ],
)
def test_ratios(step, source, target, reason):
    assert is_told(why(step, source, target, "zh"), reason)


def test_the_expected_ratio_is_the_median_whatever_the_counts_are_given_by():
    step = parse("length-ratio")
    src, tgt = ["aaaa", "aaaa", "", "a" * 4, "aa"], ["bb", "bbbb", "b", "b" * 40, ""]
    values = step.measure(src, tgt)
    expected = [math.log(0.5), 0, math.nan, math.log(10), math.nan]
    assert values == pytest.approx(expected, nan_ok=True)
    assert step.settle(values) == 1.0
    assert step.settle([math.log(2), math.log(0.5), math.log(3)], [1, 5, 1]) == 0.5
    assert step.settle([math.log(2), math.nan, math.log(3)], np.array([2, 9, 3])) == 3.0
    assert step.settle([]) == step.settle([math.nan]) == 1.0
    given = parse("length-ratio:expected=2.5")
    assert given.settle(values) == given.settled() == 2.5
    assert step.settled() is None
    assert step.account(0.5) == {"expected_ratio": 0.5}
    assert parse("word-ratio").measure(["a b"], ["一二三四"]) == pytest.approx([math.log(2)])


# -- language and script -------------------------------------------------------------------


@pytest.mark.parametrize(
    "step, lang, source, target, reason",
    [
        ("language", "de", "Wir haben das Haus gekauft und sind froh.", "We bought the house.",
         None),
        ("language", "de", "We bought the house and are happy.", "We are.",
         "source: en, probability"),
        ("language", "de", "Ja.", "Wir haben das Haus gekauft.", "target: de, probability"),
        ("language", "de", "We bought the houses too", "We are.", "source: en"),
        ("language", "de", "We like their old house", "We are.", None),  # 19 letters
        ("language:source=any", "de", "We bought the house and are happy.", "We are.", None),
        ("language:source=en+fr", "de", "We bought the house and are happy.", "We are.", None),
        ("language:target=de", "de", "Ja.", "Wir haben das Haus gekauft.", None),
        ("language:min=50", "de", "We bought the house and are happy.", "We are.", None),
        ("language:confidence=1", "de", "Nous avons acheté.", "We are.", None),
        ("language", "de", "10.000 === 20.000 >>> 30.000 (14:30)", "We are.", None),
        # neighbours are told apart by a few letters
        ("language", "ru", "Дата появления симптомов", "Date of onset", None),
        ("language", "ru", "28 марта президент объявил о комендантском часе", "a curfew", None),
        ("language", "ru", "Той става рано всяка сутрин, за да отиде на работа.", "He is.",
         "source: bg"),
        ("language", "zh", "请求宽恕吧，佢哋做完啲嘢就出咗去。", "They went out.", None),
        ("language", "zh-TW", "汤姆进了厨房，给自己倒了杯咖啡。", "Tom went out.", None),
        ("script", "ru", "Откройте Terminal, наберите nmcli device и Enter.", "Open it.", None),
        ("script", "ru", "Set the JAVA_HOME path в файле", "Set it.", "source is 25% Cyrillic"),
        ("script", "ru", "Il faut bien le faire.", "It must.", "source is 0% Cyrillic"),
        ("script:source=Latin", "ru", "Il faut bien le faire.", "It must.", None),
        ("script:source=Latin+Cyrillic", "ru", "Il faut дело", "It must.", None),
        ("script:source=any", "ru", "Il faut bien le faire.", "It must.", None),
        ("script:min=0.5", "ru", "Привет, my friend", "It must.", "source is 43% Cyrillic"),
        ("script", "ru", "Привет", "Привет", "target is 0% Latin"),
        ("script", "ru", "1 2 3", "1 2 3", None),
        ("script", "zh", "安装 Python 3 的 pip", "Install.", "source is 25% Han"),
        ("script", "zh", "安装 Python 版本三的包", "Install.", None),
        ("script", "ja", "カタカナとひらがな", "Kana.", None),
        ("letters", "de", "12 a", "word", None),
        ("letters", "de", "1234567 abc", "word", None),
        ("letters", "de", "12345678 abc", "word", "source is 27% letters"),
        ("letters", "de", "Wort", "— … 12 é", "target is 20% letters"),
        ("letters", "de", "", "", None),
        ("letters:min=0", "de", "1234", "5678", None),
        ("mojibake", "de", "Stra\ufffde", "street", "source has '\ufffd'"),
        ("mojibake", "de", "Straße", "cafÃ©", "target has 'fÃ©'"),
        ("mojibake", "de", "»Übliche« „Straße“", "street", None),
        ("chinese-script", "zh", "湯姆進了廚房", "Tom went", "traditional: 湯進廚"),
        ("chinese-script", "zh", "汤姆进了厨房", "Tom went", None),
        ("chinese-script:expected=traditional", "zh", "汤姆进了厨房", "Tom went",
         "simplified: 汤进厨"),
        ("chinese-script", "zh", "后里干面台", "words", None),  # of both
        ("chinese-script", "zh", "汤姆进了廚房", "Tom went", None),
        ("chinese-script", "zh", "汤廚", "Tom went", None),  # half of them
        ("chinese-script", "zh", "㐀㐁", "words", None),  # rare, and the same in both
        ("chinese-script:max=0.2", "zh", "汤姆进了廚房", "Tom went", "traditional: 廚"),
    ],
)  # fmt: skip
def test_language_and_script(step, lang, source, target, reason):
    assert is_told(why(step, source, target, lang), reason)


def test_each_telling_character_is_named_once():
    assert why("chinese-script", "廚廚湯廚", "x", "zh") == "traditional: 廚湯"


def test_the_target_may_be_the_chinese_side():
    assert why("chinese-script", "Tom went", "湯姆進了廚房", "en", "zh") == "traditional: 湯進廚"


# -- numbers -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source, target",
    [
        ("1.000,5 km", "1,000.5 km"),
        ("1 000 000", "1,000,000"),
        ("100 200 300", "100, 200, 300"),
        ("3,14", "3.14"),
        ("am 12.05.2020", "on May 12, 2020"),
        ("am 12.05.2020", "2020-05-12"),
        ("１２，５", "12,5"),
        ("٣٤٥", "345"),
        ("drei Katzen, 7 Hunde", "3 cats, 7 dogs"),
        ("hundert", "100"),
        ("5000 Leute", "five thousand people"),
        ("15 Uhr", "3 p.m."),
        ("15:00", "3 PM"),
        ("下午3点", "at 15:00"),
        ("in den 90ern", "in the 1990s"),
        ("20世纪80年代初", "in the early 1980s"),
        ("im 18. Jahrhundert", "by the 1700s"),
        ("im 18. Jahrhundert 7, 8 und 9", "seven, eight and nine in the 1700s"),
        ("5 тыс. рублей", "5,000 roubles"),
        ("130万人", "1.3 million people"),
        ("第三十五条", "Article 35"),
        ("一九九〇年", "in 1990"),
        ("第 007 号", "No. 7"),
        ("1861, 1862 и 1863", "1861, 1862, 1864"),
        ("", "no number"),
    ],
)
def test_numbers_that_agree_stay(source, target):
    assert why("numbers", source, target) is None
    assert why("numbers", target, source) is None


@pytest.mark.parametrize(
    "source, target, reason",
    [
        ("im Jahre 1990", "in the year 1991", "source 1990, target 1991"),
        ("3 Katzen", "4 cats", "source 3, target 4"),
        ("1,5 %", "2.7 %", "source 1, 5, target 2, 7"),
        ("1939–1945", "a war", "source 1939, 1945, target none"),
        ("ein Krieg", "1812", "source none, target 1812"),
        ("15 Uhr", "at 3", "source 15, target 3"),
        ("В 15 лет", "aged 15, 165 cm, 485 kg, 1999", "source none, target 165, 485, 1999"),
        ("21 января", "From 23 January", "source 21, target 23"),
        ("209 465 заболевших, умерло 23 521", "213,435 cases, 23,822 died",
         "source 209465, 23521, target 213435, 23822"),
    ],
)  # fmt: skip
def test_numbers_that_disagree_go(source, target, reason):
    assert why("numbers", source, target) == reason


def test_a_share_of_the_numbers_may_be_missing():
    pair = "1861, 1862, 1863", "1861, 1872, 1873"
    assert why("numbers", *pair) == "source 1862, 1863, target 1872, 1873"
    assert why("numbers:max=0.7", *pair) is None
    assert why("numbers", "1861 und 1862", "1861 and 1873") is None  # half of them
    assert why("numbers:max=0.4", "90er, 1861, 1862", "1990s, 1863, 1862") is None
    assert why("numbers:max=0.3", "90er, 1861, 1862", "1990s, 1863, 1862") is not None
    assert why("numbers:max=0", "1861 1862", "1861") == "source 1862, target none"


# -- copies and loops ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "step, source, target, reason",
    [
        ("copy", "Das Haus Nummer eins ist alt.", "The house number one is old.", None),
        ("copy", "Das Haus Nummer eins ist alt.", "das haus Nummer eins ist alt.",
         "100% of the words"),
        ("copy:max=0.7", "Das Haus Nummer eins", "Das Haus Nummer one", "75% of the words"),
        ("copy", "Das Haus Nummer eins", "Das Haus Nummer one", None),
        ("copy", "a b c d e f g h i", "a b c d e f g h i z", "90% of the words"),
        ("copy", "a b c d e f g h", "a b c d e f g h y z", None),
        ("copy", "Microsoft Windows Server", "Microsoft Windows Server", None),
        ("copy", "Windows 10", "Windows 10", None),
        ("copy:words=1", "Windows 10", "Windows 10", "100% of the words"),
        ("copy", "Hausnummer einszweidrei vier", "haus nummer eins drei", None),
        ("copy", "我不信任汤姆", "我不信任汤姆", "100%"),
        ("repetition", "x", "so the the the the", None),
        ("repetition", "x", "so the the the the the", "5 × 'the'"),
        ("repetition", "好好好好好", "x", "5 × '好'"),
        ("repetition", "ha ha ha ha ha ha", "ha ha ha ha ha", "6 × 'ha'"),
        ("repetition", "ha ha ha ha ha", "ho ho ho ho ho", None),
        ("repetition:max=2", "x", "is not a cat, not a cat, not a cat,", "3 × 'not a cat,'"),
    ],
)  # fmt: skip
def test_copies_and_loops(step, source, target, reason):
    assert is_told(why(step, source, target, "de"), reason)


# -- laws ----------------------------------------------------------------------------------

FILTERS = [name for name, kind in STEPS.items() if issubclass(kind, Filter)]


@pytest.mark.parametrize("name", FILTERS)
def test_a_pair_is_judged_alike_alone_and_in_a_batch(name):
    pairs = [pair for pairs in GOOD.values() for pair in pairs] + [("", "x"), ("湯", "x x x x x x")]
    step, context = parse(name), Context(("zh", "en"))
    settled = (1.0,) if isinstance(step, Measured) else ()
    src, tgt = map(list, zip(*pairs, strict=True))
    together = step.why(src, tgt, context, *settled)
    assert together == [step.why([one], [two], context, *settled)[0] for one, two in pairs]
    assert step.why([], [], context, *settled) == []


def defaults(langs):
    """(repairs, filters with what measured ones need) of a pair of languages."""
    steps = [parse(step) for step in default_steps(*langs)]
    filters = [(step, (1.0,) if isinstance(step, Measured) else ())
               for step in steps if isinstance(step, Filter)]  # fmt: skip
    return [step for step in steps if isinstance(step, Repair)], filters


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.text(), st.text()), min_size=1, max_size=20))
@pytest.mark.parametrize("langs", [("de", "en"), ("zh-TW", "en"), ("xx", "ru")])
def test_no_text_is_too_odd_to_be_judged_and_what_stays_would_stay_again(langs, pairs):
    repairs, filters = defaults(langs)
    context = Context(langs)
    sides = [
        repair_all(repairs, texts, lang)[0]
        for texts, lang in zip(zip(*pairs, strict=True), langs, strict=True)
    ]
    for step, settled in filters:
        found = step.why(*sides, context, *settled)
        assert len(found) == len(pairs)
        assert all(one is None or "\n" not in one for one in found)
        assert step.why(*sides, context, *settled) == found


@pytest.mark.parametrize(
    "text", ["ab " * 40_000, "a" * 200_000, "1 000 " * 30_000, "中" * 100_000, "1" * 100_000]
)
def test_a_huge_line_does_not_take_for_ever(text):
    for step, settled in defaults(("de", "en"))[1]:
        assert len(step.why([text], [text], Context(("de", "en")), *settled)) == 1


# -- by name -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "langs, without",
    [(("de", "en"), set()), (("zh", "en"), set()), (("xx", "yy"), {"language", "script"})],
)
def test_the_defaults_suit_a_pair_of_languages(langs, without):
    steps = default_steps(*langs)
    for step in steps:
        parse(step).check(Context(langs))
    assert {"language", "script"} - {step.split(":")[0] for step in steps} == without
    kinds = [type(parse(step)) for step in steps]
    assert kinds == sorted(kinds, key=lambda kind: (
        not issubclass(kind, Repair), issubclass(kind, (Measured, Corpus)),
        issubclass(kind, Corpus),
    ))  # fmt: skip


def test_a_side_of_unknown_language_is_not_judged_by_it():
    assert "language:source=any" in default_steps("xx", "en")
    assert "script:target=any" in default_steps("en", "xx")
    assert "script:min=0.15,target=any" in default_steps("zh", "xx")
    assert "script" in default_steps("de", "en")
    for langs in (("xx", "en"), ("en", "xx")):
        for step in default_steps(*langs):
            parse(step).check(Context(langs))


@pytest.mark.parametrize(
    "lang, step",
    [
        ("zh", None),
        ("zh-CN", "chinese:to=simplified"),
        ("zh_Hans", "chinese:to=simplified"),
        ("zh-TW", "chinese:to=traditional"),
        ("zh-hant-hk", "chinese:to=traditional"),
        ("de-CN", None),
    ],
)  # fmt: skip
def test_chinese_is_converted_by_default_only_where_the_language_says_so(lang, step):
    steps = [one for one in default_steps(lang, "en") if one.startswith("chinese")]
    assert steps == ([step] if step else [])


@pytest.mark.parametrize(
    "step, langs, message",
    [
        ("length:min=-1", ("de", "en"), "min is 0 or more, not -1"),
        ("length:max=0", ("de", "en"), "max is 1 or more, not 0"),
        ("length:min=0,max=0", ("de", "en"), "max is 1 or more, not 0"),
        ("length:min=5,max=4", ("de", "en"), "max is 5 or more, not 4"),
        ("word-length:max=0", ("de", "en"), "max is 1 or more, not 0"),
        ("length-ratio:max=1", ("de", "en"), "max is a factor above 1, not 1"),
        ("word-ratio:max=inf", ("de", "en"), "max is a factor above 1, not inf"),
        ("length-ratio:expected=0", ("de", "en"), "expected is a number above 0, not 0"),
        ("language", ("xx", "en"), "does not know 'xx'; it knows af, .* Say source=… or target=…"),
        ("language:target=en+german", ("de", "en"), "does not know 'german'"),
        ("language:confidence=2", ("de", "en"), "confidence is a share from 0 to 1, not 2"),
        ("script", ("de", "xx"), "script of 'xx' is unknown; say target=…"),
        ("script:source=Greco", ("de", "en"), "source is names of scripts as in .*, not Greco"),
        ("script:min=2", ("de", "en"), "min is a share from 0 to 1, not 2"),
        ("letters:min=-1", ("de", "en"), "min is a share from 0 to 1, not -1"),
        ("numbers:max=2", ("de", "en"), "max is a share from 0 to 1, not 2"),
        ("copy:max=2", ("de", "en"), "max is a share from 0 to 1, not 2"),
        ("copy:words=0", ("de", "en"), "words is 1 or more, not 0"),
        ("repetition:max=0", ("de", "en"), "max is 1 or more, not 0"),
        ("chinese-script:expected=x", ("zh", "en"), "expected is one of simplified, traditional"),
        ("chinese-script:max=2", ("zh", "en"), "max is a share from 0 to 1, not 2"),
        ("chinese-script", ("de", "en"), "neither de nor en is Chinese"),
    ],
)  # fmt: skip
def test_a_filter_that_cannot_work_is_refused(step, langs, message):
    with pytest.raises(ValueError, match=message):
        parse(step).check(Context(langs))


@pytest.mark.parametrize(
    "step",
    ["length:min=0", "length:min=5,max=5", "length:min=0,max=1", "word-length:max=1",
     "length-ratio:max=1.01,expected=0.01", "language:confidence=0", "language:confidence=1",
     "script:min=0", "script:min=1", "letters:min=0", "letters:min=1", "numbers:max=0",
     "numbers:max=1", "copy:max=0,words=1", "copy:max=1", "repetition:max=1",
     "chinese-script:max=0", "chinese-script:max=1"],
)  # fmt: skip
def test_the_ends_of_a_range_are_in_it(step):
    parse(step).check(Context(("zh", "en")))


def test_all_steps_are_explained_once():
    text = explain_steps()
    for name, kind in STEPS.items():
        assert text.count(f"\n  {name} ") == 1
        assert issubclass(kind, (Repair, Filter, Corpus))
    assert "(default: 0.5)" in text
