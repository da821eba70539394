"""What a critic learns from a trajectory: its values before the update, and two kinds of targets for them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from mmturn.credit.gae import value_targets
from mmturn.credit.graded import Graded, Worth, cut, flat, per_token, unit_of

Tokens = tuple[tuple[float, ...], ...]
"""[K][n_k] a number per sampled token of each turn."""
Anchor = Literal["first", "last"]
"""Which sampled token of a turn."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """Of one trajectory of K turns; nothing in it is normalised."""

    values: Tokens
    """The critic's, before the update."""
    targets: Tokens
    """Advantage plus value: returns that rest on later values as much as credit does (``lam``)."""
    returns: Tokens
    """Monte-Carlo returns: what credit says with ``lam`` 1 and values of 0, a limit being an end like any other."""


def lesson_of(graded: Graded, raw: Worth, returns: Worth, read: Anchor | None) -> Lesson | None:
    """What a critic learns from a trajectory; None where it gave no values.

    ``raw`` is what credit says, ``returns`` the same without a critic. ``read``: credit has taken values off, per turn
    that of this token of the turn (of a whole trajectory: of its turns, in the same way); None: it is a return as it
    is. A target per turn counts for each of its tokens.
    """
    values = graded.signals.values
    if values is None:
        return None
    targets = per_token(graded, raw)
    if read is not None:
        taken = values if unit_of(raw) == "token" else _at_anchors(values, read)
        targets = cut(value_targets(flat(targets), flat(taken)), graded.tokens)
    return Lesson(values, targets, per_token(graded, returns))


def without_critic(graded: Graded) -> Graded:
    """The same with values of 0 everywhere, also after the last token."""
    zeros = tuple((0.0,) * count for count in graded.tokens)
    return replace(graded, signals=replace(graded.signals, values=zeros, final_value=0.0))


def _at_anchors(values: Tokens, anchor: Anchor) -> Tokens:
    """The value at one token of a turn, for all of its tokens."""
    return tuple((turn[0 if anchor == "first" else -1],) * len(turn) for turn in values)
