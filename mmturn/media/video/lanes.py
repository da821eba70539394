"""One file read by several decoders at once, each in a thread: groups of pictures need nothing of one another."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from mmturn.media.video.orientation import Frame

MOST_LANES = 4
MOST_PIXELS = 1 << 23
"""Of one frame, times lanes: a decoder holds some sixteen frames. Samples of more than a byte count twice."""


class Decoder(Protocol):
    """Frames of one file in the order of showing. One thread at a time may use it."""

    at: int | None
    """The group of pictures that was read last, from which it goes on without a seek."""

    def group(self, index: int) -> int:
        """Which group of pictures a frame belongs to."""
        ...

    def read(self, indices: Sequence[int]) -> Iterator[tuple[int, Frame]]:
        """Each frame once, rising, [H, W, 3]. Raises DataError."""
        ...


class Lanes:
    """As many decoders of a file as there are processors and groups of pictures to read, within ``MOST_PIXELS``.

    Each decodes in one thread. Several threads in one decoder cost more, and have to be filled anew after each seek.
    """

    def __init__(self, opened: Callable[[], Decoder], frame_pixels: int) -> None:
        self._opened = opened
        self._most = max(1, min(processors(), MOST_LANES, MOST_PIXELS // frame_pixels))
        self._lanes: dict[int, Decoder] = {}

    def split(self, indices: Sequence[int]) -> list[Iterator[tuple[int, Frame]]]:
        """Iterators that give all the frames together, each its own rising, and may run at the same time. One that
        is through with a group of pictures takes the next that none has begun. They raise DataError."""
        groups: dict[int, list[int]] = {}
        for index in indices:
            groups.setdefault(self._lane(0).group(index), []).append(index)
        begun = {number: groups.pop(lane.at) for number, lane in self._lanes.items() if lane.at in groups}
        # the longest first, so that none is left over when the others are done
        rest = deque(sorted(groups.values(), key=lambda group: self._lane(0).group(group[-1]) - group[-1]))
        idle = [number for number in range(self._most) if number not in begun][: len(rest)]
        return [self._run(number, begun.get(number), rest) for number in [*begun, *idle]]

    def _run(self, number: int, group: list[int] | None, rest: deque[list[int]]) -> Iterator[tuple[int, Frame]]:
        while group or rest:
            try:
                group = group or rest.popleft()
            except IndexError:
                return  # another was quicker
            yield from self._lane(number).read(group)
            group = None

    def _lane(self, number: int) -> Decoder:
        if number not in self._lanes:
            self._lanes[number] = self._opened()
        return self._lanes[number]


def processors() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
