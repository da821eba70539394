"""What a walker in a house sees: one ray per column of the picture."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mmturn.geometry import Size
from mmturn.tasks.navigation.house import CELL_M, COLOURS, House, Pose

_WALL = (188, 180, 168)
_FLOOR = np.array([96, 84, 72], float)
_CEILING = np.array([222, 226, 232], float)
_WALL_M, _EYE_M = 2.5, 1.25
_DIM_M = 9.0
"""Distance at which walls have lost most of their light."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def picture(house: House, pose: Pose, size: Size, fov_degrees: float = 90.0) -> Image.Image:
    """The view ahead, ``size`` pixels, with a horizontal field of view. A function of its arguments."""
    columns = (np.arange(size.width) + 0.5) / size.width * 2 - 1
    spread = math.tan(math.radians(fov_degrees) / 2)
    look = math.radians(pose.degrees)
    # Columns go from left to right, which is clockwise.
    dir_x = math.cos(look) + columns * spread * math.sin(look)
    dir_y = math.sin(look) - columns * spread * math.cos(look)
    depth_m, cells, along, upright = _hits(house, pose, dir_x, dir_y)
    focal_px = size.width / 2 / spread
    middle = size.height / 2
    rows = np.arange(size.height)[:, None] + 0.5
    top = middle - (_WALL_M - _EYE_M) * focal_px / depth_m
    bottom = middle + _EYE_M * focal_px / depth_m
    walls = _shaded(house, cells, depth_m, along, upright)
    far = np.clip(np.abs(rows - middle) / middle, 0, 1)[:, :, None]
    background = np.where((rows < middle)[:, :, None], _CEILING * (0.7 + 0.3 * far), _FLOOR * (0.55 + 0.45 * far))
    inside = (rows >= top) & (rows < bottom)
    pixels = np.where(inside[:, :, None], walls[None, :, :], background)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _hits(house: House, pose: Pose, dir_x: Floats, dir_y: Floats) -> tuple[Floats, Ints, Floats, NDArray[np.bool_]]:
    """For each ray: metres along the line of sight, the wall's cell, where on its side (0..1), and whether that side
    stands across x. Rays go from one line of the grid to the next until all have met a wall."""
    plan = np.ones((house.size, house.size), bool)
    for x, y in house.free:
        plan[x, y] = False
    with np.errstate(divide="ignore"):
        step = [np.abs(1 / dir_x), np.abs(1 / dir_y)]
    start = (pose.x_m / CELL_M, pose.y_m / CELL_M)
    cell = np.array([[math.floor(at)] * len(dir_x) for at in start])
    signs = np.where(np.array([dir_x, dir_y]) < 0, -1, 1)
    ahead = np.array([
        np.where(sign < 0, at - math.floor(at), math.floor(at) + 1 - at) * one
        for sign, at, one in zip(signs, start, step, strict=True)
    ])  # fmt: skip
    across_x = np.zeros(len(dir_x), bool)
    flying = np.ones(len(dir_x), bool)
    for _ in range(2 * house.size):
        nearer = ahead[0] < ahead[1]
        for axis, moves in ((0, flying & nearer), (1, flying & ~nearer)):
            cell[axis] = np.where(moves, cell[axis] + signs[axis], cell[axis])
            ahead[axis] = np.where(moves, ahead[axis] + step[axis], ahead[axis])
            across_x = np.where(moves, axis == 0, across_x)
        inside = np.clip(cell, 0, house.size - 1)
        flying &= ~plan[inside[0], inside[1]]
        if not flying.any():
            break
    depth = np.where(across_x, ahead[0] - step[0], ahead[1] - step[1])
    along = np.where(across_x, start[1] + depth * dir_y, start[0] + depth * dir_x) % 1.0
    return np.maximum(depth * CELL_M, 1e-3), cell, along, across_x


def _shaded(house: House, cells: Ints, depth_m: Floats, along: Floats, upright: NDArray[np.bool_]) -> Floats:
    """RGB of each column's wall [columns, 3]: its paint, darker afar, on one of two sides, and at the cells' edges."""
    names = [house.paint.get((int(x), int(y))) for x, y in cells.T]
    colours = np.array([_WALL if name is None else COLOURS[name] for name in names], float)
    light = np.exp(-depth_m / _DIM_M) * 0.65 + 0.35
    light = light * np.where(upright, 1.0, 0.85) * np.where((along < 0.03) | (along > 0.97), 0.6, 1.0)
    return np.asarray(colours * light[:, None], dtype=np.float64)
