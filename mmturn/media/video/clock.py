"""The one time base of a video: frame index <-> exact seconds <-> ``MM:SS``, also where frame rates vary."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from mmturn.errors import DataError
from mmturn.media.video.times import format_time

SLACK_S = Fraction(1, 2_000_000)
"""A time that lies less than half a microsecond before a frame, or the end, counts as its time: floats round."""

_FAR = 1 << 62


@dataclass(frozen=True, slots=True, eq=False)
class Clock:
    """When each frame of a video is shown, exactly. Frame 0 is at 0 s, whatever offset the file's timestamps have.

    Seconds are taken as int, Fraction or float (a float at its exact value) and given as Fraction.
    """

    ticks: NDArray[np.int64]
    """[N] when each frame is shown, rising, in units of ``time_base``; the first may be any number."""
    time_base: Fraction
    """Seconds per tick."""
    end_tick: int
    """When the last frame ends."""

    def __post_init__(self) -> None:
        if self.ticks.ndim != 1 or len(self.ticks) == 0:
            raise DataError("a clock needs at least one frame")
        if self.time_base <= 0 or self.end_tick < int(self.ticks[-1]) or bool(np.any(np.diff(self.ticks) <= 0)):
            raise DataError("the frames of a clock must follow one another in time, and end after they began")

    def __len__(self) -> int:
        return len(self.ticks)

    @property
    def duration_s(self) -> Fraction:
        """From the first frame to the end of the last."""
        return (self.end_tick - int(self.ticks[0])) * self.time_base

    @property
    def mean_rate(self) -> Fraction | None:
        """Frames per second over the whole video; None for one that lasts no time."""
        return len(self) / self.duration_s if self.duration_s else None

    def seconds(self, index: int) -> Fraction:
        """When a frame is shown. Raises DataError for an index outside the video."""
        return (int(self.ticks[self.check(index)]) - int(self.ticks[0])) * self.time_base

    def shown_at(self, seconds: float | Fraction) -> int:
        """The frame on screen at a time: the last that is not later. Raises DataError outside [0, duration_s)."""
        moment = _exact(seconds)
        if moment < 0 or (moment + SLACK_S >= self.duration_s > 0):
            raise DataError(f"{_words(moment)} lies outside the video, which lasts {_words(self.duration_s)}")
        return max(0, self._count_until(moment + SLACK_S) - 1)

    def nearest(self, seconds: float | Fraction) -> int:
        """The frame whose time is nearest; of two equally near, the earlier. Times may lie outside the video."""
        moment = _exact(seconds)
        after = self._count_until(moment)
        if after == 0 or after == len(self):
            return max(0, after - 1)
        before_by, after_by = moment - self.seconds(after - 1), self.seconds(after) - moment
        return after - 1 if before_by <= after_by else after

    def span(self, start_s: float | Fraction, end_s: float | Fraction) -> range:
        """Indices of the frames with ``start_s <= time < end_s``; empty where the span lies between two frames.

        Raises DataError when it ends before it starts.
        """
        start, end = _exact(start_s), _exact(end_s)
        if end < start:
            raise DataError(f"a span must not end before it starts, got {_words(start)} to {_words(end)}")
        # the first tick that is not before x is the number of ticks before ceil(x)
        return range(self._count_before(start - SLACK_S), self._count_before(end - SLACK_S))

    def label(self, index: int) -> str:
        """``MM:SS`` of a frame, with as few decimals as ``nearest(parse_time(label))`` needs to give it back."""
        moment = self.seconds(index)
        for digits in (0, 1, 2, 3, 6):
            parts = 10**digits
            if self.nearest(Fraction(int(moment * parts), parts)) == index:
                return format_time(moment, digits)
        return format_time(moment, 9)

    def check(self, index: int) -> int:
        """The index itself. Raises DataError outside the video; there are no negative indices."""
        if not 0 <= index < len(self):
            raise DataError(f"there is no frame {index}: the video has frames 0 to {len(self) - 1}")
        return index

    def _count_until(self, moment: Fraction) -> int:
        """How many frames are not later than a moment."""
        tick = math.floor(moment / self.time_base) + int(self.ticks[0])
        return int(np.searchsorted(self.ticks, max(-_FAR, min(tick, _FAR)), side="right"))

    def _count_before(self, moment: Fraction) -> int:
        """How many frames are earlier than a moment."""
        tick = math.ceil(moment / self.time_base) + int(self.ticks[0])
        return int(np.searchsorted(self.ticks, max(-_FAR, min(tick, _FAR)), side="left"))


def _exact(seconds: float | Fraction) -> Fraction:
    if isinstance(seconds, float) and not math.isfinite(seconds):
        raise DataError(f"a time must be a finite number of seconds, got {seconds}")
    return Fraction(seconds)


def _words(moment: Fraction) -> str:
    return f"{float(moment):.3f} s" if moment < 0 else f"{format_time(moment, 3)} ({float(moment):.3f} s)"
