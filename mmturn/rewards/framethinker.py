"""FrameThinker's reward: right answers alone, a bonus for the actions behind them, and nothing for a thought that
does not say what the action does.

Source: FrameThinker (2509.24304), repository verl/utils/reward_score/think_with_video_reward.py. The paper prints
R_acc + R_action with R_action only where the answer is right.
Differs: answers are compared as everywhere here, not by their first token; a stretch that the environment refused
counts as a violation, whatever the reason. A time query may follow another unchecked, as in the code.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from mmturn.rewards.answer import AnswerReward
from mmturn.rewards.seen import video_of
from mmturn.types import Action, Trajectory, Turn

_CLOCK = re.compile(r"\d+:\d+(?::\d+)?")
_NUMBER = re.compile(r"(?<![\d:.])\d+(?![\d:]|\.\d)")


@dataclass(frozen=True)
class FrameThinkerRewardConfig:
    """Settings of the framethinker reward."""

    choose: str = "choose_frames"
    """Name of the tool that shows a stretch."""
    number: str = "frame_number"
    """Name of the tool that tells a frame's number."""
    number_bonus: float = 0.5
    """For a right answer behind a time query, where the question names a time. A third-party note says 0.2."""
    choose_bonus: float = 0.02
    """For a right answer behind a chosen stretch. A third-party note says 0."""
    consistency: bool = True
    """Whether a violation of the consistency of thoughts and actions takes all (the paper's verification gate)."""


class FrameThinkerReward:
    """1 for a right answer, with bonuses for its actions; 0 for a wrong one, or where a thought contradicts."""

    Config = FrameThinkerRewardConfig

    def __init__(self, config: FrameThinkerRewardConfig | None = None) -> None:
        self.config = config or FrameThinkerRewardConfig()
        self._answer = AnswerReward()

    def __call__(self, trajectory: Trajectory) -> float:
        """Grade the trajectory."""
        config = self.config
        if not self._answer(trajectory) or (config.consistency and violation(trajectory, config) is not None):
            return 0.0
        actions = [(turn, action) for turn in trajectory.turns for action in turn.actions]
        chose = any(action.name == config.choose for _, action in actions)
        told = any(a.name == config.number and turn.facts.get("frame_number", 0) > 0 for turn, a in actions)
        asked_for_time = _CLOCK.search(trajectory.task.question) is not None
        return 1.0 + config.number_bonus * (told and asked_for_time) + config.choose_bonus * chose


def violation(trajectory: Trajectory, config: FrameThinkerRewardConfig) -> str | None:
    """The first thing in which thoughts and actions of a trajectory disagree, in words; None: they agree."""
    turns = trajectory.turns
    if not turns or len(turns[-1].actions) != 1 or turns[-1].actions[0].kind != "answer":
        return "the last action is no answer"
    for tag in ("think", "action"):
        if any(turn.text.count(f"<{tag}>") != 1 for turn in turns):
            return f"a turn does not have one <{tag}>"
    chosen: list[tuple[Any, Any]] = []
    times: list[Any] = []
    total = video_of(trajectory).get("frames")
    for turn, follower in pairwise(turns):
        if turn.error is not None or len(turn.actions) != 1:
            return f"turn {turn.index} has no action that could be carried out"
        action = turn.actions[0]
        if action.name == config.choose:
            fault = _chosen_fault(turn, action, chosen, total)
            chosen.append((action.arguments.get("start"), action.arguments.get("end")))
        elif action.name == config.number:
            fault = _time_fault(turn, action, follower, times, config)
            times.append(action.arguments.get("time"))
        else:
            fault = "does neither choose frames nor ask for a time"
        if fault is not None:
            return f"turn {turn.index} {fault}"
    return None


def _chosen_fault(turn: Turn, action: Action, earlier: list[tuple[Any, Any]], total: Any) -> str | None:
    start, end = action.arguments.get("start"), action.arguments.get("end")
    if (start, end) in earlier or any((start, end) == (a + 1, b - 1) for a, b in earlier):
        return "chooses a stretch again"
    if total is not None and (start, end) == (0, total - 1):
        return "chooses the whole video"
    thought = turn.text.partition("<think>")[2].partition("</think>")[0]
    numbers = [int(number) for number in _NUMBER.findall(thought)]
    if numbers[-2:] != [start, end]:
        return "does not end its thought with the numbers that it chooses"
    return None


def _time_fault(
    turn: Turn, action: Action, follower: Turn, earlier: list[Any], config: FrameThinkerRewardConfig
) -> str | None:
    time, number = action.arguments.get("time"), turn.facts.get("frame_number")
    if time in earlier:
        return "asks for a time again"
    if not isinstance(number, int):
        return "was not told a number"
    then = follower.actions[0] if follower.actions else None
    if then is None or then.kind == "answer":
        return "asks for a time and does not use it"
    if then.name == config.choose and not then.arguments.get("start", 0) <= number <= then.arguments.get("end", -1):
        return "asks for a time and chooses frames elsewhere"
    return None
