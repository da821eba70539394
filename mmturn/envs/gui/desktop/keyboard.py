"""Keys of an X display by XTEST: every character, also those that the keyboard map lacks."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mmturn.envs.gui.written import writable
from mmturn.errors import ToolError

if TYPE_CHECKING:
    from Xlib.display import Display as Connection

_NAMED = {
    "ctrl": 0xFFE3, "alt": 0xFFE9, "shift": 0xFFE1, "meta": 0xFFEB, "altgr": 0xFE03, "enter": 0xFF0D, "escape": 0xFF1B,
    "tab": 0xFF09, "space": 0x20, "backspace": 0xFF08, "delete": 0xFFFF, "insert": 0xFF63, "home": 0xFF50,
    "end": 0xFF57, "page_up": 0xFF55, "page_down": 0xFF56, "up": 0xFF52, "down": 0xFF54, "left": 0xFF51,
    "right": 0xFF53, "caps_lock": 0xFFE5, "num_lock": 0xFF7F, "scroll_lock": 0xFF14, "print_screen": 0xFF61,
    "pause": 0xFF13, "menu": 0xFF67, "clear": 0xFF0B, "volume_up": 0x1008FF13, "volume_down": 0x1008FF11,
    "power": 0x1008FF2A, **{f"f{number}": 0xFFBD + number for number in range(1, 25)},
}  # fmt: skip
_CONTROLS = {"\n": "enter", "\t": "tab", "\b": "backspace", "\x1b": "escape"}
_MEDIA = range(0x1008FE00, 0x10090000)
"""Symbols of multimedia keys, which nothing here needs: their keys are spare."""
_LEARN_S = 0.06
"""Applications read a changed map when they are told, and must not find the next one there already."""
_FORGET_S = 0.3
"""What was typed with a key has to be read by the application before the key gets another character."""


class Keyboard:
    """Presses keys. Keys without a symbol are given the characters that the map lacks, the longest unused first."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        info = connection.display.info
        self._first = info.min_keycode
        rows = connection.get_keyboard_mapping(self._first, info.max_keycode - self._first + 1)
        self._width = len(rows[0])
        self._keys: dict[int, tuple[int, bool]] = {}
        self._spare: dict[int, int | None] = {}
        for code, row in enumerate(rows, self._first):
            plain, shifted = int(row[0]), int(row[1])
            if all(not symbol or symbol in _MEDIA for symbol in map(int, row)):
                self._spare[code] = None
                continue
            self._keys.setdefault(plain, (code, False))
            self._keys.setdefault(shifted, (code, True))
        self._keys.pop(0, None)
        self.held: list[str] = []
        """Keys that were pressed and not released."""

    def type(self, text: str) -> None:
        """Type a text as it stands: a new line is enter. Raises ToolError for a character that no keyboard makes."""
        symbols = [self._symbol(_CONTROLS.get(character, character)) for character in writable(text)]
        room, start = max(len(self._spare), 1), 0
        while start < len(symbols):
            wanted: dict[int, None] = {}
            end = start
            while end < len(symbols) and len({*wanted, symbols[end]}) <= room:
                wanted.setdefault(symbols[end])
                end += 1
            self._learn(list(wanted))
            for symbol in symbols[start:end]:
                self._stroke(symbol)
            self._connection.sync()
            start = end

    def press(self, keys: Sequence[str], hold_s: float = 0.0) -> None:
        """Press keys one after the other and release them in reverse. Raises ToolError for a key that there is not."""
        codes = self._codes(keys)
        down: list[int] = []
        try:
            for code in codes:
                self._event(code, True)
                down.append(code)
            if hold_s:
                self._connection.sync()
                time.sleep(hold_s)
        finally:
            for code in reversed(down):
                self._event(code, False)
            self._connection.sync()

    @contextmanager
    def holding(self, keys: Sequence[str]) -> Iterator[None]:
        """Keys held while the block runs."""
        codes = self._codes(keys)
        for code in codes:
            self._event(code, True)
        try:
            yield
        finally:
            for code in reversed(codes):
                self._event(code, False)
            self._connection.sync()

    def down(self, key: str) -> None:
        """Press a key and hold it. Raises ToolError for a key that there is not."""
        self._event(self._codes([key])[0], True)
        self.held.append(key)
        self._connection.sync()

    def up(self, key: str) -> None:
        """Release a key that ``down`` pressed. Raises ToolError for another."""
        if key not in self.held:
            raise ToolError(f"the key {key} is not held")
        self._event(self._codes([key])[0], False)
        self.held.remove(key)
        self._connection.sync()

    def _codes(self, keys: Sequence[str]) -> list[int]:
        """Key codes; a character that needs shift brings shift along unless it is there."""
        symbols = [self._symbol(key) for key in keys]
        self._learn(symbols)
        codes: list[int] = []
        for key, symbol in zip(keys, symbols, strict=True):
            code, shifted = self._keys[symbol]
            shift = self._keys[_NAMED["shift"]][0]
            # A capital in a chord names the key: ctrl and S is what ctrl and s is, as people write it.
            if shifted and shift not in codes and not (len(keys) > 1 and key.isalpha()):
                codes.append(shift)
            codes.append(code)
        return codes

    def _symbol(self, key: str) -> int:
        if len(key) > 1:
            if key not in _NAMED:
                raise ToolError(f"a desktop has no key {key}")
            return _NAMED[key]
        point = ord(key)
        if point < 0x20 or 0x7F <= point < 0xA0:
            raise ToolError(f"no key makes the character {key!r}")
        return point if point < 0x100 else 0x1000000 + point

    def _learn(self, symbols: Sequence[int]) -> None:
        """Put what the map lacks on spare keys; those used longest ago are taken, and none that is wanted now."""
        wanted = set(symbols)
        lacking = [symbol for symbol in dict.fromkeys(symbols) if symbol not in self._keys]
        if len(lacking) > sum(has is None for has in self._spare.values()):
            time.sleep(_FORGET_S)
        for symbol in lacking:
            code = next((code for code, has in self._spare.items() if has not in wanted), None)
            if code is None:
                raise ToolError("too many keys at once that are on no keyboard")
            before = self._spare.pop(code)
            if before is not None:
                del self._keys[before]
            self._spare[code], self._keys[symbol] = symbol, (code, False)
            # Both levels: whether shift or caps lock is on makes no difference.
            self._connection.change_keyboard_mapping(code, [[symbol] * 2 + [0] * (self._width - 2)])
        if lacking:
            self._connection.sync()
            time.sleep(_LEARN_S)

    def _stroke(self, symbol: int) -> None:
        code, shifted = self._keys[symbol]
        if shifted:
            self._event(self._keys[_NAMED["shift"]][0], True)
        self._event(code, True)
        self._event(code, False)
        if shifted:
            self._event(self._keys[_NAMED["shift"]][0], False)

    def _event(self, code: int, down: bool) -> None:
        from Xlib import X
        from Xlib.ext import xtest

        xtest.fake_input(self._connection, X.KeyPress if down else X.KeyRelease, code)
