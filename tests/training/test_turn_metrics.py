"""Metrics by turn, of selections and of staleness, against numbers computed by hand; two processes equal one."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from mmturn.credit.graded import graded_of
from mmturn.credit.method import Assigned, Method, MethodConfig
from mmturn.rewards.rubric import RubricConfig, WeightedRubric
from mmturn.schema import build
from mmturn.training.crediting import Crediting
from mmturn.training.means import Means
from mmturn.training.processes import start_processes
from mmturn.training.rollout_metrics import rollout_metrics, sampled_metrics, selection_metrics
from mmturn.training.sampling import Sampled
from mmturn.training.turn_metrics import SHOWN_TURNS, turn_metrics
from mmturn.types import Action, Observation, StopReason, Task, Trajectory, Turn

VALUES = {"a": (1.0, (0.5, 0.0)), "b": (0.0, (1.0,)), "c": (1.0, (0.0, 1.0)), "d": (0.0, (0.0, 0.5))}
"""Trajectory -> right or wrong, and a look's quality per turn."""
OPEN = RubricConfig({"answer": 2.0, "look": 0.5})


def rubric(config: RubricConfig = OPEN) -> WeightedRubric:
    return WeightedRubric(config, {"answer": lambda t: VALUES[t.id][0], "look": lambda t: VALUES[t.id][1]})


def trajectory(name: str, config: RubricConfig = OPEN) -> Trajectory:
    count = len(VALUES[name][1])
    kinds = ["tool"] * (count - 1) + ["answer"]
    turns = tuple(
        Turn(
            k, Observation(()), "x", token_ids=(1, 2, 3), provenance="tss", logprobs=(-0.5 - k, -1.5),
            actions=(Action(kind, kind),), policy_version=4 + k,  # type: ignore[arg-type]
        )
        for k, kind in enumerate(kinds)
    )  # fmt: skip
    made = Trajectory(name, Task("t", "?"), "g" if name in "ab" else "h", 0, 0, turns, StopReason.ANSWERED)
    return replace(made, reward=rubric(config)(made))


def sampled(config: RubricConfig = OPEN, **boxes: object) -> Sampled:
    groups = tuple(tuple(trajectory(name, config) for name in names) for names in ("ab", "cd"))
    method = Method(build(MethodConfig, {"normalise": [{"name": "group", "std": "none"}], **boxes}))
    return Sampled(*Crediting(method, start_processes("cpu"), lambda trajectories, needs: {})(groups))


def test_turns_by_hand() -> None:
    found = turn_metrics([trajectory(name) for name in "abcd"]).result()
    assert found["turn_0/tool_use"] == pytest.approx(3 / 4) and found["turn_1/tool_use"] == 0.0
    assert found["turn_0/tokens"] == 2.0
    assert found["turn_0/entropy"] == pytest.approx(1.0) and found["turn_1/entropy"] == pytest.approx(1.5)
    assert found["turn_0/rarest_token"] == pytest.approx(math.exp(-1.5))
    assert not any("credit" in key for key in found), "without advantages there is nothing to compare"


def test_what_each_term_contributes_by_hand() -> None:
    """Rewards 2.25, 0.5; 2.5, 0.25: advantages 0.875, -0.875; 1.125, -1.125."""
    groups = sampled().groups
    assert [t.advantages[0] for group in groups for t in group] == pytest.approx([0.875, -0.875, 1.125, -1.125])
    found = turn_metrics([t for group in groups for t in group], rubric()).result()
    assert found["turn_0/credit/answer"] == pytest.approx((2 * 0.875 + 2 * 1.125) / 4)
    assert found["turn_0/credit/look"] == pytest.approx((0.25 * 0.875 - 0.5 * 0.875) / 4), "taught against"
    # turn 1 of a, c, d: looks 0, 0.5, 0.25; advantages 0.875, 1.125, -1.125 of mean 0.875 / 3
    wanted = (0.5 * 1.125 - 0.25 * 1.125) / 3 - 0.25 * 0.875 / 3
    assert found["turn_1/credit/look"] == pytest.approx(wanted)
    raw = turn_metrics([t for group in groups for t in group]).result()
    assert raw["turn_0/credit/answer"] == pytest.approx(found["turn_0/credit/answer"] / 2), "no weights are known"


def test_terms_add_up_to_the_reward() -> None:
    """With turns credited for their own rewards and no outcome, the terms' parts are the variance of the advantage."""
    own = sampled(RubricConfig({"answer": 0.0, "look": 0.5}), credit={"name": "own_turn"}, normalise=[])
    trajectories = [t for group in own.groups for t in group]
    found = turn_metrics(trajectories, rubric(RubricConfig({"answer": 0.0, "look": 0.5}))).result()
    firsts = [t.advantages[0] for t in trajectories if t.advantages]
    mean = sum(firsts) / 4
    assert found["turn_0/credit/look"] == pytest.approx(sum((a - mean) ** 2 for a in firsts) / 4)
    assert found["turn_0/credit/answer"] == 0.0


def test_only_the_first_turns_are_shown() -> None:
    long = trajectory("a")
    long = replace(long, turns=long.turns * SHOWN_TURNS)
    shown = {key.split("/")[0] for key in turn_metrics([long]).result()}
    assert shown == {f"turn_{k}" for k in range(SHOWN_TURNS)}


def test_selections_say_what_each_box_left_out() -> None:
    select = [{"name": "nonzero"}, {"name": "solved", "correct": "look"}]
    method = Method(build(MethodConfig, {"select": select, "credit": {"name": "own_turn"}, "normalise": []}))
    found = method.assign([graded_of(trajectory(name)) for name in "abcd"])
    assert [each.refused for each in found] == [{"nonzero": number, "solved": 0} for number in (0, 0, 1, 1)]
    metrics = selection_metrics(found).result()
    assert metrics == pytest.approx({"select/kept": 5 / 7, "select/without/nonzero": 2 / 7, "select/without/solved": 0})
    mine = Assigned((0.0, 0.0), (True, False), 0.0, refused={"./mine.py:first": 1})
    assert selection_metrics([mine]).result() == {"select/kept": 0.5, "select/without/first": 0.5}


def test_a_round_by_hand() -> None:
    found = rollout_metrics(sampled().groups, version=6).result()
    assert found["rollout/reward_std"] == pytest.approx((0.875 + 1.125) / 2)
    assert found["rollout/entropy"] == pytest.approx((4 * 2.0 + 3 * 3.0) / 14)
    assert found["rollout/tool_turns"] == pytest.approx(3 / 7) and found["rollout/void_turns"] == 0.0
    assert found["rollout/turn_tokens"] == 2.0
    assert found["rollout/version_lag"] == pytest.approx((4 * 2 + 3 * 1) / 7)
    assert found["rollout/version_lag_max"] == 2.0
    mute = replace(trajectory("b"), turns=(replace(trajectory("b").turns[0], actions=()),))
    assert rollout_metrics([[mute]]).result()["rollout/void_turns"] == 1.0
    assert "rollout/reward_std" not in rollout_metrics([[mute]]).result(), "one alone has no spread"


def test_two_processes_are_one() -> None:
    whole = sampled(select=[{"name": "finished"}])
    parts = [Sampled((group,), {t.id: whole.assigned[t.id] for t in group}) for group in whole.groups]
    merged = Means()
    merged.merge([sampled_metrics(part, rubric(), 6) for part in parts])
    assert merged.result() == pytest.approx(sampled_metrics(whole, rubric(), 6).result())
