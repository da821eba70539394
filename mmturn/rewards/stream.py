"""Whether the questions of a stream are answered right."""

from __future__ import annotations

from collections.abc import Sequence

from mmturn.grading import match
from mmturn.tasks.streams.questions import questions_of
from mmturn.types import Trajectory


def stream_answers(trajectory: Trajectory) -> Sequence[float]:
    """[K] for the turn that answers a question of the session right its share of them, else 0.0: at best 1.0 in all.

    Answers are those of the environment ``video_stream``. Raises DataError for a session that cannot be read.
    """
    questions = {asked.task.id: asked.task for asked in questions_of(trajectory.task)}
    worth = [0.0] * trajectory.num_turns
    for k, turn in enumerate(trajectory.turns):
        asked = turn.facts.get("question")
        if asked is not None and match(turn.facts.get("answer"), questions[asked["id"]]):
            worth[k] = 1.0 / len(questions)
    return worth
