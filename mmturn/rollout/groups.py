"""Groups: several episodes of one visit of one task."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mmturn.rollout.seeds import seed_of
from mmturn.types import Task


@dataclass(frozen=True, slots=True)
class Episode:
    """One episode to run."""

    task: Task
    group: str
    """Same for all episodes of one visit of one task."""
    index: int
    """Position within the group."""
    seed: int
    """Sampling seed, hash(run seed, task, visit, index); the driver adds the turn."""
    env_seed: int
    """Environment seed, hash(run seed, task, visit): shared by the group."""
    max_turns: int | None = None
    """Most turns, where that is fewer than the rollout's limit."""

    @property
    def id(self) -> str:
        """Unique within a run."""
        return f"{self.group}#{self.index}"


def episodes(
    visits: Iterable[tuple[Task, int]], group_size: int, run_seed: int, max_turns: int | None = None
) -> list[Episode]:
    """``group_size`` episodes for each (task, visit number). Evaluation uses visit 0."""
    return [
        Episode(
            task,
            f"{task.id}@{visit}",
            index,
            seed_of("sampling", run_seed, task.id, visit, index),
            seed_of("environment", run_seed, task.id, visit),
            max_turns,
        )
        for task, visit in visits
        for index in range(group_size)
    ]
