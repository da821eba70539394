"""Checks of GUI tasks: what has to hold of the state that an episode ends in. They are data and never run as code."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

from mmturn.errors import DataError
from mmturn.types import Json, Task

Operator = Literal["equals", "differs", "contains", "lacks", "count", "at_least", "at_most", "absent"]
OPERATORS: tuple[Operator, ...] = get_args(Operator)
_MISSING = object()
_STEP = re.compile(r"(?:[^.\[]|\[[^\]]*\])+")


@dataclass(frozen=True, slots=True)
class Check:
    """One condition on the state that an episode ends in. It is data: nothing of it is ever run as code."""

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
    for step in _STEP.findall(path):
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


def read_checks(rows: Sequence[Json]) -> tuple[Check, ...]:
    """Checks as rows say them. Raises DataError for a row that is none."""
    wrong = next((row for row in rows if not isinstance(row, Mapping) or not {"path", "op"} <= set(row)), None)
    if wrong is not None:
        raise DataError(f"a check must be an object with path, op and value, got {wrong!r:.80}")
    return tuple(Check(str(row["path"]), row["op"], row.get("value")) for row in rows)


class Goal(Protocol):
    """What tasks of all GUI environments have in common; the fields are those of ``tasks.gui.web.WebTask``."""

    @property
    def id(self) -> str:
        """Unique among the tasks."""
        ...

    @property
    def checks(self) -> tuple[Check, ...]:
        """All must hold at the end."""
        ...

    @property
    def answer(self) -> str | None:
        """What the policy has to say when it finishes."""
        ...

    @property
    def infeasible(self) -> bool:
        """Right is to say that it cannot be done."""
        ...

    @property
    def ends_when_met(self) -> bool:
        """The episode ends as soon as all checks hold."""
        ...

    @property
    def solution(self) -> tuple[tuple[str, ...], ...]:
        """A scripted solution."""
        ...


def check_goal(goal: Goal) -> None:
    """Raises DataError for a goal that nothing could meet or everything would."""
    if not (goal.checks or goal.answer is not None or goal.infeasible):
        raise DataError(f"task {goal.id}: it needs checks, an answer, or infeasible: true")
    if goal.ends_when_met and not goal.checks:
        raise DataError(f"task {goal.id}: ends_when_met needs checks")


def goal_row(goal: Goal) -> dict[str, Json]:
    """The common keys of a task's row."""
    row: dict[str, Json] = {"checks": [{"path": one.path, "op": one.op, "value": one.value} for one in goal.checks]}
    if goal.infeasible:
        row["infeasible"] = True
    if goal.ends_when_met:
        row["ends_when_met"] = True
    if goal.solution:
        row["solution"] = [list(step) for step in goal.solution]
    return row


GOAL_KEYS = ("checks", "infeasible", "ends_when_met", "solution")
"""Keys of ``goal_row``."""


def read_goal(task: Task, key: str, own: Sequence[str]) -> tuple[Mapping[str, Any], dict[str, Any]]:
    """``meta.<key>`` of a task, and what ``goal_row`` wrote there as arguments. ``own``: the environment's keys beside.

    Raises DataError that names the task and the key.
    """
    row = task.meta.get(key)
    if not isinstance(row, Mapping):
        raise DataError(f"task {task.id}: meta.{key} must be an object, got {row!r:.80}")
    known = {*own, *GOAL_KEYS}
    unknown = sorted(set(row) - known)
    if unknown:
        raise DataError(f"task {task.id}: meta.{key} has unknown keys {', '.join(unknown)}; known: {sorted(known)}")
    try:
        return row, {
            "checks": read_checks(row.get("checks", ())),
            "answer": task.answer,
            "infeasible": bool(row.get("infeasible", False)),
            "ends_when_met": bool(row.get("ends_when_met", False)),
            "solution": tuple(tuple(map(str, step)) for step in row.get("solution", ())),
        }
    except (DataError, TypeError, AttributeError) as error:
        raise DataError(f"task {task.id}: meta.{key}: {error}") from error


def needs_words(goal: Goal) -> bool:
    """Whether the policy has to say something at the end."""
    return goal.answer is not None or goal.infeasible


def final_score(goal: Goal, held: Sequence[bool], status: str, answered: bool) -> float:
    """1.0 when an episode that the policy ended met its goal: all checks and, where one is asked for, the answer;
    giving up is right where the task is infeasible, and nowhere else."""
    if goal.infeasible or status != "success":
        return float(goal.infeasible and status == "infeasible")
    return float(all(held) and (goal.answer is None or answered))
