"""Crop: show a box of an image anew, sharp from its source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from mmturn.errors import ConfigError
from mmturn.geometry import Box
from mmturn.interfaces import Look, ToolResult
from mmturn.tools.regions import RegionRule, numbers_of, prepare
from mmturn.tools.showing import Showing
from mmturn.types import Json, ToolSpec, View


@dataclass(frozen=True)
class CropConfig(RegionRule, Showing):
    """Settings of the crop tool; see RegionRule for what becomes of a box and Showing for how it is shown."""

    name: str = "crop"
    """Name by which the policy calls it, e.g. ``image_zoom_in_tool``."""
    addressing: Literal["original", "latest", "argument"] = "original"
    """Which view a box refers to: the first, the last shown, or the one that the argument ``source`` names."""
    source: str = "source"
    """Name of that argument, e.g. ``target_image``."""
    source_base: int = 0
    """Number of the first image in it: 0 or 1."""
    label: bool = True
    """Whether the schema offers a free text ``label`` beside the box."""

    def __post_init__(self) -> None:
        RegionRule.__post_init__(self)
        Showing.__post_init__(self)
        if self.source_base not in (0, 1) or not self.source:
            raise ConfigError(f"source must be a name and source_base 0 or 1, got {self.source!r}, {self.source_base}")


class CropTool:
    """Shows ``bbox_2d`` of the addressed view, cut from the view's source at full resolution.

    Facts: ``{"crop": [x0, y0, x1, y1]}``, what is shown, in pixels of the view's source.
    """

    Config = CropConfig

    def __init__(self, config: CropConfig | None = None) -> None:
        self.config = config or CropConfig()
        self.spec = ToolSpec(
            name=self.config.name,
            description="Cuts a box out of the image and shows it enlarged, with details that were too small before.",
            parameters=box_schema(self.config),
            addressing=self.config.addressing,
            source=self.config.source,
            source_base=self.config.source_base,
        )

    @property
    def showing(self) -> Showing:
        """Budget and enlargement of what it shows."""
        return Showing(self.config.pixels, self.config.upscale)

    def __call__(self, arguments: Mapping[str, Json], view: View, look: Look) -> ToolResult:
        """Show the box. Raises ToolError for a box that cannot be shown."""
        box = Box(*numbers_of(self.spec.name, arguments, "bbox_2d", 4))
        shown = look.region(view, prepare(self.spec.name, box, view, self.config))
        return ToolResult((shown,), {"crop": list(shown.region.as_tuple())})


def box_schema(config: CropConfig) -> dict[str, Json]:
    """JSON schema of a tool that takes ``bbox_2d``."""
    properties: dict[str, Json] = {
        "bbox_2d": {"format": "box", "description": "Box [x0, y0, x1, y1] (left, top, right, bottom) to look at."},
    }
    if config.label:
        properties["label"] = {"type": "string", "description": "What the box holds (optional)."}
    properties = with_source(properties, config.addressing, config.source, config.source_base)
    return {"type": "object", "properties": properties, "required": ["bbox_2d"]}


def with_source(properties: dict[str, Json], addressing: str, name: str = "source", base: int = 0) -> dict[str, Json]:
    """The properties, with the argument ``name`` where the policy names the view, counted from ``base``."""
    if addressing != "argument":
        return properties
    words = f"Which image, counted from {base} in the order shown (default {base})."
    return {**properties, name: {"type": "integer", "description": words}}
