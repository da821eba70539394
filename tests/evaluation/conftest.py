"""Trajectories of a benchmark with known outcomes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from mmturn.geometry import Box, Size, Transform
from mmturn.types import ImageRef, Observation, StopReason, Task, Trajectory, Turn, View

SIZE = Size(1000, 800)
VIEW = View(ImageRef("cd" * 32, SIZE), Transform.region(Box(0, 0, 1000, 800), Size(100, 80)), Size(100, 80))


def build_task(number: int, **changes: Any) -> Task:
    """Task ``q<number>``: answer 7, gold box (100, 100, 200, 200), two tasks to a scene, levels 1 and 2."""
    fields: dict[str, Any] = {
        "id": f"q{number}",
        "question": f"Number of door {number}?",
        "images": (f"/somewhere/scene{number // 2}.png",),
        "answer": "7",
        "answer_type": "number",
        "boxes": (Box(100, 100, 200, 200),),
        "meta": {"scene": number // 2, "level": 1 + number % 2},
    }
    return Task(**{**fields, **changes})


def build_trajectory(
    task: Task,
    answer: str | None = "7",
    crops: tuple[tuple[float, ...], ...] = (),
    stop: StopReason = StopReason.ANSWERED,
    index: int = 0,
) -> Trajectory:
    """A trajectory with one turn per crop and a last one."""
    turns = tuple(
        Turn(
            index=k,
            observation=Observation((VIEW, "look")),
            text="<tool_call>" if k < len(crops) else f"<answer>{answer}</answer>",
            token_ids=(1, 2, 3),
            provenance="iss",
            logprobs=(-0.1, -0.2),
            facts={"crop": list(crops[k])} if k < len(crops) else {},
            seconds={"decode": 0.5},
        )
        for k in range(len(crops) + 1)
    )
    error = "EnvError: lost" if stop.status == "failed" else None
    return Trajectory(f"{task.id}@0#{index}", task, f"{task.id}@0", index, 5, turns, stop, answer, error)


@pytest.fixture
def make_task() -> Callable[..., Task]:
    """``build_task``."""
    return build_task


@pytest.fixture
def make_trajectory() -> Callable[..., Trajectory]:
    """``build_trajectory``."""
    return build_trajectory
