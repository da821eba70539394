"""Writes a split of the visual search world: pictures and `tasks.jsonl`, the same bytes for the same seed."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from mmturn.tasks.visual_search.questions import rows_of
from mmturn.tasks.visual_search.scene import Scene, sample_scene
from mmturn.tasks.visual_search.words import LEVELS
from mmturn.tasks.writing import checked_levels, draw_all, write_rows

SCENES_PER_SEED = 1_000_000
TASKS_PER_SCENE = (1, 2, 3)
JPEG_QUALITY = 92


def scene_tasks(split: str, seed: int, number: int, levels: Sequence[str]) -> tuple[Scene, list[dict]]:
    """Scene `number` of the split under `seed` with one to three rows, the first of the level whose turn it is."""
    scene_seed = seed * SCENES_PER_SEED + number
    level = levels[number % len(levels)]
    scene = sample_scene(scene_seed, split, level)
    rng = np.random.default_rng([scene_seed, 1])
    pools = {name: rows_of(scene, name, rng) for name in levels}
    wanted = int(rng.choice(TASKS_PER_SCENE))
    rows: list[dict] = []
    turn = level
    while len(rows) < wanted and any(pools.values()):
        pool = pools[turn]
        if pool:
            rows.append(pool.pop(int(rng.integers(len(pool)))))
        turn = levels[int(rng.integers(len(levels)))]
    for index, row in enumerate(rows):
        row["id"] = f"visual_search/{split}/{seed}/{number:06d}/{index}"
        row["image"] = f"images/{number:06d}.jpg"
        row["meta"]["scene"] = f"{split}/{scene_seed}"
    keys = ("id", "image", "question", "answer", "choices", "answer_type", "boxes", "meta")
    return scene, [{key: row[key] for key in keys if key in row} for row in rows]


def _paint(job: tuple[str, Scene]) -> None:
    path, scene = job
    scene.image().save(path, "JPEG", quality=JPEG_QUALITY)


def generate(
    out_dir: str | os.PathLike,
    *,
    split: str,
    tasks: int,
    seed: int,
    levels: Sequence[str] | None = None,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write `tasks` rows to `out_dir/tasks.jsonl` and their pictures to `out_dir/images`; returns the JSONL path.

    `levels` defaults to all of `LEVELS`, in equal turns. `progress(done, all)` is called after each picture.
    Raises ValueError for an unknown level or split.
    """
    levels = checked_levels(levels, LEVELS, seed)
    out = Path(out_dir)
    (out / "images").mkdir(parents=True, exist_ok=True)
    rows: list[dict] = []
    jobs: list[tuple[str, Scene]] = []
    number = 0
    while len(rows) < tasks:
        scene, found = scene_tasks(split, seed, number, levels)
        number += 1
        if found:
            jobs.append((str(out / found[0]["image"]), scene))
            rows += found
    draw_all(_paint, jobs, workers, progress, chunk=8)
    return write_rows(out, rows[:tasks])
