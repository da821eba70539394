"""Calls as models write them: ``name(key='value', other='value')``, one after another.

The quotes around a free text end where an argument or the line's call ends, so that quotes and line breaks inside it
need no escaping;
``\\n``, ``\\t``, ``\\r``, ``\\'``, ``\\"`` and ``\\\\`` are read as in Python, any other backslash stands for itself.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from mmturn.errors import ParseError
from mmturn.grammars.payload import shorten

QUOTES = ("'", '"')
"""What may stand around a value."""
_FREE_TEXTS = ("content", "text", "argument", "message", "0")
_NAME = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_]*)\s*\(")
_KEY = re.compile(r"\s*(?:([A-Za-z_][A-Za-z0-9_]*)\s*=\s*)?")
_BARE = re.compile(r"[^,()\"'\n]*")
_CLOSES = re.compile(r"\s*[,)]")
_QUOTE_ENDS = re.compile(r"[^\S\n]*(?:,\s*[A-Za-z_][A-Za-z0-9_]*\s*=|\)[^\S\n]*(?:\n|;|\Z))")
_NEXT = re.compile(r"\s*([,)])")
_BETWEEN = re.compile(r"(?:[\s;]+|#[^\n]*)*")
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_READ = {"n": "\n", "t": "\t", "r": "\r", "'": "'", '"': '"', "\\": "\\"}
_WRITTEN = {"\n": "\\n", "\t": "\\t", "\r": "\\r", "\\": "\\\\"}


@dataclass(frozen=True, slots=True)
class Call:
    """A name and its arguments by name, all as texts; one without a name is called by its position: "0"."""

    name: str
    arguments: dict[str, str]


def read_calls(text: str) -> list[Call]:
    """The calls in ``text``, which holds nothing else but comments (``# ...``) between them. Raises ParseError, in
    linear time."""
    calls: list[Call] = []
    at = _skipped(text, 0)
    while at < len(text):
        opened = _NAME.match(text, at)
        if opened is None:
            raise ParseError(f"an action like name(argument='value') was expected at {shorten(text[at:])}")
        arguments, at = _arguments(text, opened.end(), opened.group(1))
        calls.append(Call(opened.group(1), arguments))
        at = _skipped(text, at)
    return calls


def _skipped(text: str, at: int) -> int:
    """Where what is neither blank nor a comment begins."""
    between = _BETWEEN.match(text, at)
    return between.end() if between else at


def _arguments(text: str, at: int, name: str) -> tuple[dict[str, str], int]:
    """Arguments from behind the opening parenthesis, and where the call ends."""
    arguments: dict[str, str] = {}
    while True:
        key = _KEY.match(text, at)
        at = key.end() if key else at
        word = (key and key.group(1)) or str(len(arguments))
        if text[at : at + 1] == ")":
            return arguments, at + 1
        if text[at : at + 1] in QUOTES:
            arguments[word], at = _quoted(text, at, name, _QUOTE_ENDS if word in _FREE_TEXTS else _CLOSES)
        else:
            bare = _BARE.match(text, at)
            value = bare.group().strip() if bare else ""
            if not value:
                raise ParseError(f"{name}: a value was expected at {shorten(text[at:])}")
            arguments[word], at = value, bare.end() if bare else at
        end = _NEXT.match(text, at)
        if end is None:
            raise ParseError(f"{name}: the call is not closed by a parenthesis")
        at = end.end()
        if end.group(1) == ")":
            return arguments, at


def _quoted(text: str, at: int, name: str, closes: re.Pattern[str]) -> tuple[str, int]:
    """A quoted value and where it ends: at the first quote that ``closes`` matches behind."""
    quote, start = text[at], at + 1
    here = start
    while True:
        here = text.find(quote, here)
        if here < 0:
            raise ParseError(f"{name}: the quote before {shorten(text[start:])} is not closed")
        first = here
        while first > start and text[first - 1] == "\\":
            first -= 1
        if (here - first) % 2 == 0 and closes.match(text, here + 1):
            return _ESCAPE.sub(_unescaped, text[start:here]), here + 1
        here += 1


def _unescaped(escape: re.Match[str]) -> str:
    return _READ.get(escape.group(1), escape.group())


def quoted(text: str, quote: str = "'") -> str:
    """A text between quotes as ``read_calls`` reads it back."""
    return quote + "".join(f"\\{c}" if c == quote else _WRITTEN.get(c, c) for c in text) + quote
