"""The paper's claims and the advice, on made-up findings."""

import pytest

from fairseq_plugins.report import claims
from fairseq_plugins.report.advice import QUESTIONS, advise
from fairseq_plugins.report.claims import ADAPTING, SECOND_DISTILLATION
from fairseq_plugins.report.comparisons import over_seeds
from fairseq_plugins.report.grid import Grid, is_multi_domain


def difference(value, p_value=0.001, new="9", old="7"):
    entry = {"seed": 1, "new": new, "old": old, "difference": value, "p_value": p_value,
             "signature": ""}  # fmt: skip
    return {"new": new, "old": old, **over_seeds([entry])}


NOISE = 0.4  # a p-value


class Made:
    """A grid of one size whose comparisons are made up: {(new, old): comparison}."""

    sizes = ["tiny"]

    def __init__(self, found):
        self.found = found

    def compare(self, new, old, size):
        return self.found.get((new, old))


# -- advice --------------------------------------------------------------------------------

TEACHER, START, GENERAL, SCRATCH, AGAIN = (question.key for question in QUESTIONS)


@pytest.mark.parametrize(
    "found, key, answer, title",
    [
        ({("adapted-teacher", "teacher"): difference(0.2, NOISE)}, TEACHER, "no gain",
         "The teacher did not improve by adapting: stop"),
        ({("adapted-teacher", "teacher"): difference(-3.0)}, TEACHER, "no gain",
         "The teacher did not improve by adapting: stop"),
        ({("adapted-teacher", "teacher"): difference(0.2)}, TEACHER, "gain",
         "Adapting the teacher pays"),
        ({("4", "1"): difference(0.4, NOISE)}, START, "no gain", "Starting from nothing is enough"),
        ({("4", "1"): difference(3.0)}, START, "gain", "Start from a general student"),
        ({("7", "4"): difference(-2.0, NOISE)}, GENERAL, "no gain",
         "Skip the general distillation"),
        ({("7", "4"): difference(0.49, NOISE)}, GENERAL, "no gain",
         "Skip the general distillation"),
        ({("7", "4"): difference(0.5, NOISE)}, GENERAL, "unclear",
         "Whether distilling the general data pays cannot be told"),
        ({("7", "4"): difference(0.1, None)}, GENERAL, "unclear",
         "Whether distilling the general data pays cannot be told"),
        ({("7", "4"): difference(0.5)}, GENERAL, "gain", "Distil the general data"),
        ({("9", "8"): difference(0.1, NOISE), ("6", "5"): difference(2.0, NOISE)}, SCRATCH,
         "no gain", "An in-domain teacher from scratch is enough"),
        ({("9", "8"): difference(0.1, NOISE), ("3", "2"): difference(2.0)}, SCRATCH, "unclear",
         "Whether an in-domain teacher from scratch is enough cannot be told"),
        ({("9", "8"): difference(1.0), ("6", "5"): difference(2.0)}, SCRATCH, "gain",
         "An in-domain teacher from scratch is not enough"),
        ({("9", "7"): difference(0.0, 1.0)}, AGAIN, "no gain",
         "The second distillation did not pay: 7 does without it"),
        ({("9", "7"): difference(0.9)}, AGAIN, "gain", "The second distillation pays"),
    ],
)  # fmt: skip
def test_advice_follows_from_its_evidence(found, key, answer, title):
    (entry,) = advise(Made(found))
    assert (entry["key"], entry["answer"], entry["title"]) == (key, answer, title)
    assert len(entry["evidence"]) == len(found)


def test_without_evidence_there_is_no_advice():
    assert advise(Made({("9", "1"): difference(3.0)})) == []


def test_what_holds_of_teachers_is_said_once_and_of_students_for_each_size():
    made = Made({("adapted-teacher", "teacher"): difference(9.0), ("9", "7"): difference(1.0)})
    made.sizes = ["tiny", "small"]
    assert [(entry["key"], entry["size"]) for entry in advise(made)] == [
        (TEACHER, None), (AGAIN, "tiny"), (AGAIN, "small"),
    ]  # fmt: skip


# -- claims --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "claim, found, says, why",
    [
        (ADAPTING, difference(5.0), "as in the paper", ""),
        (ADAPTING, difference(1.96), "as in the paper", ""),  # it is shown as 2.0
        (ADAPTING, difference(12.0), "as in the paper", "and more than its 10"),
        (ADAPTING, difference(1.0), "not as in the paper", "less than the paper's 2"),
        (ADAPTING, difference(-1.0), "not as in the paper", "it is a loss"),
        (ADAPTING, difference(5.0, NOISE), "within noise", ""),
        (ADAPTING, difference(5.0, None), "cannot tell", ""),
        (ADAPTING, None, "cannot tell", ""),
        (SECOND_DISTILLATION, difference(1.0), "as in the paper", ""),
        (SECOND_DISTILLATION, difference(3.0), "as in the paper", "and more than its 2"),
        (SECOND_DISTILLATION, difference(-0.4), "not as in the paper", "it is a loss"),
        (SECOND_DISTILLATION, difference(0.4, NOISE), "within noise", ""),
    ],
)
def test_a_run_bears_a_claim_out_or_not(claim, found, says, why):
    assert claims.judge(found, claim) == (says, why)


