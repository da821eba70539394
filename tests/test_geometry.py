"""Boxes and transforms: algebra, inverses, worked numbers."""

from __future__ import annotations

import math

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mmturn.geometry import Box, Point, Size, Span, Transform

numbers = st.floats(-5000, 5000, allow_nan=False).map(lambda value: round(value, 3))
sides = st.floats(0.5, 5000).map(lambda value: round(value, 3))
boxes = st.builds(lambda x, y, w, h: Box(x, y, x + w, y + h), numbers, numbers, sides, sides)
points = st.builds(Point, numbers, numbers)
shown = st.builds(Size, st.integers(1, 2000), st.integers(1, 2000))
regions = st.builds(Transform.region, boxes, shown)
turns = st.floats(-math.pi, math.pi).map(
    lambda t: Transform(math.cos(t), -math.sin(t), 0.0, math.sin(t), math.cos(t), 0.0)
)
transforms = st.lists(regions | turns, min_size=1, max_size=5)


def chain(parts: list[Transform]) -> Transform:
    whole = Transform()
    for part in parts:
        whole = whole @ part
    return whole


def close(one: Point, other: Point, tolerance: float) -> bool:
    return math.hypot(one.x - other.x, one.y - other.y) <= tolerance


@given(transforms, points)
def test_chain_applies_the_innermost_first(parts: list[Transform], point: Point) -> None:
    step = point
    for part in reversed(parts):
        step = part.point(step)
    whole = chain(parts).point(point)
    assert close(whole, step, 1e-9 * (1 + abs(step.x) + abs(step.y)) + 1e-3)


@given(transforms, st.floats(0, 1), st.floats(0, 1), shown)
@settings(max_examples=300)
def test_inverse_returns_to_half_a_pixel(parts: list[Transform], across: float, down: float, size: Size) -> None:
    """Within anything a model can be shown, and far beyond: there and back is less than half a pixel off."""
    whole = chain(parts)
    assume(1e-6 < abs(whole.determinant) < 1e6)
    start = Point(across * size.width, down * size.height)
    assert close(whole.inverse().point(whole.point(start)), start, 0.5)


@given(boxes, shown)
def test_region_maps_corners_onto_corners(region: Box, size: Size) -> None:
    found = Transform.region(region, size).box(Box(0, 0, size.width, size.height))
    assert found.as_tuple() == pytest.approx(region.as_tuple(), abs=1e-6)
    back = Transform.region(region, size).inverse().box(region)
    assert back.as_tuple() == pytest.approx((0, 0, size.width, size.height), abs=1e-3)


@given(boxes, boxes)
def test_intersection_and_iou(one: Box, other: Box) -> None:
    common = one.intersect(other)
    assert common == other.intersect(one)
    assert 0 <= one.iou(other) <= 1
    assert one.iou(other) == pytest.approx(other.iou(one))
    assert one.iou(one) == 1
    if common.area > 0:
        assert one.contains(common)
        assert other.contains(common)


@given(boxes, boxes)
def test_shift_into_moves_and_cuts_only_what_is_larger(box: Box, bounds: Box) -> None:
    moved = box.shift_into(bounds)
    assert bounds.contains(moved, 1e-6)
    assert moved.width == pytest.approx(min(box.width, bounds.width))
    assert moved.height == pytest.approx(min(box.height, bounds.height))


def test_mapping_of_a_box_to_the_original_image() -> None:
    """MGPO's mapping per axis, x_ori = x / W_input * W_ori (arXiv 2507.05920): 4032 x 3024 shown at 1148 x 840."""
    source, size = Size(4032, 3024), Size(1148, 840)
    shown_box = Box(287, 210, 574, 630)
    found = Transform.region(Box(0, 0, source.width, source.height), size).box(shown_box)
    assert found.as_tuple() == pytest.approx((1008, 756, 2016, 2268))


def test_nested_crop_composes_offsets_and_scales() -> None:
    """x_root = x0_parent + x / w_shown * w_parent, twice."""
    outer = Transform.region(Box(1008, 756, 2016, 2268), Size(560, 840))
    inner = outer @ Transform.region(Box(56, 84, 112, 252), Size(280, 840))
    assert outer.box(Box(56, 84, 112, 252)).as_tuple() == pytest.approx((1108.8, 907.2, 1209.6, 1209.6))
    assert inner.point(Point(140, 420)) == Point(pytest.approx(1159.2), pytest.approx(1058.4))


def test_half_open_boxes() -> None:
    box = Box(0, 0, 10, 10)
    assert box.contains_point(Point(0, 0))
    assert not box.contains_point(Point(10, 5))
    assert box.iou(Box(10, 0, 20, 10)) == 0
    assert box.iou(Box(5, 0, 15, 10)) == pytest.approx(1 / 3)
    assert Box(0, 0, 0, 0).iou(Box(0, 0, 0, 0)) == 0
    assert Box(5, 5, 1, 9).area == 0
    assert (Box(5, 5, 1, 9).width, Box(5, 5, 1, 9).height) == (-4, 4)
    assert box.center == Point(5, 5)
    assert box.pad(1, 2) == Box(-1, -2, 11, 12)
    assert not box.contains(Box(-1, 0, 5, 5))
    assert box.contains(Box(-1, 0, 5, 5), tolerance=1)


def test_finite() -> None:
    assert Box(0, 0, 1, 1).is_finite
    for bad in (math.nan, math.inf, -math.inf):
        assert not Box(0, bad, 1, 1).is_finite


def test_map_that_flattens_has_no_inverse() -> None:
    with pytest.raises(ValueError, match="no inverse"):
        Transform(1, 2, 0, 2, 4, 0).inverse()
    with pytest.raises(ValueError, match="no inverse"):
        Transform(a=math.nan).inverse()


def test_turned_box_is_the_bounding_box() -> None:
    quarter = Transform(0, 1, 0, -1, 0, 10)
    assert quarter.box(Box(1, 2, 4, 8)) == Box(2, 6, 8, 9)
    assert quarter.determinant == 1


def test_size_and_span() -> None:
    assert Size(3, 4).area == 12
    assert Span(0.5, 2.0).end_s == 2.0
