"""OSWorld's action space ``computer_13``: ``{"action_type": "CLICK", "parameters": {"x": 1, "y": 2}}`` and the bare
words WAIT, FAIL and DONE.

Source: the package desktop-env 1.0.2, desktop_env/actions.py. Points are pixels of the whole screen, keys
pyautogui's; parameters may stand beside ``action_type``; ``dy`` of SCROLL counts clicks of the wheel upwards. FAIL
says that the task is infeasible. A drag begins where the pointer is, so that one from elsewhere is written MOVE_TO,
DRAG_TO.
Differs: FAIL and DONE in an object end the episode too; in the package only the bare words do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmturn.errors import ParseError
from mmturn.grammars.gui.dialect import Dialect, PointingConfig, only, without_drag_moves, written_key
from mmturn.grammars.gui.key_names import PYAUTOGUI
from mmturn.grammars.gui.objects import read_objects, write_objects
from mmturn.grammars.gui.places import Coordinates, Screen
from mmturn.gui_actions import act, finish, finish_status
from mmturn.types import Action, Json, ToolSpec

SPECIALS = ("WAIT", "FAIL", "DONE")
"""Actions that are bare words."""
_ENDS = {"success": "DONE", "infeasible": "FAIL"}
_PARAMETERS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("MOVE_TO", "RIGHT_CLICK", "DOUBLE_CLICK", "DRAG_TO"), ("x", "y")),
    "CLICK": ("button", "x", "y", "num_clicks"),
    **dict.fromkeys(("MOUSE_DOWN", "MOUSE_UP"), ("button",)),
    "SCROLL": ("dx", "dy"),
    "TYPING": ("text",),
    **dict.fromkeys(("PRESS", "KEY_DOWN", "KEY_UP"), ("key",)),
    "HOTKEY": ("keys",),
    **dict.fromkeys(SPECIALS, ()),
}


@dataclass(frozen=True)
class Computer13Config(PointingConfig):
    """Settings of the computer_13 grammar."""

    coordinates: Coordinates = "screen_px"
    """Coordinate rule of points."""


class Computer13Grammar(Dialect):
    """Reads and writes actions of computer_13."""

    name = "computer_13"
    Config = Computer13Config
    layout = (
        "In each turn say what you do and give it as JSON: an object, or a list of several. WAIT, FAIL, DONE: the word."
    )
    forms = (
        ("move", '{"action_type": "MOVE_TO", "parameters": {"x": 0, "y": 0}}'),
        ("click", '{"action_type": "CLICK", "parameters": {"button": "left", "x": 0, "y": 0, "num_clicks": 1}}'),
        ("click", "RIGHT_CLICK and DOUBLE_CLICK, with x and y"),
        ("mouse_down mouse_up", "MOUSE_DOWN and MOUSE_UP, with button"),
        ("drag", "DRAG_TO, with x and y: from where the pointer is"),
        ("scroll", "SCROLL, with dx and dy in clicks of the wheel; dy above 0 is up"),
        ("type", "TYPING, with text"),
        ("key", "PRESS, with key; HOTKEY, with a list keys"),
        ("key_down key_up", "KEY_DOWN and KEY_UP, with key"),
        ("wait", "WAIT"),
        ("finish", "DONE: the task is done; FAIL: it cannot be done"),
    )

    def __init__(self, config: Computer13Config | None = None) -> None:
        super().__init__(config or Computer13Config())

    def _read(self, text: str, screen: Screen, tools: Sequence[ToolSpec]) -> tuple[Action, ...]:
        word = special_word(text)
        if word is not None:
            return (special(word),)
        found = read_objects(text)
        if not found:
            raise ParseError('there is neither an object {"action_type": ...} nor one of WAIT, FAIL and DONE')
        return without_drag_moves([_action(item, screen) for item in found])

    def _write(self, actions: tuple[Action, ...], screen: Screen, thought: str) -> str:
        if len(actions) == 1:
            word = special_of(actions[0])
            if word is not None:
                return f"{thought}\n```\n{word}\n```" if thought else word
        items = [item for action in actions for item in self._objects(action, screen)]
        objects = [{"action_type": kind, "parameters": parameters} for kind, parameters in items]
        return write_objects(objects, thought)

    def _objects(self, action: Action, screen: Screen) -> list[tuple[str, dict[str, Json]]]:
        """Types and parameters of what an action is written as."""
        given = action.arguments
        if action.name == "drag" and only(action, "path") and len(given["path"]) <= 2:
            *start, end = [_xy(screen.written(action, point)) for point in given["path"]]
            return [*(("MOVE_TO", spot) for spot in start), ("DRAG_TO", end)]
        spot = _xy(screen.written(action, given["point"])) if "point" in given else {}
        if action.name == "click" and only(action, "point", "button", "clicks"):
            button = {"button": given["button"]} if "button" in given else {}
            count = {"num_clicks": given["clicks"]} if "clicks" in given else {}
            if given.get("button", "left") in ("left", "right", "middle"):
                return [("CLICK", {**button, **spot, **count})]
        if action.name == "move" and spot:
            return [("MOVE_TO", spot)]
        if action.name in ("mouse_down", "mouse_up") and only(action, "button"):
            return [(action.name.upper(), dict(given))]
        if action.name == "scroll" and only(action, "dx", "dy"):
            return [("SCROLL", {"dx": given.get("dx", 0), "dy": -given.get("dy", 0)})]
        if action.name == "type" and only(action, "text"):
            return [("TYPING", {"text": given["text"]})]
        if action.name == "key" and only(action, "keys"):
            keys = [written_key(key, PYAUTOGUI, self.name) for key in given["keys"]]
            return [("PRESS", {"key": keys[0]}) if len(keys) == 1 else ("HOTKEY", {"keys": keys})]
        if action.name in ("key_down", "key_up"):
            return [(action.name.upper(), {"key": written_key(given["key"], PYAUTOGUI, self.name)})]
        word = special_of(action)
        if word is None:
            raise self._cannot(action)
        return [(word, {})]


def special_word(text: str) -> str | None:
    """The bare word that a reply, or its last fenced block, consists of."""
    if "```" not in text:
        return text.strip() if text.strip() in SPECIALS else None
    words = text.rstrip().removesuffix("```").rpartition("```")[2].split(maxsplit=2)
    # The block may say its language.
    return words[-1] if words and words[-1] in SPECIALS and words[:-1] in ([], ["json"], ["python"]) else None


def special(word: str) -> Action:
    """The canonical action of WAIT, FAIL or DONE."""
    return act("wait") if word == "WAIT" else finish("", "success" if word == "DONE" else "infeasible")


def special_of(action: Action) -> str | None:
    """The bare word for a canonical action; None where it has none. Arguments it has no place for: none either."""
    if action.kind == "answer":
        return None if action.arguments["text"] else _ENDS.get(finish_status(action) or "")
    return "WAIT" if action.name == "wait" and not action.arguments else None


def _action(item: Mapping[str, Any], screen: Screen) -> Action:
    name, given = item.get("action_type"), _given(item)
    view, point = screen.index, _point(given, screen)
    if name in SPECIALS:
        return special(name)
    if name == "CLICK":
        return act("click", view, point=point, button=given.get("button"), clicks=given.get("num_clicks"))
    if name in ("RIGHT_CLICK", "DOUBLE_CLICK"):
        kind: dict[str, Json] = {"button": "right"} if name == "RIGHT_CLICK" else {"clicks": 2}
        return act("click", view, point=point, **kind)
    if name in ("MOVE_TO", "DRAG_TO"):
        if point is None:
            raise ParseError(f"{name} needs x and y")
        return act("move", view, point=point) if name == "MOVE_TO" else act("drag", view, path=[point])
    if name in ("MOUSE_DOWN", "MOUSE_UP"):
        return act(name.lower(), button=given.get("button"))
    if name == "SCROLL":
        dx, dy = given.get("dx", 0), given.get("dy", 0)
        if not given or not all(isinstance(step, (int, float)) for step in (dx, dy)):
            raise ParseError("SCROLL needs numbers dx and dy")
        return act("scroll", dx=dx, dy=-dy)
    if name == "TYPING":
        return act("type", text=given.get("text"))
    if name in ("PRESS", "HOTKEY"):
        keys = [given.get("key")] if name == "PRESS" else given.get("keys")
        return act("key", keys=keys)
    return act(str(name).lower(), key=given.get("key"))


def _given(item: Mapping[str, Any]) -> Mapping[str, Any]:
    """The parameters of an action, in an object of their own or beside its type. Where none of them is known that is
    an error, so that a click by another name of its place does not happen where the pointer is."""
    name, given = item.get("action_type"), item.get("parameters")
    if not isinstance(name, str) or name not in _PARAMETERS:
        raise ParseError(f"there is no action_type {name!r:.40}")
    if given is None:
        given = {key: value for key, value in item.items() if key not in ("action_type", "parameters")}
    if not isinstance(given, Mapping):
        raise ParseError(f"{name}: parameters must be an object")
    known = _PARAMETERS[name]
    if given and known and not any(key in known for key in given):
        raise ParseError(f"{name} has no parameter {next(iter(given))!r:.40}; it has: {', '.join(known)}")
    return given


def _point(given: Mapping[str, Any], screen: Screen) -> list[float] | None:
    if given.get("x") is None and given.get("y") is None:
        return None
    return screen.point("x and y", [given.get("x"), given.get("y")])


def _xy(numbers: Sequence[float]) -> dict[str, Json]:
    return {"x": numbers[0], "y": numbers[1]}
