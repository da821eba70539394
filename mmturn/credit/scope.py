"""How much of a batch a shape box sees at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeVar

Scope = Literal["trajectory", "group", "batch"]

F = TypeVar("F", bound=Callable[..., Any])


def over(scope: Scope) -> Callable[[F], F]:
    """Mark a shape box, a function or a class, that takes a list of graded trajectories and gives back as many: those
    of a group, or of the whole batch."""

    def mark(piece: F) -> F:
        piece.scope = scope  # type: ignore[attr-defined]
        return piece

    return mark


def scope_of(piece: Any) -> Scope:
    """What a box sees; one trajectory where it says nothing."""
    found: Scope = getattr(piece, "scope", "trajectory")
    return found
