"""Zoom about a point, and rotation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image

from mmturn.errors import ConfigError, ToolError
from mmturn.families.size_rules import processor_rule
from mmturn.geometry import Box, Size
from mmturn.media.look import StoreLook
from mmturn.media.store import ImageStore
from mmturn.media.views import fit
from mmturn.tools.rotate import RotateConfig, RotateTool
from mmturn.tools.zoom import ZoomConfig, ZoomTool
from mmturn.types import ImageRef, PixelBudget, View


def rule(size: Size, budget: PixelBudget) -> Size:
    return processor_rule(size, budget, 10)


STORE = ImageStore()
LOOK = StoreLook(STORE, rule, PixelBudget(100, 1_000_000))
ROOT = fit(ImageRef("a" * 64, Size(1000, 1000)), rule, LOOK.budget)


def zoom(point: object, config: ZoomConfig | None = None, **arguments: object) -> tuple[float, ...]:
    result = ZoomTool(config)({"point_2d": point, **arguments}, ROOT, LOOK)
    return tuple(result.facts["crop"])


def test_window_about_a_point() -> None:
    assert ROOT.size == Size(1000, 1000)
    assert zoom([500, 500]) == (250, 250, 750, 750)
    assert zoom([500, 500], factor=10) == (450, 450, 550, 550)
    assert zoom([0, 1000], factor=10) == (0, 900, 100, 1000)


def test_square_window_cut_at_the_edges() -> None:
    # ViGoRL's worked numbers: point (10, 10), offset 50 -> [0, 0, 60, 60]
    config = ZoomConfig(half_side_px=50, edge="clip")
    assert zoom([10, 10], config) == (0, 0, 60, 60)
    assert zoom([10, 10], ZoomConfig(half_side_px=50)) == (0, 0, 100, 100)
    assert "factor" not in ZoomTool(config).spec.parameters["properties"]


@pytest.mark.parametrize("point", [[1001, 5], [5, -1], [math.nan, 5], [5], "5,5", None, [True, 5]])
def test_points_that_are_none(point: object) -> None:
    with pytest.raises(ToolError, match=r"outside the image of 1000 x 1000|2 finite numbers \[x, y\]"):
        zoom(point)


@pytest.mark.parametrize("factor", [0, 17, -1, math.nan, "2", None, True])
def test_factors_out_of_range(factor: object) -> None:
    with pytest.raises(ToolError, match="from 1 to 16"):
        zoom([500, 500], factor=factor)


def test_zoom_settings_are_checked() -> None:
    with pytest.raises(ConfigError, match="factor"):
        ZoomConfig(factor=20)
    with pytest.raises(ConfigError, match="half_side_px"):
        ZoomConfig(half_side_px=0)
    with pytest.raises(ConfigError, match="pad"):
        ZoomConfig(pad=-1)


def test_rotation_shows_the_pixels_turned() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (20, 40, 3), dtype=np.uint8)
    root = fit(STORE.put_image(Image.fromarray(pixels)), rule, LOOK.budget)
    for angle in (90, 180, 270, -90, 0, 360):
        result = RotateTool()({"angle": angle}, root, LOOK)
        (shown,) = result.parts
        assert isinstance(shown, View)
        assert shown.source == root.source
        assert np.array_equal(STORE.pixels(shown), np.rot90(pixels, angle // 90))
        assert result.facts == {"rotate": angle}


@pytest.mark.parametrize("angle", [45, 1e9, math.nan, math.inf, "90", None, True])
def test_angles_that_are_refused(angle: object) -> None:
    with pytest.raises(ToolError, match="angle must be a"):
        RotateTool()({"angle": angle}, ROOT, LOOK)


def test_any_angle_where_set() -> None:
    (shown,) = RotateTool(RotateConfig(quarter_turns=False))({"angle": 45}, ROOT, LOOK).parts
    assert isinstance(shown, View)
    # all of it stays in sight
    assert shown.transform.box(Box(0, 0, *vars_of(shown.size))).contains(Box(0, 0, 1000, 1000), 1.0)


def vars_of(size: Size) -> tuple[int, int]:
    return size.width, size.height
