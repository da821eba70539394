"""Canonical actions: made, checked, completed with their defaults, compared, and located on the screen."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from mmturn.errors import ToolError
from mmturn.geometry import Point
from mmturn.gui_actions.keys import canonical_key
from mmturn.gui_actions.vocabulary import VOCABULARY
from mmturn.types import Action, Json, View

Status = Literal["success", "failure", "infeasible"]
STATUSES: tuple[Status, ...] = ("success", "failure", "infeasible")
"""How an episode may be said to end: done, given up, or impossible to do."""
MAX_PX = 1e9
"""A coordinate beyond it is noise, and arithmetic on it may overflow."""


def act(name: str, view: int | None = None, /, **arguments: Json) -> Action:
    """A canonical action. Arguments are checked and keys get their canonical names; one that equals its default, or is
    None, is left out, so that actions that mean the same are equal.

    ``view``: index of the view that points are pixels of; without points there is none. Raises ToolError.
    """
    given = {key: value for key, value in arguments.items() if value is not None}
    properties = _properties(name)
    checked = {key: _checked(name, key, value, properties) for key, value in given.items()}
    for required in VOCABULARY[name].parameters.get("required", ()):
        if required not in checked:
            raise ToolError(f"{name} needs the argument {required}")
    kept = {key: value for key, value in checked.items() if value != properties[key].get("default")}
    pointed = any(key in kept for key in ("point", "path"))
    if pointed and view is None:
        raise ToolError(f"{name}: a point must be that of an image, and none has been shown")
    if "point" in kept and "element" in kept:
        raise ToolError(f"{name}: give a point or an element, not both")
    return Action("tool", name, kept, view if pointed else None)


def written_action(written: Json, view: int | None = None) -> Action:
    """An action written as an object, ``{"name": "type", "text": "milk"}``; ``finish`` is the end, with ``text`` and
    ``status``. Raises ToolError."""
    if not isinstance(written, Mapping) or not isinstance(written.get("name"), str):
        raise ToolError(f'an action is an object like {{"name": "type", "text": "milk"}}, got {written!r:.80}')
    given = {str(key): value for key, value in written.items() if key != "name"}
    if written["name"] != "finish":
        return act(written["name"], view, **given)
    wrong = [key for key in given if key not in ("text", "status")]
    if wrong or not all(isinstance(value, str) for value in given.values()):
        raise ToolError(f"finish has the arguments text and status, which are texts, got {given!r:.80}")
    return finish(**given)


def finish(text: str = "", status: str = "success", invalid: str = "") -> Action:
    """The end of an episode with an answer (often empty) and how it is said to have gone.

    ``invalid``: why a completion that could not be read was taken for the end (see ``grammars.gui``).
    """
    if status not in STATUSES:
        raise ToolError(f"the status must be one of {', '.join(STATUSES)}, got {status!r:.40}")
    arguments: dict[str, Json] = {"text": text}
    if status != "success":
        arguments["status"] = status
    if invalid:
        arguments["invalid"] = invalid
    return Action("answer", "answer", arguments)


def finish_status(action: Action) -> Status | None:
    """How an action says that the episode ended; None for one that does not end it. Any answer is a success."""
    if action.kind != "answer":
        return None
    status: Status = action.arguments.get("status", "success")
    return status


def settled(action: Action) -> dict[str, Json]:
    """All arguments of an action of the vocabulary: checked, with the defaults of those left out where there are any.

    What has no default and is not given is None. Raises ToolError for another action or for arguments that are wrong,
    as those of a grammar that does not know the vocabulary may be.
    """
    properties = _properties(action.name)
    checked = act(action.name, action.view, **action.arguments).arguments
    return {key: checked.get(key, schema.get("default")) for key, schema in properties.items()}


def all_settled(actions: Sequence[Action]) -> list[tuple[Action, dict[str, Json]]]:
    """Actions with their settled arguments, an answer with its own: all are checked before one is carried out."""
    return [(action, dict(action.arguments) if action.kind == "answer" else settled(action)) for action in actions]


def located(point: Sequence[float], view: View) -> tuple[Point, bool]:
    """A point of a view as pixels of its source (the whole screen), inside it, and whether it had to be moved there."""
    size = view.source.size
    there = view.transform.point(Point(float(point[0]), float(point[1])))
    # The last pixel's middle: the edge itself is beyond the screen.
    inside = Point(min(max(there.x, 0.0), size.width - 0.5), min(max(there.y, 0.0), size.height - 0.5))
    outside = not (0 <= there.x <= size.width and 0 <= there.y <= size.height)
    return inside, outside


def same_action(one: Action, other: Action, views: Sequence[View], tolerance_unit: float = 0.02) -> bool:
    """Whether two actions repeat each other: the same but for points, and those at most that far apart.

    ``tolerance_unit``: distance in fractions of the screen's sides. ``views``: those that ``Action.view`` counts.
    Source: the package ui-tars 0.5.1, the test by which its agent finds that it is stuck.
    """
    if (one.kind, one.name) != (other.kind, other.name):
        return False
    first, second = dict(one.arguments), dict(other.arguments)
    ours, theirs = _unit_points(first, one.view, views), _unit_points(second, other.view, views)
    near = all(math.dist(a, b) <= tolerance_unit for a, b in zip(ours, theirs, strict=False))
    return first == second and len(ours) == len(theirs) and near


def _unit_points(arguments: dict[str, Json], index: int | None, views: Sequence[View]) -> list[tuple[float, float]]:
    """The points of an action as fractions of the screen, taken out of its arguments."""
    points = [*arguments.pop("path", ())]
    if "point" in arguments:
        points.append(arguments.pop("point"))
    if index is None:
        return []
    size, transform = views[index].source.size, views[index].transform
    there = [transform.point(Point(*point)) for point in points]
    return [(point.x / size.width, point.y / size.height) for point in there]


def _properties(name: str) -> Mapping[str, Any]:
    if name not in VOCABULARY:
        raise ToolError(f"there is no action {name!r:.40}; the actions are: {', '.join(VOCABULARY)}")
    properties: Mapping[str, Any] = VOCABULARY[name].parameters["properties"]
    return properties


def _checked(name: str, key: str, value: Json, properties: Mapping[str, Any]) -> Json:
    """A value in its canonical form."""
    if key not in properties:
        known = ", ".join(properties) or "none"
        raise ToolError(f"{name} has no argument {key!r:.40}; its arguments are: {known}")
    schema, what = properties[key], f"{name}: {key}"
    form = schema.get("format")
    if form == "point":
        return _point(what, value)
    if form == "path":
        if not isinstance(value, (list, tuple)) or not 1 <= len(value) <= 1000:
            raise ToolError(f"{what} must be a list of 1 to 1000 points [x, y]")
        return [_point(what, point) for point in value]
    if key in ("keys", "modifiers"):
        return _keys(what, value, schema)
    if schema["type"] == "boolean":
        if not isinstance(value, bool):
            raise ToolError(f"{what} must be true or false, got {value!r:.40}")
        return value
    if schema["type"] in ("integer", "number"):
        return _number(what, value, schema)
    text = _text(what, value, schema)
    return canonical_key(text) if key == "key" else text


def _text(what: str, value: Json, schema: Mapping[str, Any]) -> str:
    if not isinstance(value, str):
        raise ToolError(f"{what} must be a text, got {value!r:.40}")
    if "enum" in schema and value not in schema["enum"]:
        raise ToolError(f"{what} must be one of {', '.join(schema['enum'])}, got {value!r:.40}")
    return value


def _keys(what: str, value: Json, schema: Mapping[str, Any]) -> list[str]:
    if not isinstance(value, (list, tuple)) or not all(isinstance(key, str) for key in value):
        raise ToolError(f"{what} must be a list of names of keys, got {value!r:.40}")
    if not schema.get("minItems", 0) <= len(value) <= 10:
        raise ToolError(f"{what} must name {schema.get('minItems', 0)} to 10 keys, got {len(value)}")
    keys = [canonical_key(key) for key in value]
    allowed = schema["items"].get("enum")
    wrong = [key for key in keys if allowed and key not in allowed]
    if wrong:
        raise ToolError(f"{what}: {wrong[0]!r} cannot be held; those that can: {', '.join(allowed)}")
    return sorted(set(keys), key=allowed.index) if allowed else keys


def _number(what: str, value: Json, schema: Mapping[str, Any]) -> float | int:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not -MAX_PX <= value <= MAX_PX:
        raise ToolError(f"{what} must be a number, got {value!r:.40}")
    if schema["type"] == "integer":
        if value != int(value):
            raise ToolError(f"{what} must be a whole number, got {value}")
        value = int(value)
    least, most = schema.get("minimum", -MAX_PX), schema.get("maximum", MAX_PX)
    if not least <= value <= most:
        raise ToolError(f"{what} must be from {least} to {most}, got {value}")
    return value


def _point(what: str, value: Json) -> list[float]:
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        raise ToolError(f"{what} must be a point [x, y], got {value!r:.40}")
    for number in value:
        # NaN fails the comparison too.
        if isinstance(number, bool) or not isinstance(number, (int, float)) or not -MAX_PX <= number <= MAX_PX:
            raise ToolError(f"{what} must be a point [x, y] of finite numbers, got {value!r:.60}")
    return [float(value[0]), float(value[1])]
