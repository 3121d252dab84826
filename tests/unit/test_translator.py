"""What the filter and the service are made of: lines that come, marks, requests, turns."""

import json
import os
import threading
import time
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.manifest import read_json, write_json
from fairseq_plugins.generation.decoding import Decoding, Hypothesis
from fairseq_plugins.generation.nbest import Candidate
from fairseq_plugins.generation.policies import Policies
from fairseq_plugins.generation.teacher import Teacher
from fairseq_plugins.report.run import ROWS as COLUMNS
from fairseq_plugins.serving import service, stream
from fairseq_plugins.serving.differences import differences
from fairseq_plugins.serving.run_folder import models_of_run
from fairseq_plugins.serving.service import Desk, Refused, host_is_known, read_wish
from fairseq_plugins.serving.stream import Input, translate_stream
from fairseq_plugins.serving.translate import format_lines, name_and_folder
from tests.fixtures.models import write_text
from tests.fixtures.run_folder import row


class Pipe:
    """A pipe whose reading end is an ``Input``."""

    def __init__(self, data=None):
        reading, self._writing = os.pipe()
        self.input = Input(reading)
        self._reading = reading
        if data is not None:
            threading.Thread(target=self._write_all, args=(data,), daemon=True).start()

    def write(self, data):
        os.write(self._writing, data)

    def close(self):
        os.close(self._writing)

    def _write_all(self, data):
        with open(self._writing, "wb") as file:
            file.write(data)

    def lines(self):
        """All lines to the end."""
        taken = []
        while not self.input.ended:
            taken += self.input.take(wait=True)
        os.close(self._reading)
        return taken


# -- lines as they come --------------------------------------------------------------------


@settings(deadline=None)
@given(st.lists(st.text("aä€\U0001f600\r\u2028\x85\0", max_size=5)), st.booleans())
def test_every_line_comes_once_and_in_order_with_or_without_its_last_line_feed(lines, ends):
    text = "\n".join(lines) + ("\n" if ends and lines else "")
    expected = text.split("\n")
    if expected[-1] == "":
        expected.pop()
    pipe = Pipe(text.encode("utf-8"))
    assert pipe.lines() == expected
    assert pipe.input.lines == len(expected)


def test_a_line_that_comes_byte_by_byte_is_whole():
    pipe = Pipe()
    for byte in "ä€😀".encode():
        pipe.write(bytes([byte]))
        assert pipe.input.take(wait=False) == []
    pipe.write(b"\nb")
    assert pipe.input.take(wait=True) == ["ä€😀"]
    pipe.close()
    assert pipe.lines() == ["b"]


def test_a_byte_order_mark_is_no_text_in_the_first_line_alone():
    assert Pipe("\ufeffa\n\ufeffb\n".encode()).lines() == ["a", "\ufeffb"]


def test_without_waiting_nothing_is_waited_for():
    pipe = Pipe()
    assert pipe.input.take(wait=False) == []
    assert not pipe.input.ended
    pipe.close()
    assert pipe.input.take(wait=True) == []
    assert pipe.input.ended


def test_the_rest_of_an_endless_line_is_not_kept(monkeypatch):
    monkeypatch.setattr(stream, "LINE_BYTES", 10)
    # the cut goes through the two bytes of the second ä
    pipe = Pipe("12345678äää\n".encode() * 2 + b"x" * 1_000_000 + b"\n12345678\xc3\xa4\n")
    assert pipe.lines() == ["12345678ä"] * 2 + ["x" * 10, "12345678ä"]
    monkeypatch.setattr(stream, "LINE_BYTES", 9)
    assert Pipe("12345678ää\n".encode()).lines() == ["12345678"]


@pytest.mark.parametrize("line", ["123456789", ""])
def test_what_is_read_ahead_is_little(monkeypatch, line):
    monkeypatch.setattr(stream, "PENDING_BYTES", 1000)
    monkeypatch.setattr(stream, "READ_BYTES", 100)
    monkeypatch.setattr(stream, "SHARD_LINES", 10_000)
    pipe, taken = Pipe(f"{line}\n".encode() * 5000), []
    while not pipe.input.ended:
        at_once = pipe.input.take(wait=True)
        assert sum(len(line) + 1 for line in at_once) <= 1100
        taken += at_once
    assert taken == [line] * 5000


