"""Turning frames upright."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from mmturn.media.video.orientation import Orientation

FRAME = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_turns_are_counterclockwise(degrees: int) -> None:
    orientation = Orientation.of_turn(degrees)
    assert np.array_equal(orientation.upright(FRAME), np.rot90(FRAME, degrees // 90))
    assert not orientation.mirrors and orientation.swaps_sides == (degrees % 180 == 90)
    assert Orientation.of_turn(degrees - 360) == orientation


def test_all_eight_matrices_put_pixels_where_they_say() -> None:
    seen = set()
    for first, second, crossed in product((1, -1), (1, -1), (False, True)):
        a, b, c, d = (0, first, second, 0) if crossed else (first, 0, 0, second)
        orientation = Orientation.of_matrix([a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30])
        assert orientation == Orientation(a, b, c, d) and orientation.mirrors == (a * d - b * c < 0)
        shown = orientation.upright(FRAME)
        height, width = shown.shape[:2]
        for y, x in product(range(2), range(3)):
            right, down = a * x + c * y - (a + c < 0), b * x + d * y - (b + d < 0)
            assert np.array_equal(shown[down % height, right % width], FRAME[y, x])
        seen.add(shown.tobytes())
    assert len(seen) == 8


def test_what_is_no_quarter_turn_counts_as_upright() -> None:
    assert Orientation.of_matrix([0] * 9) == Orientation.of_turn(45) == Orientation()
    assert Orientation.of_matrix([46341, 46341, 0, -46341, 46341, 0, 0, 0, 1 << 30]) == Orientation()
