"""The steps of selection, each as a table, and how they are named on the command line."""

import dataclasses
import math

import numpy as np
import pytest
import sacrebleu

from data_prep.named_steps import read_steps
from data_prep.words import most_repeated, words_of
from fairseq_plugins.generation.nbest import Candidate
from fairseq_plugins.selection.records import Record
from fairseq_plugins.selection.steps import (
    STEPS,
    Choice,
    Context,
    explain_steps,
    parse,
    run_steps,
)
from tests.fixtures.models import write_text

CONTEXT = Context(("de", "en"))


def record(candidates, source="Das Haus ist alt.", reference="The house is old.", number=1):
    candidates = [one if isinstance(one, Candidate) else Candidate(one) for one in candidates]
    return Record(number, source, reference, candidates)


def chosen(step, candidates, **settings):
    kept, _ = parse(step).choose(record(candidates, **settings), CONTEXT)
    return [candidate.text for candidate in kept]


def why(step, source, target, reference=None, langs=("de", "en")):
    step = parse(step)
    step.check(Context(langs))
    return step.why(Record(1, source, reference, [Candidate(target)]), target, Context(langs))


# -- choosing ------------------------------------------------------------------------------

THREE = ["An old house.", "The house is old!", "The home is elderly."]
SCORED = [Candidate("b c d", -3.0, 4), Candidate("a", -2.0, 1), Candidate("c", -2.5, 5)]


@pytest.mark.parametrize("metric", ["chrf", "bleu"])
def test_best_of_n_takes_what_is_most_like_the_reference(metric):
    assert chosen(f"best-of-n:metric={metric}", THREE) == ["The house is old!"]
    assert chosen(f"best-of-n:metric={metric},top=2", [*THREE, "The house is old."]) == [
        "The house is old.", "The house is old!",
    ]  # fmt: skip


@pytest.mark.parametrize("metric", ["chrf", "bleu"])
def test_minimum_bayes_risk_maximises_the_mean_score_against_all_candidates(metric):
    score = {"chrf": sacrebleu.sentence_chrf, "bleu": sacrebleu.sentence_bleu}[metric]
    candidates = ["the cat sat", "a cat sat on the mat", "the cat sat on a mat", "the dog", "a cat"]
    candidates += ["the dog"] * 2  # equal ones count as often as they occur
    mean = {
        one: np.mean([score(one, [other]).score for other in candidates]) for one in candidates
    }
    expected = sorted(mean, key=lambda text: -mean[text])
    assert chosen(f"mbr:metric={metric},top=9", candidates) == expected
    assert chosen(f"mbr:metric={metric}", candidates) == expected[:1]


def test_a_frequent_candidate_outvotes_a_central_one():
    assert chosen("mbr", ["x y z", "a b c d", "a b c e"]) == ["a b c d"]
    assert chosen("mbr", ["a b c d", "a b c e", *["x y z"] * 9]) == ["x y z"]


def test_the_teachers_scores_choose():
    assert chosen("model-score", SCORED) == ["a"]
    assert chosen("normalised-score", SCORED) == ["c"]
    assert chosen("normalised-score:top=2", SCORED) == ["c", "b c d"]


@pytest.mark.parametrize("step", ["model-score", "normalised-score"])
def test_what_was_not_decoded_is_never_preferred(step):
    assert chosen(step, [Candidate(""), Candidate("a", -9.0, 2)]) == ["a"]


@pytest.mark.parametrize("step", ["first", "mbr", "best-of-n", "mbr:metric=bleu"])
def test_of_equally_good_candidates_the_first_is_taken(step):
    assert chosen(step, ["q", "w", "r"]) == ["q"]


@pytest.mark.parametrize("step", ["mbr:top=3", "best-of-n:top=3"])
def test_equal_candidates_are_one(step):
    assert chosen(step, ["a b", "a b", "a b"]) == ["a b"]


