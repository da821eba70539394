"""Coordinate frames of regions in text, as data: ``view_px`` (pixels of the view as shown), ``permille`` (0..1000 of
its sides), ``unit`` (0..1 of its sides). The frame is a setting, never guessed from magnitude."""

from __future__ import annotations

import math
from typing import Literal

from mmturn.errors import DataError, ParseError
from mmturn.geometry import Size
from mmturn.types import Json

Frame = Literal["view_px", "permille", "unit"]

FRAME_WORDS: dict[str, str] = {
    "view_px": "in pixels of the image as shown, with (0, 0) at its top left corner",
    "permille": "as whole numbers from 0 to 1000 relative to the image's width and height",
    "unit": "as fractions from 0 to 1 of the image's width and height",
}
"""How each frame is explained to a policy."""

MAX_COORDINATE = 1e9
"""A coordinate beyond this is refused when parsed: it is noise, and arithmetic on it may overflow."""


def _scales(frame: str, size: Size) -> tuple[float, float]:
    """Pixels of a view per unit of the frame, in x and y."""
    if frame == "view_px":
        return 1.0, 1.0
    parts = 1000.0 if frame == "permille" else 1.0
    return size.width / parts, size.height / parts


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
