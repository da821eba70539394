"""What is worth training on: groups, trajectories and steps kept in the loss. Statistics are the caller's, and come
first: a trajectory that is masked here still counts in the mean and deviation of its group."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

from mmturn.credit.outcome import spread
from mmturn.credit.tokens import finite


def top_spread(
    rewards: Sequence[Sequence[float]], keep: float, std: Literal["unbiased", "population"] = "unbiased"
) -> list[int]:
    """Indices, rising, of the ``int(keep * P)`` groups whose rewards spread most; of equal spreads the first.

    ``rewards`` [P][G_p]; a group of one spreads 0. Raises ValueError unless ``0 <= keep <= 1``.
    Source: StarPO-S (2504.20073), keep 0.25; ragen/trainer/agent_trainer.py. Differs: spreads that differ by less
    than 1e-12 tie.
    """
    if not 0.0 <= keep <= 1.0:
        raise ValueError(f"keep must lie in 0..1, got {keep}")
    spreads = [round(spread(finite(f"rewards[{p}]", group), std), 12) for p, group in enumerate(rewards)]
    best = sorted(range(len(spreads)), key=lambda p: -spreads[p])
    return sorted(best[: int(keep * len(spreads))])


def dynamic_sampling(correct: Mapping[str, Sequence[float]]) -> list[str]:
    """Names of the groups with some but not all trajectories correct (> 0), in input order.

    Source: DAPO (2503.14476), dynamic sampling: the others are dropped and new ones sampled in their place.
    """
    return [name for name, group in correct.items() if 0 < sum(value > 0 for value in group) < len(group)]


def without_void_turns(void: Sequence[Sequence[bool]]) -> list[bool]:
    """[G] whether a trajectory has no void turn, one with neither a complete tool call nor an answer.

    ``void`` [G][K_i]. A trajectory with one leaves the loss as a whole and stays in its group's statistics.
    Source: SimpleTIR, recipe/simpletir: loss_mask *= void_turn_mask.
    """
    return [not any(turns) for turns in void]


def entropy_threshold(entropies: Sequence[float], quantile: float) -> float:
    """The ``quantile`` of ``entropies`` [N], interpolated linearly as numpy does it. Raises ValueError for none."""
    if not entropies:
        raise ValueError("no entropies, so no quantile")
    if not 0.0 <= quantile <= 1.0:
        raise ValueError(f"quantile must lie in 0..1, got {quantile}")
    ordered = sorted(finite("entropies", entropies))
    place = quantile * (len(ordered) - 1)
    below = math.floor(place)
    low, high = ordered[below], ordered[min(below + 1, len(ordered) - 1)]
    part = place - below
    # from the nearer end, so that rounding never leaves the interval
    return low + (high - low) * part if part < 0.5 else high - (high - low) * (1.0 - part)


def high_entropy_steps(entropies: Sequence[float], quantile: float = 0.2) -> list[bool]:
    """[N] whether a step's mean token entropy reaches the ``quantile`` of its group's steps.

    ``entropies`` [N] over all steps of a group; the mean runs over a step's thought and action. Raises ValueError.
    Source: DART (2509.23866) eq. 2, from second-hand notes: the lowest fifth is not trained.
    """
    if not entropies:
        return []
    threshold = entropy_threshold(entropies, quantile)
    return [entropy >= threshold for entropy in entropies]


def fresh_enough(versions: Sequence[Sequence[int]], current: int, max_lag: int) -> list[bool]:
    """[N] whether no turn of a trajectory was sampled by a policy more than ``max_lag`` versions before ``current``.

    ``versions`` [N][K_i]: the policy version of each turn. Raises ValueError for a version after the current one.
    Source: bounded staleness as in AgentRL (2510.04206) section 3.1, per turn since its turns may come from several
    policies. Differs: the bound is not verified (``unverified.UNVERIFIED``), so there is no default.
    """
    for i, turns in enumerate(versions):
        if turns and max(turns) > current:
            raise ValueError(f"trajectory {i} was sampled by version {max(turns)}, after the current {current}")
    return [not turns or current - min(turns) <= max_lag for turns in versions]
