"""Tasks on a desktop: applications and files to start with, a goal, and checks of the state that it ends up in."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from mmturn.errors import DataError
from mmturn.tasks.gui.checks import Check, check_goal, goal_row, read_goal
from mmturn.types import Json, Task


@dataclass(frozen=True)
class DesktopTask:
    """A goal on a desktop."""

    id: str
    """Unique among the tasks."""
    goal: str
    """What is to be done, in words."""
    applications: tuple[tuple[str, ...], ...] = ()
    """What runs at the start, in order: the name of an application as the environment knows it, then files or folders
    of the home folder that it opens."""
    files: Mapping[str, str | None] = field(default_factory=dict)
    """Texts of files by their path in the home folder; None: a folder."""
    clipboard: str | None = None
    """What the clipboard holds at the start."""
    checks: tuple[Check, ...] = ()
    """All must hold at the end, of the state that ``envs.gui.desktop.state`` describes."""
    answer: str | None = None
    """What the policy has to say when it finishes; None: nothing in particular."""
    infeasible: bool = False
    """It cannot be done: right is to say so (status ``infeasible``)."""
    ends_when_met: bool = False
    """The episode ends as soon as all checks hold, without being finished by the policy."""
    solution: tuple[tuple[str, ...], ...] = ()
    """A scripted solution, for tests and cold starts (see ``envs.gui.desktop.experts``)."""
    meta: Mapping[str, Json] = field(default_factory=dict)
    """Anything else, for the task's ``meta``."""

    def __post_init__(self) -> None:
        check_goal(self)
        for name, *opened in self.applications:
            if not name or any(not inside(path) for path in opened):
                raise DataError(f"task {self.id}: applications: {name!r:.40} must open paths inside of the home folder")
        wrong = next((path for path in self.files if not inside(path)), None)
        if wrong is not None:
            raise DataError(f"task {self.id}: files: {wrong!r:.80} must be a path inside of the home folder")

    def task(self) -> Task:
        """As a Task; ``read_desktop_task`` reads it back."""
        row: dict[str, Json] = {"applications": [list(one) for one in self.applications], **goal_row(self)}
        if self.files:
            row["files"] = dict(self.files)
        if self.clipboard is not None:
            row["clipboard"] = self.clipboard
        return Task(f"desktop/{self.id}", self.goal, answer=self.answer, meta={**self.meta, "desktop": row})


def inside(path: str) -> bool:
    """Whether a path stays inside of the folder that it is of, and no program takes it for an option."""
    parts = PurePosixPath(path).parts
    return bool(parts) and not path.startswith(("/", "-")) and ".." not in parts and "\0" not in path


def read_desktop_task(task: Task) -> DesktopTask:
    """The desktop task behind a Task. Raises DataError that names the task and the key."""
    row, common = read_goal(task, "desktop", ("applications", "files", "clipboard"))
    where = f"task {task.id}: meta.desktop"
    applications, files, clipboard = row.get("applications", ()), row.get("files", {}), row.get("clipboard")
    if not _is_list(applications) or not all(_is_list(one) and one and _texts(one) for one in applications):
        raise DataError(f"{where}.applications must be lists like [editor, notes.txt], got {applications!r:.80}")
    if not isinstance(files, Mapping) or not all(text is None or isinstance(text, str) for text in files.values()):
        raise DataError(f"{where}.files must be texts (or null: a folder) by path, got {files!r:.80}")
    if clipboard is not None and not isinstance(clipboard, str):
        raise DataError(f"{where}.clipboard must be a text, got {clipboard!r:.80}")
    opened = tuple(tuple(one) for one in applications)
    return DesktopTask(task.id, task.question, opened, files, clipboard, **common)


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple))


def _texts(values: Sequence[Any]) -> bool:
    return all(isinstance(value, str) for value in values)


def shipped_desktop_tasks() -> list[DesktopTask]:
    """The tasks that ship with mmturn, every one with a scripted solution."""
    rows = json.loads((Path(__file__).parent / "desktop.json").read_text(encoding="utf-8"))
    return [
        DesktopTask(
            **{
                **row,
                "applications": tuple(tuple(one) for one in row.get("applications", ())),
                "checks": tuple(Check(*check) for check in row.get("checks", ())),
                "solution": tuple(tuple(step) for step in row["solution"]),
            }
        )
        for row in rows
    ]
