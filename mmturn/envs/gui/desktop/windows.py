"""The windows of a display, as its window manager lists them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from Xlib.display import Display as Connection

_STATES = ("HIDDEN", "MAXIMIZED_VERT", "MAXIMIZED_HORZ")


@dataclass(frozen=True, slots=True)
class Window:
    """An application's window. Positions and sizes in pixels of the screen, without the frame around it."""

    id: int
    title: str
    kind: str
    """Class of its application, in small letters: ``mousepad``."""
    x: int
    y: int
    width: int
    height: int
    active: bool
    """It has the keyboard."""
    maximized: bool
    minimized: bool
    desktop: int
    """Number of the virtual desktop that it is on."""


def windows_of(connection: Connection) -> list[Window]:
    """All windows, the oldest first. One that goes away meanwhile is left out. Raises what the connection raises."""
    from Xlib.error import BadDrawable, BadWindow

    root = connection.screen().root
    active = _values(connection, root, "_NET_ACTIVE_WINDOW")
    found = []
    for number in _values(connection, root, "_NET_CLIENT_LIST"):
        try:
            found.append(_window(connection, number, number in active))
        except (BadWindow, BadDrawable):
            continue
    return found


def manager_is_ready(connection: Connection) -> bool:
    """Whether a window manager has taken the screen over."""
    return bool(_values(connection, connection.screen().root, "_NET_SUPPORTING_WM_CHECK"))


def _window(connection: Connection, number: int, active: bool) -> Window:
    window = connection.create_resource_object("window", number)
    size = window.get_geometry()
    place = window.translate_coords(connection.screen().root, 0, 0)
    states = _values(connection, window, "_NET_WM_STATE")
    hidden, tall, wide = (connection.get_atom(f"_NET_WM_STATE_{name}") for name in _STATES)
    kinds = window.get_wm_class() or ("", "")
    desktop = (_values(connection, window, "_NET_WM_DESKTOP") or [0])[0]
    return Window(
        number, _title(connection, window), str(kinds[-1]).lower(), -int(place.x), -int(place.y), int(size.width),
        int(size.height), active, tall in states and wide in states,
        hidden in states, int(desktop),
    )  # fmt: skip


def _title(connection: Connection, window: Any) -> str:
    for name in ("_NET_WM_NAME", "WM_NAME"):
        found = window.get_full_property(connection.get_atom(name), 0)
        if found is not None:
            value = found.value
            return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return ""


def _values(connection: Connection, window: Any, name: str) -> list[int]:
    found = window.get_full_property(connection.get_atom(name), 0)
    return [] if found is None or isinstance(found.value, (bytes, str)) else [int(value) for value in found.value]
