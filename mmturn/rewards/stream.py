"""Whether the questions of a stream are answered right."""

from __future__ import annotations

from collections.abc import Sequence

from mmturn.grading import match
from mmturn.types import Task, Trajectory


def stream_answers(trajectory: Trajectory) -> Sequence[float]:
    """[K] for the turn that answers a question of a session right its share of them, else 0.0: at best 1.0 in all.

    Reads the facts ``question`` and ``answer`` of the environment ``video_stream``.
    """
    worth = [0.0] * trajectory.num_turns
    for k, turn in enumerate(trajectory.turns):
        asked = turn.facts.get("question")
        if asked is None:
            continue
        question = Task(
            asked["id"], asked["text"], answer=asked["gold"], choices=tuple(asked["choices"]),
            answer_type=asked["answer_type"],
        )  # fmt: skip
        worth[k] = float(match(turn.facts["answer"], question)) / asked["of"]
    return worth
