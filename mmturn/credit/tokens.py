"""Positions of sampled tokens, and the checks that every function of credit makes of its numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence


def finite(name: str, values: Sequence[float]) -> list[float]:
    """``values`` as floats. Raises ValueError naming the first that is NaN or infinite."""
    numbers = [float(value) for value in values]
    for i, number in enumerate(numbers):
        if not math.isfinite(number):
            raise ValueError(f"{name}[{i}] is not finite: {number}")
    return numbers


def one_length(**lists: Sequence[object]) -> int:
    """The length that all lists share. Raises ValueError naming lists and lengths where they do not."""
    lengths = {name: len(values) for name, values in lists.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError("lengths differ: " + ", ".join(f"{name} {n}" for name, n in lengths.items()))
    return next(iter(lengths.values()))


def discount(name: str, value: float) -> float:
    """``value`` if it lies in 0..1, as gamma and lambda do. Raises ValueError."""
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"{name} must lie in 0..1, got {value}")
    return value


def sampled(mask: Sequence[float], **rows: Sequence[float]) -> list[int]:
    """Positions where ``mask`` [T] is 1.

    Each of ``rows`` must be [T] and finite at those positions; what stands elsewhere (prompts, observations,
    padding) is never read. Raises ValueError.
    """
    one_length(mask=mask, **rows)
    for t, flag in enumerate(mask):
        if flag not in (0, 1):
            raise ValueError(f"mask[{t}] must be 0 or 1, got {flag}")
    positions = [t for t, flag in enumerate(mask) if flag]
    for name, row in rows.items():
        for t in positions:
            if not math.isfinite(row[t]):
                raise ValueError(f"{name}[{t}] is not finite: {row[t]}")
    return positions


def scatter(positions: Sequence[int], values: Sequence[float], length: int) -> tuple[float, ...]:
    """``length`` zeros with ``values`` [N] at ``positions`` [N]."""
    row = [0.0] * length
    for t, value in zip(positions, values, strict=True):
        row[t] = value
    return tuple(row)
