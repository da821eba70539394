"""Tasks on web sites: a page to start from, a goal, and checks of the state that the site ends up in."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mmturn.errors import DataError
from mmturn.tasks.gui.checks import Check, check_goal, goal_row, read_goal
from mmturn.types import Json, Task


@dataclass(frozen=True)
class WebTask:
    """A goal on a site."""

    id: str
    """Unique among a site's tasks."""
    site: str
    """The site's name, as the environment knows it."""
    goal: str
    """What is to be done, in words."""
    checks: tuple[Check, ...] = ()
    """All must hold at the end."""
    start: str = "/"
    """Path of the first page."""
    answer: str | None = None
    """What the policy has to say when it finishes; None: nothing in particular."""
    infeasible: bool = False
    """It cannot be done: right is to say so (status ``infeasible``)."""
    ends_when_met: bool = False
    """The episode ends as soon as all checks hold, without being finished by the policy."""
    solution: tuple[tuple[str, ...], ...] = ()
    """A scripted solution, for tests and cold starts (see ``envs.gui.browser.experts``)."""
    meta: Mapping[str, Json] = field(default_factory=dict)
    """Anything else, for the task's ``meta``."""

    def __post_init__(self) -> None:
        check_goal(self)
        if not self.start.startswith("/"):
            raise DataError(f"task {self.id}: start must be a path like /cart, got {self.start!r}")

    def task(self) -> Task:
        """As a Task; ``read_web_task`` reads it back."""
        page = {"site": self.site, "start": self.start, **goal_row(self)}
        return Task(f"{self.site}/{self.id}", self.goal, answer=self.answer, meta={**self.meta, "browser": page})


def read_web_task(task: Task) -> WebTask:
    """The web task behind a Task. Raises DataError that names the task and the key."""
    page = task.meta.get("browser")
    if not isinstance(page, Mapping) or not isinstance(page.get("site"), str):
        raise DataError(f"task {task.id}: meta.browser must name a site (or a miniwob task), got {page!r:.80}")
    row, common = read_goal(task, "browser", ("site", "start"))
    return WebTask(task.id, row["site"], task.question, start=row.get("start", "/"), **common)


SHIPPED = ("shop", "mail", "settings")
"""Names of the sites that ship with mmturn."""


def shipped_tasks(sites: Sequence[str] = SHIPPED) -> list[WebTask]:
    """The tasks of the shipped sites, twenty each, every one with a scripted solution."""
    tasks = []
    for site in sites:
        rows = json.loads((Path(__file__).parent / f"{site}.json").read_text(encoding="utf-8"))
        for row in rows:
            checks = tuple(Check(*check) for check in row.pop("checks", ()))
            solution = tuple(tuple(step) for step in row.pop("solution"))
            tasks.append(WebTask(site=site, checks=checks, solution=solution, **row))
    return tasks
