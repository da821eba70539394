"""Canonical actions -> the Python that a guest runs for them: calls of pyautogui alone, every text a literal.

Source: the package desktop-env 1.0.2 (each turn is ``python -c`` of such lines). Differs: pyautogui types ``<`` as
``>`` on X and cannot type what is on no US keyboard, so that ``<`` is pressed as shift and comma, and a text with other
characters is pasted; moves are without easing, so that a click is the same each time.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mmturn.errors import ToolError
from mmturn.grammars.gui.key_names import PYAUTOGUI

PREFIX = "import pyautogui; import time; pyautogui.FAILSAFE = False"
"""What stands before the lines, as in desktop-env."""
NOTCH_PX = 100.0
"""Pixels that one click of the wheel is taken for."""
_BUTTONS = ("left", "right", "middle")
_NAMES = set(PYAUTOGUI.values()) | {
    "ctrl", "alt", "shift", "enter", "tab", "space", "backspace", "delete", "insert", "home", "end", "up", "down",
    "left", "right", "pause", "clear", *(f"f{number}" for number in range(1, 25)),
}  # fmt: skip
Arguments = Mapping[str, Any]


def guest_code(todo: Sequence[tuple[str, Arguments]], screen: tuple[int, int]) -> str:
    """Lines for actions with settled arguments and points in pixels of a screen of that size.

    Nothing of an argument stands in them but as a number or a quoted text. Raises ToolError for what a guest cannot do.
    """
    lines = [line for name, arguments in todo for line in action_lines(name, arguments, screen)]
    return "\n".join([PREFIX, *lines])


def action_lines(name: str, arguments: Arguments, screen: tuple[int, int]) -> list[str]:
    """The lines of one action; none for one that does nothing there (a screenshot, a call of the user)."""
    if arguments.get("element") is not None:
        raise ToolError(f"{name}: a desktop has no elements with ids; give a point")
    lines = _LINES.get(name)
    if lines is None:
        raise ToolError(f"a desktop cannot be asked for {name}")
    return lines(arguments, screen)


def quoted(text: str) -> str:
    """A text as a literal of Python that is ASCII and of one line."""
    whole = text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    # JSON's escapes are Python's, but for characters beyond U+FFFF, which it writes as two halves.
    plain = json.dumps(whole, ensure_ascii=False)
    # A fence of backticks would end the code for who looks for it in a text.
    return "".join(char if " " <= char <= "~" and char != "`" else _escape(char) for char in plain)


def _escape(char: str) -> str:
    code = ord(char)
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def _spot(arguments: Arguments) -> str:
    point = arguments.get("point")
    return "" if point is None else _xy(point)


def _xy(point: Sequence[float]) -> str:
    return f"{int(point[0])}, {int(point[1])}"


def _button(arguments: Arguments) -> str:
    button = arguments["button"]
    if button not in _BUTTONS:
        raise ToolError(f"there is no button {button} here; the buttons are: {', '.join(_BUTTONS)}")
    return f"button={quoted(button)}"


def _call(name: str, *words: str) -> str:
    return f"pyautogui.{name}({', '.join(filter(None, words))})"


def _seconds(value: float) -> str:
    return f"time.sleep({float(value)!r})"


def _held(arguments: Arguments, inner: list[str]) -> list[str]:
    """Lines while modifiers are held."""
    keys = [key_name(key) for key in arguments.get("modifiers") or ()]
    down = [_call("keyDown", quoted(key)) for key in keys]
    up = [_call("keyUp", quoted(key)) for key in reversed(keys)]
    return [*down, *inner, *up]


def key_name(key: str) -> str:
    """pyautogui's name of a canonical key. Raises ToolError for one that it does not have."""
    name = PYAUTOGUI.get(key, key)
    if name in _NAMES or (len(name) == 1 and " " < name <= "~"):
        return name
    raise ToolError(f"the key {key!r} is on no keyboard here" + ("; type it" if len(key) == 1 else ""))


def _click(arguments: Arguments, screen: tuple[int, int]) -> list[str]:
    clicks = f"clicks={int(arguments['clicks'])}"
    return _held(arguments, [_call("click", _spot(arguments), clicks, _button(arguments))])


