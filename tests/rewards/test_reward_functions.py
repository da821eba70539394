"""The reward functions, on trajectories made by hand."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from mmturn.errors import ConfigError, DataError
from mmturn.geometry import Box
from mmturn.gui_actions import finish
from mmturn.interfaces import RewardFn
from mmturn.rewards.answer import AnswerConfig, AnswerReward
from mmturn.rewards.format import FormatConfig, FormatReward
from mmturn.rewards.gold import gold_trajectory, grade_gold
from mmturn.rewards.grounding import GoldInCrop, GoldInCropConfig, GroundingConfig, GroundingIou, PointInBox, look_iou
from mmturn.rewards.looks import executed_calls, looks_of
from mmturn.rewards.tool_use import ToolUse, ToolUseConfig
from mmturn.types import StopReason, Task, Trajectory

Make = Callable[..., Trajectory]
ON_FIRST = [100, 100, 200, 200]
ON_SECOND = [600, 600, 700, 700]
ASIDE = [300, 300, 400, 400]
WHOLE = [0, 0, 1000, 1000]
ALL: list[RewardFn] = [
    AnswerReward(),
    FormatReward(),
    FormatReward(FormatConfig("strict")),
    GroundingIou(),
    PointInBox(),
    GoldInCrop(),
    ToolUse(),
    GroundingIou(GroundingConfig("last")),
]
PER_TURN: list[RewardFn] = [
    FormatReward(FormatConfig(per_turn=True)),
    GroundingIou(GroundingConfig(per_turn=True)),
    PointInBox(GroundingConfig(per_turn=True)),
    GoldInCrop(GoldInCropConfig(per_turn=True)),
]


def test_failed_and_empty_trajectories_score_zero(failed: Trajectory) -> None:
    assert [reward(failed) for reward in ALL] == [0.0] * len(ALL)
    assert [reward(failed) for reward in PER_TURN] == [[]] * len(PER_TURN)


def test_answer(make: Make) -> None:
    reward = AnswerReward()
    assert reward(make(answer="B")) == 1.0
    assert reward(make(answer="cat")) == 1.0
    assert reward(make(answer="A")) == 0.0
    assert reward(make(answer="")) == 0.0
    assert reward(make(answer=None)) == 0.0
    number = Task("t", "?", answer="100", answer_type="number")
    assert reward(make(answer="101", task=number)) == 0.0
    assert AnswerReward(AnswerConfig(rel_tol=0.02))(make(answer="101", task=number)) == 1.0
    assert reward(make(answer="x", task=Task("t", "?"))) == 0.0


def test_long_answers_score_nothing(make: Make) -> None:
    padded = "B. " + "cat " * 400
    assert AnswerReward(AnswerConfig(max_chars=10_000))(make(answer=padded)) == 1.0
    assert AnswerReward()(make(answer=padded)) == 0.0


def test_format(make: Make) -> None:
    assert FormatReward()(make(ON_FIRST)) == 1.0
    assert FormatReward()(make(None, ON_FIRST, None)) == 0.5
    assert FormatReward()(make(None, answer=None)) == 0.0
    per_turn = FormatReward(FormatConfig(per_turn=True))
    assert per_turn(make(None, ON_FIRST, None)) == [0.0, 0.25, 0.0, 0.25]
    cut = make(ON_FIRST)
    cut = dataclasses.replace(cut, turns=(dataclasses.replace(cut.turns[0], finish="length"), cut.turns[1]))
    assert FormatReward()(cut) == 0.5


def test_what_a_dialect_takes_for_the_end_has_no_format(make: Make) -> None:
    """UI-TARS's agent takes a reply that cannot be read for DONE; that is no reason to pay for it."""
    whole = make(ON_FIRST)
    for action, paid in ((finish(), 1.0), (finish(invalid="there is no `Action:`"), 0.5)):
        ended = dataclasses.replace(whole.turns[1], actions=(action,))
        assert FormatReward()(dataclasses.replace(whole, turns=(whole.turns[0], ended))) == paid


def test_strict_format_wants_an_answer_and_no_bad_turn(make: Make) -> None:
    strict = FormatReward(FormatConfig("strict"))
    assert strict(make(ON_FIRST)) == 1.0
    assert strict(make(None, ON_FIRST)) == 0.0
    assert strict(make(ON_FIRST, answer=None)) == 0.0


def test_looks_come_from_facts_about_the_first_image(make: Make) -> None:
    trajectory = make(ON_FIRST, None, ASIDE)
    assert [(look.turn, look.box) for look in looks_of(trajectory)] == [(0, Box(*ON_FIRST)), (2, Box(*ASIDE))]
    turn = dataclasses.replace(
        trajectory.turns[0], facts={"crops": [{"box": ON_FIRST, "image": 1}, {"box": ASIDE, "image": None}]}
    )
    assert looks_of(dataclasses.replace(trajectory, turns=(turn,))) == []
    # an environment that reports the least that the types' page asks for
    turn = dataclasses.replace(turn, facts={"crop": ON_FIRST})
    assert looks_of(dataclasses.replace(trajectory, turns=(turn,)))[0].box == Box(*ON_FIRST)
    # what was shown but in no context is no look
    unseen = dataclasses.replace(trajectory.turns[1], unseen=trajectory.turns[1].observation)
    turns = (trajectory.turns[0], unseen, *trajectory.turns[2:])
    assert [look.turn for look in looks_of(dataclasses.replace(trajectory, turns=turns))] == [2]