def group(name, configuration, bleu=30.0, size="tiny", variant="plain", dev=None):
    return {
        "name": name, "configuration": configuration, "size": size, "variant": variant,
        "kind": "teacher" if "teacher" in configuration else "student"
        if configuration.isdecimal() else "general student",
        "in_domain": {"beam": {"bleu": {"score": bleu}}}, "dev": dev,
    }  # fmt: skip


def grid_of(*groups):
    groups = {entry["name"]: entry for entry in groups}

    def compare(new, old):
        values = [groups[name]["in_domain"]["beam"]["bleu"]["score"] for name in (new, old)]
        return difference(values[0] - values[1], new=new, old=old)

    return Grid(groups, compare), groups


def checked(*groups):
    return {entry["key"]: entry for entry in claims.check(*grid_of(*groups))}


def pairs(entry):
    return [(found["new"], found["old"]) for found in (entry["main"], *entry["others"])]


def test_adapting_is_judged_by_students_of_the_same_targets():
    found = checked(*(group(number, number) for number in "123456789"))["adapting"]
    assert pairs(found) == [("4", "1"), ("7", "1"), ("5", "2"), ("8", "2"), ("6", "3"), ("9", "3")]


def test_where_no_student_starts_from_nothing_general_students_stand_for_them():
    found = checked(group("D", "distilled", 20.0), group("7", "7"), group("9", "9", 25.0))
    assert pairs(found["adapting"]) == [("9", "D"), ("7", "D")]
    assert "No student of this run started from nothing" in found["adapting"]["words"]
    assert found["adapting"]["says"] == "as in the paper"


@pytest.mark.parametrize(
    "dev, best, by", [(None, "7", "test set, since no dev BLEU"), (9.0, "6", "dev set")]
)
def test_the_second_distillation_is_held_against_the_best_single_one(dev, best, by):
    single = [group("7", "7", 31.0, dev=dev and {"bleu": dev, "set": "a"}),
              group("3", "3", 20.0, dev=dev and {"bleu": dev - 1, "set": "a"}),
              group("6", "6", 30.0, dev=dev and {"bleu": dev + 1, "set": "a"})]  # fmt: skip
    found = checked(*single, group("4", "4", 90.0), group("9", "9", 32.0))["second distillation"]
    assert found["main"]["old"] == best and f"best by the {by}" in found["words"]
    assert {old for _, old in pairs(found)} == {"7", "3", "6"}  # 4 has no distillation


def test_a_claim_that_cannot_be_checked_has_no_comparison():
    found = checked(group("7", "7"))
    assert {entry["says"] for entry in found.values()} == {"cannot tell"}
    assert found["second distillation"]["main"] is None


# -- the grid ------------------------------------------------------------------------------


def test_students_are_found_by_configuration_size_and_variant():
    grid, _ = grid_of(
        group("teacher", "teacher", size="large"), group("tiny 9 word", "9", variant="word"),
        group("tiny 9", "9"), group("small 9 word", "9", size="small", variant="word"),
        group("small D", "distilled", size="small"),
    )  # fmt: skip
    assert grid.sizes == ["tiny", "small"]
    assert [grid.name("9", size) for size in grid.sizes] == ["tiny 9", "small 9 word"]
    assert grid.name("teacher", "tiny") == "teacher" and grid.name("8", "tiny") is None
    assert [grid.name("distilled", size) for size in grid.sizes] == [None, "small D"]
    assert grid.compare("9", "8", "tiny") is None


def test_a_student_is_adapted_from_the_general_student_of_its_size_and_variant():
    grid, groups = grid_of(
        group("teacher", "teacher", size="large"),
        group("adapted", "adapted-teacher", size="large"),
        group("R", "references"), group("D", "distilled"),
        group("D word", "distilled", variant="word"),
        group("small D", "distilled", size="small"), group("1", "1"),
        group("4", "4"), group("9", "9"), group("9 word", "9", variant="word"),
        group("9 risk", "9", variant="sequence-risk"), group("small 9", "9", size="small"),
    )  # fmt: skip
    starts = {name: grid.start(entry) for name, entry in groups.items()}
    assert starts == {
        "teacher": None, "adapted": "teacher", "R": None, "D": None, "D word": None,
        "small D": None, "1": None, "4": "R", "9": "D", "9 word": "D word", "9 risk": "D",
        "small 9": "small D",
    }  # fmt: skip


def test_a_student_of_all_domains_is_held_against_the_same_student_of_one():
    grid, groups = grid_of(
        group("9", "9"), group("9 word", "9", variant="word"),
        group("9 m", "9", variant="multi-domain"), group("9 m w", "9", variant="word+multi-domain"),
        group("8 m", "8", variant="multi-domain"),
    )  # fmt: skip
    alone = {name: grid.alone(entry) for name, entry in groups.items() if is_multi_domain(entry)}
    assert alone == {"9 m": "9", "9 m w": "9 word", "8 m": None}
