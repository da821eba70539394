"""Rewards that read which frames of a video were shown."""

from __future__ import annotations

from typing import Any

import pytest

from mmturn.errors import ConfigError
from mmturn.geometry import Span, temporal_iou, united
from mmturn.rewards.frames import (
    FrameSaving,
    FrameSavingConfig,
    GoldFrame,
    GoldFrameConfig,
    SpanIou,
    SpanIouConfig,
    frame_iou,
)
from mmturn.rewards.framethinker import FrameThinkerReward, FrameThinkerRewardConfig
from mmturn.types import Action, Observation, StopReason, Task, Trajectory, Turn

TASK = Task("t", "Which?", answer="B", choices=("x", "y"), answer_type="choice", video="/v.mp4", spans=(Span(4, 8),))
SECONDS = [float(second) for second in range(16)]


def trajectory(*turns: dict[str, Any], task: Task = TASK, answer: str | None = "B", pool: bool = True) -> Trajectory:
    """One turn per mapping: ``frames`` shown by it, ``spans``, ``text``, ``action``, ...; then the answer."""
    made = []
    for k, given in enumerate(turns):
        facts = {key: value for key, value in given.items() if key not in ("text", "action", "error", "thought")}
        facts["frames"] = [[number, float(number)] for number in given.get("frames", ())]
        if k == 0:
            facts |= {"opening": [[0, 0.0], [5, 5.0], [10, 10.0], [15, 15.0]], "video": {"frames": 16, "seconds": 16.0}}
            if pool:
                facts["video"]["pool_seconds"] = SECONDS
        action = given.get("action", Action("tool", "retrieve", {"start": 0, "end": 1}))
        made.append(
            Turn(
                k, Observation(("x",)), given.get("text", ""), actions=(action,), error=given.get("error"), facts=facts
            )
        )
    if answer is not None:
        text = f"<think>so</think><action>output answer: {answer}</action>"
        made.append(Turn(len(made), Observation(("x",)), text, actions=(Action("answer", "answer", {"text": answer}),)))
    stop = StopReason.ANSWERED if answer is not None else StopReason.TURN_LIMIT
    return Trajectory("x", task, "g", 0, 0, tuple(made), stop, answer)


def test_spans() -> None:
    assert united([Span(3, 5), Span(0, 1), Span(4, 9), Span(7, 7)]) == [Span(0, 1), Span(3, 9)]
    assert temporal_iou([Span(0, 4)], [Span(2, 6)]) == pytest.approx(2 / 6)
    assert temporal_iou([Span(0, 4), Span(2, 6)], [Span(0, 6)]) == 1
    assert temporal_iou([], []) == 0
    assert Span(5, 3).duration_s == 0
    assert Span(3, 5).contains(3)
    assert not Span(3, 5).contains(5)


def test_frame_iou_is_that_of_what_a_turn_was_shown() -> None:
    found = frame_iou(trajectory({"frames": [4, 5, 6, 7]}, {"frames": [7, 8]}))
    # opening 0 5 10 15 beside gold 4 5 6 7: one common, seven in all; then all of them; then 7 of 4 5 6 7 8
    assert found == pytest.approx([1 / 7, 1.0, 1 / 5])


def test_frame_iou_keeps_its_level_through_a_turn_without_frames() -> None:
    assert frame_iou(trajectory({"frames": []}, {"frames": [4]})) == pytest.approx([1 / 7, 1 / 7, 1 / 4])


def test_frame_iou_without_a_pool_is_the_share_of_gold_frames() -> None:
    assert frame_iou(trajectory({"frames": [4, 5, 9, 10]}, pool=False)) == pytest.approx([1 / 4, 1 / 2])


def test_frame_iou_of_empty_sets_and_of_tasks_without_spans() -> None:
    outside = Task("t", "?", answer="B", spans=(Span(100, 101),), video="/v.mp4")
    assert frame_iou(trajectory({"frames": [4]}, task=outside)) == [0.0, 0.0]
    assert frame_iou(trajectory({"frames": [4]}, task=Task("t", "?", answer="B"))) == [0.0, 0.0]
    assert frame_iou(trajectory()) == [0.0]


def test_span_iou() -> None:
    both = trajectory({"spans": [[4, 6]]}, {"spans": [[4, 8]]}, {"spans": [[0, 4]]})
    assert SpanIou()(both) == 1
    assert SpanIou(SpanIouConfig("last"))(both) == 0
    assert SpanIou(SpanIouConfig("turns"))(both) == [0.5, 1, 0, 0]
    assert SpanIou()(trajectory({})) == 0
    assert SpanIou()(trajectory({"spans": [[4, 8]]}, task=Task("t", "?"))) == 0


