"""dad-speed without models: which sentences, whose turn, which figures, what is refused."""

import io
import itertools
import json
import os
import statistics
import types

import pytest

from fairseq_plugins.evaluation import speed, speed_process
from fairseq_plugins.evaluation.speed import (
    FEWEST_BATCHED,
    FEWEST_ONE_BY_ONE,
    MOST_ONE_BY_ONE,
    PERCENTILES,
    TASKS,
    Plan,
    evenly,
    folded,
    many,
    measure,
    percentiles,
    rotated,
    shares,
    short_names,
    summary,
    table,
    take_turns,
)
from fairseq_plugins.evaluation.speed_process import (
    LEAST_BATCHES,
    LEAST_SECONDS,
    Measured,
    answer,
)
from fairseq_plugins.generation import backends
from fairseq_plugins.generation.backends import Choice
from fairseq_plugins.generation.decoding import Decoding, DecodingFailed, Hypothesis
from tests.fixtures.models import write_text

# -- which sentences -----------------------------------------------------------------------


def test_a_sample_is_spread_evenly_and_has_nothing_twice():
    for size, number in itertools.product((1, 7, 100), (1, 3, 7, 99)):
        chosen = evenly(range(size), number)
        assert len(set(chosen)) == len(chosen) == min(size, number)
        assert chosen == sorted(chosen)
        assert statistics.mean(chosen) == pytest.approx((size - 1) / 2, abs=0.5)


def test_what_the_cheap_leave_is_for_the_dear():
    numbers = shares({"slow": 1.0, "quick": 0.001, "quicker": 0.0001}, 30.0)
    assert numbers["quick"] == numbers["quicker"] == MOST_ONE_BY_ONE
    assert numbers["slow"] == 29  # of 30 s, 0.11 s are taken


def test_no_model_is_so_slow_that_it_has_no_percentiles():
    assert shares({"slow": 100.0, "slower": 200.0}, 1.0) == dict.fromkeys(
        ("slow", "slower"), FEWEST_ONE_BY_ONE
    )


class Rehearsed:
    """In place of a ``Translator``: takes so many seconds for a sentence, and notes its turns."""

    def __init__(self, seconds, notes=None):
        self.seconds, self.notes = seconds, notes

    def ask(self, task, mode, numbers):
        if self.notes is not None:
            self.notes.append((self, task, mode, tuple(numbers)))
        if task == "batched":
            return {"seconds": self.seconds * len(numbers), "sentences": len(numbers),
                    "tokens": 0}  # fmt: skip
        return {"seconds": [self.seconds] * len(numbers), "tokens": 0}


@pytest.mark.parametrize(("cost", "rounds"), [(0.01, 3), (0.02, 1), (0.03, 2)])
def test_a_plan_keeps_to_its_seconds(cost, rounds):
    translators = [Rehearsed(cost), Rehearsed(cost / 10)]
    plan = Plan.of(translators, rounds, 10_000, 60)
    spent = sum(
        rounds * (2 * len(plan.batched) + 3 * len(plan.one_by_one[each])) * each.seconds
        for each in translators
    )
    assert len(plan.batched) > FEWEST_BATCHED and 25 < spent < 61


def test_one_by_one_takes_half_of_the_seconds_at_most():
    slow, quick = translators = [Rehearsed(0.05), Rehearsed(0.005)]
    plan = Plan.of(translators, 3, 10_000, 60)
    tasks = 3  # beam, greedy, first token
    spent = sum(tasks * len(plan.one_by_one[each]) * each.seconds for each in translators)
    assert 9 < spent < 10  # in a round
    assert FEWEST_ONE_BY_ONE < len(plan.one_by_one[slow]) < len(plan.one_by_one[quick])


def test_a_very_slow_model_takes_the_fewest_and_the_others_all_one_by_one():
    slow, quick = translators = [Rehearsed(10.0), Rehearsed(0.0001)]
    plan = Plan.of(translators, 3, 10_000, 60)
    assert len(plan.batched) == FEWEST_BATCHED
    assert len(plan.one_by_one[slow]) == FEWEST_ONE_BY_ONE
    assert len(plan.one_by_one[quick]) == MOST_ONE_BY_ONE


def test_a_plan_has_no_more_sentences_than_there_are():
    translator = Rehearsed(0.0001)
    plan = Plan.of([translator], 3, 7, 60)
    assert plan.batched == plan.one_by_one[translator] == list(range(7))


# -- turns ---------------------------------------------------------------------------------


