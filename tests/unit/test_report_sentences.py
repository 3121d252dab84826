"""Which sentences a report shows, and how their differences are marked."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairseq_plugins.report.sentences import EXTRA, LONGEST, MISSING, SAME, choose, mark, visible
from tests.fixtures.models import write_text

TEXT = st.text(alphabet="ab 中文\tß", max_size=12)


@given(reference=TEXT, output=TEXT)
def test_marks_give_back_the_output_and_what_the_reference_has_beside_it(reference, output):
    marks = mark(reference, output)
    if output.strip():
        assert "".join(text for kind, text in marks if kind != MISSING) == output
    if reference.strip() and not output.strip():
        assert marks == [(MISSING, reference)]


def test_equal_texts_have_nothing_marked():
    assert mark("the same text", "the same text") == [(SAME, "the same text")]


def test_words_are_marked_in_one_script_and_characters_in_another():
    assert mark("the cat sat", "the dog sat") == [
        (SAME, "the"), (MISSING, " cat"), (EXTRA, " dog"), (SAME, " sat"),
    ]  # fmt: skip
    assert mark("我爱猫", "我爱狗") == [(SAME, "我爱"), (MISSING, "猫"), (EXTRA, "狗")]


def files(tmp_path, **texts):
    return [write_text(tmp_path / name, lines) for name, lines in texts.items()]


def test_the_largest_losses_and_gains_come_first(tmp_path):
    reference = ["one two three four"] * 4
    student = ["one two three four", "one two three nine", "zz", "one two three four"]
    teacher = ["one two three four", "one two three four", "one two three four", "zz zz zz"]
    found = choose(*files(tmp_path, src=["x"] * 4, ref=reference, student=student, teacher=teacher),
                   "en", shown=3)  # fmt: skip
    assert [entry["line"] for entry in found["worst"]] == [3, 2]
    assert [entry["line"] for entry in found["best"]] == [4]  # line 1 is as good, so no gain
    assert (found["better"], found["worse"], found["lines"]) == (1, 2, 4)
    assert found["worst"][0]["difference"] < -80 < 80 < found["best"][0]["difference"]


def test_without_a_teacher_the_students_own_score_decides(tmp_path):
    src, ref, student = files(tmp_path, src=["x"] * 2, ref=["a b c d"] * 2, st=["a b c d", "z"])
    found = choose(src, ref, student, None, "en", shown=1)
    assert [found["worst"][0]["line"], found["best"][0]["line"]] == [2, 1]
    assert found["worst"][0]["difference"] is None and "teacher" not in found["worst"][0]


def test_a_text_of_another_length_is_refused(tmp_path):
    src, ref, student = files(tmp_path, src=["x"] * 2, ref=["a"] * 2, st=["a"])
    with pytest.raises(ValueError, match="st has 1 lines"):
        choose(src, ref, student, None, "en")


def test_a_very_long_sentence_is_cut_and_says_by_how_much(tmp_path):
    long = "word " * 100_000
    src, ref, student = files(tmp_path, src=[long], ref=["a b"], st=["c " + long])
    (entry,) = choose(src, ref, student, None, "en")["worst"]
    assert len(entry["student"]["text"]) == LONGEST
    assert entry["student"]["cut"] == len(long) + 2 - LONGEST


def test_what_cannot_be_seen_or_misleads_gets_a_sign():
    assert visible("a\tb\x00c\x1b[31m\u202ed\u2028e\x85") == "a b␀c␛[31m\ufffdd\ufffde\ufffd"
    assert visible("Größe 中文 😀 é") == "Größe 中文 😀 é"