def test_the_gain_is_how_much_better_the_choice_is_than_the_first_candidate():
    step = parse("best-of-n")
    kept, gain = step.choose(record(THREE), CONTEXT)
    reference = ["The house is old."]
    expected = (
        sacrebleu.sentence_chrf(kept[0].text, reference).score
        - sacrebleu.sentence_chrf(THREE[0], reference).score
    )
    assert gain == pytest.approx(expected)
    _, (tally,) = run_steps([step], CONTEXT, [record(THREE), record(THREE[1:])])
    assert tally.changed == 1
    assert tally.gain == pytest.approx(expected)


# -- filters -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "step, source, target, reason",
    [
        ("empty", "a", "b", None),
        ("empty", "a", " ", "no target"),
        ("empty", " \u2003", "b", "no source"),
        ("repetition", "x", "the the the the", None),
        ("repetition", "x", "so the the the the the", "5 × 'the'"),
        ("repetition:max=2", "x", "it is not a cat, not a cat, not a cat,", "3 × 'not a cat,'"),
        ("repetition:max=3", "x", "it is not a cat, not a cat, not a cat,", None),
        ("repetition", "ha ha ha ha ha ha", "ha ha ha ha ha", None),
        ("repetition", "ha ha", "ha ha ha ha ha", "5 × 'ha'"),
        ("repetition", "x", "好好好好好", "5 × '好'"),
        ("copy", "Das Haus Nummer eins ist alt.", "The house number one is old.", None),
        ("copy", "Das Haus Nummer eins ist alt.", "das haus Nummer eins ist alt.", "100% of"),
        ("copy", "Das Haus Nummer eins", "Das Haus Nummer one", None),
        ("copy:max=0.7", "Das Haus Nummer eins", "Das Haus Nummer one", "75% of"),
        ("copy", "Windows 10", "Windows 10", None),
        ("copy:words=1", "Windows 10", "Windows 10", "100% of"),
        ("copy", "1 2 3 4 5 6", "1 2 3 4 5 6", None),
        ("copy", "eins", "eins eins eins eins", None),
        ("language", "x", "This is a sentence in English, as it should be.", None),
        ("language", "x", "Dies ist ein Satz, der nicht übersetzt worden ist.", "de, probability"),
        ("language:accept=fr+de", "x", "Dies ist ein Satz, der nicht übersetzt wurde.", None),
        ("language:code=de", "x", "Dies ist ein Satz, der nicht übersetzt worden ist.", None),
        ("language", "x", "Nicht übersetzt", None),
        ("language:min=5", "x", "Nicht übersetzt", "de, probability"),
        ("language:confidence=1", "x", "Dies ist ein Satz auf Deutsch.", None),
        ("language", "x", "0123456789 0123456789 === http://10.0.0.1/", None),
    ],
)
def test_a_filter_says_why(step, source, target, reason):
    found = why(step, source, target)
    assert found is None if reason is None else found.startswith(reason)


@pytest.mark.parametrize("name", ["ter", "chrf", "bleu"])
def test_the_distance_to_the_reference_is_sacrebleus(name):
    target, reference = "the old cat sat on a mat today", "the cat sat on the mat"
    function = getattr(sacrebleu, f"sentence_{name}")
    score = function(target, [reference]).score
    for limit, step in (
        (score - 0.01, f"distance:metric={name},min={{}}"),
        (score + 0.01, f"distance:metric={name},max={{}}"),
    ):
        assert why(step.format(limit), "x", target, reference) is None
    assert why(f"distance:metric={name},max={score - 0.01}", "x", target, reference)
    assert why(f"distance:metric={name},min={score + 0.01}", "x", target, reference)


def test_more_than_eighty_edits_in_a_hundred_words_are_too_far_unless_told_otherwise():
    assert why("distance", "x", "the cat sat", "the cat sat") is None
    assert why("distance", "x", "a b c", "the cat sat") == "ter 100.0"
    assert why("distance:max=100", "x", "a b c", "the cat sat") is None


def test_written_chinese_is_chinese():
    text = "我哋今日去咗香港嘅海邊行咗一個鐘頭。"
    assert why("language", "x", text, langs=("en", "zh")) is None
    assert why("language", "x", text, langs=("en", "ja")) is not None


