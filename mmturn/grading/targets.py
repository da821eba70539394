"""Whether a point hits what an instruction meant: a box, a polygon, or nothing at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from mmturn.types import Json, Trajectory

Outcome = Literal["correct", "wrong", "wrong_format"]

TARGET = "target"
"""Key of ``Task.meta``: ``{"kind": "box" | "polygon" | "refusal", "numbers": [...]}`` in pixels of the first image; a
box has its corners x0, y0, x1, y1, a polygon x and y of its corners by turns."""


def in_box(point: Sequence[float], box: Sequence[float]) -> bool:
    """Whether a point lies in a box, its edges included."""
    x, y = point
    return box[0] <= x <= box[2] and box[1] <= y <= box[3]


def in_polygon(point: Sequence[float], numbers: Sequence[float]) -> bool:
    """Whether a ray from the point to the right leaves the polygon an odd number of times. Of the edges, the upper and
    the left ones count as inside, as half-open intervals make them. Four numbers are the corners of a box.

    Source: OSWorld-G (arXiv 2505.13227) as lmms-eval 0.7.3 scores it.
    """
    if len(numbers) == 4:
        return in_box(point, numbers)
    corners = list(zip(numbers[::2], numbers[1::2], strict=True))
    x, y = point
    inside = False
    for (x0, y0), (x1, y1) in zip(corners, [corners[-1], *corners[:-1]], strict=True):
        if (y0 > y) != (y1 > y) and x < (x1 - x0) * (y - y0) / (y1 - y0) + x0:
            inside = not inside
    return inside


def judged(trajectory: Trajectory) -> Outcome:
    """What became of a grounding task: the point of its last turn against ``meta["target"]``.

    Facts read: ``point``, in pixels of the first image, or ``refused``. A refusal is right where there is nothing to
    point at, and so is a point left of and above the image; neither a point nor a refusal is wrong_format.
    """
    facts = trajectory.turns[-1].facts if trajectory.turns else {}
    target: Mapping[str, Json] = trajectory.task.meta[TARGET]
    point = facts.get("point")
    nowhere = bool(facts.get("refused")) or (point is not None and max(point) < 0)
    if target["kind"] == "refusal":
        return "correct" if nowhere else "wrong" if point is not None else "wrong_format"
    if point is None:
        return "wrong" if nowhere else "wrong_format"
    inside = in_box if target["kind"] == "box" else in_polygon
    return "correct" if inside(point, target["numbers"]) else "wrong"
