"""The crop tool: what becomes of a box, and the exact way back to the source through nested crops."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mmturn.errors import ConfigError, ToolError
from mmturn.families.size_rules import processor_rule
from mmturn.geometry import Box, Size, Transform
from mmturn.media.look import StoreLook
from mmturn.media.store import ImageStore
from mmturn.media.views import fit
from mmturn.schema import build
from mmturn.tools.crop import CropConfig, CropTool
from mmturn.types import ImageRef, PixelBudget, View


def rule(size: Size, budget: PixelBudget) -> Size:
    return processor_rule(size, budget, 28)


BUDGET = PixelBudget(4 * 784, 1_003_520)
STORE = ImageStore()
LOOK = StoreLook(STORE, rule, BUDGET)
# The worked numbers of MGPO's mapping: 4032 x 3920 shown at 1008 x 980.
ROOT = fit(ImageRef("a" * 64, Size(4032, 3920)), rule, BUDGET)


def crop(box: list[float], view: View = ROOT, **config: object) -> tuple[View, Box]:
    tool = CropTool(build(CropConfig, config))
    result = tool({"bbox_2d": box}, view, LOOK)
    (shown,) = result.parts
    assert isinstance(shown, View)
    return shown, Box(*result.facts["crop"])


def refusal(box: object, view: View = ROOT, **config: object) -> str:
    with pytest.raises(ToolError) as info:
        CropTool(build(CropConfig, config))({"bbox_2d": box}, view, LOOK)
    return str(info.value)


def test_mapping_to_the_full_resolution_source() -> None:
    assert ROOT.size == Size(1008, 980)
    shown, fact = crop([252, 245, 504, 490])
    assert fact.as_tuple() == pytest.approx((1008, 980, 2016, 1960), abs=1e-9)
    assert shown.source == ROOT.source
    assert shown.size == rule(Size(1008, 980), BUDGET)
    assert shown.region.as_tuple() == fact.as_tuple()


def test_nested_crops_map_to_the_root() -> None:
    first, _ = crop([252, 245, 504, 490])
    second, fact = crop([first.size.width / 4, 0, first.size.width / 2, first.size.height / 2], first)
    assert second.source == ROOT.source
    assert fact.as_tuple() == pytest.approx((1008 + 252, 980, 1008 + 504, 980 + 490), abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(
    boxes=st.lists(
        st.tuples(*[st.floats(0.0, 0.6)] * 2, *[st.floats(0.3, 0.4)] * 2).map(lambda t: t), min_size=1, max_size=4
    )
)
def test_nested_crops_equal_composed_fractions(boxes: list[tuple[float, float, float, float]]) -> None:
    view, expected = ROOT, Box(0, 0, 4032, 3920)
    for x, y, w, h in boxes:
        size = view.size
        box = [x * size.width, y * size.height, (x + w) * size.width, (y + h) * size.height]
        view, fact = crop(box, view)
        width, height = expected.width, expected.height
        expected = Box(
            expected.x0 + x * width,
            expected.y0 + y * height,
            expected.x0 + (x + w) * width,
            expected.y0 + (y + h) * height,
        )
        assert fact.as_tuple() == pytest.approx(expected.as_tuple(), abs=1e-6)


def test_a_crop_shows_the_sources_own_pixels() -> None:
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 255, (560, 560, 3), dtype=np.uint8))
    look = StoreLook(STORE, rule, PixelBudget(784, 140 * 140))
    root = fit(STORE.put_image(image), rule, look.budget)
    assert root.size == Size(140, 140)
    (shown,) = CropTool()({"bbox_2d": [14, 14, 28, 28]}, root, look).parts
    assert isinstance(shown, View)
    # 14 pixels of the view are 56 of the source, shown one to one
    assert np.array_equal(STORE.pixels(shown), np.asarray(image)[56:112, 56:112])


def test_regions_over_the_edge_are_clipped_or_refused() -> None:
    _, fact = crop([-50, -50, 252, 245])
    assert fact.as_tuple() == pytest.approx((0, 0, 1008, 980))
    _, fact = crop([0, 0, 1e9, 1e9])
    assert fact.as_tuple() == pytest.approx((0, 0, 4032, 3920))
    message = refusal([-50, -50, 252, 245], outside="refuse")
    assert "reaches outside the image of 1008 x 980 pixels" in message
    assert crop([0, 0, 1008, 980], outside="refuse")
    assert "lies outside the image of 1008 x 980 pixels" in refusal([1100, 0, 1200, 100])
    assert "lies outside" in refusal([1008, 0, 1200, 100])


@pytest.mark.parametrize("box", [[50, 50, 50, 90], [50, 50, 90, 50], [90, 50, 50, 90], [50, 90, 90, 50], [5, 5, 5, 5]])
def test_empty_and_swapped_boxes_say_what_would_be_right(box: list[float]) -> None:
    assert "x0 < x1 and y0 < y1" in refusal(box)


@pytest.mark.parametrize(
    "box", [None, "1,2,3,4", [1, 2, 3], [1, 2, 3, None], [1, 2, 3, True], [0, 0, math.nan, 1], [0, 0, math.inf, 1], {}]
)
def test_what_is_no_box_is_refused(box: object) -> None:
    assert "4 finite numbers [x0, y0, x1, y1]" in refusal(box)


def test_padding() -> None:
    assert crop([400, 400, 500, 600], pad=0.25)[1].as_tuple() == pytest.approx((1500, 1400, 2100, 2600))
    assert crop([400, 400, 500, 600], pad_px=10)[1].as_tuple() == pytest.approx((1560, 1560, 2040, 2440))
    _, fact = crop([400, 400, 500, 600], pad_view=0.1)
    assert fact.as_tuple() == pytest.approx((1600 - 403.2, 1600 - 392, 2000 + 403.2, 2400 + 392))
    assert crop([0, 0, 100, 100], pad=0.5)[1].as_tuple() == pytest.approx((0, 0, 600, 600))


def test_small_boxes_grow_or_are_refused() -> None:
    assert crop([500, 500, 510, 600], min_side_px=50)[1].as_tuple() == pytest.approx((1920, 2000, 2120, 2400))
    # at the edge the grown box is moved inside, not cut
    assert crop([0, 0, 10, 10], min_side_px=50)[1].as_tuple() == pytest.approx((0, 0, 200, 200))
    message = refusal([500, 500, 510, 600], min_side_px=50, small="refuse")
    assert "too small (10 x 100 pixels)" in message
    assert "at least 50" in message
    assert crop([500, 500, 550, 600], min_side_px=50, small="refuse")


def test_less_than_a_pixel_of_the_source_grows_to_one() -> None:
    _, fact = crop([100, 100, 100.01, 100.01])
    assert (fact.width, fact.height) == pytest.approx((1, 1))
    assert "too small" in refusal([100, 100, 100.01, 100.01], small="refuse")


def test_thin_boxes_are_refused_or_grow() -> None:
    assert "at most 20 times" in refusal([0, 100, 1000, 110], max_aspect=20)
    _, fact = crop([0, 100, 1000, 110], max_aspect=20, thin="grow")
    assert fact.as_tuple() == pytest.approx((0, 320, 4000, 520))
    assert crop([0, 100, 1000, 150], max_aspect=20)


def test_settings_are_checked() -> None:
    for config in ({"pad": -1}, {"min_side_px": math.nan}, {"max_aspect": 0.5}, {"pixels": (9, 1)}, {"upscale": 0}):
        with pytest.raises(ConfigError, match=next(iter(config))):
            build(CropConfig, config)


def test_spec_follows_the_settings() -> None:
    spec = CropTool(CropConfig(name="image_zoom_in_tool", addressing="argument", label=False)).spec
    assert spec.name == "image_zoom_in_tool"
    assert set(spec.parameters["properties"]) == {"bbox_2d", "source"}
    assert spec.parameters["required"] == ["bbox_2d"]
    assert set(CropTool().spec.parameters["properties"]) == {"bbox_2d", "label"}


def test_a_turned_view_is_cropped_along_its_own_axes() -> None:
    turned = LOOK.rotate(ROOT, 90)
    assert turned.source == ROOT.source
    box = Box(100, 200, 300, 250)
    shown, fact = crop(list(box.as_tuple()), turned)
    assert fact.as_tuple() == pytest.approx(turned.transform.box(box).as_tuple(), abs=1e-6)
    assert shown.transform.a == pytest.approx(0)
    assert dataclasses.replace(turned, transform=Transform()) != turned


@settings(max_examples=150, deadline=None)
@given(
    box=st.lists(
        st.one_of(st.floats(allow_nan=True, allow_infinity=True), st.integers(-(10**12), 10**12), st.floats(-20, 1100)),
        min_size=4,
        max_size=4,
    ),
    config=st.sampled_from(
        [{}, {"pad": 0.5, "min_side_px": 28}, {"outside": "refuse", "small": "refuse"}, {"thin": "grow"}]
    ),
)
def test_any_numbers_give_a_region_of_the_source_or_a_tool_error(box: list[float], config: dict[str, object]) -> None:
    try:
        shown, fact = crop(box, **config)
    except ToolError as exc:
        assert len(str(exc)) < 300
        return
    assert fact.is_finite
    assert fact.width > 0.99
    assert fact.height > 0.99
    assert Box(0, 0, 4032, 3920).contains(fact, 1e-6)
    assert shown.size.width % 28 == shown.size.height % 28 == 0
