from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmturn.credit.outcome import dr_grpo, rloo
from mmturn.credit.togo import (
    centred_then_accumulated,
    discount_turns,
    minus_mean,
    minus_others,
    minus_values,
    turn_returns,
)

TURNS = [[0.5, 0.25, 1.0], [0.0], [0.25, 0.75]]
OUTCOMES = [1.0, 0.5, 0.0]
NUMBERS = st.integers(-8, 8).map(lambda n: n / 4)
RAGGED = st.lists(st.lists(NUMBERS, max_size=4), min_size=1, max_size=7)


def test_worked_example() -> None:
    returns = turn_returns(TURNS, OUTCOMES)
    assert returns == [(2.75, 2.25, 2.0), (0.5,), (1.0, 0.75)]
    assert turn_returns(TURNS, OUTCOMES, 0.5) == [(1.125, 1.25, 2.0), (0.5,), (0.625, 0.75)]
    less_others = [pytest.approx(row) for row in ((2.0, 1.5, 2.0), (-1.375,), (-0.625, -1.5))]
    assert minus_others(returns) == less_others
    assert minus_mean(returns)[0] == (pytest.approx(4 / 3), 0.75, 0.0)
    assert minus_values(returns, [[1, 1, 1], [2], [0, 3]]) == [(1.75, 1.25, 1.0), (-1.5,), (1.0, -2.25)]
    assert discount_turns(returns, 0.5) == [(2.75, 1.125, 0.5), (0.5,), (1.0, 0.375)]
    centred = centred_then_accumulated(TURNS, OUTCOMES)
    assert centred == [pytest.approx((0.5, 0.25, 0.5)), (pytest.approx(-0.25),), pytest.approx((-0.25, -0.25))]


def test_empty_groups_empty_trajectories_and_other_shapes() -> None:
    for form in (turn_returns, centred_then_accumulated):
        assert form([], []) == [] and form([()], [1.0]) == [()]
        with pytest.raises(ValueError):
            form([[1.0]], [1.0, 2.0])
    assert minus_others([(), (2.0,)]) == [(), (2.0,)] and minus_mean([(), (2.0,)]) == [(), (0.0,)]
    for values in ([[1.0]], [[1.0], [1.0, 2.0]]):
        with pytest.raises(ValueError):
            minus_values([[1.0], [1.0]], values)


@given(RAGGED, st.data())
def test_own_future_and_siblings_alone_count(turns: list[list[float]], data: st.DataObject) -> None:
    """Advantages of turn k do not read i's past, and their baseline reads nothing of i but that it has a turn k."""
    outcomes = data.draw(st.lists(NUMBERS, min_size=len(turns), max_size=len(turns)))
    returns = turn_returns(turns, outcomes)
    baselines = [np.subtract(a, b) for a, b in zip(returns, minus_others(returns), strict=True)]
    i = data.draw(st.integers(0, len(turns) - 1))
    changed = [list(row) for row in turns]
    changed[i] = data.draw(st.lists(NUMBERS, max_size=5))
    other = turn_returns(changed, [o + (j == i) for j, o in enumerate(outcomes)])
    baseline = np.subtract(other[i], minus_others(other)[i])
    both = min(len(changed[i]), len(turns[i]))
    np.testing.assert_allclose(baseline[:both], baselines[i][:both], rtol=0, atol=1e-9)
    if turns[i]:
        first = [[9.0, *row[1:]] if j == i else row for j, row in enumerate(turns)]
        assert [row[1:] for row in turn_returns(first, outcomes)] == [row[1:] for row in returns] or len(turns[i]) == 1


@given(RAGGED)
def test_means_with_and_without_oneself(turns: list[list[float]]) -> None:
    outcomes = [float(i % 3) for i in range(len(turns))]
    returns = turn_returns(turns, outcomes)
    with_self, without = minus_mean(returns), minus_others(returns)
    for k in range(4):
        members = [i for i, row in enumerate(turns) if len(row) > k]
        assert abs(sum(with_self[i][k] for i in members)) < 1e-9
        for i in members:
            shrunk = without[i][k] * (len(members) - 1) / len(members)
            assert with_self[i][k] == pytest.approx(shrunk, abs=1e-9)


@given(st.lists(NUMBERS, min_size=2, max_size=8))
def test_one_turn_is_the_outcome_form(outcomes: list[float]) -> None:
    bare = [[0.0] for _ in outcomes]
    returns = turn_returns(bare, outcomes)
    assert minus_others(returns) == [(a,) for a in rloo(outcomes)]
    assert minus_mean(returns) == centred_then_accumulated(bare, outcomes) == [(a,) for a in dr_grpo(outcomes)]
    equal = [(0.1,) for _ in outcomes]
    assert minus_others(equal) == [(0.0,) for _ in outcomes]


@given(RAGGED, st.randoms())
def test_advantages_permute_with_the_group(turns: list[list[float]], random: Any) -> None:
    outcomes = [float(i % 3) for i in range(len(turns))]
    order = list(range(len(turns)))
    random.shuffle(order)
    for form in (
        lambda t, o: minus_others(turn_returns(t, o)),
        centred_then_accumulated,
    ):
        straight = form(turns, outcomes)
        permuted = form([turns[i] for i in order], [outcomes[i] for i in order])
        for row, i in zip(permuted, order, strict=True):
            np.testing.assert_allclose(row, straight[i], rtol=0, atol=1e-6)
