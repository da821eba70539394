"""UI-TARS, 1.5 and its relatives: ``Thought: ...`` and ``Action: name(argument='value')``, several actions with a blank
line between them.

Source: bytedance/UI-TARS, prompt.py and action_parser.py; the package ui-tars 0.5.1. A location is written
``start_box='<|box_start|>(x,y)<|box_end|>'``, ``start_box='(x,y)'`` or ``point='<point>x y</point>'``; all are read,
a box counts as its centre. UI-TARS-1.5-7B points in pixels of the smart_resized image (``view_px`` for a model that
is run here, ``ui_tars_px`` for a server that shrinks the screen by itself), v1 and the Doubao models in thousandths.
A line break at the end of a typed text presses enter; ``wait()`` is 5 seconds, ``scroll`` 5 clicks of the wheel.
DART (arXiv 2509.23866) writes the same, and takes what it cannot read for FAIL: ``invalid: infeasible``.
Differs: arguments are read by their own scanner, so that quotes, line breaks and ``<`` in a text need no escaping;
the published parser refuses the box tokens.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from mmturn.errors import DataError, ParseError
from mmturn.grammars.gui.calls import Call, quoted, read_calls
from mmturn.grammars.gui.dialect import Dialect, Invalid, PointingConfig, only, written_key
from mmturn.grammars.gui.places import Screen
from mmturn.gui_actions import act, finish, finish_status
from mmturn.types import Action, Json, ToolSpec

SCROLL_NOTCHES = 5
"""Clicks of the wheel that one scroll stands for."""
WAIT_S = 5.0
"""Seconds that one wait stands for."""
MAX_HOTKEY = 3
"""Most keys of a hotkey."""
_ACTION_LINE = re.compile(r"^[^\S\n]*Action:", re.MULTILINE)
_NUMBER = re.compile(r"[-+]?(?:\d{1,12}(?:\.\d{0,20})?|\.\d{1,20})(?:[eE][-+]?\d{1,3})?")
_BETWEEN = re.compile(r"(?:<\|box_start\|>|<\|box_end\|>|</?point>|</?bbox>|[\s,;()\[\]\uff08\uff09\uff0c])+")
"""Whatever stands before, between and behind the numbers of a location."""
_CLICKS: dict[str, dict[str, Json]] = {
    "click": {}, "left_single": {}, "left_click": {}, "left_double": {"clicks": 2}, "double_click": {"clicks": 2},
    "right_single": {"button": "right"}, "right_click": {"button": "right"}, "middle_click": {"button": "middle"},
    "middle_single": {"button": "middle"},
}  # fmt: skip
_AT_POINT = {"hover": "move", "move": "move", "move_to": "move", "mouse_move": "move", "long_press": "long_press"} | {
    "mouse_down": "mouse_down", "mouse_up": "mouse_up",
}  # fmt: skip
_PLAIN: dict[str, str] = {
    "navigate_back": "back", "press_back": "back", "back": "back", "press_home": "home", "home": "home",
    "screenshot": "screenshot", "snapshot": "screenshot", "take_screenshot": "screenshot",
    "open_computer": "screenshot", "call_user": "call_user", "calluser": "call_user",
}  # fmt: skip
_DIRECTIONS = {"down": (0, 1), "up": (0, -1), "right": (1, 0), "left": (-1, 0)}
_DRAGS = ("drag", "select", "left_click_drag", "swipe")
_PLACED = (*_CLICKS, *_AT_POINT, *_DRAGS, "scroll")
_STARTS = ("start_box", "start_point", "start_position", "start", "point", "box")
_ENDS = ("end_box", "end_point", "end_position", "end")


@dataclass(frozen=True)
class UiTarsConfig(PointingConfig):
    """Settings of the ui_tars grammar."""

    location: Literal["box", "bare", "point"] = "box"
    """How a location is written: with the box tokens, as a bare ``(x,y)``, or between point tags."""
    thought: Literal["optional", "required"] = "optional"
    """required: a reply without ``Thought:`` before its action cannot be read."""
    invalid: Invalid = "finish"
    """What a reply counts for that cannot be read; UI-TARS's own agent takes it for DONE, DART's for FAIL."""


class UiTarsGrammar(Dialect):
    """Reads and writes UI-TARS actions."""

    name = "ui_tars"
    Config = UiTarsConfig
    layout = "Write your reasoning after `Thought:` and, on the next line, what to do after `Action:`."
    forms = (
        ("click", "click(start_box='(x,y)'), left_double(...), right_single(...): a click, a double and a right click"),
        ("drag", "drag(start_box='(x,y)', end_box='(x,y)')"),
        ("key", "hotkey(key='ctrl c'): at most 3 keys, with spaces between them"),
        ("type", "type(content='...'): a \\n at its end presses enter"),
        ("scroll", "scroll(start_box='(x,y)', direction='down or up or right or left')"),
        ("long_press", "long_press(start_box='(x,y)')"),
        ("move", "move_to(start_box='(x,y)')"),
        ("mouse_down mouse_up", "mouse_down(start_box='(x,y)'), mouse_up(start_box='(x,y)')"),
        ("key_down key_up", "press(key='ctrl'), release(key='ctrl'): hold and release a key"),
        ("open_app", "open_app(app_name='...')"),
        ("home", "press_home()"),
        ("goto", "navigate(content='https://...')"),
        ("back", "navigate_back()"),
        ("wait", "wait(): 5 seconds"),
        ("screenshot", "screenshot()"),
        ("call_user", "call_user(): the task needs the user"),
        ("finish", "finished(content='...'): the end, with an answer where one is asked for"),
    )

    def __init__(self, config: UiTarsConfig | None = None) -> None:
        super().__init__(config or UiTarsConfig())

    def _read(self, text: str, screen: Screen, tools: Sequence[ToolSpec]) -> tuple[Action, ...]:
        line = _ACTION_LINE.search(text)
        end = line.end() if line else text.rfind("Action:") + len("Action:")
        if line is None and "Action:" not in text:
            raise ParseError("there is no `Action:`")
        if self.config.thought == "required" and "Thought:" not in text[:end]:
            raise ParseError("there is no `Thought:` before the action")
        return tuple(action_of(call, screen) for call in read_calls(text[end:]))

    def _write(self, actions: tuple[Action, ...], screen: Screen, thought: str) -> str:
        if _ACTION_LINE.search(thought):
            raise DataError("a thought holds a line that begins with `Action:` and could not be read back")
        calls = (call_of(action, screen, self.config.location) for action in actions)
        body = "\n\n".join(
            f"{call.name}({', '.join(f'{key}={quoted(value)}' for key, value in call.arguments.items())})"
            for call in calls
        )
        prefix = f"Thought: {thought}\n" if thought or self.config.thought == "required" else ""
        return f"{prefix}Action: {body}"


def action_of(call: Call, screen: Screen) -> Action:
    """The canonical action that a UI-TARS call means. Raises ParseError or ToolError."""
    name, given = call.name, call.arguments
    start, end = _location(call, _STARTS, screen), _location(call, _ENDS, screen)
    _check_place(call, start)
    view = screen.index if start is not None or end is not None else None
    if name in _CLICKS:
        return act("click", view, point=start, **_CLICKS[name])
    if name in _AT_POINT:
        return act(_AT_POINT[name], view, point=start)
    if name in _PLAIN:
        return act(_PLAIN[name])
    if name in _DRAGS:
        if end is None:
            raise ParseError(f"{name} needs an end_box or end_point")
        return act("drag", view, path=[point for point in (start, end) if point is not None])
    if name == "scroll":
        dx, dy = _direction(call)
        return act("scroll", view, point=start, dx=dx * SCROLL_NOTCHES, dy=dy * SCROLL_NOTCHES)
    reader = _BY_TEXT.get(name)
    if reader is None:
        raise ParseError(f"there is no action {name!r:.40}")
    return reader(given)


def _needed(given: dict[str, str], *names: str) -> str:
    for name in names:
        if name in given:
            return given[name]
    raise ParseError(f"the argument {names[0]} is missing")


def _typed(given: dict[str, str]) -> Action:
    text = _needed(given, "content", "text", "0")
    return act("type", text=text[:-1] if text.endswith("\n") else text, enter=text.endswith("\n"))


def _hotkey(given: dict[str, str]) -> Action:
    words = _needed(given, "key", "hotkey", "keys", "0").lower().split()
    # A plus joins, but at the end it is a key.
    words = [word for word in words[:-1] if word != "+"] + words[-1:]
    keys = [key for word in words for key in (word.split("+") if len(word) > 1 and "+" in word else [word])]
    return act("key", keys=[key for key in keys if key])


def _key(name: str) -> Callable[[dict[str, str]], Action]:
    return lambda given: act(name, key=_needed(given, "key", "0").strip().lower())


_BY_TEXT: dict[str, Callable[[dict[str, str]], Action]] = {
    "type": _typed,
    "hotkey": _hotkey,
    "press": _key("key_down"),
    "release": _key("key_up"),
    "navigate": lambda given: act("goto", url=_needed(given, "content", "url", "0")),
    "open_app": lambda given: act("open_app", app=_needed(given, "app_name", "name", "0")),
    "open": lambda given: act("open_app", app=_needed(given, "app_name", "name", "0")),
    "finished": lambda given: finish(given.get("content", given.get("0", ""))),
    "wait": lambda given: act("wait", duration_s=WAIT_S),
    "error_env": lambda given: finish("", "infeasible"),
}


def _location(call: Call, names: Sequence[str], screen: Screen) -> list[float] | None:
    """The point of the first of these arguments that is given."""
    for name in names:
        if name in call.arguments:
            words = _words(call.arguments[name])
            if not words and call.name == "scroll":
                continue
            if not _is_place(words):
                raise ParseError(f"{call.name}: {name} must hold two or four numbers, got {call.arguments[name]!r:.80}")
            return screen.point(f"{call.name}: {name}", [float(word) for word in words])
    return None


def _words(place: str) -> list[str]:
    """What a location consists of, without brackets and tokens."""
    return [word for word in _BETWEEN.split(place[:400]) if word]


def _is_place(words: Sequence[str]) -> bool:
    return len(words) in (2, 4) and all(map(_NUMBER.fullmatch, words))


def _check_place(call: Call, start: list[float] | None) -> None:
    """A click needs its place, and a place by another name is an error: else what is meant for somewhere would happen
    where the pointer is."""
    if start is not None or call.name not in _PLACED:
        return
    known = (*_STARTS, *_ENDS)
    other = next((name for name, text in call.arguments.items() if name not in known and _is_place(_words(text))), None)
    if other is not None:
        raise ParseError(f"{call.name}: a place is given by start_box or point, not by {other!r:.40}")
    if call.name in _CLICKS or _AT_POINT.get(call.name) in ("move", "long_press"):
        raise ParseError(f"{call.name} needs a start_box or point")


def _direction(call: Call) -> tuple[int, int]:
    word = call.arguments.get("direction", "").strip().lower()
    if word not in _DIRECTIONS:
        raise ParseError(f"scroll: direction must be one of {', '.join(_DIRECTIONS)}, got {word!r:.40}")
    return _DIRECTIONS[word]


def call_of(action: Action, screen: Screen, location: str) -> Call:
    """The UI-TARS call for a canonical action. Raises DataError for one that has none."""
    given, names = action.arguments, {"box": "start_box", "bare": "start_box", "point": "point"}
    if action.kind == "answer":
        return _finished(action)
    spot = {}
    if "point" in given:
        spot = {names[location]: _spot(action, given["point"], screen, location)}
    if action.name == "click" and spot and only(action, "point", "button", "clicks"):
        kind = {key: value for key, value in given.items() if key != "point"}
        name = next((name for name, meant in _CLICKS.items() if meant == kind), None)
        if name is not None:
            return Call(name, spot)
    if action.name == "drag" and only(action, "path") and len(given["path"]) <= 2:
        ends = [_spot(action, point, screen, location) for point in given["path"]]
        words = ("start_point", "end_point") if location == "point" else ("start_box", "end_box")
        return Call("drag", dict(zip(words[-len(ends) :], ends, strict=True)))
    if action.name == "scroll" and only(action, "point", "dx", "dy"):
        step = (given.get("dx", 0) / SCROLL_NOTCHES, given.get("dy", 0) / SCROLL_NOTCHES)
        word = next((word for word, meant in _DIRECTIONS.items() if meant == step), None)
        if word is not None:
            return Call("scroll", {**spot, "direction": word})
    placed = bool(spot) or action.name in ("mouse_down", "mouse_up")
    if action.name in ("move", "long_press", "mouse_down", "mouse_up") and placed and only(action, "point"):
        return Call("move_to" if action.name == "move" else action.name, spot)
    return _plain_call(action)


def _finished(action: Action) -> Call:
    status, text = finish_status(action), str(action.arguments["text"])
    if status == "success":
        return Call("finished", {"content": text} if text else {})
    if status == "infeasible" and not text:
        return Call("error_env", {})
    raise DataError(f"the ui_tars dialect cannot write the end {dict(action.arguments)!r:.200}")


def _plain_call(action: Action) -> Call:
    """The call for an action without a location."""
    given = action.arguments
    if action.name == "type" and only(action, "text", "enter"):
        text, enter = given["text"], given.get("enter", False)
        if enter or not text.endswith("\n"):
            return Call("type", {"content": text + "\n" * enter})
    if action.name == "key" and only(action, "keys") and len(given["keys"]) <= MAX_HOTKEY:
        keys = [_written(key) for key in given["keys"]]
        return Call("hotkey", {"key": " ".join(keys)})
    if action.name in ("key_down", "key_up"):
        return Call({"key_down": "press", "key_up": "release"}[action.name], {"key": _written(given["key"])})
    if action.name == "wait" and given.get("duration_s") == WAIT_S:
        return Call("wait", {})
    texts = {"goto": ("navigate", "content", "url"), "open_app": ("open_app", "app_name", "app")}
    if action.name in texts:
        name, key, argument = texts[action.name]
        return Call(name, {key: given[argument]})
    names = {"back": "navigate_back", "home": "press_home", "screenshot": "screenshot", "call_user": "call_user"}
    if action.name in names and not given:
        return Call(names[action.name], {})
    raise DataError(f"the ui_tars dialect cannot write {action.name} {dict(given)!r:.200}")


def _written(key: str) -> str:
    """A key in lower case, where that is still the same key, and not a plus, which joins."""
    if key != key.lower():
        raise DataError(f"the ui_tars dialect writes keys in lower case, which {key!r} is not")
    return written_key(key, {}, "ui_tars")


def _spot(action: Action, point: Sequence[float], screen: Screen, location: str) -> str:
    """A location as text."""
    x, y = screen.written(action, point)
    forms = {"box": "<|box_start|>({},{})<|box_end|>", "bare": "({},{})", "point": "<point>{} {}</point>"}
    return forms[location].format(x, y)
