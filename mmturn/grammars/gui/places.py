"""Where a dialect's numbers lie: its coordinate rule on the newest screen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from mmturn.errors import DataError, ParseError
from mmturn.geometry import Point, Size
from mmturn.grammars.frames import FRAME_WORDS, MAX_COORDINATE, extent, read_coordinates, write_coordinates
from mmturn.types import Action, Json, View

Coordinates = Literal["view_px", "screen_px", "permille", "grid999", "unit", "qwen2_5_px", "ui_tars_px"]
"""The frames of ``grammars.frames``, and ``screen_px``: pixels of the whole screen, whatever size it is shown with."""


class Screen:
    """The newest view, which dialects point at, under a coordinate rule."""

    def __init__(self, coordinates: str, views: Sequence[View]) -> None:
        self.coordinates, self.views = coordinates, views
        self.index: int | None = len(views) - 1 if views else None

    @property
    def view(self) -> View:
        """The newest view. Raises ParseError when there is none."""
        if not self.views:
            raise ParseError("no image is visible, so that no point can be meant")
        return self.views[-1]

    def point(self, what: str, numbers: Json) -> list[float]:
        """Two numbers as a point in pixels of the view; of four, a box, its centre. Raises ParseError."""
        view = self.view
        given = list(numbers) if isinstance(numbers, (list, tuple)) else numbers
        if isinstance(given, list) and len(given) == 4:
            box = read_coordinates(what, given, 4, self._frame, view.size)
            given_px = [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2]
        else:
            given_px = read_coordinates(what, given, 2, self._frame, view.size)
        if self.coordinates != "screen_px":
            return given_px
        there = view.transform.inverse().point(Point(*given_px))
        return [there.x, there.y]

    def written(self, action: Action, point: Sequence[float]) -> list[int] | list[float]:
        """A point of an action as the dialect's numbers. Raises DataError for one that is not of the newest view."""
        if action.view is None or action.view != self.index:
            raise DataError(f"{action.name}: only the newest image can be pointed at, and this point is of another")
        if not all(math.isfinite(number) and abs(number) <= MAX_COORDINATE for number in point):
            raise DataError(f"{action.name}: a point must be finite, got {list(point)}")
        if self.coordinates == "screen_px":
            there = self.view.transform.point(Point(*point))
            return [round(there.x), round(there.y)]
        return write_coordinates(list(point), self._frame, self.view.size)

    @property
    def _frame(self) -> str:
        return "view_px" if self.coordinates == "screen_px" else self.coordinates


def coordinate_words(coordinates: str) -> str:
    """How a coordinate rule is explained to a policy."""
    if coordinates == "screen_px":
        return "in pixels of the whole screen, with (0, 0) at its top left corner"
    return FRAME_WORDS[coordinates]


def screen_size(coordinates: str, view: View) -> Size | None:
    """Width and height of the screen in the dialect's pixels; None for relative coordinates."""
    return view.source.size if coordinates == "screen_px" else extent(coordinates, view.size)
