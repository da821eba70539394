"""How a tool's views are shown, as data: the pixel budget and the enlargement."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mmturn.errors import ConfigError


@dataclass(frozen=True)
class Showing:
    """An environment that finds this on a tool as ``showing`` fits the tool's views accordingly."""

    pixels: tuple[int, int] | None = None
    """Least and most pixels of a view that this tool shows; None: the environment's budget for crops."""
    upscale: float = 1.0
    """Factor on both sides of a region before it is fitted to the budget, e.g. 2.0 to enlarge what is small."""

    def __post_init__(self) -> None:
        if self.pixels is not None and not 1 <= self.pixels[0] <= self.pixels[1]:
            raise ConfigError(f"pixels must be [least, most] with 1 <= least <= most, got {list(self.pixels)}")
        if not (math.isfinite(self.upscale) and self.upscale > 0):
            raise ConfigError(f"upscale must be above 0, got {self.upscale}")
