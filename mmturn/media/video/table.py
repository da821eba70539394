"""Every stored frame of a video: when it is shown, and from where it can be decoded."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from mmturn.errors import DataError
from mmturn.media.video.clock import Clock

_HEAD = struct.Struct("<QqqqB")


@dataclass(frozen=True, slots=True, eq=False)
class FrameTable:
    """The packets of a video stream in the order in which they are stored and decoded."""

    pts: NDArray[np.int64]
    """[N] when each is shown, in ticks. In a table that is not ``seekable`` the order is that of showing."""
    keys: NDArray[np.bool_]
    """[N] whether it can be decoded alone."""
    shown: NDArray[np.bool_]
    """[N] whether it is shown at all: edit lists keep frames that only others are made from."""
    time_base: Fraction
    end: int
    """When the last frame ends, in ticks."""
    seekable: bool
    """Whether timestamps tell frames apart. If not, frames are counted from the first, and each request decodes
    from there."""

    def clock(self) -> Clock:
        """When the frames that are shown are shown."""
        ticks = np.sort(self.pts[self.shown])
        return Clock(ticks, self.time_base, max(self.end, int(ticks[-1])))

    def places(self) -> NDArray[np.int64]:
        """[frames shown] place in the table of each frame of the clock."""
        places = np.flatnonzero(self.shown)
        return places[np.argsort(self.pts[places], kind="stable")]

    def start(self, place: int) -> int:
        """The latest place from which all that the frame at ``place`` needs is decoded: a key frame that is stored
        before it and not shown after it (what leads an open group of pictures needs the group before)."""
        found = np.flatnonzero(self.keys[: place + 1] & (self.pts[: place + 1] <= self.pts[place]))
        return int(found[-1]) if len(found) else 0

    def closed(self) -> bool:
        """Whether the k-th stored key frame is also the k-th shown, and nothing stored after it is shown before it:
        then counting stored frames up to a key frame is the same as counting shown ones, as decord does."""
        if not self.seekable or not bool(self.shown.all()) or not bool(self.keys[0]):
            return False
        # the least time from each place on must be that of the key frame itself, and every earlier one be earlier
        least_after = np.minimum.accumulate(self.pts[::-1])[::-1]
        most_before = np.maximum.accumulate(np.concatenate([[self.pts[0] - 1], self.pts[:-1]]))
        keys = np.flatnonzero(self.keys)
        return bool(np.all((least_after[keys] == self.pts[keys]) & (most_before[keys] < self.pts[keys])))

    def to_bytes(self) -> bytes:
        """Fixed header and raw arrays."""
        unit = self.time_base
        head = _HEAD.pack(len(self.pts), unit.numerator, unit.denominator, self.end, self.seekable)
        return head + self.pts.astype("<i8").tobytes() + self.keys.tobytes() + self.shown.tobytes()

    @staticmethod
    def from_bytes(data: bytes | bytearray) -> FrameTable:
        """Raises DataError for bytes that are no table."""
        if len(data) < _HEAD.size:
            raise DataError("a table of frames is cut short")
        count, numerator, denominator, end, seekable = _HEAD.unpack_from(data)
        if len(data) != _HEAD.size + 10 * count or count == 0 or numerator <= 0 or denominator <= 0:
            raise DataError("a table of frames contradicts itself")
        start = _HEAD.size
        pts = np.frombuffer(data, "<i8", count, start).astype(np.int64)
        keys = np.frombuffer(data, np.uint8, count, start + 8 * count) != 0
        shown = np.frombuffer(data, np.uint8, count, start + 9 * count) != 0
        return FrameTable(pts, keys, shown, Fraction(numerator, denominator), end, bool(seekable))

    @property
    def nbytes(self) -> int:
        """Memory of the arrays."""
        return self.pts.nbytes + self.keys.nbytes + self.shown.nbytes
