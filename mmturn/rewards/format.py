"""Whether turns were valid: parsed and carried out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mmturn.types import Trajectory, Turn


@dataclass(frozen=True)
class FormatConfig:
    """Settings of the format reward."""

    rule: Literal["share", "strict"] = "share"
    """share: part of the turns that were valid. strict: 1 only if every turn was valid and an answer was given."""
    per_turn: bool = False
    """With ``share``: give each valid turn its 1 / K at that turn rather than the sum to the trajectory."""


class FormatReward:
    """Share of valid turns, in [0, 1]. A turn is valid when its completion was parsed, carried out, and not cut by
    the length limit; one that could not be read is not valid where a dialect takes it for an end either (``invalid``
    of ``grammars.gui``). 0.0 for a trajectory without turns."""

    Config = FormatConfig

    def __init__(self, config: FormatConfig | None = None) -> None:
        self.config = config or FormatConfig()

    def __call__(self, trajectory: Trajectory) -> float | list[float]:
        """Grade the form of the turns."""
        valid = [float(turn.error is None and turn.finish == "stop" and _read(turn)) for turn in trajectory.turns]
        if self.config.rule == "strict":
            return float(bool(valid) and min(valid) == 1.0 and trajectory.answer is not None)
        if self.config.per_turn:
            return [value / len(valid) for value in valid]
        return sum(valid) / len(valid) if valid else 0.0


def _read(turn: Turn) -> bool:
    """Whether the turn's actions are what it says, and not what stands for a reply that nobody could read."""
    return not any(action.kind == "answer" and action.arguments.get("invalid") for action in turn.actions)
