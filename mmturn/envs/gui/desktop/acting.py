"""Canonical actions carried out on an X display, with XTEST's pointer and keys."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mmturn.envs.gui.desktop.keyboard import Keyboard
from mmturn.errors import ToolError
from mmturn.geometry import Point, Size

if TYPE_CHECKING:
    from Xlib.display import Display as Connection

NOTCH_PX = 50.0
"""Pixels that one click of the wheel counts for; applications scroll as far as they like."""
MOST_NOTCHES = 200
"""Clicks of the wheel that one action may make."""
_BUTTONS = {"left": 1, "middle": 2, "right": 3, "back": 8, "forward": 9}
_WHEEL = {"up": 4, "down": 5, "left": 6, "right": 7}
_STEPS = 10
"""Moves between two points of a drag."""
_STEP_S = 0.002
_BETWEEN_S = 0.02
"""Between the clicks of a double click: some applications overlook a second one that comes with the first."""
_GRAB_S = 0.02
"""A button is held for a moment before and after a drag: window managers and toolkits look at it then."""

Arguments = Mapping[str, Any]
"""As ``gui_actions.settled`` gives them, points in pixels of the screen."""


class Pointer:
    """The pointer of a display."""

    def __init__(self, connection: Connection, size: Size) -> None:
        self._connection, self.size = connection, size
        self.place = Point(size.width / 2, size.height / 2)
        self.held: list[str] = []
        """Buttons that were pressed and not released."""

    def move(self, point: Point) -> None:
        """Put it on the pixel that a point lies in."""
        x = min(max(int(point.x), 0), self.size.width - 1)
        y = min(max(int(point.y), 0), self.size.height - 1)
        self._fake("MotionNotify", x=x, y=y)
        self.place = point

    def press(self, button: str) -> None:
        """Press a button and hold it."""
        self._fake("ButtonPress", _BUTTONS[button])
        self.held = [*(other for other in self.held if other != button), button]

    def release(self, button: str) -> None:
        """Release a button."""
        self._fake("ButtonRelease", _BUTTONS[button])
        self.held = [other for other in self.held if other != button]

    def turn(self, way: str, notches: int) -> None:
        """Turn the wheel."""
        for _ in range(notches):
            self._fake("ButtonPress", _WHEEL[way])
            self._fake("ButtonRelease", _WHEEL[way])

    def sync(self) -> None:
        """Wait until the server has seen it all."""
        self._connection.sync()

    def _fake(self, kind: str, detail: int = 0, **where: int) -> None:
        from Xlib import X
        from Xlib.ext import xtest

        xtest.fake_input(self._connection, getattr(X, kind), detail, **where)


def carry_out(keyboard: Keyboard, pointer: Pointer, name: str, arguments: Arguments, default_wait_s: float) -> None:
    """One action. Raises ToolError where it cannot be done, the connection's errors where the display fails."""
    doer = _DOERS.get(name)
    if doer is None:
        raise ToolError(f"a desktop cannot {name}; it can: {', '.join(_DOERS)}")
    if arguments.get("element") is not None:
        raise ToolError(f"{name}: a desktop has no elements with ids; give a point")
    if name == "wait" and arguments.get("duration_s") is None:
        arguments = {**arguments, "duration_s": default_wait_s}
    doer(keyboard, pointer, arguments)


def _move(keyboard: Keyboard, pointer: Pointer, arguments: Arguments) -> None:
    if arguments.get("point") is not None:
        pointer.move(Point(*arguments["point"]))


def _click(keyboard: Keyboard, pointer: Pointer, arguments: Arguments) -> None:
    _move(keyboard, pointer, arguments)
    with keyboard.holding(arguments["modifiers"]):
        for number in range(arguments["clicks"]):
            if number:
                pointer.sync()
                time.sleep(_BETWEEN_S)
            pointer.press(arguments["button"])
            pointer.release(arguments["button"])
        pointer.sync()


