"""Whether the answer is right."""

from __future__ import annotations

from dataclasses import dataclass

from mmturn.errors import ConfigError
from mmturn.grading import match
from mmturn.types import Trajectory


@dataclass(frozen=True)
class AnswerConfig:
    """Settings of the answer reward."""

    rel_tol: float = 1e-9
    """Relative tolerance for numbers."""
    abs_tol: float = 1e-9
    """Absolute tolerance for numbers."""
    max_chars: int = 1000
    """A longer answer scores 0: it is an essay, in which the right word may well occur."""

    def __post_init__(self) -> None:
        if not (self.rel_tol >= 0 and self.abs_tol >= 0):
            raise ConfigError("rel_tol and abs_tol must be at least 0")


class AnswerReward:
    """1.0 for the gold answer, else 0.0: exact, multiple choice or numeric, by the task's ``answer_type``.

    0.0 for no answer, an empty one, and a task without a gold answer. Source: the length limit is DeepEyes'
    (arXiv 2505.14362, released code).
    """

    Config = AnswerConfig

    def __init__(self, config: AnswerConfig | None = None) -> None:
        self.config = config or AnswerConfig()

    def __call__(self, trajectory: Trajectory) -> float:
        """Grade the trajectory's answer."""
        answer, config = trajectory.answer, self.config
        if answer is None or len(answer) > config.max_chars:
            return 0.0
        return float(match(answer, trajectory.task, config.rel_tol, config.abs_tol))
