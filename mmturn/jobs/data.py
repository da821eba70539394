"""Where a run's tasks come from: a file, or a generated world."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from mmturn.recipe import DataConfig
from mmturn.tasks.board import board_tasks
from mmturn.tasks.navigation import navigation_tasks
from mmturn.tasks.rows import RowProblem, read_tasks
from mmturn.tasks.worlds import WORLDS
from mmturn.types import Task

BOARD = "board"
"""Name that stands for the openings of the board game."""
NAVIGATION = "navigation"
"""Name that stands for walks through generated houses."""
_MADE = {BOARD: board_tasks, NAVIGATION: navigation_tasks}

Progress = Callable[[int, int], None]


def load_tasks(path: str | Path) -> tuple[list[Task], list[RowProblem]]:
    """Tasks of a file and its bad rows. Raises DataError when it has no good row."""
    return read_tasks(Path(path))


def generated(
    folder: Path,
    split: str,
    count: int,
    *,
    seed: int,
    levels: Sequence[str] = (),
    world: str = "visual_search",
    workers: int = 2,
    progress: Progress | None = None,
) -> list[Task]:
    """``count`` tasks of a generated world, written to ``folder`` unless the same ones are there already. ``levels``:
    all of the world's when empty."""
    made = WORLDS[world]
    levels = tuple(levels) or made.levels
    wanted = {
        "world": world, "split": split, "tasks": count, "seed": seed, "levels": list(levels), "format": made.version
    }  # fmt: skip
    stamp = folder / "made.json"
    if not (stamp.is_file() and stamp.read_text(encoding="utf-8") == json.dumps(wanted) + "\n"):
        stamp.unlink(missing_ok=True)  # what it stands for is about to be overwritten
        made.generate(folder, split=split, tasks=count, seed=seed, levels=levels, workers=workers, progress=progress)
        stamp.write_text(json.dumps(wanted) + "\n", encoding="utf-8")
    return read_tasks(folder / "tasks.jsonl", strict=True)[0]


def tasks_of(
    config: DataConfig, split: str, folder: Path, progress: Progress | None = None
) -> tuple[list[Task], list[RowProblem]]:
    """Tasks of one split of a recipe: ``train`` or ``val``. Without validation data: no tasks."""
    named = config.train if split == "train" else config.validation
    if split == "val" and not named:
        named = config.train if config.train in (*WORLDS, *_MADE) else ""
    if not named:
        return [], []
    if named not in (*WORLDS, *_MADE):
        return load_tasks(named)
    count = config.train_tasks if split == "train" else config.validation_tasks
    if count == 0:
        return [], []
    if named in _MADE:
        return _MADE[named](split, count, seed=config.seed), []
    tasks = generated(
        folder / split, split, count, seed=config.seed, levels=config.levels, world=named, progress=progress
    )  # fmt: skip
    return tasks, []
