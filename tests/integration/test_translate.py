"""dad-translate as a filter: a line out for each line in, at once, with nothing but the model."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from data_prep.files import sha256
from data_prep.manifest import read_manifest
from data_prep.vocabulary import MODEL_FILE
from fairseq_plugins.generation.ctranslate2_backend import CTranslate2Backend
from fairseq_plugins.generation.decoding import DecodingFailed
from fairseq_plugins.generation.generate import generate
from fairseq_plugins.generation.nbest import read_nbest
from fairseq_plugins.serving.translate import main
from fairseq_plugins.serving.translator import Translator
from tests.fixtures.exported import exported_models
from tests.fixtures.models import read_text, toy_lines, write_text

ROOT = Path(__file__).parents[2]
# as where models are only used: neither of the two can be imported
ALONE = (
    "import sys; sys.modules['torch'] = sys.modules['fairseq'] = None; "
    "from fairseq_plugins.serving.translate import main; main()"
)
ODD_LINES = [
    "", "   ", "ba\u2028be", "ba\rbe", "ba\x85be\x0bbi\x0cbo", "\u3000\u00a0", "!?!...,;",
    "\U0001f600\U0001f680\u2764\ufe0f", "ba be\r", "ba " * 10_000, "</s> <s> <pad> <unk> <blank>",
    "\u200b", "\x00", "ba\tbe",
]  # fmt: skip
LINES = [*toy_lines(30, seed=5), *ODD_LINES, *toy_lines(5, seed=6)]


@pytest.fixture(autouse=True)
def handlers():
    """Puts signal handlers back, which commands take for themselves."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before):
        signal.signal(number, handler)


@pytest.fixture
def translate(monkeypatch, capfdbinary):
    """Runs the command: (exit status, bytes written, what was said)."""

    def call(*words, text=b""):
        reading, writing = os.pipe()

        def write():
            with open(writing, "wb") as file:
                file.write(text)

        threading.Thread(target=write, daemon=True).start()
        monkeypatch.setattr(sys, "argv", ["dad-translate", *map(str, words)])
        with open(reading) as stdin:
            monkeypatch.setattr(sys, "stdin", stdin)
            with pytest.raises(SystemExit) as ended:
                main()
        written = capfdbinary.readouterr()
        return ended.value.code or 0, written.out, written.err.decode()

    return call


@pytest.fixture
def alone():
    """Starts the command where fairseq and PyTorch are missing."""
    started = []

    def start(*words):
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", ALONE, *map(str, words)], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


def as_bytes(lines):
    return "".join(line + "\n" for line in lines).encode()


def test_the_filter_writes_what_dad_generate_writes_whatever_a_line_holds(translate, tmp_path):
    model = exported_models()[0]
    source = write_text(tmp_path / "source", LINES)
    generate([model], source, tmp_path / "out", beam=3, n_best=2, workers=1, calibration="off")
    status, out, said = translate("--model", model, "--beam", 3, text=source.read_bytes())
    assert status == 0
    assert out.decode() == (tmp_path / "out").read_text()
    assert out.count(b"\n") == len(LINES)
    number = LINES.index("ba " * 10_000) + 1
    assert f"line {number}: too long, only its first 250 pieces are translated" in said
    assert f"{len(LINES)} lines in, {len(LINES)} translated (4 empty, 1 cut)" in said
    _, out, _ = translate("--model", model, "--beam", 3, "--nbest", 2, text=source.read_bytes())
    assert out.decode() == (tmp_path / "out.nbest").read_text()


def test_candidates_are_read_by_what_reads_those_of_dad_generate(translate, tmp_path):
    status, out, _ = translate(
        "--model", exported_models()[0], "--n-best", 4, "--quiet", text=as_bytes(LINES)
    )
    (tmp_path / "nbest").write_bytes(out)
    assert [len(found) for found in read_nbest(tmp_path / "nbest")] == [4] * len(LINES)


def test_scores_are_those_of_the_candidates(translate, tmp_path):
    model, text = exported_models()[0], as_bytes(LINES[:20])
    _, out, _ = translate("--model", model, "--nbest", 2, text=text)
    (tmp_path / "nbest").write_bytes(out)
    _, scored, _ = translate("--model", model, "--scores", text=text)
    _, plain, _ = translate("--model", model, text=text)
    (tmp_path / "scored").write_bytes(scored)
    rows = [line.split("\t") for line in read_text(tmp_path / "scored")]
    assert [text for text, _ in rows] == plain.decode().split("\n")[:-1]
    best = [found[0].normalised for found in read_nbest(tmp_path / "nbest")]
    assert [float(score) for _, score in rows] == pytest.approx(best, abs=1e-4)


