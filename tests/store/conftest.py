"""A small trajectory with something in every field."""

from __future__ import annotations

import pytest

from mmturn.geometry import Box, Size, Transform
from mmturn.types import (
    Action,
    ImageRef,
    Observation,
    Reward,
    StopReason,
    Task,
    Trajectory,
    Turn,
    View,
)


def make_trajectory(name: str = "t0") -> Trajectory:
    """Two turns: a crop, then an answer."""
    source = ImageRef("ab" * 32, Size(2048, 1536))
    whole = View(source, Transform.region(Box(0, 0, 2048, 1536), Size(224, 168)), Size(224, 168))
    crop = View(source, Transform.region(Box(100, 200.5, 356, 456.5), Size(112, 112)), Size(112, 112))
    task = Task(
        id="scene-1/q0",
        question='Which number is on the red door? <b>"now"</b>',
        images=("scene.png",),
        answer="B",
        choices=("4", "7"),
        answer_type="choice",
        boxes=(Box(150, 250, 200, 300),),
        meta={"level": 2, "scene": 17, "nested": {"list": [1, 2.5, None, True, "x"]}},
    )
    first = Turn(
        index=0,
        observation=Observation((whole, "Which number?\nA. 4\nB. 7")),
        text='<think>look</think><tool_call>{"name": "crop", "arguments": {"bbox_2d": [11, 22, 39, 50]}}</tool_call>',
        token_ids=(1, 2, 2, 3, 9, 8, 7, 4),
        provenance="tiiossst",
        logprobs=(-0.25, -1e-7, -3.5),
        context_views=(whole,),
        actions=(Action("tool", "crop", {"bbox_2d": [100.0, 200.5, 356.0, 456.5]}, 0),),
        facts={"crop": [100.0, 200.5, 356.0, 456.5]},
        seconds={"decode": 0.125},
    )
    second = Turn(
        index=1,
        observation=Observation(("<tool_response>", crop, "</tool_response>"), is_error=False),
        text="<answer>B</answer> \ud800",
        token_ids=(5, 2, 6, 4),
        provenance="tist",
        logprobs=(-0.5,),
        fresh_context=False,
        actions=(Action("answer", "answer", {"text": "B"}),),
        error="\u202eno such tool",
        finish="length",
        policy_version=3,
    )
    return Trajectory(
        id=name,
        task=task,
        group="g0",
        index=1,
        seed=2**63 + 5,
        turns=(first, second),
        stop=StopReason.ANSWERED,
        answer="B",
        facts={"limit": None},
        reward=Reward(1.25, 1.0, (0.25, 0.0), {"answer": 1.0, "format": 0.5}),
        advantages=(0.7, -0.1),
        meta={"engine": "scripted", "temperature": 1.0},
    )


@pytest.fixture
def tiny_trajectory() -> Trajectory:
    """One trajectory with something in every field."""
    return make_trajectory()
