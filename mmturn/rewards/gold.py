"""The gold answer graded by the reward: it must score 1.0 for every task."""

from __future__ import annotations

from mmturn.errors import DataError
from mmturn.interfaces import RewardFn
from mmturn.rewards.answer import AnswerReward
from mmturn.types import Action, Observation, StopReason, Task, Trajectory, Turn


def gold_trajectory(task: Task) -> Trajectory:
    """A trajectory of one turn that gives the gold answer at once. Raises DataError for a task without one."""
    if task.answer is None:
        raise DataError(f"task {task.id}: there is no gold answer to grade")
    action = Action("answer", "answer", {"text": task.answer})
    text = f"<answer>{task.answer}</answer>"
    turn = Turn(index=0, observation=Observation((task.question,)), text=text, actions=(action,))
    return Trajectory(
        id=f"{task.id}/gold",
        task=task,
        group=f"{task.id}/gold",
        index=0,
        seed=0,
        turns=(turn,),
        stop=StopReason.ANSWERED,
        answer=task.answer,
    )


def grade_gold(task: Task, reward: RewardFn | None = None) -> float:
    """What the answer reward (or another) gives the gold answer; 1.0 where task and reward agree."""
    value = (reward or AnswerReward())(gold_trajectory(task))
    return float(value) if isinstance(value, (int, float)) else float(sum(value))
