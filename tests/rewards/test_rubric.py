"""Weights, gates, and rewards of one's own."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmturn.errors import ConfigError, DataError
from mmturn.interfaces import RewardFn
from mmturn.rewards.rubric import GateConfig, RubricConfig, WeightedRubric, rubric_of
from mmturn.schema import build
from mmturn.types import Observation, StopReason, Task, Trajectory, Turn

Make = Callable[..., Trajectory]
ON_FIRST = [100, 100, 200, 200]


TURNS = tuple(Turn(k, Observation(("?",)), "x") for k in range(2))
TWO_TURNS = Trajectory("x", Task("t", "?"), "g", 0, 0, TURNS, StopReason.TURN_LIMIT)


def fixed(value: Any) -> RewardFn:
    return lambda trajectory: value


def rubric(terms: dict[str, float], values: dict[str, Any], **gates: Any) -> WeightedRubric:
    config = build(RubricConfig, {"terms": terms, "gates": gates})
    return WeightedRubric(config, {name: fixed(value) for name, value in values.items()})


def test_weights_and_turns(make: Make) -> None:
    trajectory = make(ON_FIRST)
    reward = rubric({"a": 2.0, "b": 0.5, "c": 0.0}, {"a": 1.0, "b": [1, 3], "c": 7})(trajectory)
    assert (reward.outcome, reward.turns, reward.total) == (2.0, (0.5, 1.5), 4.0)
    assert reward.components == {"a": 1.0, "b": 4.0, "c": 7.0}


def test_strict_and_non_strict_gates(make: Make) -> None:
    def total(threshold: float, passes: str) -> float:
        gate = [{"on": "a", "threshold": threshold, "passes": passes}]
        return rubric({"a": 1.0, "b": 10.0}, {"a": 0.5, "b": 1.0}, b=gate)(make()).total

    assert total(0.4, "above") == total(0.4, "at_least") == 10.5
    assert total(0.5, "above") == 0.5
    assert total(0.5, "at_least") == 10.5
    assert total(0.6, "at_least") == 0.5


def test_gates_see_raw_values_and_all_must_pass(make: Make) -> None:
    gates = {"b": [{"on": "a"}], "c": [{"on": "a"}, {"on": "b"}]}
    values = {"a": 0.0, "b": [1.0, 1.0], "c": 1.0}
    reward = rubric({"a": 0.0, "b": 1.0, "c": 1.0}, values, **gates)(make(ON_FIRST))
    assert (reward.total, reward.components) == (0.0, {"a": 0.0, "b": 2.0, "c": 1.0})
    values["a"] = 0.5
    reward = rubric({"a": 0.0, "b": 1.0, "c": 1.0}, values, **gates)(make(ON_FIRST))
    assert reward.total == 3.0


def test_contributions_add_up_to_the_reward(make: Make) -> None:
    shut = [{"on": "c", "threshold": 9.0}]
    terms = {"a": 2.0, "b": 0.5, "c": 0.0, "d": 1.0, "e": 1.0}
    grade = rubric(terms, {"a": 1.0, "b": [1, 3], "c": 7, "d": 5.0, "e": [1, 1]}, d=shut, e=shut)
    reward = grade(make(ON_FIRST))
    found = grade.contributions(reward.components, reward.per_turn)
    assert found == {"a": 2.0, "b": (0.5, 1.5), "c": 0.0, "d": 0.0, "e": (0.0, 0.0)}
    assert (reward.outcome, reward.turns) == (2.0, (0.5, 1.5))


DEEPEYES = RubricConfig(
    terms={"answer": 0.8, "format": 0.2, "tool_use": 1.2},
    gates={"tool_use": (GateConfig("answer", 0.5),)},
    settings={"format": {"rule": "strict"}},
)


def test_deepeyes_like_conditional_bonus(make: Make) -> None:
    """Weights of DeepEyes' released code; its format term is 0 or -1, ours 1 or 0."""
    grade = rubric_of(DEEPEYES)
    assert grade(make(ON_FIRST)).total == pytest.approx(0.8 + 0.2 + 1.2)
    assert grade(make()).total == pytest.approx(0.8 + 0.2)
    assert grade(make(ON_FIRST, answer="A")).total == pytest.approx(0.2)
    assert grade(make(None, answer="A")).total == 0.0
    assert grade(make(ON_FIRST, answer="A")).components["tool_use"] == 1.0


