"""OSWorld's tasks, read from the layout in which they are handed out: ``test_all.json`` (domain -> ids) beside
``examples/<domain>/<id>.json``.

Source: OSWorld (arXiv 2404.07972); keys of the files as in the package desktop-env 1.0.2. A task's file goes whole into
``meta["osworld"]``; ``envs.gui.osworld`` carries out what it says on a guest, and only there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mmturn.errors import DataError
from mmturn.tasks.gathered import Gathered
from mmturn.tasks.rows import RowProblem
from mmturn.types import Json, Task

INDEX = "test_all.json"
INFEASIBLE = "infeasible"
GROUPS = ("domain", "feasible")
"""Keys of ``Task.meta`` by which results are broken down."""


@dataclass(frozen=True, slots=True)
class Check:
    """One function of an evaluator with what it is given."""

    func: str
    """Name of the metric."""
    result: Mapping[str, Json]
    """What is looked up on the guest: ``type`` names the getter."""
    expected: Mapping[str, Json] | None
    """What it is compared with; None: the metric takes the result alone."""
    options: Mapping[str, Json]
    """Further arguments of the metric, by name."""


@dataclass(frozen=True, slots=True)
class OSWorldTask:
    """A task's file, checked."""

    id: str
    instruction: str
    config: tuple[Mapping[str, Json], ...]
    """Steps that set the guest up: ``{"type", "parameters"}``."""
    postconfig: tuple[Mapping[str, Json], ...]
    """Steps before it is judged."""
    checks: tuple[Check, ...]
    """Empty for an infeasible task."""
    conj: Literal["and", "or"]
    several: bool
    """Whether the evaluator lists its functions."""
    infeasible: bool
    proxy: bool
    apps: tuple[str, ...]


def read_osworld(path: str | Path) -> tuple[list[Task], list[RowProblem]]:
    """The tasks that an index names, in its order, and a problem for each that cannot be used.

    ``path``: the folder of ``test_all.json`` and ``examples``, or another index beside ``examples`` (test_small.json).
    Raises DataError where there is no index, or nothing good in it.
    """
    path = Path(path)
    index = path / INDEX if path.is_dir() else path
    if not index.is_file():
        raise DataError(
            f"{path}: there is no {INDEX}; --data must be OSWorld's folder of it and of examples/, or an index"
        )
    found = Gathered()
    for domain, ids in _index(index).items():
        for name in ids:
            where = f"examples/{domain}/{name}.json"
            with found.row(f"{index.parent}: {where}", None):
                found.add(osworld_task(_object(index.parent / where), domain))
    if not found.tasks:
        raise found.none(f"{index} names no good task")
    return found.tasks, found.problems


def osworld_task(values: Mapping[str, Any], domain: str) -> Task:
    """A task's file as a Task, checked. Raises DataError that names the key."""
    checked = _checked(values)
    meta: dict[str, Json] = {
        "domain": domain,
        "feasible": "no" if checked.infeasible else "yes",
        "osworld": dict(values),
    }
    return Task(f"{domain}/{checked.id}", checked.instruction, meta=meta)


def read_osworld_task(task: Task) -> OSWorldTask:
    """The OSWorld task behind a Task. Raises DataError that names the task and the key."""
    values = task.meta.get("osworld")
    if not isinstance(values, Mapping):
        raise DataError(f"task {task.id}: meta.osworld must be a task in OSWorld's schema, got {values!r:.80}")
    try:
        return _checked(values)
    except DataError as error:
        raise DataError(f"task {task.id}: {error}") from None


def _index(path: Path) -> dict[str, list[str]]:
    values = _object(path)
    for domain, ids in values.items():
        if not isinstance(ids, list) or not all(isinstance(name, str) and _plain(name) for name in ids):
            raise DataError(f"{path}: {domain!r:.60} must be a list of ids of tasks")
        if not _plain(domain):
            raise DataError(f"{path}: {domain!r:.60} is no name of a folder")
    return values


def _plain(name: str) -> bool:
    """Whether a name is that of one entry of a folder."""
    return bool(name) and name not in (".", "..") and not set(name) & set("/\\\0")


