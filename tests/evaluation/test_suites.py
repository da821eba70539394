"""The rule that judges an answer names the extractor that read it."""

from __future__ import annotations

from typing import Any

import pytest

from mmturn.evaluation.suites import AnswerScorer
from mmturn.types import StopReason


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
