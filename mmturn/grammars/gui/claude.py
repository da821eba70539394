"""Claude's computer tool: ``{"action": "left_click", "coordinate": [x, y]}``, alone or as the input of a ``tool_use``
block.

Source: the tool types computer_20241022 and computer_20250124 as the package desktop-env 1.0.2 drives them.
Screenshots are sent with the size that the tool's display names and points are pixels of it; keys are X keysyms
joined by ``+``; the ``text`` of a click names keys that are held. A reply without a call is the end, and its text the
answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from mmturn.errors import DataError, ParseError
from mmturn.grammars.gui.dialect import PointingConfig, only, written_key
from mmturn.grammars.gui.key_names import XDOTOOL
from mmturn.grammars.gui.objects import ObjectDialect
from mmturn.grammars.gui.places import Screen
from mmturn.gui_actions import act
from mmturn.types import Action, Json

_CLICKS: dict[str, dict[str, Json]] = {
    "left_click": {}, "right_click": {"button": "right"}, "middle_click": {"button": "middle"},
    "double_click": {"clicks": 2}, "triple_click": {"clicks": 3},
}  # fmt: skip
_OLD = (
    "key", "type", "mouse_move", "left_click", "left_click_drag", "right_click", "middle_click", "double_click",
    "screenshot", "cursor_position",
)  # fmt: skip
_NEW = ("left_mouse_down", "left_mouse_up", "scroll", "hold_key", "triple_click", "wait")
_DIRECTIONS = {"down": (0, 1), "up": (0, -1), "right": (1, 0), "left": (-1, 0)}


@dataclass(frozen=True)
class ClaudeConfig(PointingConfig):
    """Settings of the claude_computer grammar."""

    version: Literal["20241022", "20250124"] = "20250124"
    """Which tool type's actions there are."""


class ClaudeGrammar(ObjectDialect):
    """Reads and writes inputs of Claude's computer tool."""

    name = "claude_computer"
    Config = ClaudeConfig
    beside = ("text", "thinking", "redacted_thinking")
    forms = (
        ("click", '{"action": "left_click", "coordinate": [x, y], "text": "ctrl"}; right_click, middle_click, '
         "double_click, triple_click; text: keys that are held"),
        ("move", '{"action": "mouse_move", "coordinate": [x, y]}'),
        ("mouse_down mouse_up", '{"action": "left_mouse_down"}, {"action": "left_mouse_up"}'),
        ("drag", '{"action": "left_click_drag", "start_coordinate": [x, y], "coordinate": [x, y]}'),
        ("scroll", '{"action": "scroll", "coordinate": [x, y], "scroll_direction": "down", "scroll_amount": 5}'),
        ("type", '{"action": "type", "text": "..."}'),
        ("key", '{"action": "key", "text": "ctrl+s"}; {"action": "hold_key", "text": "shift", "duration": 1}'),
        ("wait", '{"action": "wait", "duration": 1}'),
        ("screenshot", '{"action": "screenshot"}'),
    )  # fmt: skip

    def __init__(self, config: ClaudeConfig | None = None) -> None:
        super().__init__(config or ClaudeConfig())

    @property
    def actions(self) -> tuple[str, ...]:
        """Values of ``action``."""
        return _OLD if self.config.version == "20241022" else (*_OLD, *_NEW)

    def _action(self, item: Mapping[str, Any], screen: Screen) -> Action:
        given = _input(item)
        name = given.get("action")
        if name not in self.actions:
            raise ParseError(f"action must be one of {', '.join(self.actions)}, got {name!r:.40}")
        point, start = (
            None if given.get(key) is None else screen.point(f"{name}: {key}", given[key])
            for key in ("coordinate", "start_coordinate")
        )
        view = screen.index
        if name in _CLICKS:
            return act("click", view, point=point, modifiers=_keys(given, "text", needed=False), **_CLICKS[name])
        if name == "left_click_drag":
            if point is None:
                raise ParseError("left_click_drag needs the argument coordinate")
            return act("drag", view, path=[spot for spot in (start, point) if spot is not None])
        if name == "scroll":
            return _scroll(given, point, view)
        if name in ("mouse_move", "left_mouse_down", "left_mouse_up"):
            if name == "mouse_move" and point is None:
                raise ParseError("mouse_move needs the argument coordinate")
            names = {"mouse_move": "move", "left_mouse_down": "mouse_down", "left_mouse_up": "mouse_up"}
            return act(names[name], view, point=point)
        return _without_point(name, given)

    def _object(self, action: Action, screen: Screen) -> dict[str, Json]:
        found = self._of_any_version(action, screen)
        if found["action"] not in self.actions:
            raise self._cannot(action, f"version {self.config.version} has no {found['action']}")
        return found

    def _of_any_version(self, action: Action, screen: Screen) -> dict[str, Json]:
        given = action.arguments
        spot: dict[str, Json] = {}
        if "point" in given:
            spot = {"coordinate": screen.written(action, given["point"])}
        if action.name == "click" and only(action, "point", "button", "clicks", "modifiers"):
            kind = {key: value for key, value in given.items() if key in ("button", "clicks")}
            found = next((name for name, meant in _CLICKS.items() if meant == kind), None)
            if found is not None:
                return {"action": found, **spot, **_held(given)}
        if action.name == "drag" and only(action, "path") and len(given["path"]) <= 2:
            spots = [screen.written(action, point) for point in given["path"]]
            start = {"start_coordinate": spots[0]} if len(spots) == 2 else {}
            return {"action": "left_click_drag", **start, "coordinate": spots[-1]}
        if action.name == "scroll" and only(action, "point", "dx", "dy", "modifiers"):
            found_way = _way(given)
            if found_way is not None:
                return {"action": "scroll", **spot, **found_way, **_held(given)}
        if action.name == "move" and "point" in given and only(action, "point"):
            return {"action": "mouse_move", **spot}
        if action.name in ("mouse_down", "mouse_up") and only(action, "point"):
            return {"action": f"left_{action.name}", **spot}
        return self._plain(action)

    def _plain(self, action: Action) -> dict[str, Json]:
        """The object of an action without a point."""
        given = action.arguments
        if action.name == "type" and only(action, "text"):
            return {"action": "type", "text": given["text"]}
        if action.name == "key" and only(action, "keys", "hold_s"):
            keys = "+".join(written_key(key, XDOTOOL, self.name) for key in given["keys"])
            hold = given.get("hold_s")
            return {"action": "key", "text": keys} if hold is None else _hold(keys, hold)
        if action.name == "wait":
            seconds = given.get("duration_s")
            return {"action": "wait", **({} if seconds is None else {"duration": seconds})}
        if action.name == "screenshot":
            return {"action": "screenshot"}
        raise self._cannot(action)


