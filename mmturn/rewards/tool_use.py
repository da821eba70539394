"""Whether tools were used, counted from what the environment carried out."""

from __future__ import annotations

from dataclasses import dataclass

from mmturn.errors import ConfigError
from mmturn.rewards.looks import executed_calls
from mmturn.types import Trajectory


@dataclass(frozen=True)
class ToolUseConfig:
    """Settings of the tool_use reward."""

    at_least: int = 1
    """Executed calls from which the reward is full."""
    at_most: int | None = None
    """More executed calls than this give nothing."""

    def __post_init__(self) -> None:
        if self.at_least < 1 or (self.at_most is not None and self.at_most < self.at_least):
            raise ConfigError("tool_use needs 1 <= at_least <= at_most")


class ToolUse:
    """1.0 when the environment carried out enough tool calls, else 0.0.

    Counted from recorded observations, never from strings, which a policy can write without looking. Gate it by the
    answer (``gates: {tool_use: [{on: answer, threshold: 0.5}]}``) for DeepEyes' conditional bonus (arXiv 2505.14362,
    eq. 2): paid without the gate, tools are used for nothing.
    """

    Config = ToolUseConfig

    def __init__(self, config: ToolUseConfig | None = None) -> None:
        self.config = config or ToolUseConfig()

    def __call__(self, trajectory: Trajectory) -> float:
        """Grade the use of tools."""
        count = sum(executed_calls(trajectory))
        most = self.config.at_most
        return float(count >= self.config.at_least and (most is None or count <= most))
