"""Bonuses for looking again at all, while a policy hardly ever does."""

from __future__ import annotations

from collections.abc import Sequence


def curiosity_bonus(
    calls: Sequence[int], least_rate: float = 0.3, alpha: float = 0.5, beta: float = 0.05, free: int = 1
) -> tuple[float, ...]:
    """What each trajectory of a group earns for its tool calls, [G] -> [G].

    ``alpha max(least_rate - rate, 0)`` for one that looked, ``rate`` being the share of the group that did, and
    ``beta min(free - calls, 0)`` for calls beyond the free ones. Raises ValueError for an empty group.
    Source: Pixel Reasoner (2505.15966): H 0.3, alpha 0.5, beta 0.05, N 1. Differs: its code scales the bonus by the
    inverse of the rate.
    """
    if not calls:
        raise ValueError("a group without trajectories has no rate of looking")
    rate = sum(count > 0 for count in calls) / len(calls)
    bonus = alpha * max(least_rate - rate, 0.0)
    return tuple((bonus if count else 0.0) + beta * min(free - count, 0) for count in calls)


def exploration_stage(rate: float, rates: Sequence[float]) -> int | None:
    """The first stage whose rate has not been reached, of rising ``rates``; None where all have.

    Source: Video-MTR (2508.20478), exploration bootstrapping: a bonus of 1.0 per retrieval below a rate of 0.1, and of
    0.5 below 0.5.
    """
    return next((number for number, least in enumerate(rates) if rate < least), None)
