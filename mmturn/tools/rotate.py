"""Rotate: show an image turned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from mmturn.errors import ToolError
from mmturn.interfaces import Look, ToolResult
from mmturn.tools.crop import with_source
from mmturn.tools.showing import Showing
from mmturn.types import Json, ToolSpec, View


@dataclass(frozen=True)
class RotateConfig(Showing):
    """Settings of the rotate tool; see Showing."""

    name: str = "rotate"
    """Name by which the policy calls it, e.g. ``image_rotate_tool``."""
    addressing: Literal["original", "latest", "argument"] = "latest"
    """Which view is turned: the first, the last shown, or the one that the argument ``source`` names."""
    quarter_turns: bool = True
    """Refuse angles other than multiples of 90 degrees, which alone are exact."""


class RotateTool:
    """Shows the addressed view turned counter-clockwise (DeepEyes' direction); crops may refer to the result.

    Facts: ``{"rotate": degrees}``.
    """

    Config = RotateConfig

    def __init__(self, config: RotateConfig | None = None) -> None:
        self.config = config or RotateConfig()
        text = "Degrees counter-clockwise" + (", a multiple of 90." if self.config.quarter_turns else ".")
        properties: dict[str, Json] = {"angle": {"type": "number", "description": text}}
        self.spec = ToolSpec(
            name=self.config.name,
            description="Shows the image turned.",
            parameters={
                "type": "object",
                "properties": with_source(properties, self.config.addressing),
                "required": ["angle"],
            },
            addressing=self.config.addressing,
        )

    @property
    def showing(self) -> Showing:
        """Budget and enlargement of what it shows."""
        return Showing(self.config.pixels, self.config.upscale)

    def __call__(self, arguments: Mapping[str, Json], view: View, look: Look) -> ToolResult:
        """Show the turned view. Raises ToolError for an angle that is not allowed."""
        angle = arguments.get("angle")
        if isinstance(angle, bool) or not isinstance(angle, (int, float)) or not -360 <= angle <= 360:
            raise ToolError(f"{self.spec.name}: angle must be a number of degrees from -360 to 360")
        if self.config.quarter_turns and angle % 90:
            raise ToolError(f"{self.spec.name}: angle must be a multiple of 90 degrees")
        return ToolResult((look.rotate(view, float(angle)),), {"rotate": angle})
