"""Which frames of a span are looked at, as published systems choose them."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Literal

from mmturn.errors import DataError, ToolError
from mmturn.media.video.clock import Clock

Rounding = Literal["nearest", "down"]


def uniform(first: int, last: int, count: int, rounding: Rounding = "nearest") -> list[int]:
    """At most ``count`` frames spread evenly from ``first`` to ``last``, both among them; one: ``first``.

    The numbers of ``linspace``, exactly, rounded to the nearest (halves to the even, as numpy and torch round) or down
    (as ``astype(int)`` does). A span of fewer frames gives each of them once. Raises DataError for an empty span or
    count. Source: Video-MTR (2508.20478), which shows 16 of its pool and up to 8 per retrieved span, ends included.
    """
    if count < 1 or last < first:
        raise DataError(f"cannot choose {count} frames from {first} to {last}")
    count = min(count, last - first + 1)
    if count == 1:
        return [first]
    steps = (first + Fraction(number * (last - first), count - 1) for number in range(count))
    return [round(step) if rounding == "nearest" else math.floor(step) for step in steps]


def pool(clock: Clock, per_second: float | Fraction = 1, limit: int = 128) -> list[int]:
    """The candidate frames of Video-MTR: one each ``1 / per_second`` s from the start, and of more than ``limit`` as
    many, evenly. What a policy calls frame k is the k-th of them.

    Each is the frame on screen at its time; a frame shown for longer than the step is one candidate. Raises DataError
    for a rate that is not positive. Source: Video-MTR (2508.20478): M = 128 in the paper, 64 at 1 fps in its code.
    Differs: how more than M candidates are thinned out is not stated; ``uniform`` does it here.
    """
    rate = Fraction(per_second)
    if rate <= 0 or limit < 1:
        raise DataError(f"a pool needs a positive rate and limit, got {per_second} per second and {limit}")
    steps = max(1, math.ceil(clock.duration_s * rate))
    if steps > limit:
        # of the instants, so that none but those of the candidates is looked up
        numbers = uniform(0, steps - 1, limit)
    else:
        numbers = list(range(steps))
    return sorted({clock.shown_at(number / rate) for number in numbers})


def between(first: int, last: int, count: int, total: int) -> list[int]:
    """``count`` frames evenly within ``first`` to ``last``, both left out.

    Raises ToolError, worded for the policy, unless 0 <= first < last - count and last < total. Source: FrameThinker
    (2509.24304), ``choose frames between``: ``linspace(first + 1, last - 1, count)``, cut down to whole numbers.
    """
    if not 0 <= first < total or not 0 <= last < total:
        raise ToolError(f"frames {first} to {last} do not lie within the video, which has frames 0 to {total - 1}")
    if first >= last - count:
        raise ToolError(f"between frames {first} and {last} there is no room for {count} more; choose a wider span")
    return uniform(first + 1, last - 1, count, "down")


def frame_number(seconds: float | Fraction, rate: float | Fraction) -> int:
    """``int(seconds * rate)``, FrameThinker's answer to ``get frame number at time MM:SS``.

    Exact only at a constant rate; ``Clock.shown_at`` is exact for any. Source: FrameThinker (2509.24304), its code.
    """
    return math.floor(Fraction(seconds) * Fraction(rate))
