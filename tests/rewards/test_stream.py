"""Right answers of a session."""

from __future__ import annotations

from typing import Any

from mmturn.rewards.rubric import RubricConfig, rubric_of
from mmturn.types import Observation, StopReason, Task, Trajectory, Turn


def answered(name: str, answer: str, gold: str | None = "7", of: int = 4, **more: Any) -> dict[str, Any]:
    asked = {"id": name, "text": "?", "choices": [], "gold": gold, "answer_type": "number", "of": of, **more}
    return {"question": asked, "answer": answer}


def test_each_right_answer_earns_its_share_on_its_turn() -> None:
    facts: list[dict[str, Any]] = [
        {}, answered("a", "7.0"), {"caption": {"span": [0, 1], "text": "7"}}, answered("b", "8"),
        answered("c", "B", "B", choices=["x", "y"], answer_type="choice"), answered("d", "7", None),
    ]  # fmt: skip
    turns = tuple(Turn(k, Observation(("?",)), "", facts=fact) for k, fact in enumerate(facts))
    trajectory = Trajectory("t", Task("t", "?", video="v.mp4"), "t", 0, 0, turns, StopReason.ANSWERED, "7")
    reward = rubric_of(RubricConfig({"stream_answers": 2.0}))(trajectory)
    assert reward.turns == (0.0, 0.5, 0.0, 0.0, 0.5, 0.0) and reward.total == 1.0
