"""What a recipe's environment and tools show at once: images, the frames of a video, or a clip."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from mmturn.components import env_parts
from mmturn.families.spec import Family
from mmturn.geometry import Size, Transform
from mmturn.interfaces import Tool
from mmturn.recipe import Recipe
from mmturn.types import Clip, ImageRef, PixelBudget, View

Grid = tuple[int, int]
"""Rows and columns of patches."""

_WORDS: dict[str, Any] = {"frame": 1000, "pool": 100, "seconds": 100.0, "time": "01:40"}


@dataclass(frozen=True)
class Looked:
    """What is shown at once."""

    parts: tuple[str | View, ...]
    size: Size
    """Of each image or frame."""
    grid: Grid
    """Of each image, or step of a clip."""
    count: int
    """Images, or steps."""
    frames: int
    """Images and frames that the environment's limit counts."""
    setting: str
    """Of ``env``, which bounds its pixels."""

    @property
    def is_clip(self) -> bool:
        """Whether it is one clip."""
        return any(isinstance(part, View) and part.clip is not None for part in self.parts)

    @property
    def patches(self) -> int:
        """Of all of it."""
        return self.count * self.grid[0] * self.grid[1]


def looks_of(recipe: Recipe, family: Family, tools: Sequence[Tool], image: Size | None) -> tuple[Looked, Looked | None]:
    """What stands before the first turn, and the most that a tool shows of it; None: no tool shows anything.

    ``image``: size of the tasks' images or videos; None: as large as they are shown at most. Raises ConfigError.
    """
    from mmturn.envs.video_qa import VideoQAConfig
    from mmturn.envs.visual_qa import VisualQAConfig

    config = env_parts(recipe, family, allow_code=True)[1]
    plain = config if isinstance(config, VisualQAConfig) else VisualQAConfig()
    video = config if isinstance(config, VideoQAConfig) else None
    if video is None:
        root = _image(family, recipe.env.get("root_budget", plain.root_budget), image, "root_budget")
    else:
        root = _frames(family, video, video.initial_frames, image)
    shown = []
    for tool in tools:
        count = 0 if video is None else _frames_of(tool, video)
        if video is not None and count:
            shown.append(_frames(family, video, count, image))
        else:
            own: Any = getattr(getattr(tool, "showing", None), "pixels", None)
            budget = own or recipe.env.get("crop_budget", plain.crop_budget)
            shown.append(_image(family, budget, image, "crop_budget"))
    return root, max(shown, key=lambda look: look.patches, default=None)


def _frames_of(tool: Tool, video: Any) -> int:
    """Frames that a tool shows at most; 0 for one that shows none, but parts of them."""
    from mmturn.tools.frames import FramesTool, SpanTool

    if isinstance(tool, SpanTool):
        return int(tool.config.frames or video.initial_frames)
    return int(tool.config.most) if isinstance(tool, FramesTool) else 0


def _image(family: Family, budget: Sequence[int], image: Size | None, setting: str) -> Looked:
    view = _view(family, PixelBudget(*budget), image)
    return Looked((view,), view.size, family.grid(view.size)[1:], 1, 1, setting)


def _frames(family: Family, video: Any, count: int, image: Size | None) -> Looked:
    """Frames of a video, as the environment words and shows them."""
    budget = PixelBudget(*video.frame_budget)
    heading = {"count": count} | {name: [_WORDS[name[:-1]]] * count for name in ("frames", "pools", "times")}
    words = video.heading.format_map(heading)
    if video.shown_as == "video" and count > 1:
        view = _view(family, video.budget_of(count), image)
        times = tuple(float(number) for number in range(count))
        view = replace(view, clip=Clip((view.source,) * (count - 1), times, 1.0))
        steps, rows, columns = family.view_grid(view)
        return Looked((words, view), view.size, (rows, columns), steps, count, "frame_budget or env.clip_pixels")
    view = _view(family, budget, image)
    parts = (words, *(video.label.format_map(_WORDS), view) * count)
    return Looked(parts, view.size, family.grid(view.size)[1:], count, count, "frame_budget")


def _view(family: Family, budget: PixelBudget, image: Size | None) -> View:
    side = max(1, math.isqrt(budget.max_pixels // budget.frames))
    size = family.size_rule(image or Size(side, side), budget)
    return View(ImageRef("0" * 64, size), Transform(), size)
