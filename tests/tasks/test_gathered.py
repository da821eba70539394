"""Tasks of benchmarks: a bad row is a problem of its own, ids are unique, and a place without good rows says why."""

from __future__ import annotations

import pytest

from mmturn.tasks.gathered import Gathered
from mmturn.types import Task


def test_bad_rows_are_named_and_the_good_ones_kept() -> None:
    found = Gathered()
    for line, row in enumerate([{"id": "a"}, {}, {"id": "a"}, {"id": "b"}], start=1):
        with found.row(f"f.json:{line}", line):
            found.add(Task(id=row["id"], question="?"))
    assert [task.id for task in found.tasks] == ["a", "b"]
    assert [str(problem) for problem in found.problems] == [
        "f.json:2: there is no 'id'", "f.json:3: the id 'a' is there twice"
    ]  # fmt: skip
    assert [problem.line for problem in found.problems] == [2, 3]


def test_what_is_no_fault_of_a_row_goes_through() -> None:
    with pytest.raises(ZeroDivisionError), Gathered().row("f.json:1"):
        print(1 // 0)


def test_nothing_good_says_why() -> None:
    found = Gathered()
    assert str(found.none("x holds nothing")) == "x holds nothing:\n  it holds no rows"
    with found.row("f.json:1"):
        raise ValueError("odd")
    assert str(found.none("x holds nothing")) == "x holds nothing:\n  f.json:1: odd"
