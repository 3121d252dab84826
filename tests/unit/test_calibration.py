"""What calibration chooses, with made-up speeds."""

import pytest

from fairseq_plugins.generation import calibration
from fairseq_plugins.generation.backends import Choice
from fairseq_plugins.generation.calibration import Speed, calibrate

START = Speed("float32", 4, 1, 1024)
LINES = ["a"] * 5000


class Codec:
    def encode_batch(self, lines):
        return [["a"] * 99 for _ in lines]


@pytest.fixture
def run(monkeypatch):
    """Calibrate with a function that gives (sentences per second, score) of settings."""

    def run(speeds, given=(), lines=1_000_000):
        measured, said = [], []

        def measure(choice, speed, decoding, codec, sample, longest):
            rate, score = speeds(speed)
            measured.append(speed)
            return {"sentences_per_second": rate, "score": score, "seconds": len(sample) / rate}

        monkeypatch.setattr(calibration, "_measure", measure)
        monkeypatch.setattr(calibration, "usable_cores", lambda: 4)
        monkeypatch.setattr(Choice, "compute_types", lambda self: ("float32", "int8"))
        choice = Choice("ctranslate2", "cpu", "float32", [], False)
        best, record = calibrate(
            choice, START, set(given), None, Codec(), LINES, lines, None, said.append
        )
        return best, record, measured, said

    return run


def rate(speed):
    """int8, two workers and batches of 2,048 pieces are best."""
    return (
        100
        * (1.3 if speed.compute_type == "int8" else 1)
        * (1.2 if speed.workers == 2 else 1)
        * (1.1 if speed.batch_tokens == 2048 else 1)
    )


def test_what_is_clearly_faster_is_taken(run):
    best, record, _, said = run(lambda speed: (rate(speed), -0.5))
    assert best == Speed("int8", 2, 2, 2048)
    assert said == [
        "calibrated on 250 lines in 11 s: int8, 2 workers with 2 threads each, batches of 2,048 "
        "pieces (compute type int8: 1.30×; workers 2, threads 2: 1.20×; batch tokens 2048: "
        "1.10×); 172 sentences/s"
    ]
    assert {"compute_type", "workers", "sentences_per_second"} <= record[0].keys()


def test_what_the_user_has_set_is_left_alone(run):
    given = {"compute_type", "workers", "threads", "batch_tokens"}
    for name in given:
        best, _, measured, _ = run(lambda speed: (rate(speed), -0.5), given={name})
        assert {getattr(speed, name) for speed in measured} == {getattr(START, name)}
        assert best != START
    assert run(lambda speed: (rate(speed), -0.5), given=given)[0] == START


def test_a_difference_that_may_be_chance_changes_nothing(run):
    best, *_, said = run(lambda speed: (102 if speed.compute_type == "int8" else 100, -0.5))
    assert best == START and "nothing else was faster" in said[0]


def test_arithmetic_that_loses_quality_is_not_taken(run):
    best, *_, said = run(
        lambda speed: (rate(speed), -0.6 if speed.compute_type == "int8" else -0.5)
    )
    assert best == Speed("float32", 2, 2, 2048)
    assert "int8 loses 0.100 nats per piece" in said[0]


def test_a_short_run_is_not_worth_a_calibration(run):
    best, record, measured, said = run(lambda speed: (rate(speed), -0.5), lines=3000)
    assert best == START and record == [] and len(measured) == 2
    assert "3,000 lines take about 30 s, not worth a calibration" in said[0]


def test_it_takes_no_more_than_a_share_of_the_run(run):
    lines = 12_000  # 120 s at 100 sentences/s: 12 s may go into it, 2.5 s in each measurement
    _, _, measured, _ = run(lambda speed: (100, -0.5), lines=lines)
    assert len(measured) - 2 == 5


def test_batches_that_are_too_large_for_the_sample_are_not_tried(run):
    _, _, measured, _ = run(lambda speed: (rate(speed), -0.5))
    # 250 lines of 100 pieces: four batches of 4,096 for each of two workers are more
    assert {speed.batch_tokens for speed in measured} == {512, 1024, 2048}