def test_an_endless_line_needs_little_memory(monkeypatch):
    monkeypatch.setattr(stream, "LINE_BYTES", 100)
    pipe = Pipe()
    for _ in range(50):
        pipe.write(b"x" * 1000)
        assert pipe.input.take(wait=False) == []
        assert len(pipe.input._begun) <= 101
    pipe.close()
    assert pipe.lines() == ["x" * 100]


def test_no_more_lines_are_taken_than_are_translated_together():
    pipe = Pipe(b"\n" * (3 * stream.SHARD_LINES + 1))
    sizes = []
    while not pipe.input.ended:
        sizes.append(len(pipe.input.take(wait=True)))
    assert max(sizes) == stream.SHARD_LINES and sum(sizes) == 3 * stream.SHARD_LINES + 1


def test_a_line_that_is_not_utf8_ends_the_input_and_is_named():
    pipe = Pipe(b"a\nb\nc\xff\nd\n")
    assert pipe.lines() == ["a", "b"]
    with pytest.raises(ValueError, match=r"standard input, line 3: not UTF-8 \(byte 0xff at colu"):
        raise pipe.input.error


# -- lines through a model -----------------------------------------------------------------


class Echo:
    """A backend that gives pieces back in capitals; ``log`` has the sizes of the batches."""

    source_positions = 1024

    def __init__(self):
        self.log = []

    def session(self, seed):
        return self

    def begin(self, sentences):
        self.log.append(len(sentences))

        def wait():
            return [[Hypothesis([p.upper() for p in pieces], -1.0, 2)] for pieces in sentences]

        return wait


class Letters:
    """A codec whose pieces are the letters of a line."""

    def encode_batch(self, lines):
        return [list(line) for line in lines]

    def cut(self, pieces, longest):
        return pieces[:longest]

    def decode_batch(self, sentences):
        return ["".join(pieces) for pieces in sentences]


def echo(longest=100):
    return Teacher(Letters(), Echo(), Decoding(), longest=longest, cut=True)


def translated(pipe, teacher, policies=Policies()):
    return translate_stream(pipe.input, teacher, policies, workers=1)


@settings(deadline=None)
@given(st.lists(st.text("ab ", max_size=9), max_size=60), st.integers(1, 7))
def test_as_many_lines_out_as_in_and_in_order(lines, size):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream, "SHARD_LINES", size)
        pipe = Pipe("".join(line + "\n" for line in lines).encode())
        out = [found[0].text for many, _ in translated(pipe, echo()) for found in many]
    assert out == [line.strip().upper() for line in lines]


def test_a_line_is_answered_before_the_next_one_comes():
    pipe = Pipe()
    answers = translated(pipe, echo())
    for line in (b"a\n", b"\n", b"b\nc\n"):
        pipe.write(line)
        given, _ = next(answers)  # would wait for ever for more lines
        texts = [found[0].text for found in given]
        while len(texts) < line.count(b"\n"):
            texts += [found[0].text for found in next(answers)[0]]
        assert texts == line.decode().upper().split("\n")[:-1]
    pipe.close()
    assert list(answers) == []


def test_empty_lines_without_end_do_not_hold_up_the_line_before_them(monkeypatch):
    monkeypatch.setattr(stream, "SHARD_LINES", 1)
    monkeypatch.setattr(stream, "SHARDS_AHEAD", 5)
    pipe = Pipe(b"a\n" + b"\n" * 5000)
    answers = translated(pipe, echo())
    assert next(answers)[0][0][0].text == "A"
    assert pipe.input.lines <= 6


def test_line_numbers_of_special_lines_are_those_of_the_input(monkeypatch):
    monkeypatch.setattr(stream, "SHARD_LINES", 2)
    pipe = Pipe(b"a\n\nabcdef\nb\n\n")
    rows = [(row.line, row.what) for _, rows in translated(pipe, echo(longest=4)) for row in rows]
    assert rows == [(2, "empty source"), (3, "too long"), (5, "empty source")]


def test_lines_before_one_that_is_not_utf8_are_translated():
    pipe, seen = Pipe(b"a\nb\n\xff\n"), []
    with pytest.raises(ValueError, match="line 3: not UTF-8"):
        for many, _ in translated(pipe, echo()):
            seen += [found[0].text for found in many]
    assert seen == ["A", "B"]


def test_lines_that_have_come_are_translated_together():
    teacher = echo()
    pipe = Pipe()
    pipe.write(b"a\nb\nc\n")
    pipe.close()
    list(translated(pipe, teacher))
    assert teacher.backend.log == [3]


# -- what is written -----------------------------------------------------------------------


