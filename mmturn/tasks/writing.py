"""What the generated worlds share: which levels, files drawn in several processes, and the file of rows."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

Job = TypeVar("Job")


def checked_levels(levels: Sequence[str] | None, known: Sequence[str], seed: int) -> tuple[str, ...]:
    """The levels to draw, all that are ``known`` when none is named. Raises ValueError for an unknown level, and for a
    seed outside 0..2**31-1."""
    chosen = tuple(levels or known)
    for level in chosen:
        if level not in known:
            raise ValueError(f"unknown level {level!r}; the levels are {', '.join(known)}")
    if not 0 <= seed < 2**31:
        raise ValueError(f"seed {seed} is not in 0..2**31-1")
    return chosen


def draw_all(
    draw: Callable[[Job], None],
    jobs: Sequence[Job],
    workers: int,
    progress: Callable[[int, int], None] | None = None,
    chunk: int = 1,
) -> None:
    """Do each job once, in ``workers`` processes; ``progress(done, all)`` is called after each."""

    def tell(done: Iterable[None]) -> None:
        for number, _ in enumerate(done, 1):
            if progress is not None:
                progress(number, len(jobs))

    if workers <= 1:
        tell(map(draw, jobs))
        return
    with get_context("spawn").Pool(workers) as pool:
        tell(pool.imap_unordered(draw, jobs, chunksize=chunk))


def write_rows(folder: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """Write ``tasks.jsonl`` into a folder; its path."""
    path = folder / "tasks.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
