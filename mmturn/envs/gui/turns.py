"""A turn's actions made ready to be carried out on a screen, and what they leave for rewards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from mmturn.errors import ConfigError, ToolError
from mmturn.gui_actions import all_settled, finish_status, located
from mmturn.types import Action, Json, ToolSpec, View


class ScreenConfig(Protocol):
    """Settings that environments with a screen share; ``BrowserConfig`` says what they mean."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        ...

    @property
    def budget(self) -> tuple[int, int]:
        """Least and most pixels of a screenshot as shown."""
        ...

    @property
    def actions(self) -> tuple[str, ...]:
        """Actions that the policy may use."""
        ...

    @property
    def prewarmed(self) -> int:
        """How many sessions wait to be used."""
        ...

    @property
    def settle_s(self) -> float:
        """Seconds before a screenshot."""
        ...

    @property
    def wait_s(self) -> float:
        """What the action ``wait`` means where it names no time."""
        ...

    @property
    def max_wait_s(self) -> float:
        """Longest that one action may wait or hold."""
        ...

    @property
    def step_timeout_s(self) -> float:
        """Seconds for a turn."""
        ...


def check_settings(config: ScreenConfig, known: Sequence[ToolSpec]) -> None:
    """Raises ConfigError that names the key and what would be right; ``known``: actions of the environment."""
    least, most = config.budget
    if not 1 <= least <= most:
        raise ConfigError(f"budget must be [least, most] pixels with 1 <= least <= most, got {[least, most]}")
    if not all(16 <= side <= 8192 for side in config.size):
        raise ConfigError(f"size must be [width, height], 16 to 8192 pixels each, got {list(config.size)}")
    names = [spec.name for spec in known]
    unknown = [name for name in config.actions if name not in names]
    if unknown or not config.actions:
        raise ConfigError(f"actions must be some of {', '.join(names)}, got {', '.join(unknown) or 'none'}")
    for name in ("prewarmed", "settle_s", "wait_s", "max_wait_s"):
        if getattr(config, name) < 0:
            raise ConfigError(f"{name} must be 0 or more, got {getattr(config, name)}")
    if config.step_timeout_s <= 0:
        raise ConfigError(f"step_timeout_s must be above 0, got {config.step_timeout_s}")


class Todo(NamedTuple):
    """An action to carry out."""

    name: str
    """Its name; ``finish`` for an answer."""
    arguments: dict[str, Any]
    """All of its arguments, points in units of the session (CSS pixels in a browser)."""
    points: list[list[float]]
    """Its points in pixels of the screenshot."""
    outside: int
    """How many of them had to be moved into the screen."""


@dataclass
class Tally:
    """What a turn leaves for rewards."""

    facts: dict[str, Json] = field(default_factory=lambda: {"score": 0.0, "actions": [], "points": []})

    def note(self, name: str, points: Sequence[Sequence[float]], outside: int) -> None:
        """An action that was carried out, with its points in pixels of the screenshot."""
        self.facts["actions"].append(name)
        self.facts["points"] += [[round(x, 2), round(y, 2)] for x, y in points]
        if outside:
            self.facts["outside"] = self.facts.get("outside", 0) + outside


def todo_of(actions: Sequence[Action], config: ScreenConfig, views: Sequence[View], scale: float = 1.0) -> list[Todo]:
    """A turn's actions, checked and placed; ``views``: those of the episode; ``scale``: pixels of the screenshot per
    unit of the session. Raises ToolError for one that is wrong in itself."""
    todo = []
    for action, arguments in all_settled(actions):
        if action.kind != "answer" and action.name not in config.actions:
            raise ToolError(f"there is no action {action.name}; the actions are: {', '.join(config.actions)}")
        points, outside = _placed(action, arguments, views, scale)
        for key in ("duration_s", "hold_s"):
            if arguments.get(key) is not None:
                arguments[key] = min(arguments[key], config.max_wait_s)
        name = "finish" if action.kind == "answer" else action.name
        if name == "finish":
            arguments["status"] = finish_status(action) or "success"
        todo.append(Todo(name, arguments, points, outside))
    return todo


def _placed(
    action: Action, arguments: dict[str, Any], views: Sequence[View], scale: float
) -> tuple[list[list[float]], int]:
    given = [arguments["point"]] if arguments.get("point") is not None else list(arguments.get("path") or ())
    if not given:
        return [], 0
    if action.view is None or not 0 <= action.view < len(views):
        raise ToolError(f"{action.name}: there is no image {action.view}; {len(views)} were shown")
    placed = [located(point, views[action.view]) for point in given]
    there = [[point.x / scale, point.y / scale] for point, _ in placed]
    if arguments.get("point") is not None:
        arguments["point"] = there[0]
    else:
        arguments["path"] = there
    return [[point.x, point.y] for point, _ in placed], sum(outside for _, outside in placed)


def limit_s(todo: Sequence[Todo], config: ScreenConfig) -> float:
    """Seconds for a turn: waiting that was asked for comes on top."""
    asked = sum((one.arguments.get("duration_s") or 0.0) + (one.arguments.get("hold_s") or 0.0) for one in todo)
    waits = sum(one.name == "wait" for one in todo) * config.wait_s
    return config.step_timeout_s + asked + waits + config.settle_s
