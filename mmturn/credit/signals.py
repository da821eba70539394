"""Which signals a piece of a method asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar, get_args

Signal = Literal["values", "entropies", "drift", "gold", "utterances"]
"""Fields of ``graded.Signals``."""
LEARNED = frozenset({"values", "utterances"})
"""Signals that a critic has to learn."""
FORWARD = LEARNED | {"entropies", "drift"}
"""Signals that take a forward pass of the trainer."""

F = TypeVar("F", bound=Callable[..., Any])


def needs(*signals: Signal, when: str = "") -> Callable[[F], F]:
    """Mark a piece that reads these fields of ``graded.Signals``: they are computed for it. ``when``: name of the
    piece's setting that switches this on, by being neither 0 nor empty; without it, always. Raises ValueError."""
    for signal in signals:
        if signal not in get_args(Signal):
            raise ValueError(f"no signal {signal!r}; there are {', '.join(get_args(Signal))}")

    def mark(piece: F) -> F:
        piece.needs = dict.fromkeys(signals, when)  # type: ignore[attr-defined]
        return piece

    return mark


def needed_by(piece: Any, settings: Mapping[str, Any]) -> frozenset[str]:
    """The signals that a piece with these settings reads; none where it says nothing."""
    found: Mapping[str, str] = getattr(piece, "needs", {})
    return frozenset(signal for signal, when in found.items() if not when or settings.get(when))
