"""How a walk ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mmturn.credit.shaping import activevln_reward
from mmturn.errors import ConfigError
from mmturn.types import Trajectory


@dataclass(frozen=True)
class WalkConfig:
    """Settings of the walk reward."""

    kind: Literal["success", "weighted_success"] = "weighted_success"
    """success: the whole base for an arrival. weighted_success: the less of it, the farther from the goal."""
    success_base: float = 15.0
    """Reward of an arrival right at the goal."""
    ndtw_base: float = 0.0
    """Reward of a walk like the expert's that ended by its own stop; R2R's run has none."""
    radius_m: float = 3.0
    """Most metres from the goal that count as having arrived."""

    def __post_init__(self) -> None:
        if self.radius_m <= 0:
            raise ConfigError(f"radius_m must be above 0, got {self.radius_m}")


class WalkReward:
    """ActiveVLN's reward, off the last turn's facts: 0 for a walk that did not stop by itself.

    Source: ActiveVLN (arXiv 2509.12618), vlnce_server/env.py. See ``credit.shaping.activevln_reward``.
    """

    Config = WalkConfig

    def __init__(self, config: WalkConfig | None = None) -> None:
        self.config = config or WalkConfig()

    def __call__(self, trajectory: Trajectory) -> float:
        """Grade the walk."""
        config, facts = self.config, trajectory.turns[-1].facts if trajectory.turns else {}
        if not facts.get("stopped"):
            return 0.0
        distance = float(facts["distance_m"])
        arrived = distance <= config.radius_m
        graded_m = 0.0 if config.kind == "success" else distance
        return activevln_reward(
            arrived, graded_m, float(facts["ndtw"]), config.success_base, config.ndtw_base, config.radius_m
        )


def arrived(trajectory: Trajectory, radius_m: float = 3.0) -> float:
    """1.0 for a walk that stopped by itself at most ``radius_m`` from the goal, else 0.0: the success rate."""
    facts = trajectory.turns[-1].facts if trajectory.turns else {}
    return float(bool(facts.get("stopped")) and float(facts["distance_m"]) <= radius_m)