def test_all_models_do_the_same_before_any_does_the_next_and_each_comes_first_in_turn():
    notes = []
    translators = [Rehearsed(0.1, notes) for _ in range(3)]
    plan = Plan([5, 6], {each: [number] for number, each in enumerate(translators)})
    turns = take_turns(translators, plan, rounds=5)
    assert len(notes) == 5 * len(TASKS) * 3
    firsts = []
    for at in range(0, len(notes), 3):
        who, tasks, modes, _ = zip(*notes[at : at + 3], strict=True)
        assert set(who) == set(translators) and len({*zip(tasks, modes)}) == 1
        firsts.append(who[0])
    assert firsts[:: len(TASKS)] == [*translators, *translators[:2]]
    for each, task, _, numbers in notes:
        assert numbers == ((5, 6) if task == "batched" else (translators.index(each),))
    assert all(len(found) == 5 for each in translators for found in turns[each].values())


def test_rotating_by_the_length_changes_nothing():
    assert rotated([1, 2, 3], 1) == [2, 3, 1] and rotated([1, 2, 3], 3) == [1, 2, 3]


# -- figures -------------------------------------------------------------------------------


def test_percentiles_are_of_the_sentences_and_one_bad_round_does_not_matter():
    good = [number / 1000 for number in range(1, 102)]
    bad = [10.0] * len(good)
    expected = {"p50": 51.0, "p90": 91.0, "p99": 100.0}
    assert percentiles([good]) == percentiles([good, bad, good]) == expected


def test_rates_are_medians_of_rounds_with_their_range():
    batched = [{"sentences": 40, "seconds": s, "tokens": 60} for s in (1.0, 4.0, 2.0)]
    alone = [{"seconds": [0.1, 0.3], "tokens": 7}, {"seconds": [0.5, 0.5], "tokens": 7}]
    first = [{"seconds": [0.01, 0.03]}, {"seconds": [0.01, 0.03]}]
    record = summary({"batched": batched, "one_by_one": alone, "first_token": first}, 20)
    assert record["sentences_per_second"] == 20.0  # 40 in 2 s
    assert record["sentences_per_second_range"] == [10.0, 40.0]
    assert record["tokens_per_second"] == 60.0  # 3 pieces a sentence
    single = record["one_by_one"]
    assert single["sentences"] == 2 and single["sentences_per_second"] == 3.5
    assert single["tokens_per_second"] == 12.25
    assert single["sentence_ms"]["p50"] == 350.0  # of 300 and 400
    assert single["first_token_ms"]["p50"] == 20.0
    del batched[0], alone[0]
    assert "first_token_ms" not in summary({"batched": batched, "one_by_one": alone}, 20)[
        "one_by_one"
    ]


# -- the table -----------------------------------------------------------------------------


def record_of(*names, **counts):
    """What ``measure`` might return, with figures as long as they come."""
    steps = {f"p{p}": 12_345.6 + p for p in PERCENTILES}
    mode = {
        "sentences_per_second": 98_765.4, "tokens_per_second": 1_234_567.8,
        "one_by_one": {
            "sentences": 100, "sentences_per_second": 4_321.0, "tokens_per_second": 54_321.0,
            "sentence_ms": steps, "first_token_ms": {key: ms + 200 for key, ms in steps.items()},
        },
    }  # fmt: skip
    model = {
        "backend": "ctranslate2", "compute_type": "int8_float16", "parameters": 1_234_560_000,
        "embedding_parameters": 30_720_000, "bytes": 1_234_567_890, "load_seconds": 12.5,
        "peak_memory_bytes": 9_876e6, "library_memory_bytes": 345e6,
        "beam": mode, "greedy": mode, **counts,
    }  # fmt: skip
    return {
        "source": "test.de", "sentences": 500, "processor": "A processor", "cores": 2,
        "device": "cpu", "rounds": 3, "load_average": 0.5, "beam": 5, "workers": 2,
        "threads_per_worker": 1, "models": {name: model for name in names},
    }  # fmt: skip


def test_the_table_fits_into_100_columns_and_has_every_figure():
    text = table(record_of("exported/student/miniature/9-sequence-risk/suttas", "exported/teacher"))
    assert max(map(len, text.split("\n"))) <= 100
    for figure in ("98,765", "1,234,568", "1.00", "4,321", "54,321", "12,396", "12,436", "12,445",
                   "12,596", "12,645", "1,234.56", "30.72", "1,234.6", "12.50", "9,876", "345",
                   "500 sentences", "2 batches at once", "1 thread each", "A processor, 2 cores",
                   "3 rounds", "load average 0.5", "ctranslate2 int8_float16",
                   "  9-sequence-risk/suttas\n"):  # fmt: skip
        assert figure in text, figure
    assert "\n\n" not in text[text.index("Millions of parameters") :]