def test_grounding_iou(make: Make) -> None:
    assert GroundingIou()(make(ON_FIRST)) == 0.5
    assert GroundingIou()(make(ON_FIRST, ON_SECOND)) == 1.0
    assert GroundingIou()(make(ASIDE)) == 0.0
    assert GroundingIou()(make([100, 100, 200, 150])) == 0.25
    assert GroundingIou()(make(ON_FIRST, ASIDE)) == 0.5
    assert GroundingIou(GroundingConfig("last"))(make(ON_FIRST, ASIDE)) == 0.0
    assert GroundingIou(GroundingConfig("last"))(make(ASIDE, ON_FIRST)) == 0.5
    assert GroundingIou()(make(ON_FIRST, task=Task("t", "?", answer="B"))) == 0.0
    per_turn = GroundingIou(GroundingConfig(per_turn=True))
    assert per_turn(make([100, 100, 200, 150], ON_FIRST, ASIDE)) == [0.25, 0.25, 0.0, 0.0]
    with pytest.raises(ConfigError, match="which: best"):
        GroundingConfig("last", per_turn=True)


def test_point_in_box(make: Make) -> None:
    assert PointInBox()(make([0, 0, 300, 300])) == 0.5
    assert PointInBox()(make([0, 0, 400, 400])) == 0.0  # its centre lies on the far edge, which is outside
    assert PointInBox(GroundingConfig("last"))(make(ON_FIRST, ASIDE)) == 0.0


def test_gold_in_crop_in_order(make: Make) -> None:
    look = GoldInCrop()
    around_first, around_second = [50, 50, 250, 250], [500, 500, 800, 800]
    assert look(make(around_first)) == 0.5
    assert look(make(around_first, around_second)) == 1.0
    assert look(make(around_second, around_first)) == 0.5
    assert GoldInCrop(GoldInCropConfig(order="any"))(make(around_second, around_first)) == 1.0
    assert look(make(around_second, around_first, around_second)) == 1.0
    assert look(make(around_second)) == 0.5
    assert look(make([101, 100, 200, 200])) == 0.0
    assert GoldInCrop(GoldInCropConfig(tolerance_px=1))(make([101, 100, 200, 200])) == 0.5
    per_turn = GoldInCrop(GoldInCropConfig(per_turn=True))
    assert per_turn(make(ASIDE, around_first, around_first, around_second)) == [0, 0.5, 0, 0.5, 0]


def test_a_crop_of_the_whole_image_is_no_look(make: Make) -> None:
    assert GoldInCrop()(make(WHOLE)) == 1.0
    assert GoldInCrop(GoldInCropConfig(max_share=0.5))(make(WHOLE)) == 0.0
    assert GoldInCrop(GoldInCropConfig(max_share=0.5))(make(WHOLE, [50, 50, 250, 250])) == 0.5


def test_tool_use_counts_what_was_carried_out(make: Make) -> None:
    assert ToolUse()(make(ON_FIRST)) == 1.0
    assert ToolUse()(make(None)) == 0.0
    assert ToolUse()(make()) == 0.0
    assert ToolUse(ToolUseConfig(at_least=2))(make(ON_FIRST)) == 0.0
    assert ToolUse(ToolUseConfig(at_most=1))(make(ON_FIRST, ASIDE)) == 0.0
    with pytest.raises(ConfigError, match="at_least"):
        ToolUseConfig(at_least=2, at_most=1)


def test_a_call_that_was_only_written_does_not_count(make: Make) -> None:
    written = make(answer="<tool_call>{}</tool_call><|vision_start|>B")
    assert executed_calls(written) == [0]
    # nothing is known of the call's execution, and no observation came after it
    cut = make(ON_FIRST, answer=None)
    cut = dataclasses.replace(cut, turns=(dataclasses.replace(cut.turns[0], facts={}),))
    assert executed_calls(cut) == [0]
    # an environment that reports no facts, but showed something
    shown = make(ON_FIRST)
    shown = dataclasses.replace(shown, turns=(dataclasses.replace(shown.turns[0], facts={}), shown.turns[1]))
    assert executed_calls(shown) == [1, 0]


@pytest.mark.parametrize(
    "task",
    [
        Task("t", "?", answer="B", choices=("dog", "cat"), answer_type="choice"),
        Task("t", "?", answer="A", choices=("B", "A"), answer_type="choice"),
        Task("t", "?", answer="A", choices=("same", "same"), answer_type="choice"),
        Task("t", "?", answer="45%", answer_type="number"),
        Task("t", "?", answer="1,234.5", answer_type="number"),
        Task("t", "?", answer="Red Door."),
        Task("t", "?", answer="*"),
        Task("t", "?", answer="\\boxed{3"),
    ],
)
def test_the_gold_answer_scores_one(task: Task) -> None:
    assert grade_gold(task) == 1.0
    assert grade_gold(task, FormatReward(FormatConfig(per_turn=True))) == 1.0
    assert gold_trajectory(task).stop is StopReason.ANSWERED


def test_a_task_without_gold_answer_cannot_be_graded() -> None:
    with pytest.raises(DataError, match="task t7"):
        grade_gold(Task("t7", "?"))


def test_settings_are_checked() -> None:
    with pytest.raises(ConfigError, match="tol"):
        AnswerConfig(rel_tol=-1)
    with pytest.raises(ConfigError, match="max_share"):
        GoldInCropConfig(max_share=0)


def test_look_iou_says_how_good_each_look_is_by_itself(make: Make) -> None:
    assert look_iou(make(ON_FIRST, ASIDE, [100, 100, 200, 150])) == [0.5, 0.0, 0.25, 0.0]
    assert look_iou(make(None, ON_SECOND)) == [0.0, 0.5, 0.0]
    assert look_iou(make(ON_FIRST, task=Task("t", "?", answer="B"))) == [0.0, 0.0]
