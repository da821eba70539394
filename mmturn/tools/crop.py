"""Crop: show a box of an image anew, sharp from its source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

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
    label: bool = True
    """Whether the schema offers a free text ``label`` beside the box."""

    def __post_init__(self) -> None:
        RegionRule.__post_init__(self)
        Showing.__post_init__(self)


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
            parameters=box_schema(self.config.addressing, self.config.label),
            addressing=self.config.addressing,
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


def box_schema(addressing: str, label: bool) -> dict[str, Json]:
    """JSON schema of a tool that takes ``bbox_2d``."""
    properties: dict[str, Json] = {
        "bbox_2d": {"format": "box", "description": "Box [x0, y0, x1, y1] (left, top, right, bottom) to look at."},
    }
    if label:
        properties["label"] = {"type": "string", "description": "What the box holds (optional)."}
    return {"type": "object", "properties": with_source(properties, addressing), "required": ["bbox_2d"]}


def with_source(properties: dict[str, Json], addressing: str) -> dict[str, Json]:
    """The properties, with ``source`` where the policy names the view."""
    if addressing != "argument":
        return properties
    source = {"type": "integer", "description": "Which image, counted from 0 in the order shown (default 0)."}
    return {**properties, "source": source}