def _object(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_bytes().decode("utf-8-sig"))
    except FileNotFoundError:
        raise DataError(f"there is no file {path}") from None
    except (ValueError, RecursionError, OSError) as error:
        raise DataError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(values, dict):
        raise DataError(f"{path} must hold an object")
    return values


def _checked(values: Mapping[str, Any]) -> OSWorldTask:
    name, instruction = values.get("id"), values.get("instruction")
    if not isinstance(name, str) or not _plain(name):
        raise DataError(f"id must be a text, got {name!r:.60}")
    if not isinstance(instruction, str) or not instruction.strip():
        raise DataError(f"instruction must be a text, got {instruction!r:.60}")
    evaluator = values.get("evaluator")
    if not isinstance(evaluator, Mapping):
        raise DataError(f"evaluator must be an object, got {evaluator!r:.60}")
    infeasible = evaluator.get("func") == INFEASIBLE
    conj = evaluator.get("conj", "and")
    if conj not in ("and", "or"):
        raise DataError(f"evaluator.conj must be and or or, got {conj!r:.60}")
    apps = values.get("related_apps") or []
    return OSWorldTask(
        name, instruction, _steps(values.get("config"), "config"), _steps(evaluator.get("postconfig"), "postconfig"),
        () if infeasible else _checks(evaluator), conj, isinstance(evaluator.get("func"), list), infeasible,
        bool(values.get("proxy", False)), tuple(map(str, apps)) if isinstance(apps, list) else (),
    )  # fmt: skip


def _steps(values: Any, what: str) -> tuple[Mapping[str, Json], ...]:
    if values is None:
        return ()
    if not isinstance(values, list):
        raise DataError(f"{what} must be a list of steps, got {values!r:.60}")
    for number, step in enumerate(values):
        if not isinstance(step, Mapping) or not isinstance(step.get("type"), str):
            raise DataError(f"{what}[{number}] must be an object with a type, got {step!r:.80}")
        if not isinstance(step.get("parameters", {}), Mapping):
            raise DataError(f"{what}[{number}].parameters must be an object, got {step['parameters']!r:.80}")
    return tuple(values)


def _checks(evaluator: Mapping[str, Any]) -> tuple[Check, ...]:
    func = evaluator.get("func")
    if isinstance(func, str):
        found = _options(evaluator.get("options"), "options")
        return (Check(func, _getter(evaluator, "result"), _expected(evaluator.get("expected"), "expected"), found),)
    if not isinstance(func, list) or not func or not all(isinstance(name, str) for name in func):
        raise DataError(f"evaluator.func must be the name of a metric, or a list of names, got {func!r:.80}")
    results = _listed(evaluator, "result", len(func))
    expected = _listed(evaluator, "expected", len(func))
    options = _listed(evaluator, "options", len(func))
    return tuple(
        Check(
            name,
            _getter({"result": results[place]}, "result", f"[{place}]"),
            _expected(expected[place], f"expected[{place}]"),
            _options(options[place], f"options[{place}]"),
        )
        for place, name in enumerate(func)
    )


def _listed(evaluator: Mapping[str, Any], key: str, count: int) -> Sequence[Any]:
    """A list of as many entries as there are functions; all None where there is none."""
    values = evaluator.get(key)
    if values is None or values == {} or values == []:
        return [None] * count
    if not isinstance(values, list) or len(values) != count:
        size = len(values) if isinstance(values, list) else "no list"
        raise DataError(
            f"evaluator.{key} must be a list of {count}, as evaluator.func is (null where there is none), got {size}"
        )
    return values


def _getter(holder: Mapping[str, Any], key: str, place: str = "") -> Mapping[str, Json]:
    found = holder.get(key)
    if not isinstance(found, Mapping) or not isinstance(found.get("type"), str):
        raise DataError(f"evaluator.{key}{place} must be an object with a type, got {found!r:.80}")
    return found


def _expected(value: Any, key: str) -> Mapping[str, Json] | None:
    return None if value is None or value == {} or value == [] else _getter({key: value}, key)


def _options(value: Any, key: str) -> Mapping[str, Json]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise DataError(f"evaluator.{key} must be an object, got {value!r:.80}")
    return value