def test_scores_follow_a_tab_and_candidates_are_in_the_format_of_moses():
    found = [[Candidate("a b", -3.0, 4), Candidate("a", -4.0, 2)], [Candidate("")] * 2]
    assert format_lines(7, found, 1, False) == "a b\n\n"
    assert format_lines(7, found, 1, True) == "a b\t-0.750000\n\t0.000000\n"
    assert format_lines(7, found, 2, False).split("\n")[::2] == [
        "7 ||| a b ||| logprob= -3.0000 pieces= 4 ||| -0.750000",
        "8 |||  ||| logprob= 0.0000 pieces= 0 ||| 0.000000",
        "",
    ]


def test_a_name_comes_before_the_first_equals_sign_unless_that_is_a_folder(tmp_path):
    assert name_and_folder("general student=a/b=c") == ("general student", "a/b=c")
    assert name_and_folder("a/b") == ("a/b", "a/b")
    (tmp_path / "x=y").mkdir()
    assert name_and_folder(f"{tmp_path}/x=y") == (f"{tmp_path}/x=y",) * 2
    for wrong in ("=a", "a=", " =a"):
        with pytest.raises(ValueError, match="--model takes NAME=DIR"):
            name_and_folder(wrong)


# -- marks ---------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.text("ab 猫犬.", max_size=12), st.text("ab 猫犬.", max_size=12))
def test_the_parts_of_a_comparison_are_the_text_and_equal_texts_have_no_marks(text, other):
    parts = differences(text, other)
    assert "".join(part["text"] for part in parts) == text
    marked = any("differs" in part or "missing" in part for part in parts)
    if text == other:
        assert not marked
    if not marked:
        assert text.split() == other.split()


@pytest.mark.parametrize("text, other, expected", [
    ("the cat", "the dog", [{"text": "the "}, {"text": "cat", "differs": True}]),
    ("the cat", "the black cat",
     [{"text": "the "}, {"text": "", "missing": "black"}, {"text": "cat"}]),
    ("the black cat", "the cat",
     [{"text": "the "}, {"text": "black ", "differs": True}, {"text": "cat"}]),
    ("我爱猫", "我爱犬", [{"text": "我爱"}, {"text": "猫", "differs": True}]),
    ("cat.", "cat!", [{"text": "cat"}, {"text": ".", "differs": True}]),
    ("a dog in it", "a cat on it",
     [{"text": "a "}, {"text": "dog in", "differs": True}, {"text": " it"}]),
    ("a x", "a, y", [{"text": "a"}, {"text": "", "missing": ","}, {"text": " "},
                     {"text": "x", "differs": True}]),
    ("", "cat", [{"text": "", "missing": "cat"}]),
    ("a  b", "a b", [{"text": "a"}, {"text": "  "}, {"text": "b"}]),
])  # fmt: skip
def test_words_that_differ_and_words_left_out_are_marked(text, other, expected):
    assert differences(text, other) == expected


# -- requests ------------------------------------------------------------------------------

MODELS = {"one": "the first", "two": "the second"}


def test_a_request_may_leave_out_all_but_the_text():
    wish = read_wish(b'{"text": "a\\n\\nb\\n"}', MODELS, 4)
    assert wish.lines == ["a", "", "b"]
    assert (wish.models, wish.beam, wish.n_best) == (["the first", "the second"], 4, 1)
    wish = read_wish(b'{"text": "a", "models": ["two", "two"], "beam": 2, "nbest": 2}', MODELS, 4)
    assert (wish.models, wish.beam, wish.n_best) == (["the second"], 2, 2)


