"""Trajectories made by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from mmturn.geometry import Box, Size, Transform
from mmturn.types import Action, ImageRef, Observation, StopReason, Task, Trajectory, Turn, View

GOLD = (Box(100, 100, 200, 200), Box(600, 600, 700, 700))
TASK = Task("t", "Which?", answer="B", choices=("dog", "cat"), answer_type="choice", boxes=GOLD)
ROOT = View(ImageRef("a" * 64, Size(1000, 1000)), Transform(4, 0, 0, 0, 4, 0), Size(250, 250))

Make = Callable[..., Trajectory]


def make_trajectory(
    *crops: Sequence[float] | None, answer: str | None = "B", task: Task = TASK, **fields: Any
) -> Trajectory:
    """One turn per crop (None: a turn in error), then a turn with the answer."""
    turns = []
    for crop in crops:
        action = Action("tool", "crop", {"bbox_2d": [0, 0, 1, 1]}, 0)
        facts = {} if crop is None else {"tools": ["crop"], "crops": [{"box": list(crop), "image": 0}]}
        error = "no such box" if crop is None else None
        turns.append(Turn(len(turns), Observation((ROOT,)), "look", actions=(action,), error=error, facts=facts))
    if answer is not None:
        action = Action("answer", "answer", {"text": answer})
        turns.append(Turn(len(turns), Observation((ROOT,)), answer, actions=(action,)))
    stop = StopReason.ANSWERED if answer is not None else StopReason.TURN_LIMIT
    defaults: dict[str, Any] = {"id": "x", "task": task, "group": "g", "index": 0, "seed": 0, "stop": stop}
    return Trajectory(turns=tuple(turns), answer=answer, **(defaults | fields))


@pytest.fixture
def make() -> Make:
    """``make_trajectory``."""
    return make_trajectory


@pytest.fixture
def failed() -> Trajectory:
    """A trajectory that failed before its first turn."""
    return Trajectory("x", TASK, "g", 0, 0, (), StopReason.ENV_FAILED, error="the image is missing")
