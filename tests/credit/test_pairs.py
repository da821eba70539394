from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmturn.credit.pairs import (
    Label,
    Pair,
    at_turns,
    best_against_worst,
    good_against_bad,
    graded,
    labels,
    value_of,
)
from mmturn.errors import DataError
from mmturn.geometry import Size, Transform
from mmturn.types import ImageRef, Observation, Reward, StopReason, Task, Trajectory, Turn, View

VIEWS = [View(ImageRef(letter * 64, Size(56, 56)), Transform(), Size(56, 56)) for letter in "ab"]


def trajectory(
    value: float, said: Sequence[int] = (1,), group: str = "g", shown: Sequence[int] = (), views: Sequence[View] = ()
) -> Trajectory:
    """One turn per number in ``said``, which stands for what the policy sampled; ``shown`` for what it saw before."""
    turns = [
        Turn(
            index=k,
            observation=Observation(tuple(views) if k == 1 else ()),
            text="",
            token_ids=(shown[k] if k < len(shown) else 100 + k, 200 + number, 7),
            provenance="ost",
            fresh_context=k == 0,
        )
        for k, number in enumerate(said)
    ]
    reward = Reward(value, value / 2, (0.0,) * len(turns), {"answer": float(value > 0.5), "look": -value})
    return Trajectory("t", Task("q", "?"), group, 0, 0, tuple(turns), StopReason.ANSWERED, reward=reward)


def worth(*values: float, group: str = "g") -> list[Trajectory]:
    return [trajectory(value, (number,), group) for number, value in enumerate(values)]


class TestValues:
    """What a trajectory is compared by."""

    def test_parts_of_the_reward(self) -> None:
        one = trajectory(1.0)
        assert [value_of(one, name) for name in ("total", "outcome", "answer", "look")] == [1.0, 0.5, 1.0, -1.0]

    def test_what_has_none_is_named(self) -> None:
        good = trajectory(1.0)
        bad = [
            (replace(good, id="f", stop=StopReason.ENGINE_FAILED, error="out of memory"), "f: failed .out of memory"),
            (replace(good, id="n", reward=None), "n: has no reward"),
            (replace(good, id="c", reward=Reward(1.0, 1.0, ())), r"c: its reward has no 'answer' .it has: total, out"),
            (replace(good, id="i", reward=Reward(1.0, 1.0, (), {"answer": math.nan})), "i: its answer is nan"),
        ]
        for one, message in bad:
            with pytest.raises(DataError, match=f"trajectory {message}"):
                value_of(one, "answer")
        found, problems = graded([*(one for one, _ in bad), good], ["total", "answer"])
        assert found == [good] and len(problems) == 4


class TestBestAgainstWorst:
    """One pair of a group."""

    def test_the_extremes_of_each_group(self) -> None:
        both = [*worth(0.5, 1.0, 0.0, 0.2), *worth(3.0, 2.0, group="h")]
        assert best_against_worst(both) == [Pair(1, 2), Pair(4, 5)]
        assert best_against_worst(both, "look") == [Pair(2, 1, objective="look"), Pair(5, 4, objective="look")]

    def test_equals_and_small_gaps_are_no_pair(self) -> None:
        assert best_against_worst([*worth(1.0, 1.0), *worth(1.0, group="alone")]) == []
        near = worth(1.0, 0.8)
        assert best_against_worst(near, min_gap=0.1) == [Pair(0, 1)] and best_against_worst(near, min_gap=0.5) == []

    def test_groups_may_be_mixed_up(self) -> None:
        one, two = worth(0.0, 1.0), worth(1.0, 0.0, group="h")
        assert best_against_worst([one[0], two[0], one[1], two[1]]) == [Pair(2, 0), Pair(1, 3)]


