"""Canonical actions carried out in a browser session, with a real pointer and real keys."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any

from mmturn.envs.gui.browser.elements import element_point, pick_option, selected_text
from mmturn.envs.gui.browser.session import Session
from mmturn.envs.gui.written import writable
from mmturn.errors import ToolError
from mmturn.geometry import Point
from mmturn.types import Json

NOTCH_PX = 100.0
"""CSS pixels that one click of the wheel scrolls."""
_KEYS = {
    "ctrl": "Control", "alt": "Alt", "shift": "Shift", "meta": "Meta", "altgr": "AltGraph", "enter": "Enter",
    "escape": "Escape", "tab": "Tab", "space": "Space", "backspace": "Backspace", "delete": "Delete",
    "insert": "Insert", "home": "Home", "end": "End", "page_up": "PageUp", "page_down": "PageDown", "up": "ArrowUp",
    "down": "ArrowDown", "left": "ArrowLeft", "right": "ArrowRight", "caps_lock": "CapsLock", "num_lock": "NumLock",
    "scroll_lock": "ScrollLock", "print_screen": "PrintScreen", "pause": "Pause", "menu": "ContextMenu",
    **{f"f{number}": f"F{number}" for number in range(1, 13)},
}  # fmt: skip
_STEPS = 10
"""Moves between two points of a drag."""
_LONG_TEXT = 400
"""Characters from which on a text is put in line by line, not key by key."""
_FRAMES = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done())))"

Arguments = Mapping[str, Any]
"""As ``gui_actions.settled`` gives them, but points in CSS pixels of the page."""


async def carry_out(session: Session, name: str, arguments: Arguments, default_wait_s: float) -> None:
    """One action. Raises ToolError where it cannot be done, Playwright's error where the browser fails."""
    doer = _DOERS.get(name)
    if doer is None:
        raise ToolError(f"a browser cannot {name}; it can: {', '.join(_DOERS)}")
    if name == "wait" and arguments.get("duration_s") is None:
        arguments = {**arguments, "duration_s": default_wait_s}
    await doer(session, arguments)


async def _point_of(session: Session, arguments: Arguments) -> Point:
    """Where an action happens: its point, the middle of its element, or the pointer."""
    if arguments.get("element") is not None:
        return await element_point(session, arguments["element"])
    point = arguments.get("point")
    return session.pointer if point is None else Point(*point)


async def _move_to(session: Session, point: Point, steps: int = 1) -> None:
    await session.page.mouse.move(point.x, point.y, steps=steps)
    session.pointer = point


async def _move(session: Session, arguments: Arguments) -> None:
    await _move_to(session, await _point_of(session, arguments))


async def _click(session: Session, arguments: Arguments) -> None:
    button = arguments["button"]
    if button in ("back", "forward"):
        await _travel(session, button)
        return
    point = await _point_of(session, arguments)
    await _move_to(session, point)
    async with _holding(session, arguments["modifiers"]):
        await session.page.mouse.click(point.x, point.y, button=button, click_count=arguments["clicks"])


async def _mouse_down(session: Session, arguments: Arguments) -> None:
    await _press_button(session, arguments, down=True)


async def _mouse_up(session: Session, arguments: Arguments) -> None:
    await _press_button(session, arguments, down=False)


async def _press_button(session: Session, arguments: Arguments, down: bool) -> None:
    button = arguments["button"]
    if button in ("back", "forward"):
        raise ToolError(f"the button {button} can be clicked, not held")
    await _move(session, arguments)
    mouse = session.page.mouse
    await (mouse.down(button=button) if down else mouse.up(button=button))
    held = [other for other in session.held_buttons if other != button]
    session.held_buttons = [*held, button] if down else held


async def _drag(session: Session, arguments: Arguments) -> None:
    path = [Point(*point) for point in arguments["path"]]
    start, rest = (path[0], path[1:]) if len(path) > 1 else (session.pointer, path)
    pause_s = (arguments["duration_s"] or 0.0) / (len(rest) * _STEPS)
    mouse = session.page.mouse
    await _move_to(session, start)
    async with _holding(session, arguments["modifiers"]):
        await mouse.down(button=arguments["button"])
        try:
            for target in rest:
                await _glide(session, target, pause_s)
        finally:
            await mouse.up(button=arguments["button"])


async def _glide(session: Session, target: Point, pause_s: float) -> None:
    if pause_s == 0:
        await _move_to(session, target, steps=_STEPS)
        return
    start = session.pointer
    for step in range(1, _STEPS + 1):
        part = step / _STEPS
        await _move_to(session, Point(start.x + part * (target.x - start.x), start.y + part * (target.y - start.y)))
        await asyncio.sleep(pause_s)


async def _scroll(session: Session, arguments: Arguments) -> None:
    await _move(session, arguments)
    size = session.size
    unit_x, unit_y = {"px": (1.0, 1.0), "notch": (NOTCH_PX, NOTCH_PX), "page": (size.width, size.height)}[
        arguments["unit"]
    ]
    async with _holding(session, arguments["modifiers"]):
        await session.page.mouse.wheel(arguments["dx"] * unit_x, arguments["dy"] * unit_y)
        await session.evaluate(_FRAMES)


