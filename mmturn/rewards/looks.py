"""What a trajectory records of its looks: executed calls and the regions they showed."""

from __future__ import annotations

from dataclasses import dataclass

from mmturn.geometry import Box
from mmturn.types import Trajectory


@dataclass(frozen=True, slots=True)
class Look:
    """A region of the task's first image that a turn's tool call showed."""

    turn: int
    box: Box
    """Pixels of the first image."""


def looks_of(trajectory: Trajectory) -> list[Look]:
    """Regions of the first image in the order they were shown, from the facts that the environment left. What was
    discarded before the policy saw it is no look."""
    found: list[Look] = []
    discarded = {k - 1 for k, turn in enumerate(trajectory.turns) if turn.unseen is not None}
    for k, turn in enumerate(trajectory.turns):
        if turn.error is not None or k in discarded:
            continue
        crops = turn.facts.get("crops")
        if crops is None:
            crops = [{"box": turn.facts["crop"], "image": 0}] if "crop" in turn.facts else []
        found.extend(Look(turn.index, Box(*crop["box"])) for crop in crops if crop["image"] == 0)
    return found


def executed_calls(trajectory: Trajectory) -> list[int]:
    """[K] tool calls that the environment carried out in each turn.

    Counted from what the environment recorded or showed, never from the text: a call that was refused, or that came
    after the episode's end, does not count.
    """
    counts = []
    for k, turn in enumerate(trajectory.turns):
        calls = sum(action.kind == "tool" for action in turn.actions)
        if turn.error is not None or not calls:
            counts.append(0)
        elif "tools" in turn.facts:
            counts.append(len(turn.facts["tools"]))
        else:
            answered = k + 1 < len(trajectory.turns) and not trajectory.turns[k + 1].observation.is_error
            counts.append(calls if answered or "crop" in turn.facts else 0)
    return counts


def tool_calls(trajectory: Trajectory) -> list[float]:
    """[K] how many tool calls of each turn the environment carried out: a number to build on, seldom a reward."""
    return [float(count) for count in executed_calls(trajectory)]
