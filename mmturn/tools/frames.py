"""Looking again in time: the frames of a stretch, single frames, and the number of the frame at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

from mmturn.errors import ConfigError, EnvError, ToolError
from mmturn.interfaces import Look, ToolResult
from mmturn.media.video.footage import Footage, Unit
from mmturn.media.video.sampling import between, frame_number, uniform
from mmturn.types import Json, ToolSpec, View

_KINDS: dict[str, dict[str, Json]] = {
    "frame": {"type": "integer", "description": "Number of a frame of the video, from 0."},
    "pool": {"type": "integer", "description": "Index of a candidate frame."},
    "second": {"type": "number", "description": "Seconds from the beginning of the video."},
    "time": {"type": "string", "description": "Time as MM:SS; minutes may exceed 59."},
}


@dataclass(frozen=True)
class SpanConfig:
    """Settings of the span tool."""

    name: str = "look_between"
    """Name by which the policy calls it."""
    unit: Unit = "second"
    """How its two arguments, ``start`` and ``end``, name moments."""
    frames: int = 8
    """Frames that it shows at most; 0: as many as the episode began with."""
    ends: Literal["in", "out"] = "in"
    """in: both ends may be shown, and a stretch of few frames shows them all. out: frames between the ends alone, of
    which there must be more than are shown (unit ``frame``)."""

    def __post_init__(self) -> None:
        if self.frames < 0:
            raise ConfigError(f"frames must be at least 0, got {self.frames}")
        if self.ends == "out" and self.unit != "frame":
            raise ConfigError(f"ends: out goes with unit: frame, not {self.unit}")


class SpanTool:
    """Shows frames spread evenly over a stretch of the video.

    Facts: ``frames``, the numbers of the frames shown; ``spans``, the one stretch, ``[start, end]`` in seconds.
    """

    Config = SpanConfig

    def __init__(self, config: SpanConfig | None = None) -> None:
        self.config = config or SpanConfig()
        kind = _KINDS[self.config.unit]
        self.spec = ToolSpec(
            name=self.config.name,
            description="Shows more frames of a stretch of the video, from start to end.",
            parameters={"type": "object", "properties": {"start": kind, "end": kind}, "required": ["start", "end"]},
        )

    def __call__(self, arguments: Mapping[str, Json], view: View, look: Look) -> ToolResult:
        """Show the stretch. Raises ToolError for one that is empty or lies outside the video."""
        footage, unit = footage_of(self.spec.name, look), self.config.unit
        count = self.config.frames or footage.opening
        start, end = (arguments.get(name) for name in ("start", "end"))
        first, last = footage.frame(start, unit), footage.frame(end, unit)
        if first > last or (unit in ("second", "time") and footage.moment(start, unit) >= footage.moment(end, unit)):
            raise ToolError(f"{self.spec.name}: start must come before end, got {start!r:.40} and {end!r:.40}")
        if self.config.ends == "out":
            picked = between(first, last, count, len(footage.clock))
        else:
            candidates = _candidates(footage, start, end, unit)
            picked = [candidates[place] for place in uniform(0, len(candidates) - 1, count, "down")]
        return ToolResult(footage.show(picked), {"frames": picked, "spans": [_stretch(footage, start, end, unit)]})


@dataclass(frozen=True)
class FramesConfig:
    """Settings of the frames tool."""

    name: str = "select_frames"
    """Name by which the policy calls it."""
    argument: str = "target_frames"
    """Name of its argument, a list."""
    unit: Unit = "pool"
    """How the list names frames."""
    base: int = 0
    """Number of the first frame, for units ``frame`` and ``pool``: 0 or 1."""
    most: int = 8
    """Frames that one call may ask for."""

    def __post_init__(self) -> None:
        if self.base not in (0, 1) or self.most < 1:
            raise ConfigError(f"base must be 0 or 1 and most at least 1, got {self.base} and {self.most}")


class FramesTool:
    """Shows frames that the policy names one by one. Facts: ``frames``, their numbers."""

    Config = FramesConfig

    def __init__(self, config: FramesConfig | None = None) -> None:
        self.config = config or FramesConfig()
        items = {"type": "array", "items": _KINDS[self.config.unit], "description": "The frames to show."}
        self.spec = ToolSpec(
            name=self.config.name,
            description=f"Shows up to {self.config.most} frames of the video that you name.",
            parameters={
                "type": "object",
                "properties": {self.config.argument: items},
                "required": [self.config.argument],
            },
        )

    def __call__(self, arguments: Mapping[str, Json], view: View, look: Look) -> ToolResult:
        """Show the frames, each once, in the order asked for. Raises ToolError for too many or unknown ones."""
        footage, asked = footage_of(self.spec.name, look), arguments.get(self.config.argument)
        if not isinstance(asked, list) or not 1 <= len(asked) <= self.config.most:
            raise ToolError(
                f"{self.spec.name}: {self.config.argument} must be a list of 1 to {self.config.most} frames, "
                f"got {asked!r:.80}"
            )
        picked = list(dict.fromkeys(footage.frame(value, self.config.unit, self.config.base) for value in asked))
        return ToolResult(footage.show(picked), {"frames": picked})


@dataclass(frozen=True)
class FrameNumberConfig:
    """Settings of the frame_number tool."""

    name: str = "frame_number"
    """Name by which the policy calls it."""
    rule: Literal["rate", "clock"] = "clock"
    """clock: the frame on screen at that time. rate: seconds times the mean frame rate, cut down."""


class FrameNumberTool:
    """Tells the number of the frame at a time, without showing it.

    Facts: ``frame_number`` and ``time``, as asked for. Source: FrameThinker (2509.24304), ``get frame number at time``.
    """

    Config = FrameNumberConfig

    def __init__(self, config: FrameNumberConfig | None = None) -> None:
        self.config = config or FrameNumberConfig()
        self.spec = ToolSpec(
            name=self.config.name,
            description="Tells the number of the frame at a time.",
            parameters={"type": "object", "properties": {"time": _KINDS["time"]}, "required": ["time"]},
        )

    def __call__(self, arguments: Mapping[str, Json], view: View, look: Look) -> ToolResult:
        """Say the number. Raises ToolError for a time outside the video."""
        footage, asked = footage_of(self.spec.name, look), arguments.get("time")
        seconds = footage.moment(asked, "time")
        rate = footage.clock.mean_rate
        if self.config.rule == "rate" and rate is not None:
            number = min(frame_number(Fraction(seconds), rate), len(footage.clock) - 1)
        else:
            number = footage.clock.nearest(seconds)
        text = f"Frame number at time {asked} is: {number}."
        return ToolResult((text,), {"frame_number": number, "time": asked})


def footage_of(tool: str, look: Any) -> Footage:
    """The video of the episode. Raises EnvError in an environment that shows none."""
    footage = getattr(look, "footage", None)
    if footage is None:
        raise EnvError(f"tool {tool} looks at videos: use env.name: video_qa, and tasks with a video")
    found: Footage = footage
    return found


def _candidates(footage: Footage, start: Json, end: Json, unit: Unit) -> Sequence[int]:
    """The frames of a stretch that may be shown, in order."""
    if unit == "pool":
        return footage.pool[start : end + 1]
    if unit == "frame":
        return range(start, end + 1)
    inside = footage.clock.span(footage.moment(start, unit), footage.moment(end, unit))
    return inside or [footage.frame(start, unit)]


def _stretch(footage: Footage, start: Json, end: Json, unit: Unit) -> list[float]:
    """Seconds of a stretch: as they were named, or the times of its first and last frame."""
    if unit in ("second", "time"):
        return [footage.moment(start, unit), footage.moment(end, unit)]
    return [float(footage.clock.seconds(footage.frame(value, unit))) for value in (start, end)]
