"""Times as people write them: ``MM:SS`` and ``HH:MM:SS`` <-> exact seconds."""

from __future__ import annotations

import re
from fractions import Fraction

from mmturn.errors import ParseError

_FORM = re.compile(r"\s*(?:(?:([0-9]{1,9}):)?([0-9]{1,9}):)?([0-9]{1,9})(\.[0-9]{1,12})?\s*")


def parse_time(text: str) -> Fraction:
    """Seconds, exactly, of ``SS``, ``MM:SS`` or ``HH:MM:SS``, each with decimals or without.

    Without hours, minutes may exceed 59 (``75:03`` is 4503 s); without minutes, seconds may. Raises ParseError, worded
    for the policy.
    """
    found = _FORM.fullmatch(text)
    if found is None:
        raise ParseError(f"{text[:40]!r} is not a time; write MM:SS, for example 02:15, or HH:MM:SS")
    hours, minutes, seconds, decimals = found.groups()
    if minutes is not None and int(seconds) > 59:
        raise ParseError(f"{text[:40]!r} is not a time: after the minutes come at most 59 seconds")
    if hours is not None and int(minutes) > 59:
        raise ParseError(f"{text[:40]!r} is not a time: after the hours come at most 59 minutes")
    whole = 3600 * int(hours or 0) + 60 * int(minutes or 0) + int(seconds)
    return whole + (Fraction("0" + decimals) if decimals else Fraction(0))


def format_time(seconds: Fraction | int, decimals: int = 0, hours: bool = False) -> str:
    """``MM:SS`` (minutes may exceed 59), or with ``hours`` ``HH:MM:SS``, with so many decimals of a second.

    Cut off as clocks do, never rounded up: 59.99 s is ``00:59``. ``parse_time`` gives back what was not cut off.
    Raises ValueError for a negative time.
    """
    if seconds < 0:
        raise ValueError(f"a time cannot be negative, got {seconds}")
    parts = int(Fraction(seconds) * 10**decimals)
    whole, rest = divmod(parts, 10**decimals)
    tail = f".{rest:0{decimals}d}" if decimals else ""
    minutes, second = divmod(whole, 60)
    if hours:
        return f"{minutes // 60:02d}:{minutes % 60:02d}:{second:02d}{tail}"
    return f"{minutes:02d}:{second:02d}{tail}"
