"""The canonical actions as tool specs: name, description and JSON schema of the arguments.

Units: points and paths in pixels of the addressed view (a screen is addressed as the latest view), durations in
seconds, distances in centimetres, angles in degrees. A ``default`` is what an argument means that is left out.
"""

from __future__ import annotations

from collections.abc import Mapping

from mmturn.gui_actions.keys import MODIFIERS
from mmturn.types import Json, ToolSpec

BUTTONS = ("left", "right", "middle", "back", "forward")
"""Buttons of the pointer."""
SCROLL_UNITS = ("notch", "px", "page")
"""What a scroll counts in: clicks of the wheel, pixels, heights (or widths) of what is seen."""

_POINT: Mapping[str, Json] = {
    "type": "array",
    "format": "point",
    "description": "Where; left out: at the pointer",
}
_ELEMENT: Mapping[str, Json] = {"type": "string", "description": "Id of an element of the page, in place of a point"}
_BUTTON: Mapping[str, Json] = {"type": "string", "enum": list(BUTTONS), "default": "left"}
_MODIFIERS: Mapping[str, Json] = {
    "type": "array", "items": {"type": "string", "enum": list(MODIFIERS)}, "default": [],
    "description": "Keys held meanwhile",
}  # fmt: skip
_SECONDS: Mapping[str, Json] = {"type": "number", "minimum": 0, "maximum": 600, "description": "Seconds"}
_KEY: Mapping[str, Json] = {"type": "string", "description": "A character, or a name like enter"}
_TEXT: Mapping[str, Json] = {"type": "string"}


def _spec(name: str, description: str, required: tuple[str, ...] = (), /, **properties: Mapping[str, Json]) -> ToolSpec:
    schema: dict[str, Json] = {"type": "object", "properties": {key: dict(value) for key, value in properties.items()}}
    if required:
        schema["required"] = list(required)
    return ToolSpec(name, description, schema, addressing="latest")


_SPECS = (
    _spec(
        "click", "Presses and releases a button of the pointer.",
        point=_POINT, element=_ELEMENT, button=_BUTTON, modifiers=_MODIFIERS,
        clicks={"type": "integer", "minimum": 1, "maximum": 3, "default": 1, "description": "2: a double click"},
    ),
    _spec("long_press", "Keeps a finger down.", point=_POINT, element=_ELEMENT, duration_s=_SECONDS),
    _spec("move", "Moves the pointer.", point=_POINT, element=_ELEMENT),
    _spec("mouse_down", "Presses a button of the pointer and holds it.", point=_POINT, button=_BUTTON),
    _spec("mouse_up", "Releases a button of the pointer.", point=_POINT, button=_BUTTON),
    _spec(
        "drag", "Moves the pointer along a path with a button held.", ("path",),
        path={
            "type": "array", "format": "path",
            "description": "Points [x, y] in order; a single one is where to drag to from where the pointer is",
        },
        button=_BUTTON, modifiers=_MODIFIERS, duration_s=_SECONDS,
    ),
    _spec(
        "scroll", "Scrolls what is under the pointer: dy above 0 shows what is further down, dx above 0 further right.",
        point=_POINT, element=_ELEMENT, modifiers=_MODIFIERS,
        dx={"type": "number", "default": 0}, dy={"type": "number", "default": 0},
        unit={"type": "string", "enum": list(SCROLL_UNITS), "default": "notch"},
    ),
    _spec(
        "type", "Types a text, exactly as it stands.", ("text",),
        text=_TEXT, point=_POINT, element=_ELEMENT,
        enter={"type": "boolean", "default": False, "description": "Press enter afterwards"},
        clear={"type": "boolean", "default": False, "description": "Empty the field before"},
    ),
    _spec(
        "key", "Presses keys together and releases them.", ("keys",),
        keys={"type": "array", "items": dict(_KEY), "minItems": 1}, hold_s=_SECONDS, element=_ELEMENT,
    ),
    _spec("key_down", "Presses a key and holds it.", ("key",), key=_KEY),
    _spec("key_up", "Releases a key.", ("key",), key=_KEY),
    _spec("select_option", "Picks an option of a list.", ("option",), element=_ELEMENT, option=_TEXT),
    _spec("goto", "Opens an address.", ("url",), url=_TEXT),
    _spec("back", "Goes back to what was seen before."),
    _spec("forward", "Goes forward again."),
    _spec("reload", "Loads the page again."),
    _spec("new_tab", "Opens a tab."),
    _spec("close_tab", "Closes the tab that is seen."),
    _spec("focus_tab", "Shows another tab.", ("index",), index={"type": "integer", "minimum": 0}),
    _spec("home", "Goes to the home screen."),
    _spec("menu", "Opens the menu, or the list of running apps."),
    _spec("open_app", "Starts an application, or brings it to the front.", ("app",), app=_TEXT),
    _spec("wait", "Waits.", duration_s=_SECONDS),
    _spec("screenshot", "Shows the screen again and does nothing else."),
    _spec("call_user", "Asks the user for help.", text={**_TEXT, "default": ""}),
    _spec("move_forward", "Walks ahead.", ("distance_cm",), distance_cm={"type": "number", "minimum": 0}),
    _spec("turn", "Turns on the spot.", ("degrees",), degrees={"type": "number", "description": "Above 0: left"}),
)  # fmt: skip

VOCABULARY: Mapping[str, ToolSpec] = {spec.name: spec for spec in _SPECS}
"""Every canonical action by its name. The end is not among them: see ``finish``."""


def _some(names: str) -> tuple[ToolSpec, ...]:
    return tuple(VOCABULARY[name] for name in names.split())


DESKTOP: tuple[ToolSpec, ...] = _some(
    "click move mouse_down mouse_up drag scroll type key key_down key_up wait screenshot call_user"
)
"""What a desktop can be asked for."""
BROWSER: tuple[ToolSpec, ...] = (
    *DESKTOP,
    *_some("goto back forward reload new_tab close_tab focus_tab select_option"),
)
"""What a browser can be asked for."""
MOBILE: tuple[ToolSpec, ...] = _some(
    "click long_press drag scroll type key back home menu open_app wait screenshot call_user"
)
"""What a phone can be asked for."""
WALKING: tuple[ToolSpec, ...] = _some("move_forward turn")
"""What a walker in a small world can be asked for."""


def web_elements(specs: tuple[ToolSpec, ...]) -> tuple[str, ...]:
    """Names of the actions of ``specs`` that may address an element by its id."""
    return tuple(spec.name for spec in specs if "element" in spec.parameters["properties"])