def _input(item: Mapping[str, Json]) -> Mapping[str, Json]:
    """The tool's input, of a tool_use block or by itself."""
    inside = item.get("input", item)
    if not isinstance(inside, Mapping):
        raise ParseError("the input of a tool_use must be an object")
    return inside


def _without_point(name: str, given: Mapping[str, Any]) -> Action:
    if name == "type":
        return act("type", text=given.get("text"))
    if name in ("key", "hold_key"):
        return act("key", keys=_keys(given, "text"), hold_s=given.get("duration") if name == "hold_key" else None)
    if name == "wait":
        return act("wait", duration_s=given.get("duration"))
    return act("screenshot" if name == "screenshot" else "move")


def _scroll(given: Mapping[str, Any], point: list[float] | None, view: int | None) -> Action:
    amount, way = given.get("scroll_amount"), _DIRECTIONS.get(str(given.get("scroll_direction")))
    if isinstance(amount, bool) or not isinstance(amount, (int, float)) or way is None:
        raise ParseError("scroll needs a scroll_direction up, down, left or right and a scroll_amount")
    dx, dy = way
    return act(
        "scroll", view, point=point, dx=dx * amount, dy=dy * amount, modifiers=_keys(given, "text", needed=False)
    )  # fmt: skip


def _way(given: Mapping[str, Any]) -> dict[str, Json] | None:
    """Direction and amount of a scroll along one axis."""
    dx, dy = given.get("dx", 0), given.get("dy", 0)
    if dx and dy:
        return None
    if dx:
        return {"scroll_direction": "right" if dx > 0 else "left", "scroll_amount": abs(dx)}
    return {"scroll_direction": "up" if dy < 0 else "down", "scroll_amount": abs(dy)}


def _hold(keys: str, hold: Json) -> dict[str, Json]:
    return {"action": "hold_key", "text": keys, "duration": hold}


def _held(given: Mapping[str, Any]) -> dict[str, Json]:
    keys = [XDOTOOL.get(key, key) for key in given.get("modifiers", [])]
    return {"text": "+".join(keys)} if keys else {}


def _keys(given: Mapping[str, Any], name: str, needed: bool = True) -> list[str] | None:
    """Keys joined by a plus."""
    text = given.get(name)
    if text is None and not needed:
        return None
    if not isinstance(text, str) or (needed and not text):
        raise ParseError(f"{given['action']}: {name} must name keys, joined by +")
    if len(text) > 400:
        raise DataError(f"{given['action']}: {name} is too long")
    # A plus that is a key itself stands at the end.
    plus = ["+"] if text == "+" or text.endswith("++") else []
    return [key for key in text.split("+") if key] + plus