def test_gold_frame_pays_the_call_that_fetched_it() -> None:
    task = Task("t", "?", answer="B", video="/v", spans=(Span(4, 6), Span(12, 13)))
    seen = trajectory({"frames": [1]}, {"frames": [12]}, task=task)
    assert GoldFrame()(seen) == 1.0  # the opening shows second 5
    assert GoldFrame(GoldFrameConfig(opening=False))(seen) == 0.5
    assert GoldFrame(GoldFrameConfig(per_turn=True))(seen) == [0.5, 0.5, 0.0]
    assert GoldFrame()(trajectory(task=Task("t", "?"))) == 0.0


def test_what_was_discarded_was_not_seen() -> None:
    seen = trajectory({"frames": [4]}, pool=False)
    turns = (seen.turns[0], Turn(1, Observation(("x",)), "", unseen=Observation(("gone",))))
    hidden = Trajectory("x", TASK, "g", 0, 0, turns, StopReason.TURN_LIMIT)
    assert frame_iou(seen)[1] == 1.0
    assert frame_iou(hidden)[1] == frame_iou(hidden)[0]


def test_frame_saving_counts_every_frame_shown() -> None:
    seen = trajectory({"frames": [4, 5, 6, 7]})
    assert FrameSaving(FrameSavingConfig(most=16))(seen) == 0.5
    assert FrameSaving(FrameSavingConfig(most=16, free=8))(seen) == 1.0
    assert FrameSaving(FrameSavingConfig(most=4, free=2))(seen) == 0.0
    with pytest.raises(ConfigError, match="free"):
        FrameSavingConfig(most=4, free=4)


def choose(start: int, end: int, thought: str | None = None) -> dict[str, Any]:
    words = f"frames {start} to {end}" if thought is None else thought
    text = f"<think>{words}</think><action>choose frames between {start} and {end}</action>"
    return {
        "text": text,
        "action": Action("tool", "choose_frames", {"start": start, "end": end}),
        "frames": [start + 1],
    }


def at(time: str, number: int) -> dict[str, Any]:
    text = f"<think>at {time}</think><action>get frame number at time {time}</action>"
    return {"text": text, "action": Action("tool", "frame_number", {"time": time}), "frame_number": number}


TIMED = Task("t", "What happens at 0:05?", answer="B", choices=("x", "y"), answer_type="choice", video="/v.mp4")


@pytest.mark.parametrize(
    ("turns", "task", "value"),
    [
        ([], TASK, 1.0),
        ([choose(2, 12)], TASK, 1.02),
        ([at("0:05", 5), choose(2, 12)], TIMED, 1.52),
        ([at("0:05", 5), choose(2, 12)], TASK, 1.02),
        ([choose(2, 12), choose(2, 12)], TASK, 0.0),  # the same pair
        ([choose(2, 12), choose(3, 11)], TASK, 0.0),  # one step inside it
        ([choose(2, 12), choose(4, 10)], TASK, 1.02),
        ([choose(0, 15)], TASK, 0.0),  # the whole video
        ([choose(2, 12, "somewhere")], TASK, 0.0),
        ([choose(2, 12, "from 12 to 2")], TASK, 0.0),
        ([choose(2, 12, "7 then 2 and 12 at 0:05")], TASK, 1.02),  # what touches a colon is a time
        ([choose(2, 12, "2 and 12, that is 3 of them")], TASK, 0.0),  # a number too many
        ([at("0:05", 5), choose(6, 12)], TIMED, 0.0),  # leaves out the frame it was told
        ([at("0:05", 5), at("0:06", 6), choose(6, 12)], TIMED, 1.52),  # unchecked behind another time query
        ([at("0:05", 5), choose(2, 12), at("0:05", 5), choose(3, 12)], TIMED, 0.0),
        ([at("0:05", 5)], TIMED, 0.0),  # never used
        ([choose(2, 12) | {"error": "no room"}], TASK, 0.0),
    ],
)
def test_framethinker(turns: list[dict[str, Any]], task: Task, value: float) -> None:
    assert FrameThinkerReward()(trajectory(*turns, task=task)) == pytest.approx(value)
    assert FrameThinkerReward()(trajectory(*turns, task=task, answer="A")) == 0.0
    assert FrameThinkerReward()(trajectory(*turns, task=task, answer=None)) == 0.0


def test_framethinker_without_its_gate() -> None:
    free = FrameThinkerReward(FrameThinkerRewardConfig(consistency=False, choose_bonus=0.1))
    assert free(trajectory(choose(2, 12, "somewhere"))) == pytest.approx(1.1)
