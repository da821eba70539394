"""A video as the tools of an episode see it: its time base, the frames that numbers count, and a way to show some."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from mmturn.errors import ParseError, ToolError
from mmturn.media.video.clock import Clock
from mmturn.media.video.times import format_time, parse_time
from mmturn.types import Json, View

Unit = Literal["frame", "pool", "second", "time"]
"""How a policy names a moment. frame: by its number in the file, from 0. pool: by its place among the candidate frames.
second: by seconds from the first frame. time: by ``MM:SS``. A setting, never guessed from magnitude."""


@dataclass(frozen=True)
class Footage:
    """The video of an episode."""

    clock: Clock
    pool: Sequence[int]
    """Numbers of the candidate frames, in order."""
    opening: int
    """How many frames the episode began with."""
    show: Callable[[Sequence[int]], tuple[str | View, ...]]
    """Frames by number, in order, each behind its label; or as one clip, where the environment shows clips."""

    def frame(self, value: Json, unit: Unit, base: int = 0) -> int:
        """The frame that a policy names; ``base``: number of the first one. Raises ToolError, worded for it."""
        if unit in ("frame", "pool"):
            total = len(self.clock) if unit == "frame" else len(self.pool)
            if isinstance(value, bool) or not isinstance(value, int) or not base <= value < base + total:
                raise ToolError(
                    f"a frame must be a whole number from {base} to {base + total - 1}, got {_quoted(value)}"
                )
            return value - base if unit == "frame" else self.pool[value - base]
        return self.clock.nearest(self.moment(value, unit))

    def moment(self, value: Json, unit: Unit) -> float:
        """Seconds of a time that a policy names, within the video. Raises ToolError, worded for it."""
        end, seconds = self.clock.duration_s, Fraction(0)
        if unit == "time":
            try:
                seconds = parse_time(value if isinstance(value, str) else "")
            except ParseError as error:
                raise ToolError(f"a time must be written MM:SS, got {_quoted(value)}") from error
        elif isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 1e9:
            raise ToolError(f"a time must be a number of seconds, got {_quoted(value)}")
        else:
            seconds = Fraction(value)
        if not 0 <= seconds <= end:
            raise ToolError(f"{_quoted(value)} lies outside the video, which lasts {format_time(end, 1)} (MM:SS)")
        return float(seconds)


def _quoted(value: Json) -> str:
    return f"{value!r:.40}"
