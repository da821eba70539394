"""A video in the time of its stream: which frames have come by a moment and were worth keeping."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Sequence
from fractions import Fraction

from mmturn.envs.stream.features import FEATURES
from mmturn.envs.stream.motion import WINDOW_PX, Floats, grey, motion
from mmturn.envs.stream.settings import MemoryConfig
from mmturn.envs.stream.tree import Kept
from mmturn.geometry import Size
from mmturn.media.video.reader import VideoReader

_CHUNK = 32
"""Frames that are decoded at once."""


class Playback:
    """Plays a video from its beginning as far as it is asked to, and never looks ahead.

    What is kept depends on the frames before alone, so that episodes on one video share one. Safe to use from several
    threads.
    """

    def __init__(self, reader: VideoReader, rate: float, config: MemoryConfig) -> None:
        """``rate``: frames per second of the stream, at most the file's own."""
        self.reader, self.rate, self.config = reader, Fraction(rate), config
        self.clock = reader.clock()
        self._feature = FEATURES[config.feature]
        self._lock = threading.Lock()
        self._step = 0
        self._kept: list[Kept] = []
        self._before: Floats | None = None
        self._last = -1

    def seen(self, moment_s: float) -> int:
        """How many frames of the file have been shown by a moment of the stream."""
        return self.clock.shown_at(moment_s) + 1 if moment_s < self.clock.duration_s else len(self.clock)

    def kept(self, after_s: float, until_s: float) -> list[Kept]:
        """The frames worth keeping with ``after_s < time <= until_s``, in order. Raises DataError."""
        with self._lock:
            self._play(until_s)
            times = [frame.second for frame in self._kept]
            return self._kept[bisect_right(times, after_s) : bisect_right(times, until_s)]

    def _play(self, until_s: float) -> None:
        while coming := self._coming(until_s):
            frames = self.reader.frames(coming, self._small())
            for number, frame in zip(coming, frames, strict=True):
                shades, second = grey(frame), float(self.clock.seconds(number))
                if self._is_worth_keeping(shades, second):
                    self._kept.append(Kept(number, second, self._feature(frame)))
                self._before = shades

    def _coming(self, until_s: float) -> Sequence[int]:
        """Numbers of the next frames that are shown by a moment."""
        numbers: list[int] = []
        while len(numbers) < _CHUNK:
            moment = self._step / self.rate
            if moment > Fraction(until_s) or (self._step and moment >= self.clock.duration_s):
                break
            number = self.clock.shown_at(moment)
            self._step += 1
            if number > self._last:
                self._last = number
                numbers.append(number)
        return numbers

    def _is_worth_keeping(self, shades: Floats, second: float) -> bool:
        if self._before is None:
            return True
        every = self.config.keep_every_s
        if every and second - self._kept[-1].second >= every:
            return True
        return motion(self._before, shades) > self.config.motion

    def _small(self) -> Size:
        whole, side = self.reader.info.size, self.config.side_px
        scale = side / max(whole.width, whole.height)
        return Size(*(max(WINDOW_PX, round(length * scale)) for length in (whole.width, whole.height)))
