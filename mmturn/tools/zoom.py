"""Zoom: show the surroundings of a point, enlarged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from mmturn.errors import ConfigError, ToolError
from mmturn.interfaces import Look, ToolResult
from mmturn.tools.crop import with_source
from mmturn.tools.regions import RegionRule, centred, numbers_of, prepare
from mmturn.tools.showing import Showing
from mmturn.types import Json, ToolSpec, View


@dataclass(frozen=True)
class ZoomConfig(RegionRule, Showing):
    """Settings of the zoom tool; see RegionRule and Showing."""

    name: str = "zoom"
    """Name by which the policy calls it."""
    addressing: Literal["original", "latest", "argument"] = "original"
    """Which view a point refers to: the first, the last shown, or the one that the argument ``source`` names."""
    factor: float = 2.0
    """How many times nearer, where the policy does not say; the window is the view's size divided by it."""
    max_factor: float = 16.0
    """Most that a policy may ask for."""
    half_side_px: float | None = None
    """With a number, the window is a square of twice this many pixels of the view, and ``factor`` is not offered."""
    edge: Literal["clip", "shift"] = "shift"
    """A window that reaches over the edge is cut there (clip) or moved inside (shift)."""

    def __post_init__(self) -> None:
        RegionRule.__post_init__(self)
        Showing.__post_init__(self)
        if not 1 <= self.factor <= self.max_factor:
            raise ConfigError(f"factor must be from 1 to max_factor ({self.max_factor:g}), got {self.factor:g}")
        if self.half_side_px is not None and not self.half_side_px > 0:
            raise ConfigError(f"half_side_px must be above 0, got {self.half_side_px}")


class ZoomTool:
    """Shows a window about ``point_2d`` of the addressed view, cut from its source at full resolution.

    Source: the square window about a point, cut at the edges, is ViGoRL's (arXiv 2505.23678): ``half_side_px: 50,
    edge: clip``. Differs: the window keeps its aspect where ViGoRL stretches it to a square.
    Facts: ``{"crop": [x0, y0, x1, y1]}`` in pixels of the view's source.
    """

    Config = ZoomConfig

    def __init__(self, config: ZoomConfig | None = None) -> None:
        self.config = config = config or ZoomConfig()
        properties: dict[str, Json] = {"point_2d": {"format": "point", "description": "Point [x, y] to look at."}}
        if config.half_side_px is None:
            text = f"How many times nearer, from 1 to {config.max_factor:g} (default {config.factor:g})."
            properties["factor"] = {"type": "number", "description": text}
        self.spec = ToolSpec(
            name=config.name,
            description="Shows the surroundings of a point of the image, enlarged.",
            parameters={
                "type": "object",
                "properties": with_source(properties, config.addressing),
                "required": ["point_2d"],
            },
            addressing=config.addressing,
        )

    @property
    def showing(self) -> Showing:
        """Budget and enlargement of what it shows."""
        return Showing(self.config.pixels, self.config.upscale)

    def __call__(self, arguments: Mapping[str, Json], view: View, look: Look) -> ToolResult:
        """Show the window. Raises ToolError for a point outside the view or a factor out of range."""
        x, y = numbers_of(self.spec.name, arguments, "point_2d", 2)
        size = view.size
        if not (0 <= x <= size.width and 0 <= y <= size.height):
            bounds = f"{size.width} x {size.height} pixels"
            raise ToolError(f"{self.spec.name}: the point lies outside the image of {bounds}")
        half_x, half_y = self._half_sides(arguments, view)
        window = centred(x, y, half_x, half_y, size, self.config.edge)
        shown = look.region(view, prepare(self.spec.name, window, view, self.config))
        return ToolResult((shown,), {"crop": list(shown.region.as_tuple())})

    def _half_sides(self, arguments: Mapping[str, Json], view: View) -> tuple[float, float]:
        """Half the window's sides in pixels of the view."""
        if self.config.half_side_px is not None:
            return self.config.half_side_px, self.config.half_side_px
        factor = arguments.get("factor", self.config.factor)
        if (
            isinstance(factor, bool)
            or not isinstance(factor, (int, float))
            or not 1 <= factor <= self.config.max_factor
        ):
            raise ToolError(f"{self.spec.name}: factor must be a number from 1 to {self.config.max_factor:g}")
        return view.size.width / factor / 2, view.size.height / factor / 2
