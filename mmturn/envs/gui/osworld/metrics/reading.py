"""How metrics read what a guest left, and the rules that a value is held against."""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mmturn.errors import NotRunnable

Metric = Callable[..., float]
MAX_BYTES = 64 * 1024 * 1024
"""A larger file is not read as text."""
_COMPARISONS = ("eq", "ne", "le", "lt", "ge", "gt")
_FLAGS = {name: getattr(re, name) for name in ("A", "ASCII", "I", "IGNORECASE", "M", "MULTILINE", "S", "DOTALL", "X")}


class Unreadable(Exception):
    """What the policy left cannot be read as what it should be: the metric is 0.0."""


def read_text(path: str | None) -> str:
    """The text of a file. Raises Unreadable where there is none, or no text in it."""
    if not path:
        raise Unreadable("there is no file")
    file = Path(path)
    try:
        if file.stat().st_size > MAX_BYTES:
            raise Unreadable(f"{file.name} is too large")
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Unreadable(f"{file.name}: {error}") from error


def parse_json(text: str) -> Any:
    """JSON. Raises Unreadable."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"no JSON: {error}") from error


def likeness(one: str, other: str) -> float:
    """From 0 to 1: twice the length of the longest common subsequence over the sum of both lengths.

    Source: rapidfuzz's ``fuzz.ratio`` / 100, which OSWorld's metrics use (normalised indel similarity).
    """
    total = len(one) + len(other)
    if not total:
        return 1.0
    # Hyyroe's bit-parallel longest common subsequence: one bit for each character of ``one``.
    masks: dict[str, int] = {}
    for place, char in enumerate(one):
        masks[char] = masks.get(char, 0) | 1 << place
    every = (1 << len(one)) - 1
    state = every
    for char in other:
        met = state & masks.get(char, 0)
        state = ((state + met) | (state - met)) & every
    return 2 * (len(one) - state.bit_count()) / total


def meets(value: Any, rule: Mapping[str, Any]) -> bool:
    """Whether a value is as a rule says: ``{"method": "re.I", "ref": ...}``, eq, ne, le, lt, ge, gt, ``approx:0.1``,
    ``range.te`` (t: less than, e: or equal), str_list_eq, str_set_eq. A value of another kind does not meet it.

    Raises NotRunnable for another method.
    """
    method, ref = str(rule["method"]), rule["ref"]
    try:
        return _meets(value, method, ref)
    except (TypeError, AttributeError):
        return False


def _meets(value: Any, method: str, ref: Any) -> bool:
    if method == "re" or method.startswith("re."):
        flag = 0
        for name in method.split(".")[1:]:
            flag |= _FLAGS.get(name, 0)
        return re.search(ref, value, flag) is not None
    if method in _COMPARISONS:
        return bool(getattr(operator, method)(value, ref))
    if method.startswith("approx:"):
        try:
            return abs(float(value) - ref) <= float(method.partition(":")[2])
        except ValueError:
            return False
    if re.fullmatch(r"range\.[te][te]", method):
        low, high = (operator.lt if letter == "t" else operator.le for letter in method[-2:])
        return bool(low(ref[0], value) and high(value, ref[1]))
    if method in ("str_list_eq", "str_set_eq"):
        kind = list if method == "str_list_eq" else set
        return bool(kind(value.strip("\"'").split(",")) == kind(ref))
    raise NotRunnable(f"there is no rule {method!r:.40} here")
