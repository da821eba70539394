"""Names of keys: one canonical name per key, and the spellings of others that mean it.

A key that makes one character is named by that character as it is typed ("a", "A", "é", "<"). All others are named
by the words of ``NAMED``, in lower case.
"""

from __future__ import annotations

from mmturn.errors import ToolError

NAMED: tuple[str, ...] = (
    "ctrl", "alt", "shift", "meta", "altgr", "enter", "escape", "tab", "space", "backspace", "delete", "insert",
    "home", "end", "page_up", "page_down", "up", "down", "left", "right", "caps_lock", "num_lock", "scroll_lock",
    "print_screen", "pause", "menu", "volume_up", "volume_down", "power", "camera", "clear",
    *(f"f{number}" for number in range(1, 25)),
)  # fmt: skip
"""Canonical names of the keys that make no character, and of space."""

MODIFIERS: tuple[str, ...] = ("ctrl", "alt", "shift", "meta")
"""Keys that may be held during a click."""

_SPELLINGS: dict[str, str] = {
    "ctrl": "control ctrlleft ctrlright control_l control_r controlleft controlright ctrl_l ctrl_r",
    "alt": "altleft altright alt_l alt_r option optionleft optionright",
    "altgr": "iso_level3_shift altgraph",
    "shift": "shiftleft shiftright shift_l shift_r",
    "meta": "super super_l super_r win windows winleft winright cmd command meta_l meta_r metaleft metaright",
    "enter": "return kp_enter numpadenter",
    "escape": "esc",
    "space": "spacebar",
    "backspace": "back_space",
    "delete": "del",
    "insert": "ins",
    "page_up": "pageup pgup prior",
    "page_down": "pagedown pgdn pgdown next",
    "up": "arrowup arrow_up uparrow",
    "down": "arrowdown arrow_down downarrow",
    "left": "arrowleft arrow_left leftarrow",
    "right": "arrowright arrow_right rightarrow",
    "caps_lock": "capslock",
    "num_lock": "numlock",
    "scroll_lock": "scrolllock",
    "print_screen": "printscreen print prtsc prtscr prntscrn sysrq",
    "pause": "break",
    "menu": "apps contextmenu",
    "volume_up": "volumeup",
    "volume_down": "volumedown",
}
_CHARACTERS: dict[str, str] = {
    "plus": "+", "minus": "-", "equal": "=", "comma": ",", "period": ".", "dot": ".", "slash": "/", "backslash": "\\",
    "semicolon": ";", "colon": ":", "apostrophe": "'", "quotedbl": '"', "grave": "`", "less": "<", "greater": ">",
    "question": "?", "exclam": "!", "at": "@", "numbersign": "#", "dollar": "$", "percent": "%", "asciicircum": "^",
    "ampersand": "&", "asterisk": "*", "parenleft": "(", "parenright": ")", "underscore": "_", "bracketleft": "[",
    "bracketright": "]", "braceleft": "{", "braceright": "}", "bar": "|", "asciitilde": "~",
    "add": "+", "subtract": "-", "multiply": "*", "divide": "/", "decimal": ".",
    **{f"{pad}{digit}": str(digit) for pad in ("num", "kp_", "numpad") for digit in range(10)},
}  # fmt: skip
_CANONICAL: dict[str, str] = {
    **{name: name for name in NAMED},
    **{spelling: name for name, words in _SPELLINGS.items() for spelling in words.split()},
    **_CHARACTERS,
    " ": "space",
    "\n": "enter",
    "\r": "enter",
    "\t": "tab",
}


def canonical_key(name: str) -> str:
    """The canonical name of a key: a character as it is, any other by its word. Raises ToolError for no key."""
    name = name.strip() or name[:1]
    if len(name) == 1 and name not in _CANONICAL:
        if name.isprintable():
            return name
        raise ToolError(f"{name!r:.40} is no key")
    word = name.lower().replace("-", "_")
    found = _CANONICAL.get(name) or _CANONICAL.get(word) or _CANONICAL.get(word.replace("_", ""))
    if found is None:
        raise ToolError(f"there is no key {name!r:.40}; keys are characters and: {', '.join(NAMED)}")
    return found
