"""Coordinate frames of regions in text, as data. The frame is a setting, never guessed from magnitude.

``view_px``: pixels of the view as shown. ``permille``: 0..1000 of its sides. ``grid999``: 0..999 of its sides.
``unit``: 0..1 of its sides. ``qwen2_5_px`` and ``ui_tars_px``: pixels of what a server's own smart_resize makes of the
view, for a policy that is sent the view and shrinks it by itself (sides to multiples of 28; from 3,136 or 78,400 to
12,845,056 pixels).
"""

from __future__ import annotations

import math
from typing import Literal

from mmturn.errors import DataError, ParseError
from mmturn.families.size_rules import qwen_vl_utils_rule
from mmturn.geometry import Size
from mmturn.types import Json, PixelBudget

Frame = Literal["view_px", "permille", "unit", "grid999", "qwen2_5_px", "ui_tars_px"]

FRAME_WORDS: dict[str, str] = {
    "view_px": "in pixels of the image as shown, with (0, 0) at its top left corner",
    "permille": "as whole numbers from 0 to 1000 relative to the image's width and height",
    "unit": "as fractions from 0 to 1 of the image's width and height",
    "grid999": "as whole numbers from 0 to 999 relative to the image's width and height",
    "qwen2_5_px": "in pixels of the image as you see it, with (0, 0) at its top left corner",
    "ui_tars_px": "in pixels of the image as you see it, with (0, 0) at its top left corner",
}
"""How each frame is explained to a policy."""

MAX_COORDINATE = 1e9
"""A coordinate beyond this is refused when parsed: it is noise, and arithmetic on it may overflow."""


_RESIZED = {"qwen2_5_px": PixelBudget(3_136, 12_845_056), "ui_tars_px": PixelBudget(78_400, 12_845_056)}
_FACTOR = 28
_PARTS = {"permille": 1000.0, "grid999": 999.0, "unit": 1.0}


def extent(frame: str, size: Size) -> Size | None:
    """Width and height in pixels that a policy with a frame of pixels sees a view with; None for a relative frame.

    Raises DataError for a view that smart_resize refuses.
    """
    if frame == "view_px":
        return size
    return qwen_vl_utils_rule(size, _RESIZED[frame], _FACTOR) if frame in _RESIZED else None


def _scales(frame: str, size: Size) -> tuple[float, float]:
    """Pixels of a view per unit of the frame, in x and y."""
    seen = extent(frame, size)
    if seen is not None:
        return size.width / seen.width, size.height / seen.height
    return size.width / _PARTS[frame], size.height / _PARTS[frame]


def read_coordinates(name: str, value: Json, count: int, frame: str, size: Size) -> list[float]:
    """Coordinates (x, y alternating) of a frame as pixels of a view of ``size``.

    Raises ParseError for anything but ``count`` finite numbers; whether the region makes sense is the tool's to say.
    """
    form = "[x0, y0, x1, y1]" if count == 4 else "[x, y]"
    if not isinstance(value, list) or len(value) != count:
        got = f"a list of {len(value)}" if isinstance(value, list) else _kind(value)
        raise ParseError(f"{name} must be a list of {count} numbers {form}, got {got}")
    scales = _scales(frame, size)
    pixels = []
    for i, number in enumerate(value):
        if isinstance(number, bool) or not isinstance(number, (int, float)):
            raise ParseError(f"{name} must hold numbers {form}, got {_kind(number)} at position {i}")
        # Compared before float(): an int may be too large for it.
        if not -MAX_COORDINATE <= number <= MAX_COORDINATE:
            raise ParseError(f"{name} must hold finite numbers {form}; the one at position {i} is not, or is too large")
        pixels.append(float(number) * scales[i % 2])
    return pixels


def write_coordinates(pixels: list[float] | tuple[float, ...], frame: str, size: Size) -> list[int] | list[float]:
    """Pixels of a view as coordinates of a frame: whole numbers, or four decimals in the unit frame.

    Raises DataError for a region that is not finite.
    """
    scales = _scales(frame, size)
    values = [float(pixel) / scales[i % 2] for i, pixel in enumerate(pixels)]
    if not all(map(math.isfinite, values)):
        raise DataError(f"a region must be finite, got {list(pixels)}")
    # Adding zero turns -0.0 into 0.0.
    return [round(v, 4) + 0.0 for v in values] if frame == "unit" else [round(v) for v in values]


def _kind(value: Json) -> str:
    """What a JSON value is, in a word or two."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a truth value"
    for kind, word in ((str, "a text"), ((int, float), "a number"), (list, "a list"), (dict, "an object")):
        if isinstance(value, kind):  # type: ignore[arg-type]
            return word
    return type(value).__name__
