"""Numbers in answers: separators, percent signs, fractions, words up to twenty. Never a guess between two numbers."""

from __future__ import annotations

import math
import re
import unicodedata
from dataclasses import dataclass

_NUMBER = re.compile(
    r"(?<![\w.,/-])[-+]?(?=\.?[0-9])(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]*)(?:\.[0-9]+)?"
    r"(?:[eE][-+]?[0-9]{1,3})?(?![\w/]|[.,][0-9])"
)
_FRACTION = re.compile(r"([-+]?[0-9]{1,15})\s*/\s*([0-9]{1,15})")
# fmt: off
_WORDS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
)
# fmt: on
_MAX_CHARS = 2000
"""A longer answer is prose, in which a number means nothing."""


@dataclass(frozen=True, slots=True)
class Number:
    """A number as it was written."""

    value: float
    percent: bool = False
    """True when a percent sign follows; ``value`` is then the number before the sign."""


def parse_number(text: str) -> Number | None:
    """The one number in a bare answer; None when there is none, or several different ones.

    ``1,234.5``, ``-3``, ``$7``, ``45 %``, ``1e-3``, ``3/4``, ``7 cars`` and ``seven`` are numbers; ``1,5`` (a decimal
    comma or a list?), ``3 of 7``, ``B2`` and ``7th`` are not. Infinite values are not.
    """
    if len(text) > _MAX_CHARS:
        return None
    text = unicodedata.normalize("NFKC", text).replace("\u2212", "-").replace("\u2013", "-")
    text = text.strip(" \t\r\n*`$\"'").rstrip(".!*`$\"' ")
    if text.casefold() in _WORDS:
        return Number(float(_WORDS.index(text.casefold())))
    fraction = _FRACTION.fullmatch(text)
    if fraction:
        below = float(fraction.group(2))
        return Number(float(fraction.group(1)) / below) if below else None
    found: list[Number] = []
    for token in _NUMBER.finditer(text):
        value = float(token.group().replace(",", ""))
        if not math.isfinite(value):
            return None
        number = Number(value, percent=text[token.end() : token.end() + 2].lstrip().startswith("%"))
        if number not in found:
            found.append(number)
    # Digits that belong to no number ("1,5", "B2") make the answer unclear.
    if len(found) != 1 or any(c.isdigit() for c in _NUMBER.sub("", text)):
        return None
    return found[0]


def numbers_equal(left: Number, right: Number, rel_tol: float = 1e-9, abs_tol: float = 1e-9) -> bool:
    """Whether two numbers agree within a tolerance.

    Where one alone carries a percent sign, ``45%`` agrees with both ``45`` and ``0.45``: questions ask for either.
    """
    if math.isclose(left.value, right.value, rel_tol=rel_tol, abs_tol=abs_tol):
        return True
    if left.percent == right.percent:
        return False
    a, b = (left.value / 100, right.value) if left.percent else (left.value, right.value / 100)
    return math.isclose(a, b, rel_tol=rel_tol, abs_tol=abs_tol)
