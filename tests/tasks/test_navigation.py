"""Houses and walks: the same for the same seed, the words and the expert lead to the goal, walks are compared."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmturn.errors import DataError
from mmturn.grammars.gui.active_vln import ActiveVlnGrammar
from mmturn.tasks.navigation import CELL_M, Pose, expert_actions, make_house, navigation_tasks, ndtw, walked
from mmturn.tasks.navigation.house import BODY_M, cell_of, centre
from mmturn.tasks.navigation.walks import instruction

seeds = st.integers(0, 10_000)


@settings(max_examples=60, deadline=None)
@given(seed=seeds, size=st.sampled_from([5, 7, 9, 13]))
def test_the_expert_walks_the_shortest_way_to_the_goal(seed: int, size: int) -> None:
    house = make_house(seed, size)
    assert house == make_house(seed, size)
    actions = expert_actions(house)
    path = walked(house, actions)
    assert math.dist(path[-1], centre(house.goal)) < 1e-6
    length = sum(a.arguments.get("distance_cm", 0) for a in actions) / 100
    assert length == pytest.approx((len(house.way) - 1) * CELL_M) == house.distance_m(house.start.x_m, house.start.y_m)
    assert actions[-1].kind == "answer" and all(cell_of(*at) in house.free for at in path)
    assert ActiveVlnGrammar().format(actions[0], [])  # R2R's moves express it


@settings(max_examples=40, deadline=None)
@given(seed=seeds, degrees=st.floats(0, 359), length=st.floats(0, 30))
def test_walls_stop_a_walk(seed: int, degrees: float, length: float) -> None:
    house = make_house(seed)
    start = Pose(house.start.x_m, house.start.y_m, degrees)
    end, hit = house.moved(start, length)
    gone = math.dist((start.x_m, start.y_m), (end.x_m, end.y_m))
    assert cell_of(end.x_m, end.y_m) in house.free
    assert gone == pytest.approx(length) if not hit else gone < length
    near = BODY_M - 2e-3
    assert all(cell_of(end.x_m + dx, end.y_m + dy) in house.free for dx in (-near, near) for dy in (-near, near))


def test_the_distance_falls_all_along_the_expert_s_way() -> None:
    for seed in range(20):
        house = make_house(seed)
        distances = [house.distance_m(*at) for at in walked(house, expert_actions(house))]
        assert all(later < before + 1e-9 for before, later in pairwise(distances))
        assert distances[-1] == pytest.approx(0, abs=1e-6)


def test_other_moves_do_as_well_where_they_add_up() -> None:
    house = make_house(3)
    assert walked(house, expert_actions(house, turns_degrees=(30, 60, 90)))[-1] == pytest.approx(centre(house.goal))
    with pytest.raises(DataError, match=r"steps_cm \[40\] do not add up"):
        expert_actions(house, steps_cm=(40,))


@settings(max_examples=60, deadline=None)
@given(seed=seeds)
def test_the_words_lead_to_the_goal(seed: int) -> None:
    """Read back and followed, sentence by sentence; a wall that is named stands ahead there, in its colour."""
    house = make_house(seed)
    pose = house.start
    *legs, last = instruction(house).lower().removesuffix(".").split(". ")
    for leg in legs:
        for word, degrees in (("left", 90), ("right", 270), ("around", 180)):
            if f"turn {word}" in leg:
                pose = Pose(pose.x_m, pose.y_m, (pose.degrees + degrees) % 360)
        pose, hit = house.moved(pose, float(leg.split("walk ")[1].split()[0]))
        assert not hit
        if "up to the" in leg:
            angle = math.radians(pose.degrees)
            ahead = cell_of(pose.x_m + CELL_M * math.cos(angle), pose.y_m + CELL_M * math.sin(angle))
            assert house.paint[ahead] == leg.split("up to the ")[1].split()[0]
    assert math.dist((pose.x_m, pose.y_m), centre(house.goal)) < 1e-6
    beside = {
        house.paint.get(cell_of(pose.x_m + dx, pose.y_m + dy)) for dx, dy in ((1.5, 0), (-1.5, 0), (0, 1.5), (0, -1.5))
    }
    assert ("beside the" not in last) or last.split("beside the ")[1].split()[0] in beside


def test_tasks_are_a_function_of_split_and_seed() -> None:
    tasks = navigation_tasks("train", 40)
    assert tasks == navigation_tasks("train", 40) != navigation_tasks("train", 40, seed=1)
    assert tasks[:7] == navigation_tasks("train", 7)
    houses = [{t.meta["house"] for t in navigation_tasks(split, 40)} for split in ("train", "val")]
    assert not houses[0] & houses[1] and len(houses[0]) == 40
    assert all(t.meta["expert_steps"] == len(expert_actions(make_house(t.meta["house"]))) for t in tasks)


@pytest.mark.parametrize("size", [4, 8, 3, 43])
def test_an_impossible_size_is_refused(size: int) -> None:
    with pytest.raises(DataError, match="an odd number from 5 to 41"):
        make_house(0, size)


def test_ndtw() -> None:
    """By hand: the same walk costs nothing; one that stands still costs 0 + 1 + 2 m over 3 positions and 3 m."""
    expert = [(0.0, 0.0), (1.0, 0.0), (2.0, 0.0)]
    assert ndtw(expert, expert) == 1.0
    assert ndtw([(0.0, 0.0)], expert) == pytest.approx(math.exp(-3 / 9))
    assert ndtw([(0.0, 0.0), (0.0, 0.0), (1.0, 0.0), (2.0, 0.0)], expert) == 1.0
    assert ndtw([(0.0, 1.0), (1.0, 1.0), (2.0, 1.0)], expert, radius_m=1.0) == pytest.approx(math.exp(-1))
    with pytest.raises(ValueError, match="at least one position"):
        ndtw([], expert)