async def _type(session: Session, arguments: Arguments) -> None:
    if arguments.get("point") is not None or arguments.get("element") is not None:
        point = await _point_of(session, arguments)
        await _move_to(session, point)
        await session.page.mouse.click(point.x, point.y)
    keyboard = session.page.keyboard
    if arguments["clear"]:
        await keyboard.press("Control+a")
        await keyboard.press("Delete")
    text = writable(arguments["text"])
    if len(text) <= _LONG_TEXT:
        await keyboard.type(text)
    else:
        for number, line in enumerate(text.split("\n")):
            if number:
                await keyboard.press("Enter")
            if line:
                await keyboard.insert_text(line)
    if arguments["enter"]:
        await keyboard.press("Enter")


async def _key(session: Session, arguments: Arguments) -> None:
    if arguments.get("element") is not None:
        point = await _point_of(session, arguments)
        await session.page.mouse.click(point.x, point.y)
    keys: Sequence[str] = arguments["keys"]
    chord = {*(key.lower() for key in keys)}
    if chord in ({"ctrl", "c"}, {"ctrl", "x"}):
        session.clipboard = await selected_text(session) or session.clipboard
    if chord == {"ctrl", "v"}:
        await session.page.keyboard.insert_text(session.clipboard)
        return
    names = [_playwright_key(key) for key in keys]
    keyboard = session.page.keyboard
    if len(names) == 1 and names[0] is None:
        await keyboard.insert_text(keys[0])
        return
    down: list[str] = []
    try:
        for key, name in zip(keys, names, strict=True):
            if name is None:
                raise ToolError(f"the key {key!r} is on no keyboard here; type it")
            await keyboard.down(name)
            down.append(name)
        await asyncio.sleep(arguments["hold_s"] or 0.0)
    finally:
        for name in reversed(down):
            await keyboard.up(name)


def _playwright_key(key: str) -> str | None:
    """Playwright's name of a key; None for a character that is on no key of a US keyboard."""
    if len(key) > 1:
        if key not in _KEYS:
            raise ToolError(f"a browser has no key {key}")
        return _KEYS[key]
    return key if 32 < ord(key) < 127 else None


async def _key_down(session: Session, arguments: Arguments) -> None:
    name = _playwright_key(arguments["key"])
    if name is None:
        raise ToolError(f"the key {arguments['key']!r} is on no keyboard here; type it")
    await session.page.keyboard.down(name)
    session.held = [*(other for other in session.held if other != name), name]


async def _key_up(session: Session, arguments: Arguments) -> None:
    name = _playwright_key(arguments["key"])
    if name is None or name not in session.held:
        raise ToolError(f"the key {arguments['key']} is not held")
    await session.page.keyboard.up(name)
    session.held.remove(name)


@contextlib.asynccontextmanager
async def _holding(session: Session, modifiers: Sequence[str]) -> AsyncIterator[None]:
    keyboard = session.page.keyboard
    names = [_KEYS[modifier] for modifier in modifiers]
    for name in names:
        await keyboard.down(name)
    try:
        yield
    finally:
        for name in reversed(names):
            await keyboard.up(name)


async def _select_option(session: Session, arguments: Arguments) -> None:
    await pick_option(session, arguments["element"], arguments["option"])


async def _goto(session: Session, arguments: Arguments) -> None:
    url = arguments["url"].strip()
    async with _arriving():
        await session.goto(url if "://" in url or url.startswith("about:") else f"https://{url}")


async def _travel(session: Session, where: str) -> None:
    page = session.page
    async with _arriving():
        await (page.go_back(wait_until="load") if where == "back" else page.go_forward(wait_until="load"))


@contextlib.asynccontextmanager
async def _arriving() -> AsyncIterator[None]:
    """An address that is blocked, or that nothing is loaded from, is no fault of the browser: it shows what it can."""
    from playwright.async_api import Error

    try:
        yield
    except Error as error:
        if "net::ERR_" not in error.message and "Download is starting" not in error.message:
            raise


async def _back(session: Session, arguments: Arguments) -> None:
    await _travel(session, "back")


async def _forward(session: Session, arguments: Arguments) -> None:
    await _travel(session, "forward")


async def _reload(session: Session, arguments: Arguments) -> None:
    async with _arriving():
        await session.page.reload(wait_until="load")


async def _new_tab(session: Session, arguments: Arguments) -> None:
    await session.new_tab()


async def _close_tab(session: Session, arguments: Arguments) -> None:
    await session.close_tab()


async def _focus_tab(session: Session, arguments: Arguments) -> None:
    await session.focus_tab(arguments["index"])


async def _wait(session: Session, arguments: Arguments) -> None:
    await asyncio.sleep(arguments["duration_s"])


async def _nothing(session: Session, arguments: Arguments) -> None:
    """A screenshot comes anyway, and there is nobody to be called."""


_DOERS: Mapping[str, Callable[[Session, Json], Awaitable[None]]] = {
    "click": _click, "move": _move, "mouse_down": _mouse_down, "mouse_up": _mouse_up, "drag": _drag,
    "scroll": _scroll, "type": _type, "key": _key, "key_down": _key_down, "key_up": _key_up, "wait": _wait,
    "screenshot": _nothing, "call_user": _nothing, "goto": _goto, "back": _back, "forward": _forward,
    "reload": _reload, "new_tab": _new_tab, "close_tab": _close_tab, "focus_tab": _focus_tab,
    "select_option": _select_option,
}  # fmt: skip
