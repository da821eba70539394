"""Which task comes next, and going on from a stored position."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmturn.errors import CheckpointError, DataError
from mmturn.tasks.sources import ShuffledSource
from mmturn.types import Task

TASKS = [Task(f"t{i}", "?", answer=str(i)) for i in range(7)]


def ids(drawn: list[tuple[Task, int]]) -> list[tuple[str, int]]:
    return [(task.id, visit) for task, visit in drawn]


def test_each_epoch_holds_every_task_once_with_its_visit_number() -> None:
    source = ShuffledSource(TASKS, seed=0)
    drawn = ids(source.next(7) + source.next(7) + source.next(7))
    for epoch in range(3):
        part = drawn[7 * epoch : 7 * epoch + 7]
        assert sorted(part) == [(f"t{i}", epoch) for i in range(7)]
    assert [name for name, _ in drawn[:7]] != [name for name, _ in drawn[7:14]]


def test_the_order_is_a_function_of_the_seed() -> None:
    assert ids(ShuffledSource(TASKS, 1).next(20)) == ids(ShuffledSource(TASKS, 1).next(20))
    assert ids(ShuffledSource(TASKS, 1).next(20)) != ids(ShuffledSource(TASKS, 2).next(20))


def test_the_order_is_the_same_on_every_machine() -> None:
    assert [task.id for task, _ in ShuffledSource(TASKS, 0).next(7)] == ["t5", "t6", "t3", "t4", "t2", "t0", "t1"]


@given(parts=st.lists(st.integers(0, 9), max_size=8), cut=st.integers(0, 8))
def test_a_stored_position_goes_on_where_it_stopped(parts: list[int], cut: int) -> None:
    straight = ShuffledSource(TASKS, 5)
    expected = ids(straight.next(sum(parts)))
    first = ShuffledSource(TASKS, 5)
    drawn = [pair for count in parts[:cut] for pair in ids(first.next(count))]
    second = ShuffledSource(TASKS, 5)
    second.load_state(json.loads(json.dumps(first.state())))
    drawn += [pair for count in parts[cut:] for pair in ids(second.next(count))]
    assert drawn == expected


def test_a_position_of_other_data_is_refused() -> None:
    state = ShuffledSource(TASKS, 5).state()
    for other in (TASKS[:-1], TASKS[::-1], [*TASKS[:-1], Task("t6", "?", answer="changed")]):
        with pytest.raises(CheckpointError, match="other tasks"):
            ShuffledSource(other, 5).load_state(state)
    with pytest.raises(CheckpointError, match="belongs to seed 5, this run has 6"):
        ShuffledSource(TASKS, 6).load_state(state)
    for broken in ({}, {**state, "version": 9}, {**state, "position": "3"}, {**state, "position": True}):
        with pytest.raises(CheckpointError, match="not one of this version"):
            ShuffledSource(TASKS, 5).load_state(broken)
    with pytest.raises(CheckpointError, match="negative"):
        ShuffledSource(TASKS, 5).load_state({**state, "position": -1})


def test_no_tasks() -> None:
    with pytest.raises(DataError, match="no tasks"):
        ShuffledSource([], 0)
