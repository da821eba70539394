"""Whether attempts are right, and verdicts on them true."""

from __future__ import annotations

from dataclasses import replace

from mmturn.rewards.answer import AnswerConfig, AnswerReward
from mmturn.types import Trajectory


class SelfCheckReward:
    """Per turn, of the facts of ``envs.self_check``: 1.0 for an attempt that is the gold answer and for a verdict that
    is true of the attempt before it, else 0.0. An attempt is graded as the reward ``answer`` grades.

    Source: PAG (2506.10406), rewards of both roles in {0, 1}.
    """

    Config = AnswerConfig

    def __init__(self, config: AnswerConfig | None = None) -> None:
        self._answer = AnswerReward(config)

    def __call__(self, trajectory: Trajectory) -> list[float]:
        """Grade each turn."""
        earned, right = [], 0.0
        for turn in trajectory.turns:
            verdict = turn.facts.get("verdict")
            if "attempt" in turn.facts:
                right = self._answer(replace(trajectory, answer=turn.facts["attempt"]))
                earned.append(right)
            else:
                earned.append(0.0 if verdict is None else float((verdict == "right") == bool(right)))
        return earned
