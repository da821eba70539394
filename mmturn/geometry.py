"""Points, boxes and affine transforms with exact inverses; spans of time in seconds.

Boxes are half-open: ``(x0, y0, x1, y1)`` covers ``x0 <= x < x1``. Pixel coordinates are
continuous: the pixel in column ``i`` covers ``[i, i + 1)``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Size:
    """Width and height in whole pixels."""

    width: int
    height: int

    @property
    def area(self) -> int:
        """Number of pixels."""
        return self.width * self.height


@dataclass(frozen=True, slots=True)
class Point:
    """A position; the unit is that of the frame it is given in."""

    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Box:
    """A half-open axis-aligned box; the unit is that of the frame it is given in."""

    x0: float
    y0: float
    x1: float
    y1: float

    @property
    def width(self) -> float:
        """Extent in x; negative when the corners are swapped."""
        return self.x1 - self.x0

    @property
    def height(self) -> float:
        """Extent in y; negative when the corners are swapped."""
        return self.y1 - self.y0

    @property
    def area(self) -> float:
        """Area, 0 for an empty or inverted box."""
        return max(self.width, 0.0) * max(self.height, 0.0)

    @property
    def center(self) -> Point:
        """Midpoint."""
        return Point((self.x0 + self.x1) / 2, (self.y0 + self.y1) / 2)

    @property
    def is_finite(self) -> bool:
        """False when any coordinate is NaN or infinite."""
        return all(map(math.isfinite, (self.x0, self.y0, self.x1, self.y1)))

    def as_tuple(self) -> tuple[float, float, float, float]:
        """``(x0, y0, x1, y1)``."""
        return (self.x0, self.y0, self.x1, self.y1)

    def intersect(self, other: Box) -> Box:
        """The common part; it has area 0 where the two do not meet."""
        return Box(max(self.x0, other.x0), max(self.y0, other.y0), min(self.x1, other.x1), min(self.y1, other.y1))

    def iou(self, other: Box) -> float:
        """Intersection over union in [0, 1]; 0 for two empty boxes."""
        common = self.intersect(other).area
        union = self.area + other.area - common
        return common / union if union > 0 else 0.0

    def contains(self, other: Box, tolerance: float = 0.0) -> bool:
        """Whether ``other`` lies inside this box, up to ``tolerance`` on each side."""
        return (
            self.x0 <= other.x0 + tolerance
            and self.y0 <= other.y0 + tolerance
            and self.x1 >= other.x1 - tolerance
            and self.y1 >= other.y1 - tolerance
        )

    def contains_point(self, point: Point) -> bool:
        """Whether the half-open box holds ``point``."""
        return self.x0 <= point.x < self.x1 and self.y0 <= point.y < self.y1

    def pad(self, amount_x: float, amount_y: float) -> Box:
        """Grown by the given amounts on each side."""
        return Box(self.x0 - amount_x, self.y0 - amount_y, self.x1 + amount_x, self.y1 + amount_y)

    def shift_into(self, bounds: Box) -> Box:
        """Moved, not cut, to lie inside ``bounds``; cut only where it is larger than them."""
        width, height = min(self.width, bounds.width), min(self.height, bounds.height)
        x0 = min(max(self.x0, bounds.x0), bounds.x1 - width)
        y0 = min(max(self.y0, bounds.y0), bounds.y1 - height)
        return Box(x0, y0, x0 + width, y0 + height)


@dataclass(frozen=True, slots=True)
class Transform:
    """Affine map ``(x, y) -> (a x + b y + c, d x + e y + f)``."""

    a: float = 1.0
    b: float = 0.0
    c: float = 0.0
    d: float = 0.0
    e: float = 1.0
    f: float = 0.0

    @staticmethod
    def region(region: Box, size: Size) -> Transform:
        """Maps a picture of ``size`` pixels onto ``region`` of its source."""
        return Transform(region.width / size.width, 0.0, region.x0, 0.0, region.height / size.height, region.y0)

    @property
    def determinant(self) -> float:
        """Factor by which areas change; 0 for a map without inverse."""
        return self.a * self.e - self.b * self.d

    def __matmul__(self, inner: Transform) -> Transform:
        """The map that applies ``inner`` first and this one after it."""
        return Transform(
            self.a * inner.a + self.b * inner.d,
            self.a * inner.b + self.b * inner.e,
            self.a * inner.c + self.b * inner.f + self.c,
            self.d * inner.a + self.e * inner.d,
            self.d * inner.b + self.e * inner.e,
            self.d * inner.c + self.e * inner.f + self.f,
        )

    def inverse(self) -> Transform:
        """The map back. Raises ValueError for a map that flattens the plane."""
        det = self.determinant
        if det == 0 or not math.isfinite(det):
            raise ValueError(f"{self} has no inverse")
        a, b, d, e = self.e / det, -self.b / det, -self.d / det, self.a / det
        return Transform(a, b, -(a * self.c + b * self.f), d, e, -(d * self.c + e * self.f))

    def point(self, point: Point) -> Point:
        """Image of a point."""
        return Point(self.a * point.x + self.b * point.y + self.c, self.d * point.x + self.e * point.y + self.f)

    def box(self, box: Box) -> Box:
        """Bounding box of the image of a box; exact unless the map turns by a part of a right angle."""
        corners = [self.point(Point(x, y)) for x in (box.x0, box.x1) for y in (box.y0, box.y1)]
        xs, ys = [p.x for p in corners], [p.y for p in corners]
        return Box(min(xs), min(ys), max(xs), max(ys))


@dataclass(frozen=True, slots=True)
class Span:
    """A half-open stretch of time in seconds."""

    start_s: float
    end_s: float

    @property
    def duration_s(self) -> float:
        """How long it lasts, 0 for an empty or inverted one."""
        return max(self.end_s - self.start_s, 0.0)

    def contains(self, moment_s: float) -> bool:
        """Whether a moment lies in it."""
        return self.start_s <= moment_s < self.end_s

    def intersect(self, other: Span) -> Span:
        """The common part; it has no duration where the two do not meet."""
        return Span(max(self.start_s, other.start_s), min(self.end_s, other.end_s))


def united(spans: Iterable[Span]) -> list[Span]:
    """The same stretches of time without overlap, in order; empty ones are left out."""
    merged: list[Span] = []
    for span in sorted(spans, key=lambda span: span.start_s):
        if not span.duration_s:
            continue
        if merged and span.start_s <= merged[-1].end_s:
            merged[-1] = Span(merged[-1].start_s, max(merged[-1].end_s, span.end_s))
        else:
            merged.append(span)
    return merged


def temporal_iou(ours: Iterable[Span], theirs: Iterable[Span]) -> float:
    """Common time over the time that either covers, in [0, 1]; 0 where both are empty."""
    one, other = united(ours), united(theirs)
    common = sum(a.intersect(b).duration_s for a in one for b in other)
    union = sum(span.duration_s for span in (*one, *other)) - common
    return common / union if union > 0 else 0.0
