"""Whether a click hits what was meant, and an action is the one that was meant."""

from __future__ import annotations

from collections.abc import Mapping

from mmturn.errors import DataError, ToolError
from mmturn.grading.targets import TARGET, judged
from mmturn.gui_actions import finish_status, settled, written_action
from mmturn.types import Action, Json, Task, Trajectory

GOLD = "action"
"""Key of ``Task.meta``: the action that is right, as ``gui_actions.written_action`` reads it."""

PLACED = ("click", "long_press", "drag", "move", "mouse_down", "mouse_up")
"""Actions that are at a place."""


def click_hit(trajectory: Trajectory) -> float:
    """1.0 for a right click (or a right refusal) by ``grading.targets.judged``, else 0.0; 0.0 for a task without a
    target."""
    return float(TARGET in trajectory.task.meta and judged(trajectory) == "correct")


def action_match(trajectory: Trajectory) -> float:
    """1.0 for the action that ``meta["action"]`` names, with the very arguments that it names; else 0.0.

    One at a place (a click, a long press, a swipe by where it begins) has to lie inside ``meta["target"]``, edges
    included. Where none is named, ``click_hit`` of a click or of a refusal.

    Facts read: ``acted`` and ``point`` of the last turn. Raises DataError for a task whose action cannot be read.
    Source: Mobile-R1 (arXiv 2506.20332), R_Act of its second stage.
    """
    facts = trajectory.turns[-1].facts if trajectory.turns else {}
    gold, acted = gold_action(trajectory.task), facts.get("acted")
    if gold is None:
        return click_hit(trajectory) if acted is None or acted["name"] in ("click", "finish") else 0.0
    if acted is None or not all(acted.get(key) == value for key, value in told_action(gold).items()):
        return 0.0
    return click_hit(trajectory) if gold.name in PLACED else 1.0


def gold_action(task: Task) -> Action | None:
    """The right action of a task; None where none is named. Raises DataError for one that cannot be read, and for one
    at a place where no target says which."""
    if GOLD not in task.meta:
        return None
    written = task.meta[GOLD]
    if isinstance(written, Mapping) and written.get("name") == "drag":
        written = {"path": [[0, 0], [0, 0]], **written}  # where to is not compared
    try:
        gold = written_action(written, 0)
    except ToolError as error:
        raise DataError(f"task {task.id}: meta.{GOLD}: {error}") from None
    if gold.name in PLACED and TARGET not in task.meta:
        raise DataError(f"task {task.id}: meta.{GOLD} is a {gold.name}: meta.{TARGET} must say where")
    return gold


def told_action(action: Action) -> dict[str, Json]:
    """An action as the fact ``acted`` tells it: its name, and all arguments that are no places and have a value."""
    if action.kind == "answer":
        return {"name": "finish", "text": str(action.arguments.get("text", "")), "status": finish_status(action)}
    places = ("point", "path")
    told = {key: value for key, value in settled(action).items() if value is not None and key not in places}
    return {"name": action.name, **told}