def test_failed_trajectories_are_graded(failed: Trajectory) -> None:
    reward = rubric_of(DEEPEYES)(failed)
    assert (reward.total, reward.turns) == (0.0, ())


@given(
    weights=st.lists(st.floats(-10, 10), min_size=4, max_size=4),
    values=st.lists(st.floats(-10, 10), min_size=4, max_size=4),
    threshold=st.floats(-10, 10),
)
def test_total_is_outcome_plus_turns(weights: list[float], values: list[float], threshold: float) -> None:
    terms = dict(zip("abcd", weights, strict=True))
    given_values = {"a": values[0], "b": values[1], "c": values[2:], "d": [values[3], values[0]]}
    reward = rubric(terms, given_values, b=[{"on": "c", "threshold": threshold}])(TWO_TURNS)
    assert reward.total == reward.outcome + sum(reward.turns)


def test_a_reward_of_ones_own(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "from dataclasses import dataclass\n"
        "def short(trajectory):\n    return 1.0 / max(1, trajectory.num_turns)\n"
        "class Plain:\n    def __call__(self, trajectory):\n        return [0.5] * trajectory.num_turns\n"
        "@dataclass(frozen=True)\nclass C:\n    bonus: float = 1.0\n"
        "class Set:\n    Config = C\n    def __init__(self, config):\n        self.config = config\n"
        "    def __call__(self, trajectory):\n        return self.config.bonus\n"
        "seven = 7\n"
    )
    short, plain, settled = f"{path}:short", f"{path}:Plain", f"{path}:Set"
    config = RubricConfig({"answer": 1.0, short: 1.0, plain: 1.0, settled: 1.0}, settings={settled: {"bonus": 3.0}})
    reward = rubric_of(config, allow_code=True)(make(ON_FIRST))
    assert (reward.outcome, reward.turns) == (1.0 + 0.5 + 3.0, (0.5, 0.5))
    with pytest.raises(ConfigError, match="only when you name it"):
        rubric_of(config)
    with pytest.raises(ConfigError, match="takes no settings"):
        rubric_of(RubricConfig({short: 1.0}, settings={short: {"a": 1}}), allow_code=True)
    with pytest.raises(ConfigError, match="bonus"):
        rubric_of(RubricConfig({settled: 1.0}, settings={settled: {"bonuss": 1}}), allow_code=True)
    with pytest.raises(ConfigError, match="must be a function"):
        rubric_of(RubricConfig({f"{path}:seven": 1.0}), allow_code=True)


@pytest.mark.parametrize("value", [None, "1", math.nan, math.inf, [1.0], [1.0, math.nan], object(), [None, 1], {}])
def test_what_is_no_reward_is_named(make: Make, value: Any) -> None:
    with pytest.raises(ConfigError, match="reward 'mine' on trajectory x returned"):
        rubric({"mine": 1.0}, {"mine": value})(make(ON_FIRST))


def test_a_reward_that_fails_is_named(make: Make) -> None:
    def broken(trajectory: Trajectory) -> float:
        raise ZeroDivisionError("mine")

    with pytest.raises(ConfigError, match="reward 'b' on trajectory x raised ZeroDivisionError: mine"):
        WeightedRubric(RubricConfig({"b": 1.0}), {"b": broken})(make())

    def named(trajectory: Trajectory) -> float:
        raise DataError("no such page")

    with pytest.raises(DataError, match="no such page"):
        WeightedRubric(RubricConfig({"b": 1.0}), {"b": named})(make())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"terms": {}}, "at least one reward"),
        ({"terms": {"answer": math.nan}}, "terms.answer"),
        ({"gates": {"tool_use": [{"on": "answer"}]}}, "'tool_use' is no term"),
        ({"gates": {"answer": [{"on": "format"}]}}, "'format' is no term"),
        ({"settings": {"format": {}}}, "settings.format"),
        ({"gates": {"answer": [{"on": "answer", "passes": "maybe"}]}}, "passes"),
        ({"gates": {"answer": [{"on": "answer", "treshold": 1}]}}, "threshold"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build(RubricConfig, settings)


def test_unknown_rewards_and_settings_are_named() -> None:
    with pytest.raises(ConfigError, match="answer"):
        rubric_of(RubricConfig({"anwser": 1.0}))
    with pytest.raises(ConfigError, match="abs_tol"):
        rubric_of(RubricConfig(settings={"answer": {"abs_toll": 1}}))
    with pytest.raises(ConfigError, match="no function for b"):
        WeightedRubric(RubricConfig({"b": 1.0}), {})
