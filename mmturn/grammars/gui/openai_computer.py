"""OpenAI's computer-use actions: ``{"type": "click", "x": 10, "y": 20, "button": "left"}``, alone or in a
``computer_call``.

Source: the tool computer_use_preview as the package desktop-env 1.0.2 drives it. Points are pixels of the image that
was sent; ``scroll_y`` above 0 shows what is further down, in pixels. A reply without a call is the end, its text the
answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmturn.errors import ParseError
from mmturn.grammars.gui.dialect import PointingConfig, only, written_key
from mmturn.grammars.gui.key_names import OPENAI
from mmturn.grammars.gui.objects import ObjectDialect
from mmturn.grammars.gui.places import Screen
from mmturn.gui_actions import act
from mmturn.types import Action, Json

_BUTTONS = {"left": "left", "right": "right", "wheel": "middle", "back": "back", "forward": "forward"}


@dataclass(frozen=True)
class OpenAIConfig(PointingConfig):
    """Settings of the openai_computer grammar."""


class OpenAIGrammar(ObjectDialect):
    """Reads and writes OpenAI's computer-use actions."""

    name = "openai_computer"
    Config = OpenAIConfig
    beside = ("reasoning", "message")
    forms = (
        ("click", '{"type": "click", "x": 0, "y": 0, "button": "left"}; right, wheel, back or forward'),
        ("click", '{"type": "double_click", "x": 0, "y": 0}'),
        ("move", '{"type": "move", "x": 0, "y": 0}'),
        ("drag", '{"type": "drag", "path": [{"x": 0, "y": 0}, {"x": 9, "y": 9}]}'),
        ("scroll", '{"type": "scroll", "x": 0, "y": 0, "scroll_x": 0, "scroll_y": 100}: above 0 is down'),
        ("type", '{"type": "type", "text": "..."}'),
        ("key", '{"type": "keypress", "keys": ["CTRL", "s"]}'),
        ("wait", '{"type": "wait"}'),
        ("screenshot", '{"type": "screenshot"}'),
    )

    def __init__(self, config: OpenAIConfig | None = None) -> None:
        super().__init__(config or OpenAIConfig())

    def _action(self, item: Mapping[str, Any], screen: Screen) -> Action:
        return _action(item, screen)

    def _object(self, action: Action, screen: Screen) -> dict[str, Json]:
        given = action.arguments
        spot = _xy(screen.written(action, given["point"])) if "point" in given else {}
        if action.name == "click" and spot and only(action, "point", "button"):
            button = next(word for word, name in _BUTTONS.items() if name == given.get("button", "left"))
            return {"type": "click", **spot, "button": button}
        if action.name == "click" and spot and only(action, "point", "clicks") and given["clicks"] == 2:
            return {"type": "double_click", **spot}
        if action.name == "move" and spot and only(action, "point"):
            return {"type": "move", **spot}
        if action.name == "drag" and only(action, "path"):
            return {"type": "drag", "path": [_xy(screen.written(action, point)) for point in given["path"]]}
        if action.name == "scroll" and given.get("unit") == "px" and only(action, "point", "dx", "dy", "unit"):
            return {"type": "scroll", **spot, "scroll_x": given.get("dx", 0), "scroll_y": given.get("dy", 0)}
        if action.name == "type" and only(action, "text"):
            return {"type": "type", "text": given["text"]}
        if action.name == "key" and only(action, "keys"):
            return {"type": "keypress", "keys": [written_key(key, OPENAI, self.name) for key in given["keys"]]}
        if action.name in ("wait", "screenshot") and not given:
            return {"type": action.name}
        raise self._cannot(action)


def _action(item: Mapping[str, Any], screen: Screen) -> Action:
    given = item.get("action", item) if item.get("type") == "computer_call" else item
    if not isinstance(given, Mapping):
        raise ParseError("the action of a computer_call must be an object")
    name, view = given.get("type"), screen.index
    if name == "click":
        button = _BUTTONS.get(given.get("button", "left"))
        if button is None:
            raise ParseError(f"button must be one of {', '.join(_BUTTONS)}, got {given.get('button')!r:.40}")
        return act("click", view, point=_point(given, screen), button=button)
    if name == "double_click":
        return act("click", view, point=_point(given, screen), clicks=2)
    if name == "move":
        return act("move", view, point=_point(given, screen))
    if name == "scroll":
        dx, dy = given.get("scroll_x", 0), given.get("scroll_y", 0)
        somewhere = given.get("x") is not None or given.get("y") is not None
        return act("scroll", view, point=_point(given, screen) if somewhere else None, dx=dx, dy=dy, unit="px")
    if name == "drag":
        path = given.get("path")
        if not isinstance(path, list) or not all(isinstance(spot, Mapping) for spot in path):
            raise ParseError('drag needs a path, a list of {"x": ..., "y": ...}')
        return act("drag", view, path=[_point(spot, screen) for spot in path])
    if name == "type":
        return act("type", text=given.get("text"))
    if name == "keypress":
        return act("key", keys=given.get("keys"))
    if name in ("wait", "screenshot"):
        return act(name)
    raise ParseError(f"there is no action of type {name!r:.40}")


def _point(given: Mapping[str, Any], screen: Screen) -> list[float]:
    return screen.point("x and y", [given.get("x"), given.get("y")])


def _xy(numbers: Sequence[float]) -> dict[str, Json]:
    return {"x": numbers[0], "y": numbers[1]}