def test_settings_of_the_search_and_of_long_lines_are_heard(translate):
    model, text = exported_models()[0], as_bytes(toy_lines(20, seed=8, longest=12))
    _, beam, _ = translate("--model", model, text=text)
    _, greedy, _ = translate("--model", model, "--beam", 1, text=text)
    _, cut, said = translate("--model", model, "--max-source-pieces", 3, text=text)
    assert len({beam, greedy, cut}) == 3
    assert "only its first 3 pieces" in said
    for speed in (["--workers", 2], ["--threads", 2], ["--batch-tokens", 40],
                  ["--compute-type", "float32"], ["--device", "cpu"]):  # fmt: skip
        assert translate("--model", model, *speed, text=text)[:2] == (0, beam)


def test_no_line_is_named_when_all_shall_be_quiet(translate):
    text = as_bytes(["ba " * 400])
    assert translate("--model", exported_models()[0], "--quiet", text=text)[2] == ""


def test_of_many_long_lines_the_first_are_named_and_all_are_counted(translate):
    text = as_bytes(["ba be bi bo"] * 30)
    _, _, said = translate("--model", exported_models()[0], "--max-source-pieces", 2, text=text)
    assert said.count("too long") == 20
    assert "line 20: " in said and "no more lines are named" in said
    assert "(30 cut)" in said


def test_a_line_that_is_not_utf8_ends_the_work_after_the_lines_before_it(translate):
    model = exported_models()[0]
    _, before, _ = translate("--model", model, text=b"ba be\nbi\n")
    status, out, said = translate("--model", model, text=b"ba be\nbi\nb\xff\nbo\n")
    assert (status, out) == (1, before)
    assert "standard input, line 3: not UTF-8 (byte 0xff at column 2)" in said
    assert "2 lines in, 2 translated" in said


def test_where_the_decoder_gives_up_it_stops_or_leaves_the_line_empty(translate, monkeypatch):
    model, text = exported_models()[0], as_bytes(["ba be", "bi bo " * 40, "bo"])
    _, whole, _ = translate("--model", model, text=text)
    begin = CTranslate2Backend.begin

    def give_up_on_long_lines(self, translator, sentences):
        if len(sentences[0]) > 20:
            raise DecodingFailed("no memory")
        return begin(self, translator, sentences)

    monkeypatch.setattr(CTranslate2Backend, "begin", give_up_on_long_lines)
    status, out, said = translate("--model", model, text=text)
    assert (status, out) == (1, b"")
    assert "the decoder gave up on line 2" in said and "--on-fail drop" in said
    status, out, said = translate("--model", model, "--on-fail", "drop", text=text)
    first, _, last = whole.split(b"\n")[:-1]
    assert (status, out) == (0, first + b"\n\n" + last + b"\n")
    assert "line 2: the decoder gave up, the translation is empty" in said
    assert "3 lines in, 3 translated (1 failed)" in said


def test_no_input_gives_no_output(translate):
    status, out, said = translate("--model", exported_models()[0])
    assert (status, out) == (0, b"")
    assert "0 lines in, 0 translated" in said


@pytest.mark.parametrize("words, complaint", [
    (["--nbest", 2, "--scores"], "--nbest prints scores already"),
    (["--nbest", 3, "--beam", 2], "--beam 2 finds 2 translations, not the 3"),
    (["--nbest", 0], "--nbest is 1 or more, not 0"),
    (["--beam", 0], "--beam is 1 or more, not 0"),
    (["--workers", 0], "--workers is 1 or more, not 0"),
    (["--max-source-pieces", 5000], "--max-source-pieces 5000 is more than the"),
    (["--model", "other"], "name one --model, not 2"),
    (["--device", "cpu", "--compute-type", "float16"], "--compute-type float16 is for GPUs"),
    (["--port", 8081], "--port is for dad-translate with --serve"),
    (["--run", "work"], "--run is for dad-translate with --serve"),
    (["--serve", "--scores"], "--scores is for dad-translate without --serve"),
    (["--serve", "--nbest", 2], "--nbest is for dad-translate without --serve"),
    (["--source-prefix", "x"], "--source-prefix is for a folder that one of CTranslate2's"),
])  # fmt: skip
def test_wishes_that_do_not_go_together_are_refused(translate, words, complaint):
    status, out, said = translate("--model", exported_models()[0], *words)
    assert (status, out) == (1, b"")
    assert complaint in said


