"""The functions ``computer_use`` and ``mobile_use`` of Qwen2.5-VL and Qwen3-VL, called between ``<tool_call>`` tags.

Source: QwenLM/Qwen3-VL, cookbooks/utils/agent_function_call.py and mobile_agent.ipynb; ScreenSpot-Pro,
models/qwen2_5vl.py. Qwen2.5-VL points in pixels of the resized image, whose size the prompt names; Qwen3-VL on a grid
of 1000 (OSWorld's agent) or of 0 to 999 (the cookbook, the default here). ``pixels`` of a scroll count upwards.
Differs: a swipe and a left_click_drag both are a drag; the schemas' sentences are our own. Further tools of the
environment, such as a crop, are offered beside the function, in the same coordinates.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mmturn.errors import DataError, ParseError
from mmturn.grammars.frames import Frame
from mmturn.grammars.gui.dialect import Dialect, DialectConfig, only
from mmturn.grammars.gui.places import Screen
from mmturn.grammars.tool_call import ToolCallConfig, ToolCallGrammar
from mmturn.gui_actions import VOCABULARY, act, finish, finish_status
from mmturn.types import Action, Json, Task, ToolSpec

_CLICKS: dict[str, dict[str, Json]] = {
    "left_click": {}, "right_click": {"button": "right"}, "middle_click": {"button": "middle"},
    "double_click": {"clicks": 2}, "triple_click": {"clicks": 3},
}  # fmt: skip
_BUTTONS = {"Back": "back", "Home": "home", "Menu": "menu"}
_POINT: dict[str, Json] = {"type": "array", "format": "point"}
_COMPUTER: dict[str, Json] = {
    "keys": {"type": "array", "items": {"type": "string"}, "description": "Keys to press together, for key"},
    "text": {"type": "string", "description": "The text, for type"},
    "coordinate": {**_POINT, "description": "Where: a point [x, y]"},
    "pixels": {"type": "number", "description": "How far, for scroll: above 0 is up"},
    "time": {"type": "number", "description": "Seconds, for wait"},
    "status": {"type": "string", "enum": ["success", "failure"], "description": "How it went, for terminate"},
}
_MOBILE: dict[str, Json] = {
    "coordinate": {**_POINT, "description": "Where: a point [x, y]"},
    "coordinate2": {**_POINT, "description": "Where a swipe ends: a point [x, y]"},
    "text": {"type": "string", "description": "The text to type, the name of the app to open, or the key"},
    "time": {"type": "number", "description": "Seconds, for long_press and wait"},
    "button": {"type": "string", "enum": ["Back", "Home", "Menu", "Enter"], "description": "For system_button"},
    "status": {"type": "string", "enum": ["success", "failure"], "description": "How it went, for terminate"},
}


@dataclass(frozen=True)
class QwenConfig(DialectConfig):
    """Settings of the Qwen grammars."""

    generation: Literal["2.5", "3"] = "3"
    """Which model's actions there are: 3 adds triple_click, hscroll and answer (mobile_use: answer)."""
    coordinates: Frame = "grid999"
    """Coordinate rule: view_px for Qwen2.5-VL, permille or grid999 for Qwen3-VL."""
    max_calls: int = 1
    """Calls that one reply may make."""


