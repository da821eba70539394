"""The shipped sites as a world for ``data.train: sites``: their sixty tasks, twenty a site, in three fixed splits."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import chain, zip_longest
from pathlib import Path

from mmturn.tasks.gui.web import SHIPPED, shipped_tasks
from mmturn.tasks.rows import write_tasks
from mmturn.tasks.writing import checked_levels
from mmturn.types import Task

SPLIT_OF = ("train", "train", "train", "heldout", "train", "train", "val", "train", "heldout", "train")
"""Split of a site's tasks by place, again and again: fourteen to train on, two for validation, four held out."""


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
    """Write ``tasks`` of a split, or all that it has where those are fewer, to ``out_dir/tasks.jsonl``; the file's
    path. ``levels`` are sites, all when empty, and take turns; ``seed`` orders the tasks of each. ``workers`` has
    nothing to do.

    Raises ValueError for an unknown level or split.
    """
    if split not in SPLIT_OF:
        raise ValueError(f"unknown split {split!r}; the splits are {', '.join(dict.fromkeys(SPLIT_OF))}")
    chosen = checked_levels(levels, SHIPPED, seed)
    in_turn = chain.from_iterable(zip_longest(*(_of_site(site, split, seed) for site in chosen)))
    written = [task for task in in_turn if task is not None][:tasks]
    path = Path(out_dir) / "tasks.jsonl"
    write_tasks(written, path)
    if progress is not None:
        progress(len(written), len(written))
    return path


def _of_site(site: str, split: str, seed: int) -> list[Task]:
    """A site's tasks of a split, in an order of the seed's."""
    own = [web for place, web in enumerate(shipped_tasks([site])) if SPLIT_OF[place % len(SPLIT_OF)] == split]
    random.Random(seed).shuffle(own)
    return [replace(web, meta={**web.meta, "level": site}).task() for web in own]