def test_models_are_compared_with_the_first():
    record = record_of("a", "b")
    record["models"]["b"] = json.loads(json.dumps(record["models"]["b"]))
    record["models"]["b"]["greedy"]["sentences_per_second"] /= 4
    record["models"]["b"]["beam"]["sentences_per_second"] *= 12
    text = table(record)
    assert "12.0" in text and "0.25" in text and "×" in text
    assert "×" not in table(record_of("a"))


def test_what_no_manifest_tells_is_a_question_mark():
    assert " ? " in table(record_of("a", parameters=None, embedding_parameters=None))


def test_names_lose_shared_folders_and_nothing_else():
    assert short_names(["x/y/a/b", "x/y/c"]) == {"x/y/a/b": "a/b", "x/y/c": "c"}
    assert short_names(["x/y"]) == {"x/y": "x/y"}
    assert short_names(["x", "x/y"]) == {"x": ".", "x/y": "y"}
    name = "student/miniature/9-sequence-risk/suttas"
    lines = folded(name)
    assert "".join(line.removeprefix("  ") for line in lines) == name
    assert len(lines) == 2 and folded("a/b") == ["a/b"]


# -- in the process ------------------------------------------------------------------------


class Backend:
    """Gives back each sentence, an end of sentence counted, and notes what was asked."""

    def __init__(self, notes, decoding=None):
        self.notes, self.decoding = notes, decoding

    def searching(self, decoding):
        return Backend(self.notes, decoding)

    def session(self, seed):
        return self

    def begin(self, sentences):
        self.notes.append((self.decoding.beam, len(sentences)))
        if ["bad"] in sentences:
            raise DecodingFailed("no memory")
        return lambda: [[Hypothesis(pieces, -1.0, len(pieces) + 1)] for pieces in sentences]

    def first_piece(self, sentence):
        self.notes.append((self.decoding.beam, "first"))
        return sentence[0]


@pytest.fixture
def measured(monkeypatch):
    """A ``Measured`` of :class:`Backend` whose clock ticks, its notes, and threads it used."""
    ticks = itertools.count(step=LEAST_SECONDS / 4)
    clock = types.SimpleNamespace(perf_counter=lambda: next(ticks))
    monkeypatch.setattr(speed_process, "time", clock)
    notes, threads = [], []
    decodings = {"beam": Decoding(4), "greedy": Decoding(1)}
    found = Measured(Backend(notes), decodings, {"load_seconds": 1.0}, 1,
                     {"batched": 6, "alone": 2}, threads.append)  # fmt: skip
    found.take([["a"], ["b", "c"], ["d", "e", "f"]])
    return found, notes, threads


def test_batches_are_translated_again_until_there_is_something_to_measure(measured):
    found, notes, threads = measured
    turn = found.batched("beam", [0, 2])
    # in four passes, for the clock, of four batches, for the workers
    assert turn == {"seconds": pytest.approx(LEAST_SECONDS), "sentences": 32, "tokens": 6}
    assert notes == [(4, 2)] * 16 and threads == [6]


@pytest.mark.parametrize(("at_once", "batches"), [(1, 10), (2, 10), (3, 20), (16, 70)])
def test_every_worker_gets_several_batches(measured, at_once, batches, monkeypatch):
    found, notes, _ = measured
    monkeypatch.setattr(speed_process, "LEAST_SECONDS", 0.0)
    found._at_once = at_once
    found.take([["a"] * 1024] * 10)  # each fills a batch
    turn = found.batched("beam", range(10))
    assert len(notes) == turn["sentences"] == batches >= LEAST_BATCHES * at_once
    assert turn["tokens"] == 10 * 1025


def test_one_by_one_no_two_sentences_are_under_way(measured):
    found, notes, threads = measured
    turn = found.one_by_one("greedy", [1, 2])
    assert notes == [(1, 1), (1, 1)] and threads == [2]
    assert turn == {"seconds": [pytest.approx(LEAST_SECONDS / 4)] * 2, "tokens": 7}
    assert len(found.first_token("greedy", [0])["seconds"]) == 1
    assert notes[2:] == [(1, "first")] and threads == [2, 2]


def test_memory_at_most_grows_with_what_is_held_and_does_not_shrink():
    before = speed_process.peak()
    held = bytearray(os.urandom(1)) * (before + 2**26 - speed_process.resident())
    at_most = speed_process.peak()
    del held
    assert at_most >= before + 2**25
    assert speed_process.peak() > at_most - 2**22  # the system counts by and by
    assert speed_process.resident() < at_most - 2**24