def _mouse_down(keyboard: Keyboard, pointer: Pointer, arguments: Arguments) -> None:
    _move(keyboard, pointer, arguments)
    pointer.press(arguments["button"])


def _mouse_up(keyboard: Keyboard, pointer: Pointer, arguments: Arguments) -> None:
    _move(keyboard, pointer, arguments)
    pointer.release(arguments["button"])


def _drag(keyboard: Keyboard, pointer: Pointer, arguments: Arguments) -> None:
    path = [Point(*point) for point in arguments["path"]]
    start, rest = (path[0], path[1:]) if len(path) > 1 else (pointer.place, path)
    pause_s = max((arguments["duration_s"] or 0.0) / (len(rest) * _STEPS), min(_STEP_S, 0.1 / (len(rest) * _STEPS)))
    pointer.move(start)
    with keyboard.holding(arguments["modifiers"]):
        pointer.press(arguments["button"])
        pointer.sync()
        try:
            time.sleep(_GRAB_S)
            for target in rest:
                _glide(pointer, target, pause_s)
            time.sleep(_GRAB_S)
        finally:
            pointer.release(arguments["button"])
            pointer.sync()


def _glide(pointer: Pointer, target: Point, pause_s: float) -> None:
    start = pointer.place
    for step in range(1, _STEPS + 1):
        part = step / _STEPS
        pointer.move(Point(start.x + part * (target.x - start.x), start.y + part * (target.y - start.y)))
        pointer.sync()
        time.sleep(pause_s)


def _scroll(keyboard: Keyboard, pointer: Pointer, arguments: Arguments) -> None:
    _move(keyboard, pointer, arguments)
    with keyboard.holding(arguments["modifiers"]):
        for amount, less, more, page in (
            (arguments["dy"], "up", "down", pointer.size.height), (arguments["dx"], "left", "right", pointer.size.width)
        ):  # fmt: skip
            scale = {"notch": 1.0, "px": 1 / NOTCH_PX, "page": page / NOTCH_PX}[arguments["unit"]]
            notches = abs(amount) * scale
            count = min(max(round(notches), 1), MOST_NOTCHES) if notches else 0
            pointer.turn(more if amount > 0 else less, count)
        pointer.sync()


def _type(keyboard: Keyboard, pointer: Pointer, arguments: Arguments) -> None:
    if arguments.get("point") is not None:
        _click(keyboard, pointer, {**arguments, "modifiers": [], "clicks": 1, "button": "left"})
    if arguments["clear"]:
        keyboard.press(["ctrl", "a"])
        keyboard.press(["delete"])
    keyboard.type(arguments["text"])
    if arguments["enter"]:
        keyboard.press(["enter"])


def _key(keyboard: Keyboard, pointer: Pointer, arguments: Arguments) -> None:
    keys: Sequence[str] = arguments["keys"]
    keyboard.press(keys, arguments["hold_s"] or 0.0)


def _key_down(keyboard: Keyboard, pointer: Pointer, arguments: Arguments) -> None:
    keyboard.down(arguments["key"])


def _key_up(keyboard: Keyboard, pointer: Pointer, arguments: Arguments) -> None:
    keyboard.up(arguments["key"])


def _wait(keyboard: Keyboard, pointer: Pointer, arguments: Arguments) -> None:
    time.sleep(arguments["duration_s"])


def _nothing(keyboard: Keyboard, pointer: Pointer, arguments: Arguments) -> None:
    """A screenshot comes anyway, and there is nobody to be called."""


_DOERS: Mapping[str, Callable[[Keyboard, Pointer, Arguments], None]] = {
    "click": _click, "move": _move, "mouse_down": _mouse_down, "mouse_up": _mouse_up, "drag": _drag,
    "scroll": _scroll, "type": _type, "key": _key, "key_down": _key_down, "key_up": _key_up, "wait": _wait,
    "screenshot": _nothing, "call_user": _nothing,
}  # fmt: skip
