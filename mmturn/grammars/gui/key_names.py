"""Keys by the names that other programs give them, where those differ from the canonical ones."""

from __future__ import annotations

XDOTOOL: dict[str, str] = {
    "enter": "Return", "escape": "Escape", "tab": "Tab", "space": "space", "backspace": "BackSpace",
    "delete": "Delete", "insert": "Insert", "home": "Home", "end": "End", "page_up": "Page_Up",
    "page_down": "Page_Down", "up": "Up", "down": "Down", "left": "Left", "right": "Right", "meta": "super",
    "altgr": "ISO_Level3_Shift", "caps_lock": "Caps_Lock", "num_lock": "Num_Lock", "scroll_lock": "Scroll_Lock",
    "print_screen": "Print", "pause": "Pause", "menu": "Menu", "+": "plus",
    **{f"f{number}": f"F{number}" for number in range(1, 25)},
}  # fmt: skip
"""X keysyms, as xdotool and Claude's computer tool write them."""

PYAUTOGUI: dict[str, str] = {
    "escape": "esc", "page_up": "pageup", "page_down": "pagedown", "meta": "win", "caps_lock": "capslock",
    "num_lock": "numlock", "scroll_lock": "scrolllock", "print_screen": "printscreen", "menu": "apps",
    "volume_up": "volumeup", "volume_down": "volumedown",
}  # fmt: skip
"""pyautogui's names, which OSWorld's action spaces use."""

OPENAI: dict[str, str] = {
    "ctrl": "CTRL", "alt": "ALT", "shift": "SHIFT", "meta": "CMD", "enter": "ENTER", "escape": "ESC", "tab": "TAB",
    "space": "SPACE", "backspace": "BACKSPACE", "delete": "DELETE", "home": "HOME", "end": "END",
    "page_up": "PAGEUP", "page_down": "PAGEDOWN", "up": "ARROWUP", "down": "ARROWDOWN", "left": "ARROWLEFT",
    "right": "ARROWRIGHT",
}  # fmt: skip
"""Names of OpenAI's computer-use keypress."""

BROWSER: dict[str, str] = {
    "ctrl": "Control", "alt": "Alt", "shift": "Shift", "meta": "Meta", "enter": "Enter", "escape": "Escape",
    "tab": "Tab", "backspace": "Backspace", "delete": "Delete", "insert": "Insert", "home": "Home", "end": "End",
    "page_up": "PageUp", "page_down": "PageDown", "up": "ArrowUp", "down": "ArrowDown", "left": "ArrowLeft",
    "right": "ArrowRight", **{f"f{number}": f"F{number}" for number in range(1, 25)},
}  # fmt: skip
"""Names of browsers' key events."""
