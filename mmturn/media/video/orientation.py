"""How stored frames are turned to stand upright."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Frame = NDArray[np.uint8]
"""[H, W, 3] RGB."""


@dataclass(frozen=True, slots=True)
class Orientation:
    """A way in which a frame can lie, of eight: stored (x, y) is shown at (a x + c y, b x + d y), then shifted."""

    a: int = 1
    b: int = 0
    c: int = 0
    d: int = 1

    @staticmethod
    def of_matrix(matrix: Sequence[int]) -> Orientation:
        """Of the nine numbers of a display matrix; one that is no quarter turn or mirroring counts as upright."""
        a, b, c, d = matrix[0], matrix[1], matrix[3], matrix[4]
        most = max(map(abs, (a, b, c, d)))
        unit = [0 if most == 0 or abs(value) < most * 1e-3 else math.copysign(1, value) for value in (a, b, c, d)]
        a, b, c, d = map(int, unit)
        straight, crossed = a != 0 and d != 0 and b == c == 0, b != 0 and c != 0 and a == d == 0
        return Orientation(a, b, c, d) if straight or crossed else Orientation()

    @staticmethod
    def of_turn(degrees_counterclockwise: int) -> Orientation:
        """Of an angle; one that is no quarter turn counts as upright."""
        turns = {90: Orientation(0, -1, 1, 0), 180: Orientation(-1, 0, 0, -1), 270: Orientation(0, 1, -1, 0)}
        return turns.get(degrees_counterclockwise % 360, Orientation())

    @property
    def swaps_sides(self) -> bool:
        """Whether width becomes height."""
        return self.a == 0

    @property
    def mirrors(self) -> bool:
        """Whether left and right are exchanged, so that no turn alone does it."""
        return self.a * self.d - self.b * self.c < 0

    def upright(self, frame: Frame) -> Frame:
        """[H, W, 3] as it is to be seen."""
        right, down = (self.c, self.b) if self.swaps_sides else (self.a, self.d)
        if self.swaps_sides:
            frame = frame.swapaxes(0, 1)
        if right < 0:
            frame = frame[:, ::-1]
        if down < 0:
            frame = frame[::-1]
        return np.ascontiguousarray(frame)
