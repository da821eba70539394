"""One reward per trajectory -> one advantage per trajectory, over a group of trajectories of one task."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from mmturn.credit.tokens import finite

Std = Literal["unbiased", "population", "none"]
"""Which standard deviation divides: over G-1, over G, or none at all."""
Single = Literal["zero", "reward"]
"""Advantage of a group of one: 0, or the reward itself as if mean were 0 and std 1 (verl)."""


def grpo(
    rewards: Sequence[float], std: Std = "unbiased", eps: float = 1e-6, single: Single = "zero"
) -> tuple[float, ...]:
    """Group-relative advantages ``(r - mean) / (std + eps)``.

    ``rewards`` [G] -> [G]. Equal rewards give exactly 0, whatever rounding does to their mean; so does an empty
    or (with ``single="zero"``) lone trajectory. ``std="none"`` leaves the division out (see ``dr_grpo``). Raises
    ValueError for a reward that is not finite.

    Source: DeepSeekMath (2402.03300), outcome supervision; eps and the unbiased std as in verl's core_algos.py.
    Differs: a group of one gets 0 by default, where verl keeps its reward.
    """
    values = finite("rewards", rewards)
    if len(values) == 1:
        return (0.0,) if single == "zero" else (values[0] / (1.0 + (eps if std != "none" else 0.0)),)
    if zero_variance(values):
        return (0.0,) * len(values)
    centre = mean(values)
    scale = 1.0 if std == "none" else spread(values, std) + eps
    return tuple((r - centre) / scale for r in values)


def dr_grpo(rewards: Sequence[float]) -> tuple[float, ...]:
    """Centred rewards ``r - mean``: no division, so that easy and hard tasks are not weighted by their spread.

    ``rewards`` [G] -> [G]; 0 for a group of one. Goes with the ``constant_length`` aggregation of the loss.
    Source: Understanding R1-Zero-Like Training (2503.20783), Dr. GRPO.
    """
    return grpo(rewards, std="none")


def rloo(rewards: Sequence[float]) -> tuple[float, ...]:
    """Each reward minus the mean of the others; equals ``G / (G - 1)`` times ``dr_grpo``.

    ``rewards`` [G] -> [G]; 0 for a group of one, which has no others.
    Source: Back to Basics (2402.14740), REINFORCE Leave-One-Out.
    """
    size = len(rewards)
    return tuple(size / (size - 1) * a for a in dr_grpo(rewards)) if size > 1 else (0.0,) * size


def zero_variance(rewards: Sequence[float]) -> bool:
    """Whether all rewards are equal, so that a group teaches nothing. True for an empty group."""
    return len(rewards) == 0 or max(rewards) == min(rewards)


def mean(values: Sequence[float]) -> float:
    """Mean of at least one value."""
    return math.fsum(values) / len(values)


def spread(values: Sequence[float], std: Literal["unbiased", "population"]) -> float:
    """Standard deviation, computed in two passes; exactly 0 for equal values, a lone one, or none."""
    if zero_variance(values):
        return 0.0
    centre = mean(values)
    # hypot scales before it squares: values that differ by very little still have a spread
    return math.hypot(*(v - centre for v in values)) / math.sqrt(len(values) - (std == "unbiased"))


def overlong_penalty(length: int, max_length: int, buffer: int, factor: float = 1.0) -> float:
    """Soft punishment of a long response: 0 up to ``max_length - buffer`` tokens, then linear to ``-factor``
    at ``max_length``, and ``-factor`` beyond.

    Source: DAPO (2503.14476), soft overlong punishment. Differs from verl, which lets it fall on beyond
    ``max_length``. Raises ValueError unless ``0 < buffer <= max_length``.
    """
    if not 0 < buffer <= max_length:
        raise ValueError(f"overlong buffer must lie in 1..{max_length}, got {buffer}")
    excess = length - (max_length - buffer)
    return -factor * min(max(excess / buffer, 0.0), 1.0) + 0.0