@pytest.mark.parametrize("data, status, words", [
    (b"", 400, "not JSON"),
    (b"{", 400, "not JSON"),
    (b"[" * 100_000, 400, "not JSON"),
    (b'{"text": ' + b"9" * 5000 + b"}", 400, "not JSON"),
    (b'{"text": "\xff"}', 400, "not UTF-8 at byte 11"),
    (b'"text"', 400, "not a JSON object"),
    (b"{}", 400, "text is empty"),
    (b'{"text": " \\n "}', 400, "text is empty"),
    (b'{"text": 3}', 400, "text is empty"),
    (b'{"text": "a\\ud800"}', 400, "character 2 of text is half a character"),
    (b'{"text": "a", "txt": 1}', 400, "'txt' is unknown; there are text, models"),
    (b'{"text": "a", "beam": 0}', 400, "beam is a whole number from 1 to 20, not 0"),
    (b'{"text": "a", "beam": 21}', 400, "from 1 to 20, not 21"),
    (b'{"text": "a", "beam": true}', 400, "beam is a whole number"),
    (b'{"text": "a", "beam": 2.0}', 400, "beam is a whole number"),
    (b'{"text": "a", "beam": null}', 400, "beam is a whole number"),
    (b'{"text": "a", "beam": "5"}', 400, "beam is a whole number"),
    (b'{"text": "a", "nbest": 11, "beam": 20}', 400, "nbest is a whole number from 1 to 10"),
    (b'{"text": "a", "nbest": 3, "beam": 2}', 400, "a beam of 2 finds 2 translations, not the 3"),
    (b'{"text": "a", "models": []}', 400, "models is a list of names"),
    (b'{"text": "a", "models": "one"}', 400, "models is a list of names"),
    (b'{"text": "a", "models": ["../one"]}', 400, "no model '../one'; there are one, two"),
    (b'{"text": "a", "models": [{}]}', 400, "no model of that name"),
])  # fmt: skip
def test_a_request_that_is_wrong_is_refused_in_words(data, status, words):
    with pytest.raises(Refused) as refused:
        read_wish(data, MODELS, 5)
    assert refused.value.status == status
    assert words in refused.value.sentence


def test_as_much_text_as_the_limits_say_is_taken_and_no_more():
    def wish(text):
        return read_wish(json.dumps({"text": text}).encode(), MODELS, 5)

    most = "\U0001f600" * service.MOST_CHARACTERS
    assert wish(most).lines == [most]
    assert len(json.dumps({"text": most})) < service.MOST_BYTES, "the body's limit comes first"
    lines = "a\n" * service.MOST_LINES
    assert len(wish(lines).lines) == service.MOST_LINES
    for text, words in ((most + "a", "5,001 characters"), (lines + "a", "51 lines")):
        with pytest.raises(Refused) as refused:
            wish(text)
        assert refused.value.status == 413
        assert words in refused.value.sentence


@pytest.mark.parametrize("host, known", [
    ("localhost", True), ("localhost:8080", True), ("LOCALHOST:8080", True),
    ("127.0.0.1:8080", True), ("[::1]:8080", True), ("10.0.0.7", True),
    ("evil.example", False), ("evil.example:8080", False), ("localhost.evil.example", False),
    ("127.0.0.1.evil.example", False), ("", False), ("localhost:8080:1", False),
])  # fmt: skip
def test_the_service_answers_to_numbers_and_its_own_names(host, known):
    assert host_is_known(host, ("localhost",)) is known


# -- turns ---------------------------------------------------------------------------------


def test_requests_take_turns_and_too_many_are_sent_away(monkeypatch):
    monkeypatch.setattr(service, "WAITING", 1)
    desk, inside, order = Desk(), threading.Event(), []
    leave = threading.Event()

    def first():
        with desk.turn(time.monotonic() + 60):
            inside.set()
            leave.wait(60)
            order.append("first")

    def second():
        with desk.turn(time.monotonic() + 60):
            order.append("second")

    threads = [threading.Thread(target=first)]
    threads[0].start()
    inside.wait(60)
    threads.append(threading.Thread(target=second))
    threads[1].start()
    while desk.present < 2:
        time.sleep(0.001)
    with pytest.raises(Refused) as refused, desk.turn(time.monotonic() + 60):
        pass
    assert refused.value.status == 503
    leave.set()
    for thread in threads:
        thread.join()
    assert order == ["first", "second"]
    assert desk.present == 0
    with desk.turn(time.monotonic()):  # both places are free again
        pass


def test_nobody_waits_longer_than_to_the_deadline():
    desk = Desk()
    with desk.turn(time.monotonic() + 60):
        with pytest.raises(Refused) as refused, desk.turn(time.monotonic() - 1):
            pass
    assert refused.value.status == 503
    assert desk.present == 0


def test_models_of_other_languages_are_no_company():
    def model(name, *languages):
        return SimpleNamespace(name=name, translator=SimpleNamespace(languages=languages))

    models = [model("a", "de", "en"), model("b", None, None), model("c", "ru", "en")]
    assert service._languages(models[:2]) == ("de", "en")
    with pytest.raises(ValueError, match="a translates de-en and c ru-en"):
        service._languages(models)


# -- a run's models ------------------------------------------------------------------------


