"""Speeds of sizes that were not measured, and where speeds are taken from."""

import json
from pathlib import Path

import pytest

from data_prep.manifest import read_json, write_json
from data_prep.model_sizes import SIZES
from data_prep.pipeline import known_rates
from data_prep.pipeline.rates import Rates, Speed, arithmetic, read_rates
from tests.fixtures.planned import finish, raw_text, stages

HERE = {"cpu": "a processor", "cores": 2, "memory_bytes": 8e9, "gpus": []}
REFERENCE = next(known_rates.REFERENCES.glob("*.json"))


def test_a_larger_model_vocabulary_or_beam_is_more_arithmetic():
    assert arithmetic("large", 8000) > arithmetic("small", 8000) > arithmetic("tiny", 8000)
    assert arithmetic("small", 30000) > arithmetic("small", 8000)
    assert arithmetic("small", 8000, 5) > 3 * arithmetic("small", 8000)


def test_a_shallow_decoder_decodes_cheaply():
    deep, shallow = (arithmetic(size, 8000, 12) for size in ("large", "medium_12_1"))
    assert shallow < 0.5 * deep


def test_what_was_measured_is_kept():
    speed = Speed({("small", 8000, 1): 1e-3, ("large", 8000, 1): 9e-3, ("tiny", 8000, 1): 8e-4})
    assert speed.seconds("small", 8000) == pytest.approx(1e-3)


def test_other_sizes_lie_on_a_power_law_through_what_was_measured():
    made = {(size, 8000, 1): 1e-6 * arithmetic(size, 8000) ** 0.8 for size in ("tiny", "large")}
    speed = Speed(made)
    for size in SIZES:
        assert speed.seconds(size, 8000) == pytest.approx(1e-6 * arithmetic(size, 8000) ** 0.8)
    assert speed.error() == pytest.approx(1)


def test_one_measurement_gives_seconds_in_proportion():
    speed = Speed({("small", 8000, 1): 1e-3})
    ratio = arithmetic("large", 8000) / arithmetic("small", 8000)
    assert speed.seconds("large", 8000) == pytest.approx(1e-3 * ratio)


def test_nothing_measured_is_nothing_known():
    assert Speed().seconds("small", 8000) is None
    assert Rates("", 1).train("small", 8000) is None
    assert Rates("", 1).decode("small", 8000, 5, "ctranslate2", "int8") is None


def test_the_error_is_that_of_the_size_that_fits_worst():
    made = {(size, 8000, 1): 1e-6 * arithmetic(size, 8000) for size in ("tiny", "small", "large")}
    made["small", 8000, 1] *= 2
    assert 1.2 < Speed(made).error() < 2


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DAD_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "cache" / "calibration.json"


def calibration(path, **other):
    write_json(path, read_json(REFERENCE) | {
        "machine": HERE, "date": "2026-01-02", "load_before": 0.1,
    } | other)  # fmt: skip


def test_a_calibration_of_this_machine_is_used(cache):
    calibration(cache)
    found = known_rates.find([], HERE, 8000)
    assert found.is_calibrated and found.rates.spread == known_rates.MEASURED
    assert "this machine" in found.words and "2026-01-02" in found.words
    assert found.notes == ()


@pytest.mark.parametrize("other", [{"cores": 64}, {"cpu": "another"}, {"gpus": ["NVIDIA H200"]}])
def test_a_calibration_of_another_machine_is_said_and_not_used(cache, other):
    calibration(cache, machine=HERE | other)
    found = known_rates.find([], HERE, 8000)
    assert not found.is_calibrated and "is of another machine" in found.notes[0]
    assert str(cache) in found.notes[0] and "another machine" in found.words


def test_a_machine_that_was_busy_is_said_to_have_been(cache):
    calibration(cache, load_before=1.5)
    assert "was busy" in known_rates.find([], HERE, 8000).notes[0]


def test_without_anything_the_reference_is_used_and_said_to_be_another_machine(cache):
    found = known_rates.find([], HERE, 8000)
    assert found.words.startswith("as on another machine, 2 cores of an AMD EPYC")
    assert found.rates.spread == known_rates.ELSEWHERE and not found.is_calibrated


def test_on_a_gpu_that_nobody_measured_that_is_said(cache):
    found = known_rates.find([], HERE | {"gpus": ["NVIDIA H200"]}, 8000)
    assert "of the NVIDIA H200 is not known" in found.words
    assert found.rates.device == "cpu"


def test_with_no_reference_nothing_is_known(cache, monkeypatch, tmp_path):
    monkeypatch.setattr(known_rates, "REFERENCES", tmp_path / "none")
    found = known_rates.find([], HERE, 8000)
    assert found.rates is None and "nothing was measured" in found.words


def finished_teacher(tmp_path, **record):
    raw = {name: raw_text(tmp_path / "raw" / name) for name in ("general", "medical")}
    made = stages(raw)
    for stage in made[:6]:
        finish(stage, **record)
    entries = [{"wps": "0", "num_updates": "1"}] + [{"wps": str(w)} for w in (900, 1000, 5000)]
    log = "".join(f"2026 | INFO | train_inner | {json.dumps(entry)}\n" for entry in entries)
    Path("teacher/general/log.txt").write_text(log)
    return made


def test_finished_stages_tell_the_speed_of_this_machine(cache, tmp_path):
    made = finished_teacher(tmp_path)
    found = known_rates.find(made, HERE, 2000)
    assert "finished stages of this run" in found.words
    assert found.rates.train("small", 2000) == pytest.approx(1e-3)
    reference = read_rates(REFERENCE, "", 1)
    factor = 1e-3 / reference.train("small", 2000)
    assert found.rates.train("large", 8001) == pytest.approx(
        factor * reference.train("large", 8001), rel=0.01
    )


def test_finished_stages_of_another_machine_tell_nothing(cache, tmp_path):
    made = finished_teacher(tmp_path, machine=HERE | {"cores": 96})
    assert "another machine" in known_rates.find(made, HERE, 2000).words


@pytest.mark.parametrize("text", ["{}", '{"format": 0}', '{"format": 1}', "[1]"])
def test_a_damaged_calibration_is_an_error_that_says_what_to_do(tmp_path, text):
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(ValueError, match="dad-calibrate again"):
        read_rates(tmp_path / "c.json", "", 1)


def test_a_calibration_of_another_format_is_refused(tmp_path):
    write_json(tmp_path / "c.json", read_json(REFERENCE) | {"format": 2})
    with pytest.raises(ValueError, match="of this version"):
        read_rates(tmp_path / "c.json", "", 1)


def test_the_shipped_reference_is_whole_and_says_whose_it_is():
    record = read_json(REFERENCE)
    assert record["machine"]["cpu"] == "AMD EPYC" and record["machine"]["cores"] == 2
    rates = read_rates(REFERENCE, "", 1)
    for size in SIZES:
        assert rates.train(size, 30000) > 0
        assert rates.decode(size, 30000, 12, "ctranslate2", "float32") > 0
        assert rates.decode(size, 30000, 1, "fairseq", "float32") > 0
    assert rates.text.keys() == {"clean", "vocabulary", "encode", "overlap"}
