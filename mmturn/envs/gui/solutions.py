"""Steps of scripted solutions that mean the same in every GUI environment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmturn.errors import DataError
from mmturn.geometry import Point
from mmturn.gui_actions import act, finish
from mmturn.types import Action, Task, View

DONE = "done"
"""Said at the end of a task that asks for no answer: some dialects end with words alone."""


def plain_step(task: Task, step: Sequence[Any]) -> Action:
    """A step without a place: ``type text``, ``key name+name``, ``wait seconds``, ``finish text status``.

    Raises DataError for another.
    """
    kind, *words = step
    if kind == "type":
        return act("type", text=words[0])
    if kind == "key":
        return act("key", keys=words[0].split("+"))
    if kind == "wait":
        return act("wait", duration_s=float(words[0]))
    if kind == "finish":
        return finish(words[0] if words else "", words[1] if len(words) > 1 else "success")
    raise DataError(f"task {task.id}: a solution has no step {kind!r}")


def on_view(view: View, x: float, y: float) -> list[float]:
    """Pixels of the screen as pixels of a view of it."""
    there = view.transform.inverse().point(Point(x, y))
    return [there.x, there.y]
