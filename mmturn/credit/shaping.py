"""Rewards that are formulas over what a trajectory recorded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from mmturn.credit.tokens import finite


def activevln_reward(
    success: bool,
    distance_m: float,
    ndtw: float,
    success_base: float = 15.0,
    ndtw_base: float = 0.0,
    radius_m: float = 3.0,
) -> float:
    """Reward of a walk: ``success_base (1 - min(distance / radius, 1))`` if it stopped at the goal, plus path likeness.

    ``distance_m``: metres from its end to the goal; ``ndtw``: normalised dynamic time warping, 0..1. ValueError.
    Source: ActiveVLN (2509.12618), vlnce_server/env.py.
    """
    finite("distance_m, ndtw", [distance_m, ndtw])
    if distance_m < 0 or radius_m <= 0:
        raise ValueError(f"wanted distance_m >= 0 and radius_m > 0, got {distance_m}, {radius_m}")
    near = 1.0 - min(distance_m / radius_m, 1.0)
    return (success_base * near if success else 0.0) + ndtw_base * ndtw


def status_reward(solved: bool, finished: bool, unfinished: float = -0.2) -> float:
    """1 for a solved task, 0 for a failed one, ``unfinished`` where a limit or an error ended the trajectory.

    Source: AgentRL (2510.04206) appendix E, from second-hand notes.
    """
    if not finished:
        return unfinished
    return 1.0 if solved else 0.0


def improvements(
    qualities: Sequence[float], over: Literal["previous", "best"] = "previous", start: float = 0.0
) -> tuple[float, ...]:
    """How much each attempt is better than the one before, or than the best so far (never below 0 then).

    ``qualities`` [K], ``start``: what the first is compared with -> [K]. Over the previous they sum to the last
    quality minus ``start``, over the best to the best of all minus ``start``. Raises ValueError.
    Source: previous, ReVeal (2506.11442); best, Video-MTR (2508.20478) section 3.2.2, which pays a constant for it.
    """
    result, reference = [], start
    for quality in finite("qualities", qualities):
        gain = quality - reference
        result.append(gain if over == "previous" else max(gain, 0.0))
        reference = quality if over == "previous" else max(quality, reference)
    return tuple(result)