class QwenGrammar(Dialect):
    """What computer_use and mobile_use share: the tags, the function's schema, coordinates."""

    Config = QwenConfig
    function = ""
    """Name of the function."""
    words = ""
    properties: Mapping[str, Json] = {}

    def __init__(self, config: QwenConfig | None = None) -> None:
        super().__init__(config or QwenConfig())
        self._calls = ToolCallGrammar(
            ToolCallConfig(
                think="off", frame=self.config.coordinates, max_calls=self.config.max_calls,
                instructions=self.config.instructions,
                region_arguments=(*ToolCallConfig.region_arguments, "coordinate2"),
            )
        )  # fmt: skip
        schema: dict[str, Json] = {
            "action": {"type": "string", "enum": list(self.actions), "description": "What to do"},
            **self.properties,
        }
        parameters = {"type": "object", "properties": schema, "required": ["action"]}
        self.spec = ToolSpec(self.function, self.words, parameters, addressing="latest")

    @property
    @abstractmethod
    def actions(self) -> tuple[str, ...]:
        """Values of the argument ``action``."""

    def system(self, task: Task, tools: Sequence[ToolSpec]) -> str:
        """System message: the functions and how to call one."""
        if self.config.instructions == "brief":
            return f"{self.function}: " + ", ".join(self.actions)
        shown = self._calls.system(task, self._offered(tools)).splitlines()
        # The general grammar ends with how to answer; here a function does that.
        return "\n".join([self.intro, *shown[1:-3], "", self.layout])

    layout = (
        "In each turn say in one sentence what you do next, after `Action:`, and then make the call. End with the "
        "action terminate."
    )

    def _offered(self, tools: Sequence[ToolSpec]) -> list[ToolSpec]:
        return [self.spec, *(tool for tool in tools if tool.name not in VOCABULARY)]

    def _read(self, text: str, screen: Screen, tools: Sequence[ToolSpec]) -> tuple[Action, ...]:
        calls = self._calls.parse(text, screen.views, self._offered(tools), 0)
        if any(call.kind == "answer" for call in calls):
            raise ParseError(f"an answer is given by a call of {self.function}, not between tags")
        return tuple(call if call.name != self.function else self._action(call) for call in calls)

    def _write(self, actions: tuple[Action, ...], screen: Screen, thought: str) -> str:
        if len(actions) > self.config.max_calls:
            raise DataError(f"a turn of this dialect has at most {self.config.max_calls} actions, got {len(actions)}")
        if "<tool_call>" in thought or "</think>" in thought or "<think>" in thought:
            raise DataError("a thought holds a tag and could not be read back")
        calls = [self._call(action, screen) for action in actions]
        body = "\n".join(self._calls.format(call, screen.views) for call in calls)
        body = body.replace("<tool_call>", "<tool_call>\n").replace("</tool_call>", "\n</tool_call>")
        return f"{thought}\n{body}" if thought else body

    @abstractmethod
    def _action(self, call: Action) -> Action:
        """The canonical action of a call, whose points are in pixels of a view already."""

    @abstractmethod
    def _arguments(self, action: Action) -> dict[str, Json] | None:
        """The function's arguments for a canonical action; None where it has none."""

    def _call(self, action: Action, screen: Screen) -> Action:
        if action.kind == "tool" and action.name not in VOCABULARY:
            return action
        arguments = self._arguments(action)
        if arguments is None or arguments["action"] not in self.actions:
            raise self._cannot(action)
        pointed = any(key in arguments for key in ("coordinate", "coordinate2"))
        if pointed and action.view != screen.index:
            raise self._cannot(action, "only the newest image can be pointed at")
        return Action("tool", self.function, arguments, action.view if pointed else None)

    def _end(self, action: Action) -> dict[str, Json] | None:
        """Arguments of an end."""
        status, text = finish_status(action), str(action.arguments["text"])
        if text:
            return {"action": "answer", "text": text} if status == "success" else None
        return {"action": "terminate", "status": status} if status != "infeasible" else None

    def _check_names(self, given: Mapping[str, Json]) -> None:
        """A click without a place is one where the pointer is, but not where its place has another name."""
        unknown = next((key for key in given if key != "action" and key not in self.properties), None)
        if unknown is not None:
            raise ParseError(f"{given['action']} has no argument {unknown!r:.40}; a place is given by coordinate")

    def _finished(self, name: str, given: Mapping[str, Json]) -> Action | None:
        if name == "answer":
            return finish(_text(given))
        return finish("", str(given.get("status", "success"))) if name == "terminate" else None


