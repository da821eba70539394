"""From what a policy asked for to a region that can be shown: checks, repairs, padding. All in pixels of the view."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from mmturn.errors import ConfigError, ToolError
from mmturn.geometry import Box, Size
from mmturn.types import Json, View


@dataclass(frozen=True)
class RegionRule:
    """What becomes of a region before it is shown. Lengths are pixels of the view that it names."""

    outside: Literal["clip", "refuse"] = "clip"
    """What to do with a region that reaches over the edge of the view. One wholly outside is always refused."""
    pad: float = 0.0
    """Added on each side, as a fraction of the region's own side (0.25 makes it 1.5 times as large)."""
    pad_view: float = 0.0
    """Added on each side, as a fraction of the view's side."""
    pad_px: float = 0.0
    """Added on each side, in pixels."""
    min_side_px: float = 0.0
    """Least side of a region, before padding."""
    small: Literal["grow", "refuse"] = "grow"
    """What to do with a region that is smaller than that, or less than one pixel of the source."""
    max_aspect: float = 100.0
    """Most that the longer side may be of the shorter one."""
    thin: Literal["grow", "refuse"] = "refuse"
    """What to do with a region that is thinner than that."""

    def __post_init__(self) -> None:
        for name in ("pad", "pad_view", "pad_px", "min_side_px"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"{name} must be at least 0, got {value}")
        if not self.max_aspect >= 1:
            raise ConfigError(f"max_aspect must be at least 1, got {self.max_aspect}")


def numbers_of(tool: str, arguments: Mapping[str, Json], name: str, count: int) -> list[float]:
    """``count`` finite numbers from an argument. Raises ToolError that says what would be right."""
    form = "[x0, y0, x1, y1]" if count == 4 else "[x, y]"
    value = arguments.get(name)
    if (
        not isinstance(value, (list, tuple))
        or len(value) != count
        or not all(isinstance(v, (int, float)) and not isinstance(v, bool) and -1e9 <= v <= 1e9 for v in value)
    ):
        raise ToolError(f"{tool}: {name} must be {count} finite numbers {form}")
    return [float(v) for v in value]


def prepare(tool: str, box: Box, view: View, rule: RegionRule) -> Box:
    """The region to show for the box that a policy gave, inside the view. Raises ToolError."""
    size = view.size
    bounds = Box(0.0, 0.0, float(size.width), float(size.height))
    if not (box.x0 < box.x1 and box.y0 < box.y1):
        raise ToolError(f"{tool}: the box is empty or its corners are swapped; it must have x0 < x1 and y0 < y1")
    box = _inside(tool, box, bounds, rule)
    box = _large_enough(tool, box, view, bounds, rule)
    box = _thick_enough(tool, box, bounds, rule)
    x = rule.pad * box.width + rule.pad_view * size.width + rule.pad_px
    y = rule.pad * box.height + rule.pad_view * size.height + rule.pad_px
    return box.pad(x, y).intersect(bounds)


def _inside(tool: str, box: Box, bounds: Box, rule: RegionRule) -> Box:
    """The part of the box that lies in the view."""
    words = f"the image of {bounds.x1:.0f} x {bounds.y1:.0f} pixels"
    common = box.intersect(bounds)
    if common.width <= 0 or common.height <= 0:
        raise ToolError(f"{tool}: the box lies outside {words}")
    # Fractions of the sides may miss the edge by a rounding error.
    if rule.outside == "refuse" and not bounds.contains(box, tolerance=1e-6 * max(bounds.x1, bounds.y1)):
        raise ToolError(f"{tool}: the box reaches outside {words}")
    return common


def _large_enough(tool: str, box: Box, view: View, bounds: Box, rule: RegionRule) -> Box:
    """The box, grown where its sides are below the least side or below one pixel of the source."""
    # Pixels of the source per pixel of the view, along its rows and its columns.
    scale_x = math.hypot(view.transform.a, view.transform.d)
    scale_y = math.hypot(view.transform.b, view.transform.e)
    least_x, least_y = max(rule.min_side_px, 1 / scale_x), max(rule.min_side_px, 1 / scale_y)
    # A side that equals the least up to rounding is large enough.
    if box.width >= least_x * (1 - 1e-9) and box.height >= least_y * (1 - 1e-9):
        return box
    if rule.small == "refuse":
        raise ToolError(
            f"{tool}: the box is too small ({box.width:.3g} x {box.height:.3g} pixels); "
            f"its sides must be at least {least_x:.3g} and {least_y:.3g} pixels"
        )
    return _grown(box, least_x, least_y, bounds)


def _thick_enough(tool: str, box: Box, bounds: Box, rule: RegionRule) -> Box:
    """The box, its shorter side grown where it is too thin."""
    long, short = max(box.width, box.height), min(box.width, box.height)
    if long <= short * rule.max_aspect:
        return box
    if rule.thin == "refuse":
        raise ToolError(
            f"{tool}: the box is too thin ({box.width:.3g} x {box.height:.3g} pixels); "
            f"its longer side may be at most {rule.max_aspect:g} times its shorter side"
        )
    return _grown(box, long / rule.max_aspect, long / rule.max_aspect, bounds)


def _grown(box: Box, least_x: float, least_y: float, bounds: Box) -> Box:
    """Grown about its centre to at least these sides, then moved into the bounds."""
    x, y = max(least_x - box.width, 0.0) / 2, max(least_y - box.height, 0.0) / 2
    return box.pad(x, y).shift_into(bounds)


def centred(x: float, y: float, half_x: float, half_y: float, size: Size, edge: Literal["clip", "shift"]) -> Box:
    """The window about a point, cut at the edges of the view or moved inside them."""
    bounds = Box(0.0, 0.0, float(size.width), float(size.height))
    window = Box(x - half_x, y - half_y, x + half_x, y + half_y)
    return window.intersect(bounds) if edge == "clip" else window.shift_into(bounds)
