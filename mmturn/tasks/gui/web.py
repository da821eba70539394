"""Tasks on web sites: a page to start from, a goal, and checks of the state that the site ends up in."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from mmturn.errors import DataError
from mmturn.types import Json, Task

Operator = Literal["equals", "differs", "contains", "lacks", "count", "at_least", "at_most", "absent"]
OPERATORS: tuple[Operator, ...] = get_args(Operator)
_MISSING = object()


@dataclass(frozen=True, slots=True)
class Check:
    """One condition on a site's state. It is data: nothing of it is ever run as code."""

    path: str
    """Where in the state, e.g. ``cart.0.id``: keys of objects and numbers of list places, with dots between; empty: all
    of it. ``items[name=Lamp].price`` is the first element of a list whose ``name`` is that text."""
    op: Operator
    """equals and differs compare JSON values; contains and lacks look into a list, a text or the keys of an object;
    count is the length; at_least and at_most compare numbers; absent: there is no such place, or null."""
    value: Json = None
    """What it is compared with."""

    def __post_init__(self) -> None:
        if self.op not in OPERATORS:
            raise DataError(f"the check of {self.path!r}: op must be one of {', '.join(OPERATORS)}, got {self.op!r}")

    def holds(self, state: Json) -> bool:
        """Whether the condition is met. A place that is not there meets ``absent``, ``differs`` and ``lacks`` alone."""
        found = look_up(state, self.path)
        if found is _MISSING or found is None:
            return self.op in ("absent", "differs", "lacks") or (self.op == "equals" and self.value is found)
        if self.op in ("equals", "differs"):
            return _same(found, self.value) == (self.op == "equals")
        if self.op in ("contains", "lacks"):
            return _contains(found, self.value) == (self.op == "contains")
        if self.op == "count":
            return isinstance(found, (list, dict, str)) and len(found) == self.value
        if self.op == "absent":
            return False
        if isinstance(found, bool) or not isinstance(found, (int, float)):
            return False
        return found >= self.value if self.op == "at_least" else found <= self.value


def look_up(state: Json, path: str) -> Json:
    """The value at a path of a state; a marker that equals nothing where there is none."""
    for step in path.split(".") if path else ():
        name, _, wanted = step.partition("[")
        if name:
            state = _at(state, name)
        if wanted:
            key, _, text = wanted.removesuffix("]").partition("=")
            entries = state if isinstance(state, list) else ()
            state = next((one for one in entries if isinstance(one, dict) and str(one.get(key)) == text), _MISSING)
    return state


def _at(state: Json, name: str) -> Json:
    if isinstance(state, dict):
        return state.get(name, _MISSING)
    if isinstance(state, list) and name.isdigit() and int(name) < len(state):
        return state[int(name)]
    return _MISSING


def _same(one: Json, other: Json) -> bool:
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def _contains(found: Json, value: Json) -> bool:
    if isinstance(found, str):
        return isinstance(value, str) and value in found
    return isinstance(found, (list, dict)) and value in found


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
        if not (self.checks or self.answer is not None or self.infeasible):
            raise DataError(f"task {self.id}: it needs checks, an answer, or infeasible: true")
        if self.ends_when_met and not self.checks:
            raise DataError(f"task {self.id}: ends_when_met needs checks")
        if not self.start.startswith("/"):
            raise DataError(f"task {self.id}: start must be a path like /cart, got {self.start!r}")

    def task(self) -> Task:
        """As a Task; ``read_web_task`` reads it back."""
        page: dict[str, Json] = {
            "site": self.site,
            "start": self.start,
            "checks": [{"path": one.path, "op": one.op, "value": one.value} for one in self.checks],
        }
        if self.infeasible:
            page["infeasible"] = True
        if self.ends_when_met:
            page["ends_when_met"] = True
        if self.solution:
            page["solution"] = [list(step) for step in self.solution]
        return Task(f"{self.site}/{self.id}", self.goal, answer=self.answer, meta={**self.meta, "browser": page})


def read_web_task(task: Task) -> WebTask:
    """The web task behind a Task. Raises DataError that names the task and the key."""
    page = task.meta.get("browser")
    if not isinstance(page, Mapping) or not isinstance(page.get("site"), str):
        raise DataError(f"task {task.id}: meta.browser must name a site (or a miniwob task), got {page!r:.80}")
    known = {"site", "start", "checks", "infeasible", "ends_when_met", "solution"}
    unknown = sorted(set(page) - known)
    if unknown:
        raise DataError(f"task {task.id}: meta.browser has unknown keys {', '.join(unknown)}; known: {sorted(known)}")
    try:
        return WebTask(
            task.id, page["site"], task.question, _checks(page.get("checks", ())), page.get("start", "/"), task.answer,
            bool(page.get("infeasible", False)), bool(page.get("ends_when_met", False)),
            tuple(tuple(map(str, step)) for step in page.get("solution", ())),
        )  # fmt: skip
    except (TypeError, AttributeError) as error:
        raise DataError(f"task {task.id}: meta.browser: {error}") from error


def _checks(rows: Sequence[Json]) -> tuple[Check, ...]:
    wrong = next((row for row in rows if not isinstance(row, Mapping) or not {"path", "op"} <= set(row)), None)
    if wrong is not None:
        raise DataError(f"a check must be an object with path, op and value, got {wrong!r:.80}")
    return tuple(Check(str(row["path"]), row["op"], row.get("value")) for row in rows)


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