class QwenComputerGrammar(QwenGrammar):
    """``computer_use``: a desktop with a pointer."""

    name = "qwen_computer_use"
    function = "computer_use"
    words = "Uses the pointer and the keyboard of a computer whose screen is shown."
    properties = _COMPUTER

    @property
    def actions(self) -> tuple[str, ...]:
        """Values of ``action``."""
        old = (
            "key", "type", "mouse_move", "left_click", "left_click_drag", "right_click", "middle_click",
            "double_click", "scroll", "wait", "terminate",
        )  # fmt: skip
        return old if self.config.generation == "2.5" else (*old, "triple_click", "hscroll", "answer")

    def _action(self, call: Action) -> Action:
        given: Mapping[str, Any] = call.arguments
        name, view, point = given["action"], call.view, given.get("coordinate")
        if name in _CLICKS:
            if point is None:
                self._check_names(given)
            return act("click", view, point=point, **_CLICKS[name])
        if name == "mouse_move":
            return act("move", view, point=_needed(given, "coordinate"))
        if name == "left_click_drag":
            return act("drag", view, path=[_needed(given, "coordinate")])
        if name in ("scroll", "hscroll"):
            pixels = _needed(given, "pixels")
            way = {"dy": -pixels} if name == "scroll" else {"dx": pixels}
            return act("scroll", view, point=point, unit="px", **way)
        if name == "key":
            return act("key", keys=_needed(given, "keys"))
        if name == "type":
            return act("type", text=_text(given))
        return self._finished(name, given) or act("wait", duration_s=given.get("time"))

    def _arguments(self, action: Action) -> dict[str, Json] | None:
        given = action.arguments
        spot = {"coordinate": given["point"]} if "point" in given else {}
        if action.kind == "answer":
            return self._end(action)
        if action.name == "click" and only(action, "point", "button", "clicks"):
            kind = {key: value for key, value in given.items() if key != "point"}
            found = next((name for name, meant in _CLICKS.items() if meant == kind), None)
            return None if found is None else {"action": found, **spot}
        if action.name == "move" and spot:
            return {"action": "mouse_move", **spot}
        if action.name == "drag" and only(action, "path") and len(given["path"]) == 1:
            return {"action": "left_click_drag", "coordinate": given["path"][0]}
        if action.name == "scroll" and only(action, "point", "dx", "dy", "unit") and given.get("unit") == "px":
            if "dx" in given and "dy" in given:
                return None
            name, pixels = ("hscroll", given["dx"]) if "dx" in given else ("scroll", -given.get("dy", 0))
            return {"action": name, **spot, "pixels": pixels}
        if action.name == "key" and only(action, "keys"):
            return {"action": "key", "keys": given["keys"]}
        if action.name == "type" and only(action, "text"):
            return {"action": "type", "text": given["text"]}
        return _wait(action)


class QwenMobileGrammar(QwenGrammar):
    """``mobile_use``: a phone."""

    name = "qwen_mobile_use"
    function = "mobile_use"
    words = "Uses the touch screen of a phone whose screen is shown."
    properties = _MOBILE

    @property
    def actions(self) -> tuple[str, ...]:
        """Values of ``action``."""
        both = ("click", "long_press", "swipe", "type", "system_button", "wait", "terminate")
        return (*both, "key", "open") if self.config.generation == "2.5" else (*both, "answer")

    def _action(self, call: Action) -> Action:
        given: Mapping[str, Any] = call.arguments
        name, view = given["action"], call.view
        if name == "click":
            return act("click", view, point=_needed(given, "coordinate"))
        if name == "long_press":
            return act("long_press", view, point=_needed(given, "coordinate"), duration_s=given.get("time"))
        if name == "swipe":
            return act("drag", view, path=[_needed(given, "coordinate"), _needed(given, "coordinate2")])
        if name == "type":
            return act("type", text=_text(given))
        if name == "key":
            return act("key", keys=[_text(given)])
        if name == "open":
            return act("open_app", app=_text(given))
        if name == "system_button":
            button = _needed(given, "button")
            return act("key", keys=["enter"]) if button == "Enter" else act(_BUTTONS[button])
        return self._finished(name, given) or act("wait", duration_s=given.get("time"))

    def _arguments(self, action: Action) -> dict[str, Json] | None:
        given = action.arguments
        spot = {"coordinate": given["point"]} if "point" in given else {}
        if action.kind == "answer":
            return self._end(action)
        if action.name == "click" and spot and only(action, "point"):
            return {"action": "click", **spot}
        if action.name == "long_press" and spot and only(action, "point", "duration_s"):
            return {"action": "long_press", **spot, **_time(action)}
        if action.name == "drag" and only(action, "path") and len(given["path"]) == 2:
            return {"action": "swipe", "coordinate": given["path"][0], "coordinate2": given["path"][1]}
        if action.name == "type" and only(action, "text"):
            return {"action": "type", "text": given["text"]}
        if action.name == "open_app":
            return {"action": "open", "text": given["app"]}
        button = next((word for word, name in _BUTTONS.items() if name == action.name), None)
        if button is not None:
            return {"action": "system_button", "button": button}
        if action.name == "key" and only(action, "keys") and len(given["keys"]) == 1:
            enter = given["keys"] == ["enter"]
            return (
                {"action": "system_button", "button": "Enter"} if enter else {"action": "key", "text": given["keys"][0]}
            )
        return _wait(action)


def _wait(action: Action) -> dict[str, Json] | None:
    return {"action": "wait", **_time(action)} if action.name == "wait" else None


def _time(action: Action) -> dict[str, Json]:
    seconds = action.arguments.get("duration_s")
    return {} if seconds is None else {"time": seconds}


def _needed(given: Mapping[str, Any], name: str) -> Any:
    if given.get(name) is None:
        raise ParseError(f"{given['action']} needs the argument {name}")
    return given[name]


def _text(given: Mapping[str, Any]) -> str:
    return str(_needed(given, "text"))
