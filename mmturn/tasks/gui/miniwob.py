"""MiniWoB++ (the package ``miniwob``) as tasks: every one that pixels and keys can solve, by name.

Source: World of Bits (Shi et al. 2017) and Workflow-guided exploration (1802.08802); pages of miniwob 1.1.0.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

from mmturn.errors import ConfigError
from mmturn.geometry import Size
from mmturn.types import Task

EXCLUDED = {
    "flight.Alaska-auto-medium": "a variant that the package itself does not register",
}
"""Pages that are no task here, and why."""
FLIGHTS = ("flight.AA", "flight.Alaska", "flight.Alaska-auto")
"""Tasks whose page is a frame around an airline's: they are larger, and get a context of their own."""
SIZE = Size(160, 210)
FLIGHT_SIZE = Size(375, 667)
"""Pixels of the task's part of the page."""
QUESTION = "Do what the page asks for."


@cache
def folder() -> Path:
    """Where the pages are. Raises ConfigError without the package."""
    found = importlib.util.find_spec("miniwob")
    if found is None or found.origin is None:
        raise ConfigError("MiniWoB++ needs the package miniwob: pip install 'mmturn[gui]'")
    return Path(found.origin).parent / "html"


@cache
def names() -> tuple[str, ...]:
    """Every task, sorted. Raises ConfigError without the package."""
    pages = [path.stem for path in (folder() / "miniwob").glob("*.html")]
    flights = [f"flight.{path.parent.name}" for path in (folder() / "flight").glob("*/wrapper.html")]
    return tuple(sorted(name for name in (*pages, *flights) if name not in EXCLUDED))


def page_of(name: str) -> str:
    """Path of a task's page on its site."""
    return f"/flight/{name.removeprefix('flight.')}/wrapper.html" if name in FLIGHTS else f"/miniwob/{name}.html"


def size_of(name: str) -> Size:
    """Pixels of a task's screen."""
    return FLIGHT_SIZE if name in FLIGHTS else SIZE


def miniwob_task(name: str, seed: int) -> Task:
    """One instance: the page's own goal is said when it is shown."""
    return Task(f"miniwob/{name}/{seed}", QUESTION, meta={"browser": {"miniwob": name, "seed": seed}})


def miniwob_tasks(chosen: Sequence[str], seeds: Iterable[int]) -> list[Task]:
    """Every chosen task with every seed, the tasks in turn. Raises ConfigError for a name that there is not."""
    unknown = [name for name in chosen if name not in names()]
    if unknown:
        raise ConfigError(f"MiniWoB++ has no task {', '.join(unknown)}; it has: {', '.join(names())}")
    return [miniwob_task(name, seed) for seed in seeds for name in chosen]
