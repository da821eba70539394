from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmturn.training.balance import WORTH, Move, moves

GROUPS = st.sampled_from([f"g{n}" for n in range(30)])
WORKS = st.lists(st.dictionaries(GROUPS, st.floats(0, 100), max_size=8), min_size=1, max_size=5)


def unique(works: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{f"{rank}/{group}": work for group, work in own.items()} for rank, own in enumerate(works)]


def after(works: list[dict[str, float]]) -> list[dict[str, float]]:
    held = [dict(own) for own in works]
    for move in moves(works):
        held[move.target][move.group] = held[move.source].pop(move.group)
    return held


@given(WORKS)
def test_no_group_is_lost_and_nobody_has_more_than_the_most_before(works: list[dict[str, float]]) -> None:
    works = unique(works)
    held = after(works)
    before = {group: work for own in works for group, work in own.items()}
    assert {group: work for own in held for group, work in own.items()} == before
    loads = [sum(own.values()) for own in held]
    assert max(loads) <= max(sum(own.values()) for own in works) + 1e-9
    # no single move is left that would be worth it
    gap, mean = max(loads) - min(loads), sum(loads) / len(loads)
    most = held[loads.index(max(loads))]
    assert all(min(work, gap - work) <= WORTH * mean + 1e-9 for work in most.values())


def test_uneven_work_is_evened_out_with_few_moves() -> None:
    works = [{"a": 4.0, "b": 3.0, "c": 3.0, "d": 2.0}, {"e": 2.0}, {}]
    loads = [sum(own.values()) for own in after(works)]
    assert max(loads) <= 5.0 and len(moves(works)) <= 3
    assert moves([{"a": 4.0}, {"b": 4.1}]) == [], "what is even stays"
    assert moves([{"a": 9.0}, {}]) == [], "one group cannot be shared"
    assert moves([{"a": 1.0, "b": 1.0}, {}]) == [Move("b", 0, 1)]


@pytest.mark.parametrize("works", [[{}], [{}, {}], [{"a": 0.0}, {}]])
def test_nothing_to_move(works: list[dict[str, float]]) -> None:
    assert moves(works) == []