@pytest.mark.parametrize(
    "text, times, words",
    [
        ("", 1, []),
        ("a", 1, ["a"]),
        ("a b c", 1, ["a"]),
        ("x a a", 2, ["a"]),
        ("a b a b a", 2, ["a", "b"]),
        ("a b a b a b", 3, ["a", "b"]),
        ("a a b a a", 2, ["a"]),
        ("1 2 3 4 5 6 7 8 1 2 3 4 5 6 7 8", 2, list("12345678")),
        ("1 2 3 4 5 6 7 8 9 1 2 3 4 5 6 7 8 9", 1, ["1"]),
    ],
)
def test_loops_of_up_to_eight_words_are_found(text, times, words):
    assert most_repeated(text) == (times, words)


def test_a_character_of_a_script_without_spaces_is_a_word():
    assert words_of("Ich sage 你好, ok") == ["Ich", "sage", "你", "好", ",", "ok"]


# -- measured filters ----------------------------------------------------------------------


def judged(step, records):
    """Texts that a measured filter lets pass."""
    step = parse(step)
    step.check(CONTEXT)
    with step.measuring(CONTEXT) as measure:
        found = measure(records)
    settled = step.settle(np.array([value for row in found for value in row]))
    return [
        candidate.text
        for entry, row in zip(records, found, strict=True)
        for candidate, value in zip(entry.candidates, row, strict=True)
        if step.verdict(entry, candidate.text, value, settled) is None
    ]


def scored(*normalised):
    return [record([Candidate(str(value), 2.0 * value, 2)]) for value in normalised]


@pytest.mark.parametrize("reject, gone", [(0, 0), (10, 1), (19, 1), (20, 2), (99, 9)])
def test_the_share_asked_for_goes_lowest_first(reject, gone):
    values = [-0.4, -0.1, -0.9, -0.3, -0.8, -0.2, -0.7, -1.0, -0.6, -0.5]
    kept = judged(f"score-percentile:reject={reject}", scored(*values))
    assert sorted(map(float, kept)) == sorted(values)[gone:]


def test_what_ties_with_the_limit_stays():
    assert len(judged("score-percentile:reject=50", scored(-1.0, -1.0, -1.0, -0.5))) == 4


def test_what_was_not_decoded_is_not_judged_by_its_score():
    records = [*scored(-1.0, -2.0), record([Candidate("")]), record([Candidate("")])]
    assert judged("score-percentile:reject=50", records) == ["-1.0", "", ""]


def test_lengths_are_judged_by_the_ratio_of_this_text():
    usual = [record(["t" * 60], source="s" * 20) for _ in range(5)]  # 3 characters for 1
    same = record(["T" * 20], source="s" * 20)
    assert judged("length-ratio:max=2", [*usual, same]) == ["t" * 60] * 5
    assert judged("length-ratio:max=3", [*usual, same]) == ["t" * 60] * 5 + ["T" * 20]
    longer = record(["L" * 200], source="s" * 20)
    assert judged("length-ratio:max=2", [*usual, longer]) == ["t" * 60] * 5
    assert judged("length-ratio:max=2", [*usual, record([""])]) == ["t" * 60] * 5 + [""]


def test_nothing_to_measure_is_no_mistake():
    assert judged("score-percentile", [record([Candidate("")])]) == [""]
    assert judged("length-ratio", [record([""])]) == [""]


