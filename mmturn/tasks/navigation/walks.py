"""Walks through houses: the expert's, the words that describe it, and how alike two are."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence

from mmturn.errors import DataError
from mmturn.gui_actions import act, finish
from mmturn.tasks.navigation.house import CELL_M, Cell, House, Pose, make_house
from mmturn.types import Action, Task

Position = tuple[float, float]
_WORDS = {0: "", 90: "turn left", 180: "turn around", 270: "turn right"}


def navigation_tasks(split: str, count: int, *, seed: int = 0, size: int = 9) -> list[Task]:
    """``count`` walks of one split, each in a house of its own: a function of split, seed and size.

    ``meta``: ``house`` and ``size`` (see ``make_house``), ``scene``, and ``expert_steps``, the expert's number of
    actions, stop included. Source: ActiveVLN (arXiv 2509.12618) for what a task is; the houses are our own.
    """
    dice = random.Random(f"navigation/{split}/{seed}")
    tasks = []
    for number in range(count):
        number_of_house = dice.randrange(2**31)
        house = make_house(number_of_house, size)
        meta = {
            "house": number_of_house, "size": size, "scene": f"house-{size}-{number_of_house}",
            "expert_steps": len(expert_actions(house)),
        }  # fmt: skip
        tasks.append(Task(f"navigation-{split}-{number:05d}", instruction(house), meta=meta))
    return tasks


def expert_actions(
    house: House, steps_cm: Sequence[int] = (25, 50, 75), turns_degrees: Sequence[int] = (15, 30, 45)
) -> list[Action]:
    """The walk along the shortest way in as few actions of the given lengths and angles as greed finds, and the stop.

    Raises DataError where they do not add up to a cell and a right angle.
    """
    actions: list[Action] = []
    for turn, cells in _legs(house):
        angle = turn - 360 if turn > 180 else turn
        for part in _parts(abs(angle), turns_degrees, "turns_degrees"):
            actions.append(act("turn", degrees=part if angle > 0 else -part))
        for part in _parts(round(cells * CELL_M * 100), steps_cm, "steps_cm"):
            actions.append(act("move_forward", distance_cm=part))
    return [*actions, finish()]


def instruction(house: House) -> str:
    """The shortest way in words: turns, metres, and the coloured walls that it meets."""
    sentences, at = [], 0
    legs = _legs(house)
    for number, (turn, cells) in enumerate(legs):
        at += cells
        before, here = house.way[at - 1], house.way[at]
        ahead = house.paint.get((2 * here[0] - before[0], 2 * here[1] - before[1]))
        last = number == len(legs) - 1
        walk = f"walk {cells * CELL_M:g} metres"
        if ahead is not None and not last:
            walk += f" up to the {ahead} wall"
        start = f"{_WORDS[turn]} and " if _WORDS[turn] else ""
        sentences.append(f"{start}{walk}.".capitalize())
    goal = next((house.paint[side] for side in _around(house.goal) if side in house.paint), None)
    where = f" beside the {goal} wall" if goal else ""
    return f"{' '.join(sentences)} Stop there{where}."


def walked(house: House, actions: Iterable[Action]) -> list[Position]:
    """The positions that actions lead to from the start, the start first; turns stay where they are."""
    pose, positions = house.start, [(house.start.x_m, house.start.y_m)]
    for action in actions:
        if action.name == "turn":
            pose = Pose(pose.x_m, pose.y_m, (pose.degrees + action.arguments["degrees"]) % 360)
        elif action.name == "move_forward":
            pose, _ = house.moved(pose, action.arguments["distance_cm"] / 100)
            positions.append((pose.x_m, pose.y_m))
    return positions


def ndtw(walk: Sequence[Position], expert: Sequence[Position], radius_m: float = 3.0) -> float:
    """How alike two walks are, from 0 to 1: ``exp(-DTW / (len(expert) radius))``, DTW the sum of distances in metres
    under dynamic time warping. Raises ValueError for an empty walk.

    Source: ActiveVLN (arXiv 2509.12618), vlnce_server/env.py, after Ilharco et al. (arXiv 1907.05446).
    """
    if not walk or not expert or radius_m <= 0:
        raise ValueError("two walks of at least one position and a radius above 0 are needed")
    row = [math.inf] * len(expert)
    for number, here in enumerate(walk):
        before, row = row, []
        for k, there in enumerate(expert):
            best = min(before[k], before[k - 1] if k else math.inf, row[k - 1] if k else math.inf)
            row.append(math.dist(here, there) + (0.0 if number == k == 0 else best))
    return math.exp(-row[-1] / (len(expert) * radius_m))


def _legs(house: House) -> list[tuple[int, int]]:
    """The way as (degrees to turn left: 0, 90, 180 or 270; cells to walk then)."""
    legs: list[tuple[int, int]] = []
    looks = round(house.start.degrees)
    for (x0, y0), (x1, y1) in zip(house.way, house.way[1:], strict=False):
        heading = round(math.degrees(math.atan2(y1 - y0, x1 - x0))) % 360
        turn, looks = (heading - looks) % 360, heading
        if legs and turn == 0:
            legs[-1] = (legs[-1][0], legs[-1][1] + 1)
        else:
            legs.append((turn, 1))
    return legs


def _parts(total: int, sizes: Sequence[int], name: str) -> list[int]:
    """A total as a sum of sizes, large ones first."""
    parts: list[int] = []
    for size in sorted(sizes, reverse=True):
        parts += [size] * ((total - sum(parts)) // size)
    if sum(parts) != total:
        raise DataError(f"{name} {list(sizes)} do not add up to {total}")
    return parts


def _around(cell: Cell) -> list[Cell]:
    return [(cell[0] + 1, cell[1]), (cell[0], cell[1] + 1), (cell[0] - 1, cell[1]), (cell[0], cell[1] - 1)]
