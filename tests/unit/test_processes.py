"""data_prep/processes.py: results in order, from as many processes as asked for."""

import importlib
from functools import partial

import pytest

from data_prep.processes import AHEAD, in_order, in_processes
from tests.fixtures.faults import die_once

# pytest's name of this module is one that no other process could import
HERE = "tests.unit.test_processes"


class Heavy:
    """A function that notes in a file each time that it is unpacked."""

    def __init__(self, notes):
        self.notes = notes

    def __setstate__(self, state):
        self.__dict__.update(state)
        with open(self.notes, "a") as file:
            file.write("unpacked\n")

    def __call__(self, number):
        return number * number


@pytest.mark.parametrize("most", [1, 2, 5, 100])
def test_results_come_in_order_with_so_many_under_way(most):
    under_way, seen = set(), []

    def submit(batch):
        under_way.add(batch)
        seen.append(len(under_way))
        return batch

    def result(batch):
        under_way.remove(batch)
        return -batch

    assert list(in_order(submit, result, range(7), most)) == [-n for n in range(7)]
    assert max(seen) == min(most, 7)


def test_processes_get_a_function_once_and_answer_in_order(tmp_path):
    here = importlib.import_module(HERE)
    scratch, notes = tmp_path / "scratch", tmp_path / "notes"
    scratch.mkdir()
    with in_processes(2, folder=scratch) as apply:
        found = apply(here.Heavy(str(notes)), iter(range(9 * AHEAD)))
        assert next(found) == 0
        assert len(list(scratch.iterdir())) == 1
        assert list(found) == [number**2 for number in range(1, 9 * AHEAD)]
    assert not list(scratch.iterdir())
    assert 1 <= len(notes.read_text().split()) <= 2


def test_a_killed_worker_is_reported(tmp_path):
    with pytest.raises(ValueError, match="fewer --workers"):
        with in_processes(2) as apply:
            list(apply(partial(die_once, str(tmp_path / "died")), [1, 2]))
    assert (tmp_path / "died").exists()


def test_one_worker_is_this_process():
    with in_processes(1) as apply:
        assert list(apply(lambda number: -number, [1, 2])) == [-1, -2]
