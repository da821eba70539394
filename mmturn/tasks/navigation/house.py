"""A house on a grid: corridors between walls, some of which are coloured, with a way from a start to a goal.

Metres, x to the right and y upwards on the plan; degrees counter-clockwise from the x axis. A cell is ``CELL_M`` wide.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from mmturn.errors import DataError

CELL_M = 1.5
"""Side of a cell."""
BODY_M = 0.2
"""Radius of the walker: how near to a wall its middle may come."""
COLOURS: Mapping[str, tuple[int, int, int]] = {
    "red": (205, 45, 40), "green": (40, 150, 70), "blue": (45, 85, 205), "yellow": (225, 195, 40),
    "purple": (140, 60, 170), "orange": (230, 125, 30), "pink": (235, 130, 175), "turquoise": (40, 180, 185),
}  # fmt: skip
"""Names and RGB of what walls may be painted with."""
Cell = tuple[int, int]
_SIDES: tuple[Cell, ...] = ((1, 0), (0, 1), (-1, 0), (0, -1))
_LEAST_WAY, _MOST_WAY = 3, 12
_SHORTCUTS = 0.12
_STRIDE_M = 0.05


@dataclass(frozen=True, slots=True)
class Pose:
    """Where a walker stands and which way it looks."""

    x_m: float
    y_m: float
    degrees: float
    """0: along x; 90: along y; from 0 up to 360."""


@dataclass(frozen=True)
class House:
    """A plan with one walk in it."""

    size: int
    """Cells in each direction, an odd number; the outermost are walls."""
    free: frozenset[Cell]
    """Cells that can be walked on."""
    paint: Mapping[Cell, str]
    """Colours of walls that have one."""
    way: tuple[Cell, ...]
    """The shortest way, from the start to the goal."""
    start: Pose

    @property
    def goal(self) -> Cell:
        """The cell to arrive at."""
        return self.way[-1]

    def distance_m(self, x_m: float, y_m: float) -> float:
        """Length of the shortest way from a position to the middle of the goal."""
        there = centre(self.goal)
        here = cell_of(x_m, y_m)
        steps = self._steps
        if here not in steps:
            return math.dist((x_m, y_m), there)
        near = [here, *(side for side in _beside(here) if side in steps)]
        if self.goal in near:
            return math.dist((x_m, y_m), there)
        return min(math.dist((x_m, y_m), centre(cell)) + steps[cell] * CELL_M for cell in near)

    def moved(self, pose: Pose, distance_m: float) -> tuple[Pose, bool]:
        """A pose after a walk ahead that a wall may cut short, and whether one did."""
        angle, x, y, left = math.radians(pose.degrees), pose.x_m, pose.y_m, distance_m
        while left > 1e-9:
            stride = min(_STRIDE_M, left)
            new_x, new_y = x + stride * math.cos(angle), y + stride * math.sin(angle)
            if not self._stands(new_x, new_y):
                return Pose(x, y, pose.degrees), True
            x, y, left = new_x, new_y, left - stride
        return Pose(x, y, pose.degrees), False

    def _stands(self, x: float, y: float) -> bool:
        # a thousandth of slack: a walk along the middle of a corridor must not fail for rounding
        reach = BODY_M - 1e-3
        return all(cell_of(x + dx, y + dy) in self.free for dx in (-reach, reach) for dy in (-reach, reach))

    @cached_property
    def _steps(self) -> dict[Cell, int]:
        """Cells between each free cell and the goal."""
        return _distances(self.free, self.goal)


def centre(cell: Cell) -> tuple[float, float]:
    """Middle of a cell, in metres."""
    return ((cell[0] + 0.5) * CELL_M, (cell[1] + 0.5) * CELL_M)


def cell_of(x_m: float, y_m: float) -> Cell:
    """The cell that holds a position."""
    return (math.floor(x_m / CELL_M), math.floor(y_m / CELL_M))


def make_house(seed: int, size: int = 9) -> House:
    """The house of a seed. Raises DataError for a size that is not odd, or not from 5 to 41."""
    if size % 2 == 0 or not 5 <= size <= 41:
        raise DataError(f"the size of a house must be an odd number from 5 to 41, got {size}")
    dice = random.Random(f"house/{size}/{seed}")
    free = _corridors(dice, size)
    way = _walk(dice, free)
    looks = dice.choice((0, 90, 180, 270))
    x, y = centre(way[0])
    return House(size, frozenset(free), _painted(dice, free, way), tuple(way), Pose(x, y, float(looks)))


def _corridors(dice: random.Random, size: int) -> set[Cell]:
    """A maze without loops, and then a few walls less."""
    start = (1, 1)
    free, trail = {start}, [start]
    while trail:
        x, y = trail[-1]
        ways = [(dx, dy) for dx, dy in _SIDES if 0 < x + 2 * dx < size - 1 and 0 < y + 2 * dy < size - 1]
        ways = [(dx, dy) for dx, dy in ways if (x + 2 * dx, y + 2 * dy) not in free]
        if not ways:
            trail.pop()
            continue
        dx, dy = dice.choice(ways)
        free |= {(x + dx, y + dy), (x + 2 * dx, y + 2 * dy)}
        trail.append((x + 2 * dx, y + 2 * dy))
    for x in range(1, size - 1):
        for y in range(1, size - 1):
            between = (x % 2 == 0) != (y % 2 == 0)
            if between and dice.random() < _SHORTCUTS:
                free.add((x, y))
    return free


def _walk(dice: random.Random, free: set[Cell]) -> list[Cell]:
    """A shortest way of a middling length between two cells."""
    rooms = sorted(cell for cell in free if cell[0] % 2 and cell[1] % 2)
    while True:
        start = dice.choice(rooms)
        steps = _distances(free, start)
        goals = [cell for cell in rooms if _LEAST_WAY <= steps[cell] <= _MOST_WAY]
        if not goals:
            continue
        way = [dice.choice(goals)]
        while way[-1] != start:
            way.append(next(cell for cell in _beside(way[-1]) if steps.get(cell, -1) == steps[way[-1]] - 1))
        return way[::-1]


def _painted(dice: random.Random, free: set[Cell], way: list[Cell]) -> dict[Cell, str]:
    """A colour for the walls around the goal, and others for the walls ahead where the way turns."""
    colours = list(COLOURS)
    dice.shuffle(colours)
    paint = {cell: colours[0] for cell in _beside(way[-1]) if cell not in free}
    later = iter(colours[1:])
    for before, here, after in zip(way, way[1:], way[2:], strict=False):
        ahead = (2 * here[0] - before[0], 2 * here[1] - before[1])
        if ahead != after and ahead not in free and ahead not in paint:
            colour = next(later, None)
            if colour is not None:
                paint[ahead] = colour
    return paint


def _beside(cell: Cell) -> list[Cell]:
    return [(cell[0] + dx, cell[1] + dy) for dx, dy in _SIDES]


def _distances(free: frozenset[Cell] | set[Cell], start: Cell) -> dict[Cell, int]:
    """Cells between ``start`` and each that can be reached."""
    steps, waiting = {start: 0}, deque([start])
    while waiting:
        here = waiting.popleft()
        for cell in _beside(here):
            if cell in free and cell not in steps:
                steps[cell] = steps[here] + 1
                waiting.append(cell)
    return steps