def test_a_folder_that_is_no_exported_model_is_named(translate, tmp_path):
    model = exported_models()[0]
    status, _, said = translate("--model", model.with_name("model1"))
    assert status == 1
    assert "holds model.pt, which needs fairseq; export it" in said
    status, _, said = translate("--model", tmp_path / "nowhere")
    assert (status, "is missing" in said) == (1, True)
    shutil.copytree(model, tmp_path / "other")
    (tmp_path / "other" / MODEL_FILE).write_bytes(b"changed")
    status, _, said = translate("--model", tmp_path / "other")
    assert (status, "is not the file that vocabulary.json records" in said) == (1, True)


def test_a_model_that_others_converted_translates_too(translate, tmp_path):
    model, text = exported_models()[0], as_bytes(LINES[:10])
    for name in ("model.bin", "config.json", "shared_vocabulary.json"):
        shutil.copyfile(model / name, tmp_path / name)
    for name in ("source.spm", "target.spm"):
        shutil.copyfile(model / MODEL_FILE, tmp_path / name)
    theirs = translate("--model", tmp_path, text=text)
    assert theirs[:2] == translate("--model", model, text=text)[:2]
    assert Translator(tmp_path).languages == (None, None)
    assert Translator(tmp_path).bytes == (tmp_path / "model.bin").stat().st_size
    counts = read_manifest(model)["counts"]
    ours = Translator(model)
    assert (ours.bytes, ours.parameters) == (counts["bytes"], counts["parameters"])


# -- alone ---------------------------------------------------------------------------------


def test_a_line_is_answered_at_once_without_fairseq_and_without_pytorch(alone):
    process = alone("--model", exported_models()[0])
    answers = []
    for line in (b"ba be\n", b"\n", b"bi bo\n"):
        process.stdin.write(line)
        process.stdin.flush()
        answers.append(process.stdout.readline())  # would wait for ever for more input
    out, said = process.communicate(b"bo")
    assert process.returncode == 0
    assert answers[1] == b"\n" and all(answer.endswith(b"\n") for answer in answers)
    assert out.endswith(b"\n") and out.count(b"\n") == 1
    assert b"4 lines in, 4 translated (1 empty)" in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_in_words_with_whole_lines(alone, number):
    process = alone("--model", exported_models()[0])
    process.stdin.write(b"ba be\nbi")
    process.stdin.flush()
    first = process.stdout.readline()
    process.send_signal(number)
    out, said = process.communicate()
    assert process.returncode == 128 + number
    assert first.endswith(b"\n") and out == b""
    assert b"stopped; 1 lines in, 1 translated" in said
    assert b"Traceback" not in said


def test_a_signal_while_lines_are_written_waits_for_their_end(alone):
    process = alone("--model", exported_models()[0], "--beam", "1")
    lines = as_bytes(toy_lines(3000))
    threading.Thread(target=process.stdin.write, args=(lines,), daemon=True).start()
    begin = process.stdout.read(1000)  # then nobody reads, until it must wait for that
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    out = begin + process.stdout.read()
    assert process.wait() == 128 + signal.SIGTERM
    assert out.endswith(b"\n")
    written = out.count(b"\n")
    assert f"{written:,} translated".encode() in process.stderr.read()


def test_a_reader_that_has_enough_ends_it_quietly(alone):
    process = alone("--model", exported_models()[0])
    process.stdin.write(b"ba be\n")
    process.stdin.flush()
    process.stdout.readline()
    process.stdout.close()
    process.stdin.write(b"ba be\n")
    process.stdin.flush()
    assert process.wait() == 141
    assert process.stderr.read() == b""


def test_the_model_is_only_read(translate):
    model = exported_models()[0]
    before = {path.name: sha256(path) for path in model.iterdir()}
    translate("--model", model, text=b"ba\n")
    assert {path.name: sha256(path) for path in model.iterdir()} == before
