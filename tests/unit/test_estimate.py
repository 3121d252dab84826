"""What stages cost, from their words, their text and the speed of a machine."""

import gzip
from dataclasses import replace
from pathlib import Path

import pytest
from backports import zstd

from data_prep.manifest import write_json
from data_prep.pipeline import estimate
from data_prep.pipeline.estimate import (
    Estimator,
    Text,
    characters_in_piece,
    flags,
    training_memory,
)
from data_prep.pipeline.graph import PlannedStage
from data_prep.pipeline.rates import Rates, Speed, arithmetic
from tests.fixtures.planned import raw_text, stages

ROOT = Path(__file__).resolve().parents[2]
RATES = Rates(
    "made up", 1.0, "cpu", {"fp32": Speed({("small", 2000, 1): 1e-3})},
    {("ctranslate2", "float32"): Speed({("small", 2000, 5): 1e-4}),
     ("fairseq", "float32"): Speed({("small", 2000, 1): 1e-3})},
    {"clean": 1000, "vocabulary": 1000, "encode": 1000, "overlap": 1000}, start=2.0,
)  # fmt: skip


@pytest.fixture
def raw(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return {name: raw_text(tmp_path / "raw" / name) for name in ("general", "medical")}


def cost(made, out, rates=RATES, **options):
    found = Estimator(made, ("de", "en"), rates, **options)
    return found.of(next(stage for stage in made if stage.out == out))


def teacher(raw, *words):
    return cost(stages(raw, teacher=words), "teacher/general")


@pytest.mark.parametrize(
    ("command", "flag", "value"),
    [
        ("train.sh --lr 1 --updates 5", "--updates", "5"),
        ("train.sh --updates 5 --updates 7", "--updates", "7"),
        ("train.sh --updates 5 -- --max-update 9", "--max-update", "9"),
        ("clean --held-out a --held-out b", "--held-out", "b"),
    ],
)
def test_the_last_value_of_a_flag_counts(command, flag, value):
    assert flags(command.split())[flag] == value


def test_twice_the_updates_take_twice_as_long(raw):
    start = 2 * RATES.start
    once, twice = teacher(raw, "--updates", "100"), teacher(raw, "--updates", "200")
    assert twice.high - start == pytest.approx(2 * (once.high - start))


def test_without_patience_all_updates_are_made_and_nothing_is_left_to_chance(raw):
    found = teacher(raw)
    assert found.low == found.high and found.limit is None


def test_patience_makes_a_range_below_the_limit_of_updates(raw):
    found = teacher(raw, "--patience", "3", "--updates", "100000")
    assert 0 < found.low < found.high < found.limit


def test_a_training_that_patience_cannot_end_sooner_makes_all_updates(raw):
    found = teacher(raw, "--patience", "3", "--updates", "2")
    assert found.low == found.high and found.limit is None


def test_more_frequent_validation_takes_longer(raw):
    assert teacher(raw, "--epoch-fraction", "0.1").high > teacher(raw).high


def test_validation_decodes_greedily_and_with_the_beam(raw):
    without, greedy, both = (teacher(raw, "--valid-beam", beam).high for beam in "015")
    wider = arithmetic("small", 2000, 5) / arithmetic("small", 2000)
    assert greedy > without
    assert both - without == pytest.approx((1 + wider) * (greedy - without))


@pytest.mark.parametrize("words", [("--loss", "sequence-risk"), ("--adapt", "anchored=0.2")])
def test_a_dearer_loss_takes_longer(raw, words):
    assert teacher(raw, *words).high > teacher(raw).high


def test_a_flag_for_fairseq_wins(raw):
    assert teacher(raw, "--", "--max-update", "10") == replace(
        teacher(raw, "--updates", "10"), limit=None
    )


def test_a_stopped_training_has_less_to_do(raw):
    whole = teacher(raw)
    Path("teacher").mkdir()
    Path("teacher/general.log").write_text('x {"num_updates": "10"}\ny {"num_updates": "75"}\n')
    start = 2 * RATES.start
    assert teacher(raw).high - start == pytest.approx(0.25 * (whole.high - start))


def test_the_spread_widens_both_ends(raw):
    made = stages(raw)
    narrow = cost(made, "teacher/general")
    wide = cost(made, "teacher/general", replace(RATES, spread=2.0))
    assert (wide.low, wide.high) == (narrow.low / 2, narrow.high * 2)


def test_distilling_takes_as_long_as_its_text(raw):
    made = stages(raw)
    short = cost(made, "distilled/general/general").high
    raw_text(raw["general"].parent / "longer", train=600)
    made = stages(raw | {"general": raw["general"].parent / "longer"})
    start = 4 * RATES.start
    assert cost(made, "distilled/general/general").high - start == pytest.approx(
        2 * (short - start)
    )


@pytest.mark.parametrize(
    ("words", "more_time", "more_disk"),
    [
        (("--beam", "10"), True, False),
        (("--n-best", "8"), True, True),
        (("--targets", "best-of-8-chrf"), True, True),
        (("--targets", "mbr-16-chrf"), True, True),
    ],
)
def test_what_a_teacher_is_asked_for_is_counted(raw, words, more_time, more_disk):
    made = stages(raw)
    plain = cost(made, "distilled/general/general")
    number, stage = next((n, s) for n, s in enumerate(made) if s.kind == "distil")
    made[number] = replace(stage, command=(*stage.command, *words))
    found = cost(made, "distilled/general/general")
    assert (found.high > plain.high, found.disk > plain.disk) == (more_time, more_disk)


def test_without_rates_no_time_is_known_but_memory_and_disk_are(raw):
    for stage in stages(raw):
        found = cost(stages(raw), stage.out, rates=None)
        assert found.high is None
    found = cost(stages(raw), "teacher/general", rates=None)
    assert found.memory > 1e8 and found.disk > 1e6 and found.unknown == "nothing is measured"


def test_on_a_gpu_that_nobody_measured_models_have_no_time_and_text_has(raw):
    made = stages(raw)
    found = cost(made, "teacher/general", on_gpu=True)
    assert (found.high, found.on, found.unknown) == (None, "GPU", "nobody has measured this GPU")
    assert cost(made, "distilled/general/general", on_gpu=True).high is None
    assert cost(made, "corpora/general/text", on_gpu=True).high > 0


def test_of_a_corpus_to_fetch_nothing_is_made_up(raw):
    made = stages(raw | {"general": "corpora/general/raw"})
    fetch = PlannedStage(1, "corpora", "corpora/general/raw", (),
                         ("python", "-m", "data_prep.fetch", "--out", "{out}"))  # fmt: skip
    made = [fetch, *made]
    assert cost(made, "corpora/general/raw").high is None
    found = cost(made, "teacher/general")
    assert found.high is None and found.limit > 0 and "not fetched" in found.unknown
    assert cost(made, "distilled/general/general").unknown == "the corpus is not fetched yet"
    assert cost(made, "teacher/medical").high > 0


def test_text_is_counted_in_raw_files_packed_or_not(raw):
    found = Estimator(stages(raw), ("de", "en"), RATES).text("corpora/general/prepared")
    assert (found.pairs, found.dev, found.known) == (300, 20, "sampled")
    for path in list(raw["general"].iterdir()):
        with gzip.open(f"{path}.gz", "wb") as packed:
            packed.write(path.read_bytes())
        path.unlink()
    again = Estimator(stages(raw), ("de", "en"), RATES).text("corpora/general/prepared")
    assert again == found


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_long_file_is_estimated_from_its_beginning(tmp_path, suffix):
    folder = raw_text(tmp_path / "raw", train=10)
    for lang in "de", "en":
        (folder / f"train.{lang}").unlink()
        with (gzip.open if suffix else open)(folder / f"train.{lang}{suffix}", "wb") as out:
            out.write(b"ein Satz wie dieser\n" * 50_000)
    stage = PlannedStage(1, "", "corpora/x/text", (str(folder),),
                         ("python", "-m", "data_prep.clean", "--in", str(folder)))  # fmt: skip
    found = Estimator([stage], ("de", "en"), RATES).text("corpora/x/text")
    assert found.pairs == pytest.approx(50_000, rel=0.01)


def test_a_long_file_that_cannot_be_counted_in_a_moment_is_estimated_from_its_size(tmp_path):
    data = ROOT / "recipes" / "quickstart" / "data" / "general"
    text = gzip.decompress((data / "train.de.gz").read_bytes())
    (tmp_path / "train.de.zst").write_bytes(zstd.compress(text))
    number, _ = estimate._lines(tmp_path / "train.de.zst")
    assert number == pytest.approx(text.count(b"\n"), rel=0.3)


def test_shards_are_one_corpus(raw):
    for lang in "de", "en":
        (raw["general"] / f"train.{lang}").rename(raw["general"] / f"train.00.{lang}")
        (raw["general"] / f"train.01.{lang}").write_text("ein Satz\n" * 200)
    found = Estimator(stages(raw), ("de", "en"), RATES).text(str(raw["general"]))
    assert found.pairs == 500


def test_lines_limits_the_text(raw):
    made = stages(raw, more_text=("--lines", "100"))
    assert Estimator(made, ("de", "en"), RATES).text("corpora/general/text").pairs == 100


def test_prepared_text_tells_its_own_size(raw):
    folder = Path("corpora/general/prepared")
    folder.mkdir(parents=True)
    counts = {"train": {"pairs": 250, "de": {"pieces": 1}, "en": {"pieces": 2500}},
              "dev": {"lines": 17}}  # fmt: skip
    write_json(folder / "manifest.json", {"counts": counts})
    found = Estimator(stages(raw), ("de", "en"), RATES).text("corpora/general/prepared")
    assert (found.pairs, found.tokens, found.dev, found.known) == (250, 11, 17, "counted")


def test_text_that_is_nowhere_is_unknown(raw):
    assert Estimator(stages(raw), ("de", "en"), RATES).text("nowhere") == Text(known="not there")


def test_monolingual_text_is_translated_too(raw):
    (raw["medical"] / "monolingual.de").write_text("nur Deutsch hier\n" * 70)
    sources = PlannedStage(1, "", "corpora/medical/sources", (), (
        "python", "-m", "data_prep.monolingual", "--in", str(raw["medical"]),
        "--text", "corpora/medical/text"))  # fmt: skip
    found = Estimator([*stages(raw), sources], ("de", "en"), RATES)
    assert found.text("corpora/medical/sources").pairs == 370


@pytest.mark.parametrize(
    ("more", "less"),
    [
        (("large", 30000, 4096), ("small", 30000, 4096)),
        (("small", 30000, 4096), ("small", 8000, 4096)),
        (("small", 30000, 4096), ("small", 30000, 1000)),
        (("small", 30000, 4096, "fp32"), ("small", 30000, 4096, "fp16")),
    ],
)
def test_memory_grows_with_size_vocabulary_batch_and_precision(more, less):
    assert training_memory(*more) > training_memory(*less)


@pytest.mark.parametrize(
    ("size", "vocabulary", "max_tokens", "measured"),
    [  # peak of fairseq-train on a CPU, bytes
        ("miniature", 8001, 1500, 752_300_032),
        ("small", 8001, 1500, 1_026_564_096),
        ("large", 8001, 1500, 1_990_967_296),
        ("miniature_teacher", 6001, 1500, 1_025_000_000),
    ],
)
def test_memory_is_within_a_quarter_of_what_was_measured(size, vocabulary, max_tokens, measured):
    assert training_memory(size, vocabulary, max_tokens) == pytest.approx(measured, rel=0.25)


def test_pieces_are_longer_in_a_larger_vocabulary_and_shorter_in_chinese():
    assert characters_in_piece("en", 30000) > characters_in_piece("en", 3000)
    assert characters_in_piece("en", 6000) == pytest.approx(3.5, rel=0.05)
    assert characters_in_piece("zh", 30000) < 2
