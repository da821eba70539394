"""Settings that change as training goes on, or with how well a task already goes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


def turn_cap(step: int, caps: Sequence[int], interval: int) -> int:
    """Most turns at a global step: the first of ``caps`` for ``interval`` steps, then the next; the last stays.

    Raises ValueError without caps, for a negative step or an interval below 1.
    Source: ScalingInter-RL (2509.08755), verl/agent_trainer/ppo/ray_trainer.py: the form used on resuming. Differs:
    within a run the repository moves on at the end of step n * interval, one step later.
    """
    if not caps or interval < 1 or step < 0:
        raise ValueError(f"wanted caps, interval >= 1 and step >= 0, got {list(caps)}, {interval}, {step}")
    return caps[min(step // interval, len(caps) - 1)]


def ramp(step: int, steps: int, start: float, end: float) -> float:
    """A weight that goes from ``start`` at step 0 straight to ``end`` at ``steps`` and stays there. ValueError."""
    if steps < 1 or step < 0:
        raise ValueError(f"wanted steps >= 1 and step >= 0, got {steps} and {step}")
    part = min(step / steps, 1.0)
    return start * (1.0 - part) + end * part


@dataclass(frozen=True, slots=True)
class GainWeights:
    """What IGPO's rewards are multiplied by before they are normalised."""

    outcome: float
    gain: float


def igpo_weights(step: int, steps: int) -> GainWeights:
    """IGPO's optional curriculum: outcomes 0.5 -> 1, gains 1 -> 0.5. Raises ValueError.

    It matters in a joint pool only: pools normalised apart cancel a common factor.
    Source: IGPO (2510.14967), repository. Differs: the course between the ends is not verified; a line is assumed.
    """
    return GainWeights(ramp(step, steps, 0.5, 1.0), ramp(step, steps, 1.0, 0.5))


def rollouts(success_rate: float, most: int = 8, least: int = 2, threshold: float = 0.6) -> int:
    """Trajectories to sample for a task: ``most`` up to the threshold of its success rate, then fewer, to ``least``.

    Above the threshold ``int(a / success_rate - b)``, with a and b such that it is ``most`` at the threshold and
    ``least`` at a rate of 1: ``int(9 / success_rate - 7)`` with the defaults. Raises ValueError for numbers out of
    order.
    Source: DART (2509.23866), dynamic rollout number: 8, fewer above 0.6; dart_rollouter, src/core/task_loader.py: the
    formula. Differs: the repository has its constants fixed, for 8, 2 and 0.6.
    """
    if not 0.0 <= success_rate <= 1.0 or not 0.0 <= threshold < 1.0 or not 1 <= least <= most:
        raise ValueError(
            "wanted success_rate in 0..1, threshold in 0..1, 1 <= least <= most, "
            f"got {success_rate}, {threshold}, {least}, {most}"
        )
    if success_rate <= threshold:
        return most
    slope = (most - least) * threshold / (1.0 - threshold)
    # rounded first, since 4.999999999 rollouts are 5
    return max(int(round(slope / success_rate - slope + least, 6)), least)


def step_budget(expert_steps: int, tolerance: float = 2.0, limit: int = 120) -> int:
    """Most steps of an episode: ``tolerance`` times what the expert needed, at most ``limit``. Raises ValueError.

    Source: ActiveVLN (2509.12618), vlnce_server/env.py.
    """
    if expert_steps < 0 or not 0.0 <= tolerance < math.inf:
        raise ValueError(f"wanted expert_steps and tolerance >= 0, got {expert_steps}, {tolerance}")
    return min(int(expert_steps * tolerance), limit)
