"""MiniWoB++ as a world for ``data.train: miniwob``: rows that name a page and a seed. Nothing is drawn beforehand."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from pathlib import Path

from mmturn.tasks.gui.miniwob import miniwob_tasks
from mmturn.tasks.gui.words import LEVELS
from mmturn.tasks.rows import write_tasks
from mmturn.tasks.writing import checked_levels

SPLITS = ("train", "val", "heldout")
SEEDS = 10**8
"""Page seeds of one split; those of the next begin where they end."""


def generate(
    out_dir: str | os.PathLike[str],
    *,
    split: str,
    tasks: int,
    seed: int,
    levels: Sequence[str] | None = None,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write ``tasks`` rows to ``out_dir/tasks.jsonl``, the tasks named by ``levels`` (all of ``LEVELS`` when empty) in
    turn, each with a page seed of its split's own; the file's path. ``workers`` has nothing to do.

    Raises ValueError for an unknown level or split, ConfigError where the package miniwob lacks a task.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; the splits are {', '.join(SPLITS)}")
    chosen = checked_levels(levels, LEVELS, seed)
    first = SPLITS.index(split) * SEEDS
    drawn = random.Random(seed).sample(range(first, first + SEEDS), -(-tasks // len(chosen)))
    path = Path(out_dir) / "tasks.jsonl"
    write_tasks(miniwob_tasks(chosen, drawn)[:tasks], path)
    if progress is not None:
        progress(tasks, tasks)
    return path