# -- names and options ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, message",
    [
        ("comet", "step 'comet' is unknown; there are first, best-of-n, mbr"),
        ("mbr:metrik=chrf", "step mbr: option 'metrik' is unknown; it has metric, top"),
        ("empty:max=3", "step empty: option 'max' is unknown; it has none"),
        ("mbr:top=many", "step mbr: top is a whole number, not 'many'"),
        ("mbr:top=1.5", "step mbr: top is a whole number, not '1.5'"),
        ("length-ratio:max=x", "step length-ratio: max is a number, not 'x'"),
        ("length-ratio:max=nan", "step length-ratio: max is a number, not 'nan'"),
        ("mbr:metric", "step mbr: metric needs a value"),
        ("mbr:metric=", "step mbr: metric needs a value"),
        ("mbr:top=1,top=2", "step mbr: top is given twice"),
        ("reverse-model:reject=5", "step reverse-model needs model=…"),
    ],
)
def test_a_description_that_cannot_be_read_is_named(text, message):
    with pytest.raises(ValueError) as raised:
        parse(text)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    "text, message",
    [
        ("mbr:top=0", "top is 1 or more, not 0"),
        ("mbr:metric=ter", "metric is one of chrf, bleu, not ter"),
        ("best-of-n:metric=comet", "metric is one of chrf, bleu, not comet"),
        ("distance:metric=comet,max=1", "metric is one of ter, chrf, bleu, not comet"),
        ("distance:metric=chrf", "needs max=… or min=…"),
        ("length-ratio:max=1", "max is a factor above 1, not 1.0"),
        ("repetition:max=0", "max is 1 or more, not 0"),
        ("copy:max=80", "max is a share from 0 to 1, not 80.0"),
        ("copy:words=0", "words is 1 or more, not 0"),
        ("language:code=german", "py3langid does not know 'german'"),
        ("language:accept=de+xx", "py3langid does not know 'xx'"),
        ("language:confidence=90", "confidence is a share from 0 to 1, not 90.0"),
        ("score-percentile:reject=100", "reject is a percentage from 0 to below 100, not 100.0"),
        ("score-percentile:reject=-1", "reject is a percentage from 0 to below 100, not -1.0"),
    ],
)
def test_a_value_out_of_range_is_named_before_anything_is_read(text, message):
    with pytest.raises(ValueError) as raised:
        parse(text).check(CONTEXT)
    assert message in str(raised.value)


@pytest.mark.parametrize("name", STEPS)
def test_a_step_describes_itself_as_it_is_written(name):
    step = parse(f"{name}:model=a/folder" if name == "reverse-model" else name)
    assert parse(str(step)) == step


def test_a_file_of_steps_may_hold_remarks(tmp_path):
    lines = ["# choose", "mbr:top=2  # two", "", "  copy", "reverse-model:model=a#b"]
    path = write_text(tmp_path / "steps", lines)
    assert read_steps(path) == ["mbr:top=2", "copy", "reverse-model:model=a#b"]


def test_the_help_tells_every_step_and_option():
    text = explain_steps()
    for name, step in STEPS.items():
        assert f"\n  {name} " in text
        for option in dataclasses.fields(step):
            assert f"{option.name}= " in text
    assert max(map(len, text.splitlines())) <= 98
    assert text.index("Choosing") < text.index("best-of-n") < text.index("Filters")
    assert text.index("Filters") < text.index("length-ratio")


# -- lines with several candidates ---------------------------------------------------------


def test_a_filter_takes_candidates_and_rejects_a_line_without_any_left():
    step = parse("empty")
    records, (tally,) = run_steps([step], CONTEXT, [record(["", "a", " "]), record(["", ""])])
    assert [[candidate.text for candidate in entry.candidates] for entry in records] == [["a"], []]
    assert (tally.read, tally.kept) == (2, 1)
    assert (tally.candidates_read, tally.candidates_kept) == (5, 1)
    assert [example["why"] for example in tally.examples] == ["no target"]


def test_a_rejected_line_goes_by_later_steps():
    steps = [parse("empty"), parse("mbr"), parse("copy")]
    records, tallies = run_steps(steps, CONTEXT, [record([""]), record(["a"])])
    assert [tally.read for tally in tallies] == [2, 1, 1]
    assert [entry.number for entry in records] == [1, 1]


def test_every_choosing_step_keeps_at_least_one_candidate():
    for name, step in STEPS.items():
        if issubclass(step, Choice):
            assert chosen(name, [Candidate("", -math.inf, 0)]) == [""]
