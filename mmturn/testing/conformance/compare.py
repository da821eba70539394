"""Whether what came back is what was expected, and where not."""

from __future__ import annotations

import json
import math
from typing import Any

MAX_SHOWN = 300


def difference(expected: Any, got: Any, tolerance: float, path: str) -> str | None:
    """The first place where ``got`` is not ``expected``, as ``path: expected ..., got ...``; None if there is none.

    Numbers may differ by ``tolerance`` (NaN always does), booleans, text and null are exact, lists have one length,
    an object must have the keys expected of it.
    """
    if isinstance(expected, list):
        if not isinstance(got, (list, tuple)):
            return _said(path, expected, got)
        if len(got) != len(expected):
            return _said(path, expected, list(got), f" ({len(expected)} entries)", f" ({len(got)} entries)")
        pairs = [(f"{path}[{i}]", wanted, got[i]) for i, wanted in enumerate(expected)]
    elif isinstance(expected, dict):
        if not isinstance(got, dict):
            return _said(path, expected, got)
        missing = next((key for key in expected if key not in got), None)
        if missing is not None:
            return _said(f"{path}.{missing}", expected[missing])
        pairs = [(f"{path}.{key}", wanted, got[key]) for key, wanted in expected.items()]
    else:
        return None if _same(expected, got, tolerance) else _said(path, expected, got)
    return next((found for where, a, b in pairs if (found := difference(a, b, tolerance, where))), None)


def nothing(path: str, expected: Any) -> str:
    """The line for a key that did not come back at all."""
    return _said(path, expected)


def one_line(text: str) -> str:
    """Somebody else's text for a terminal: printable ASCII, one line, not too long."""
    safe = text if text.isascii() and text.isprintable() else ascii(text)
    return safe if len(safe) <= MAX_SHOWN else safe[: MAX_SHOWN - 3] + "..."


def _same(expected: Any, got: Any, tolerance: float) -> bool:
    if _is_number(expected) and _is_number(got):
        try:
            return bool(expected == got or math.fabs(expected - got) <= tolerance)
        except OverflowError:  # whole numbers that no float can hold
            return False
    return type(expected) is type(got) and bool(expected == got)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


_NOTHING = object()


def _said(path: str, expected: Any, got: Any = _NOTHING, about: str = "", about_got: str = "") -> str:
    came = "nothing" if got is _NOTHING else _shown(got) + about_got
    return f"{one_line(path)}: expected {_shown(expected)}{about}, got {came}"


def _shown(value: Any) -> str:
    try:
        return one_line(json.dumps(value))
    except (TypeError, ValueError):
        return one_line(repr(value))
