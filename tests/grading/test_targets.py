"""What a point hits: edges, polygons, refusals."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmturn.grading.targets import in_box, in_polygon

L_SHAPE = [0, 0, 10, 0, 10, 4, 4, 4, 4, 10, 0, 10]


@pytest.mark.parametrize(
    ("point", "inside"),
    [
        ((2, 3), True),
        ((1, 3), True),
        ((4, 5), True),
        ((1, 2), True),
        ((0.99, 3), False),
        ((4.01, 3), False),
        ((2, 6), False),
    ],
)
def test_edges_of_a_box_count(point: tuple[float, float], inside: bool) -> None:
    assert in_box(point, [1, 2, 4, 5]) is inside


@pytest.mark.parametrize(
    ("point", "inside"),
    [((2, 2), True), ((8, 2), True), ((2, 8), True), ((8, 8), False), ((5, 5), False), ((-1, 5), False)],
)
def test_a_polygon(point: tuple[float, float], inside: bool) -> None:
    assert in_polygon(point, L_SHAPE) is inside
    assert in_polygon(point, [*L_SHAPE[2:], *L_SHAPE[:2]]) is inside


def test_of_the_edges_the_upper_and_left_ones_count() -> None:
    assert in_polygon((0, 5), L_SHAPE) and in_polygon((5, 0), L_SHAPE)
    assert not in_polygon((10, 2), L_SHAPE) and not in_polygon((2, 10), L_SHAPE)


@given(st.floats(-5, 15), st.floats(-5, 15))
def test_four_numbers_are_a_box(x: float, y: float) -> None:
    assert in_polygon((x, y), [1, 2, 9, 8]) is in_box((x, y), [1, 2, 9, 8])
    corners = [1, 2, 9, 2, 9, 8, 1, 8]
    if x not in (1, 9) and y not in (2, 8):
        assert in_polygon((x, y), corners) is in_box((x, y), [1, 2, 9, 8])
