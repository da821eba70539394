"""Which signals a piece of a method asks for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeVar, get_args

Signal = Literal["values", "entropies", "gold", "utterances"]
"""Fields of ``graded.Signals``."""

F = TypeVar("F", bound=Callable[..., Any])


def needs(*signals: Signal) -> Callable[[F], F]:
    """Mark a piece that reads these fields of ``graded.Signals``: they are computed for it. Raises ValueError."""
    for signal in signals:
        if signal not in get_args(Signal):
            raise ValueError(f"no signal {signal!r}; there are {', '.join(get_args(Signal))}")

    def mark(piece: F) -> F:
        piece.needs = frozenset(signals)  # type: ignore[attr-defined]
        return piece

    return mark


def needed_by(piece: Any) -> frozenset[str]:
    """The signals that a piece reads; none where it says nothing."""
    return getattr(piece, "needs", frozenset())