@pytest.fixture
def work(tmp_path):
    """A work folder with a plan for the domain talks, and everything exported."""
    rows = [
        row("teacher", "of teacher", "teacher/general", "teacher"),
        row("adapted teacher", "of adapted teacher", "teacher/talks", "adapted-teacher"),
        row("general student R", "of R", "student/tiny/references/general", "references"),
        row("general student D", "of D", "student/tiny/distilled/general", "distilled"),
        *(row(number, f"of {number}", f"student/tiny/{number}/talks") for number in "197"),
    ]
    (tmp_path / "plan").mkdir()
    plan = {"source_lang": "de", "target_lang": "en", "domains": ["talks"], "sizes": ["tiny"]}
    write_json(tmp_path / "plan" / "run.json", plan)
    write_text(tmp_path / "plan" / "talks.rows.tsv", map("\t".join, [COLUMNS, *rows]))
    for *_, path, _, _, _, _ in rows:
        folder = tmp_path / "exported" / path
        folder.mkdir(parents=True)
        (folder / "model.bin").touch()
    return tmp_path


def score(work, path, bleu):
    folder = work / "scores" / "talks" / path
    folder.mkdir(parents=True)
    entry = {"talks": {"beam": {"bleu": {"score": bleu}}}}
    (folder / "scores.json").write_text(json.dumps({"test_sets": entry}))


def train(work, path, dev, on="a"):
    """A student with a log and a record of its training, as far as the choice needs them."""
    folder = work / path
    folder.mkdir(parents=True)
    entry = {"valid_bleu_greedy": str(dev), "valid_num_updates": "10"}
    (folder / "log.txt").write_text(f"x | INFO | valid | {json.dumps(entry)}\n")
    write_json(folder / "manifest.json", {"counts": {"updates": 10}})
    inputs = {"bin/valid.en": {"sha256": on}}
    write_json(folder / "stage.json", {"command": ["train.sh", "--data", "bin"], "inputs": inputs})


def names(work, **options):
    return [name for name, _, _ in models_of_run(work, **options)]


def test_of_a_run_teacher_general_student_and_the_best_student_are_shown(work):
    assert names(work) == ["adapted teacher", "general student D", "student 7"]
    score(work, "student/tiny/1/talks", 10.0)
    score(work, "student/tiny/9/talks", 12.0)
    said = []
    found = models_of_run(work, "talks", said.append)
    folder = work / "exported" / "student/tiny/9/talks"
    assert found[2] == ("student 9", folder, "of 9")
    assert said == ["no dev BLEU is known, so the test set chose: student 9 has the highest BLEU "
                    "of 3 students of talks"]  # fmt: skip


def test_the_dev_set_chooses_the_student_whatever_the_test_set_says(work):
    for number, dev, bleu in (("1", 20.0, 10.0), ("9", 19.0, 12.0)):
        train(work, f"student/tiny/{number}/talks", dev)
        score(work, f"student/tiny/{number}/talks", bleu)
    said = []
    assert names(work, say=said.append)[2] == "student 1"
    assert said == ["student 1 has the highest dev BLEU of 3 students of talks: 20.0"]


def test_what_a_run_has_not_exported_yet_is_left_out_and_named(work):
    (work / "exported/teacher/talks/model.bin").unlink()
    assert names(work)[0] == "teacher"
    (work / "exported/teacher/general/model.bin").unlink()
    said = []
    assert names(work, say=said.append) == ["general student D", "student 7"]
    assert said == [f"{work} has no exported teacher yet"]
    for path in work.glob("exported/**/model.bin"):
        path.unlink()
    with pytest.raises(FileNotFoundError, match="none of the models of talks"):
        models_of_run(work)


def test_a_folder_that_is_no_run_is_named_with_what_it_lacks(work):
    with pytest.raises(FileNotFoundError, match="there is no folder .*nowhere"):
        models_of_run(work / "nowhere")
    with pytest.raises(FileNotFoundError, match="student holds no run"):
        models_of_run(work / "exported" / "student")
    with pytest.raises(ValueError, match="no domain 'news'; there are talks"):
        models_of_run(work, "news")
    plan = read_json(work / "plan" / "run.json")
    write_json(work / "plan" / "run.json", {**plan, "domains": ["talks", "news"]})
    (work / "plan" / "news.rows.tsv").write_text("name\tlabel\nx\ty\n")
    with pytest.raises(ValueError, match="choose with --domain: news, talks"):
        models_of_run(work)
    with pytest.raises(ValueError, match=r"news.rows.tsv does not begin with a line of name"):
        models_of_run(work, "news")