def _move(arguments: Arguments, screen: tuple[int, int]) -> list[str]:
    if arguments.get("point") is None:
        raise ToolError("move needs a point")
    return [_call("moveTo", _spot(arguments))]


def _press(name: str) -> Callable[[Arguments, tuple[int, int]], list[str]]:
    return lambda arguments, screen: [_call(name, _spot(arguments), _button(arguments))]


def _drag(arguments: Arguments, screen: tuple[int, int]) -> list[str]:
    path, button = [_xy(point) for point in arguments["path"]], _button(arguments)
    start = [_call("moveTo", path[0])] if len(path) > 1 else []
    stops = path[1:] or path
    pause = (arguments.get("duration_s") or 0.0) / len(stops)
    moves = [line for spot in stops for line in (_call("moveTo", spot), *([_seconds(pause)] if pause else []))]
    return _held(arguments, [*start, _call("mouseDown", button), *moves, _call("mouseUp", button)])


def _scroll(arguments: Arguments, screen: tuple[int, int]) -> list[str]:
    unit = arguments["unit"]
    wide, high = {"notch": (1.0, 1.0), "px": (1 / NOTCH_PX, 1 / NOTCH_PX)}.get(
        unit, (screen[0] / NOTCH_PX, screen[1] / NOTCH_PX)
    )
    # pyautogui counts upwards.
    down, right = _notches(arguments["dy"] * high), _notches(arguments["dx"] * wide)
    lines = [_call("moveTo", _spot(arguments))] if arguments.get("point") is not None else []
    lines += [_call("scroll", str(-down))] if down else []
    lines += [_call("hscroll", str(right))] if right else []
    return _held(arguments, lines)


def _notches(amount: float) -> int:
    """Whole clicks of the wheel, at least one for a scroll at all, and not more than a wheel can turn in a turn."""
    whole = round(amount)
    if not whole and amount:
        whole = 1 if amount > 0 else -1
    return max(-100, min(100, whole))


def _type(arguments: Arguments, screen: tuple[int, int]) -> list[str]:
    lines = [_call("click", _spot(arguments))] if arguments.get("point") is not None else []
    if arguments["clear"]:
        lines += [_call("hotkey", '"ctrl"', '"a"'), _call("press", '"delete"')]
    lines += text_lines(arguments["text"])
    return [*lines, *([_call("press", '"enter"')] if arguments["enter"] else [])]


def text_lines(text: str) -> list[str]:
    """Lines that type a text as it stands."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if any(not (" " <= char <= "~" or char in "\n\t") for char in text):
        return [f"import pyperclip; pyperclip.copy({quoted(text)})", _call("hotkey", '"ctrl"', '"v"')]
    lines = []
    for place, part in enumerate(text.split("<")):
        lines += [_call("hotkey", '"shift"', '","')] if place else []
        lines += [_call("write", quoted(part))] if part else []
    return lines


def _key(arguments: Arguments, screen: tuple[int, int]) -> list[str]:
    keys: list[str] = list(arguments["keys"])
    if len(keys) == 1 and (keys[0] == "<" or (len(keys[0]) == 1 and keys[0] > "~")):
        return text_lines(keys[0])
    if len(keys) > 1:
        # pyautogui holds shift for a capital; in a chord it is a way to write the letter.
        keys = [key.lower() for key in keys]
    names = [quoted(key_name(key)) for key in keys]
    if arguments.get("hold_s"):
        down, up = [_call("keyDown", name) for name in names], [_call("keyUp", name) for name in reversed(names)]
        return [*down, _seconds(arguments["hold_s"]), *up]
    return [_call("press" if len(names) == 1 else "hotkey", *names)]


_LINES: Mapping[str, Callable[[Arguments, tuple[int, int]], list[str]]] = {
    "click": _click,
    "move": _move,
    "mouse_down": _press("mouseDown"),
    "mouse_up": _press("mouseUp"),
    "drag": _drag,
    "scroll": _scroll,
    "type": _type,
    "key": _key,
    "key_down": lambda arguments, screen: [_call("keyDown", quoted(key_name(arguments["key"])))],
    "key_up": lambda arguments, screen: [_call("keyUp", quoted(key_name(arguments["key"])))],
    "wait": lambda arguments, screen: [_seconds(arguments["duration_s"])],
    "screenshot": lambda arguments, screen: [],
    "call_user": lambda arguments, screen: [],
}