def ask(*questions):
    answers = io.StringIO()
    answer((json.dumps(question) + "\n" for question in questions), answers)
    return [json.loads(line) for line in answers.getvalue().split("\n")[:-1]]


def test_a_failure_is_an_answer_and_the_next_question_is_heard(measured, monkeypatch):
    monkeypatch.setattr(speed_process, "load", lambda **_: measured[0])
    loaded, taken, failed, fine = ask(
        ["load", {}], ["take", {"sentences": [["bad"], ["good"]]}],
        ["one_by_one", {"mode": "beam", "numbers": [0]}],
        ["one_by_one", {"mode": "beam", "numbers": [1]}],
    )  # fmt: skip
    assert loaded == [{"load_seconds": 1.0}, None] and taken == [None, None]
    assert failed == [None, "no memory"] and fine[0]["tokens"] == 2 and fine[1] is None


# -- what is refused, and what is left open ------------------------------------------------


def on(device):
    return speed.Found("model", None, Choice("ctranslate2", device, "default", [], False))


@pytest.mark.parametrize(
    ("wishes", "cores", "expected"),
    [
        ((None, None), 4, (4, 1)), ((2, None), 4, (2, 1)), ((None, 3), 4, (1, 3)),
        ((2, 2), 4, (2, 2)), ((None, None), 1, (1, 1)),
    ],
)  # fmt: skip
def test_all_cores_are_used_unless_something_else_is_asked_for(
    wishes, cores, expected, monkeypatch
):
    for module in (speed, backends):
        monkeypatch.setattr(module, "usable_cores", lambda: cores)
    assert many([on("cpu")] * 2, *wishes) == expected


def test_more_threads_than_cores_are_refused_but_for_a_gpu(monkeypatch):
    for module in (speed, backends):
        monkeypatch.setattr(module, "usable_cores", lambda: 4)
    for wishes in ((5, 1), (None, 5), (3, 2)):
        with pytest.raises(ValueError, match="more than the 4 cores"):
            many([on("cpu")], *wishes)
    monkeypatch.setattr(backends, "_gpus", lambda: 2)
    assert many([on("cuda")], None, 8) == (2, 8)
    in_fairseq = speed.Found("other", None, Choice("fairseq", "cuda", "float16", [], False))
    assert many([on("cuda"), in_fairseq], None, None) == (1, 1)


@pytest.mark.parametrize("name", ["beam", "rounds", "limit", "seconds", "workers", "threads"])
def test_no_number_is_below_one(name):
    with pytest.raises(ValueError, match=f"--{name} is 1 or more, not 0"):
        measure([on("cpu")], "source", **{name: 0})


def model_from(lang):
    return types.SimpleNamespace(vocabulary=types.SimpleNamespace(source_lang=lang))


def test_models_of_two_source_languages_and_one_named_twice_are_refused(monkeypatch):
    monkeypatch.setattr(
        speed, "find",
        lambda path, device: speed.Found(path, model_from(path.partition("-")[0]), None),
    )  # fmt: skip
    with pytest.raises(ValueError, match="a.de translates from a and b.* from b; measure .* apart"):
        speed.find_all(["a-de", "b-de"], "cpu")
    with pytest.raises(ValueError, match="a-de is named twice"):
        speed.find_all(["a-de", "a-de"], "cpu")
    assert [model.name for model in speed.find_all(["a-de", "a-fr"], "cpu")] == ["a-de", "a-fr"]


@pytest.mark.parametrize(("positions", "longest"), [(100, 99), (1024, 250)])
def test_a_long_sentence_is_cut_to_what_the_model_reads_and_dad_generate_takes(positions, longest):
    codec = types.SimpleNamespace(
        encode_batch=lambda lines: [list(line) for line in lines],
        cut=lambda pieces, longest: pieces[:longest],
    )
    folder = types.SimpleNamespace(codec=lambda: codec)
    asked = []
    translator = types.SimpleNamespace(
        found={"source_positions": positions}, ask=lambda what, **given: asked.append(given)
    )
    speed.Found("model", folder, None).give(["ab", "c" * 999], translator)
    assert asked == [{"sentences": [["a", "b"], ["c"] * longest]}]


@pytest.mark.parametrize("text", [[], ["", "  ", "\a", "\0\u2028"]])
def test_a_text_without_sentences_is_refused_before_a_model_is_loaded(text, tmp_path):
    source = write_text(tmp_path / "source", text)
    with pytest.raises(ValueError, match="source has no sentences to translate"):
        measure([on("cpu")], source)
