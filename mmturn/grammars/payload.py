"""JSON written by a policy: read strictly, with every way it can go wrong turned into a ParseError."""

from __future__ import annotations

import json
import math
from typing import Any

from mmturn.errors import ParseError
from mmturn.types import Json

_MAX_DIGITS = 40


def _float(text: str) -> float:
    value = float(text) if len(text) <= 4 * _MAX_DIGITS else math.inf
    if not math.isfinite(value):
        raise ParseError(f"the number {shorten(text)} is too large")
    return value


def _int(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise ParseError(f"the number {shorten(text)} is too large")
    return int(text)


def _constant(text: str) -> Any:
    raise ParseError(f"{text} is not a number that can be used here")


JSON_DECODER = json.JSONDecoder(parse_float=_float, parse_int=_int, parse_constant=_constant)
"""Strict about numbers: one that is too large for a float, NaN and Infinity raise ParseError."""


def read_json(text: str, what: str, max_chars: int) -> Json:
    """The JSON value in ``text``. Raises ParseError (naming ``what``) for bad or overlong JSON, NaN, Infinity,
    numbers too large for a float, and nesting too deep to read."""
    text = text.strip()
    if not text:
        raise ParseError(f"{what} is empty")
    if len(text) > max_chars:
        raise ParseError(f"{what} is too long: {len(text)} characters, at most {max_chars}")
    try:
        return JSON_DECODER.decode(text)
    except RecursionError:
        raise ParseError(f"{what} is nested too deeply") from None
    except ValueError as exc:
        raise ParseError(f"{what} is not valid JSON: {exc}") from None


def shorten(text: str, limit: int = 40) -> str:
    """Start of a policy's text, quoted, in ASCII, safe to show anywhere."""
    return json.dumps(text if len(text) <= limit else text[:limit] + "...")
