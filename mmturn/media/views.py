"""Which part of an image is shown, at which size: the only place where a view comes about."""

from __future__ import annotations

import math
from dataclasses import replace

from mmturn.errors import DataError, ToolError
from mmturn.geometry import Box, Size, Transform
from mmturn.interfaces import SizeRule
from mmturn.types import ImageRef, PixelBudget, View


def fit(source: ImageRef, size_rule: SizeRule, budget: PixelBudget, region: Box | None = None) -> View:
    """A region of a source (default: all of it), at the size that the rule gives within the budget.

    ``region`` is in pixels of the source and may lie between pixels; what reaches over the edge is cut off.
    Raises DataError for a region that is not finite, empty, outside the source or too thin to be shown.
    """
    bounds = Box(0, 0, source.size.width, source.size.height)
    if region is None:
        region = bounds
    if not region.is_finite:
        raise DataError(f"image {source.sha256[:12]}: a region must have finite coordinates, got {region.as_tuple()}")
    region = region.intersect(bounds)
    if region.width <= 0 or region.height <= 0:
        raise DataError(
            f"image {source.sha256[:12]}: a region must cover part of its {source.size.width} x {source.size.height} px"
        )
    size = size_rule(_pixels(region.width, region.height), budget)
    return View(source, Transform.region(region, size), size)


def shows_all(view: View) -> bool:
    """Whether a view shows the whole of its source, upright or turned, to a thousandth of a pixel."""
    region, size = view.region, view.source.size
    edges = (region.x0, region.y0, region.x1 - size.width, region.y1 - size.height)
    return all(abs(edge) < 1e-3 for edge in edges)


def crop(view: View, box: Box, size_rule: SizeRule, budget: PixelBudget) -> View:
    """What ``box`` (pixels of ``view``) shows, sharp from the view's source and fitted anew; a turn is kept. Of a clip,
    what it shows in each frame; they have the budget together.

    The box may reach beyond an upright or quarter-turned view, up to the edge of the source (for padding), and beyond
    otherwise turned views not at all; the rest is cut off. Raises ToolError, worded for the policy, when the box is not
    finite, has swapped corners, lies outside, or is too thin to be shown.
    """
    if not box.is_finite:
        raise ToolError("the box must have finite coordinates")
    if box.width <= 0 or box.height <= 0:
        raise ToolError(f"the box {_words(box)} is empty: x1 must be greater than x0 and y1 greater than y0")
    transform = view.transform
    edges = Box(0, 0, view.source.size.width, view.source.size.height)
    upright = transform.b == 0 and transform.d == 0 and transform.a > 0 and transform.e > 0
    if upright:
        # cut in pixels of the source, so that its edges stay exact
        inside = transform.box(box).intersect(edges)
        transform, scale_x, scale_y = Transform(), 1.0, 1.0
    else:
        bounds = Box(0, 0, view.size.width, view.size.height)
        inside = box.intersect(transform.inverse().box(edges) if _is_right_angled(transform) else bounds)
        scale_x, scale_y = _scales(transform)
    if inside.width <= 0 or inside.height <= 0:
        raise ToolError(f"the box {_words(box)} lies outside the image of {view.size.width} x {view.size.height} px")
    try:
        size = size_rule(_pixels(inside.width * scale_x, inside.height * scale_y), _shared(budget, view))
    except DataError as error:
        raise ToolError(f"the box {_words(box)} cannot be shown: {error}") from error
    return replace(view, transform=transform @ Transform.region(inside, size), size=size)


def rotate(view: View, degrees: float, size_rule: SizeRule, budget: PixelBudget) -> View:
    """What ``view`` shows, turned counter-clockwise about its middle, with all of it kept in sight.

    Quarter turns are exact; others show white beyond the source. Raises ToolError for an angle that is not finite
    and for a picture too thin to be shown.
    """
    if not math.isfinite(degrees):
        raise ToolError(f"the angle must be a finite number of degrees, got {degrees}")
    cos, sin = _direction(degrees)
    scale_x, scale_y = _scales(view.transform)
    width, height = view.size.width * scale_x, view.size.height * scale_y
    turned_w = abs(width * cos) + abs(height * sin)
    turned_h = abs(width * sin) + abs(height * cos)
    try:
        size = size_rule(_pixels(turned_w, turned_h), _shared(budget, view))
    except DataError as error:
        raise ToolError(f"the turned image cannot be shown: {error}") from error
    # turned pixels -> source-sized pixels about the middle -> turned back -> pixels of the view
    centred = Transform.region(Box(-turned_w / 2, -turned_h / 2, turned_w / 2, turned_h / 2), size)
    back = Transform(cos, -sin, 0.0, sin, cos, 0.0)
    to_view = Transform(1 / scale_x, 0.0, view.size.width / 2, 0.0, 1 / scale_y, view.size.height / 2)
    return replace(view, transform=view.transform @ to_view @ back @ centred, size=size)


def view_key(view: View) -> str:
    """A key that two views share exactly when they show the same pixels of the same source the same way."""
    # adding 0.0 turns an int into a float and -0.0 into 0.0, which compare equal but print differently
    numbers = (getattr(view.transform, name) + 0.0 for name in "abcdef")
    sources = "+".join(ref.sha256 for ref in view.sources)
    return f"{sources}:{','.join(map(repr, numbers))}:{view.size.width}x{view.size.height}"


def _shared(budget: PixelBudget, view: View) -> PixelBudget:
    """The budget of a view, which the frames of a clip share."""
    return replace(budget, frames=len(view.sources))


def _pixels(width: float, height: float) -> Size:
    """Nearest whole size, at least one pixel."""
    return Size(max(1, math.floor(width + 0.5)), max(1, math.floor(height + 0.5)))


def _scales(transform: Transform) -> tuple[float, float]:
    """Source pixels per pixel of the view, along its rows and its columns."""
    return math.hypot(transform.a, transform.d), math.hypot(transform.b, transform.e)


def _is_right_angled(transform: Transform) -> bool:
    return (transform.b == 0 and transform.d == 0) or (transform.a == 0 and transform.e == 0)


def _direction(degrees: float) -> tuple[float, float]:
    """Cosine and sine, exact for quarter turns."""
    turn = degrees % 360
    exact = {0.0: (1.0, 0.0), 90.0: (0.0, 1.0), 180.0: (-1.0, 0.0), 270.0: (0.0, -1.0)}
    return exact.get(turn, (math.cos(math.radians(turn)), math.sin(math.radians(turn))))


def _words(box: Box) -> str:
    return "[" + ", ".join(f"{value:g}" for value in box.as_tuple()) + "]"
