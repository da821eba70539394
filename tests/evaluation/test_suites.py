"""The rule that judges an answer names the extractor that read it."""

from __future__ import annotations

from typing import Any

import pytest

from mmturn.evaluation.suites import AnswerScorer, WorldScorer, scorer_of
from mmturn.tasks.gui.miniwob import miniwob_task
from mmturn.types import Observation, StopReason, Task, Trajectory, Turn


@pytest.mark.parametrize(
    ("answer", "value", "extracted"),
    [
        ("7", 1.0, "7"),
        ("<answer>7.0</answer>", 1.0, "7"),
        ("8", 0.0, "8"),
        ("seventeen cats", 0.0, None),
        (None, 0.0, None),
    ],
)
def test_the_scorer_names_its_extractor(
    make_task: Any, make_trajectory: Any, answer: str | None, value: float, extracted: str | None
) -> None:
    trajectory = make_trajectory(make_task(0), answer, stop=StopReason.TURN_LIMIT)
    score = AnswerScorer()(trajectory)
    assert (score.value, score.answer, score.extractor) == (value, extracted, "mmturn/number-1")
    free = make_trajectory(make_task(0, answer_type="text", answer="red door"), "The red door.")
    assert (AnswerScorer()(free).value, AnswerScorer()(free).extractor) == (1.0, "mmturn/answer-1")


@pytest.mark.parametrize(("score", "value"), [(1.0, 1.0), (0.9, 0.0), (-1.0, 0.0), (None, 0.0)])
def test_the_world_judges_the_tasks_of_the_browser(score: float | None, value: float) -> None:
    task = miniwob_task("click-test", 3)
    turn = Turn(0, Observation(()), "x", facts={} if score is None else {"score": score})
    verdict = scorer_of([task])(Trajectory("t", task, "g", 0, 0, (turn,), StopReason.ANSWERED))
    assert (verdict.value, verdict.extractor) == (value, "mmturn/world-1")
    assert isinstance(scorer_of([task]), WorldScorer) and isinstance(scorer_of([Task("t", "?")]), AnswerScorer)
