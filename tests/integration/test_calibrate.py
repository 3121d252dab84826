"""dad-calibrate on the smallest model there is, with the real commands."""

import ast
import os
import subprocess
import sys

import pytest

from data_prep.manifest import machine, read_json
from data_prep.pipeline import calibration, known_rates
from tests.fixtures.toy_chain import ROOT
from tests.fixtures.warm import warm_commands


@pytest.fixture
def calibrate(tmp_path, monkeypatch, capsys):
    """Call dad-calibrate in a cache of its own; (what it printed, its file)."""
    monkeypatch.setenv("PATH", f"{warm_commands().folder}:{os.environ['PATH']}")
    monkeypatch.setenv("DAD_CACHE", str(tmp_path))

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["dad-calibrate", *words])
        with pytest.raises(SystemExit) as ended:
            calibration.main()
        assert ended.value.code in (0, None), capsys.readouterr().err
        return capsys.readouterr().out, tmp_path / "calibration.json"

    return call


def test_it_measures_training_decoding_and_text_and_a_plan_believes_it(calibrate, monkeypatch):
    # sharing is a second training, and other decodings are other flags
    monkeypatch.setattr(calibration, "_sharing", lambda *about: 0.8)
    monkeypatch.setitem(calibration.DECODING, "cpu", (("ctranslate2", "int8", 2),))
    monkeypatch.setattr(calibration, "LINES", {"ctranslate2": 20})
    said, path = calibrate("--sizes", "miniature", "--seconds", "1", "--vocabulary-size", "300",
                           "--pairs", "800")  # fmt: skip
    record = read_json(path)
    (training,), (decoding,) = record["training"], record["decoding"]
    assert training["size"] == decoding["size"] == "miniature" and training["updates"] > 0
    assert training["vocabulary"] == pytest.approx(300, abs=10)
    assert 10 < training["tokens_per_second"] < 1e7 and training["peak_memory_bytes"] > 0
    assert decoding["tokens_per_second"] > 1 and decoding["beam"] == 2
    assert all(rate > 0 for rate in record["text"].values())
    assert record["machine"] == machine() and record["versions"]["python"] and record["date"]
    assert "training miniature" in said and str(path) in said
    found = known_rates.find([], machine(), 300)
    assert found.is_calibrated
    assert found.rates.train("miniature", training["vocabulary"]) == pytest.approx(
        1 / training["tokens_per_second"]
    )


def test_a_size_that_there_is_not_is_refused_before_the_work(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["dad-calibrate", "--sizes", "tiny,huge"])
    with pytest.raises(SystemExit) as ended:
        calibration.main()
    assert ended.value.code == 1 and "no size 'huge'" in capsys.readouterr().err


def test_a_command_that_fails_is_named_with_what_it_said(tmp_path):
    with pytest.raises(ValueError, match="sh failed: .*out of order"):
        calibration._call(["sh", "-c", "echo out of order; exit 3"])
    with pytest.raises(ValueError, match="not on PATH"):
        calibration._call(["no-such-command"])


def test_time_and_memory_of_a_command_are_those_of_that_command():
    script = "x = bytearray(300_000_000); print('done')"
    words = [sys.executable, "-I", "-S", "-c", script]
    # in a process of its own: the system counts what the caller held when it called, too
    calling = f"from data_prep.pipeline import calibration; print(calibration._call({words!r}))"
    said = subprocess.run([sys.executable, "-c", calling], capture_output=True, text=True, cwd=ROOT)
    seconds, peak, lines = ast.literal_eval(said.stdout)
    assert lines[0] == "done" and 3e8 < peak < 6e8 and seconds > 0