class TestGoodAgainstBad:
    """All pairs across two thresholds."""

    def test_all_pairs_and_none_of_what_lies_between(self) -> None:
        found = good_against_bad(worth(1.0, 0.0, 0.5, 1.0, 0.1), 1.0, 0.1)
        assert {(pair.chosen, pair.rejected) for pair in found} == {(0, 1), (0, 4), (3, 1), (3, 4)}
        assert good_against_bad(worth(1.0, 1.0), 1.0, 0.1) == good_against_bad(worth(0.0), 1.0, 0.1) == []

    def test_a_few_of_a_group_hold_different_trajectories(self) -> None:
        found = good_against_bad(worth(1.0, 0.0, 0.0, 1.0), 1.0, 0.0, per_group=2)
        assert found == [Pair(0, 1), Pair(3, 2)]

    @given(st.lists(st.integers(0, 4), max_size=8), st.integers(0, 20))
    def test_each_pair_once_from_the_good_to_the_bad(self, values: list[int], per_group: int) -> None:
        found = good_against_bad(worth(*map(float, values)), 3, 1, per_group=per_group)
        everything = sum(value >= 3 for value in values) * sum(value <= 1 for value in values)
        assert len(set(found)) == len(found) == (min(per_group, everything) if per_group else everything)
        assert all(values[pair.chosen] >= 3 and values[pair.rejected] <= 1 for pair in found)


class TestAtTurns:
    """Siblings that part at a turn."""

    def test_a_pair_begins_where_its_trajectories_part(self) -> None:
        found = at_turns([trajectory(1.0, (1, 2, 3)), trajectory(0.0, (1, 2, 4)), trajectory(0.5, (1, 5))])
        assert found == [Pair(0, 1, turn=2), Pair(0, 2, turn=1)]

    def test_each_history_gives_the_two_furthest_apart_that_act_differently(self) -> None:
        # at turn 0 all but the last say 1: the best of those is compared with the last, not with the worst
        group = [trajectory(0.9, (1, 2)), trajectory(0.0, (1, 3)), trajectory(0.4, (1, 2)), trajectory(0.3, (6,))]
        assert at_turns(group) == [Pair(0, 1, turn=1), Pair(0, 3, turn=0)]
        assert at_turns(group, per_group=1) == [Pair(0, 1, turn=1)]
        assert at_turns(group, min_gap=0.7) == [Pair(0, 1, turn=1)]

    def test_another_observation_or_view_is_another_history(self) -> None:
        apart = trajectory(1.0, (1, 2), shown=(100, 101)), trajectory(0.0, (1, 3), shown=(100, 102))
        assert at_turns(apart) == [], "they part before the policy acts"
        pictures = [trajectory(float(n), (1, 2 + n), views=[view]) for n, view in enumerate(VIEWS)]
        assert at_turns(pictures) == []
        pictures = [trajectory(float(n), (1, 2 + n), views=VIEWS[:1]) for n in range(2)]
        assert at_turns(pictures) == [Pair(1, 0, turn=1)]

    def test_what_has_no_ids_or_no_sibling_gives_none(self) -> None:
        blind = [replace(t, turns=tuple(replace(turn, token_ids=None) for turn in t.turns)) for t in worth(1.0, 0.0)]
        assert at_turns(blind) == [] and at_turns(worth(1.0)) == [] and at_turns([trajectory(1.0, ())] * 2) == []
        assert at_turns([trajectory(1.0), trajectory(0.0, group="other")]) == []

    @given(st.lists(st.tuples(st.integers(0, 3), st.lists(st.integers(0, 1), min_size=1, max_size=4)), max_size=7))
    def test_a_pair_shares_all_turns_before_its_own_and_not_that_one(self, made: list[tuple[int, list[int]]]) -> None:
        found = at_turns([trajectory(float(value), said) for value, said in made])
        for pair in found:
            (better, one), (worse, other) = made[pair.chosen], made[pair.rejected]
            assert better > worse and one[: pair.turn] == other[: pair.turn] and one[pair.turn] != other[pair.turn]
        assert len({(pair.turn, tuple(made[pair.chosen][1][: pair.turn])) for pair in found}) == len(found)


def test_labels_leave_out_what_lies_between() -> None:
    assert labels(worth(1.0, 0.3, 0.0), 1.0, 0.1, "total") == [Label(0, True), Label(2, False)]
    assert Label(2, False).members == (2,) and Pair(4, 1).members == (4, 1)
