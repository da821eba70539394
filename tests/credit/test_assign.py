from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from mmturn.config import build
from mmturn.credit.assign import Credit, CreditConfig, OverlongConfig
from mmturn.credit.outcome import dr_grpo, grpo, rloo
from mmturn.credit.turns import mt_grpo, mt_grpo_two_turn
from mmturn.errors import ConfigError, DataError
from mmturn.types import Observation, Reward, StopReason, Task, Trajectory, Turn


def trajectory(
    outcome: float,
    turns: tuple[float, ...] = (0.0,),
    stop: StopReason = StopReason.ANSWERED,
    sampled: int = 3,
    index: int = 0,
) -> Trajectory:
    made = [
        Turn(k, Observation(("hi",)), "x", token_ids=tuple(range(2 + sampled)), provenance="to" + "s" * sampled)
        for k in range(len(turns))
    ]
    reward = Reward(outcome + sum(turns), outcome, turns)
    return Trajectory(f"t{index}", Task("a", "?"), "g", index, 0, tuple(made), stop, reward=reward)


GROUP = [
    trajectory(1.0, (0.2, 0.5)),
    trajectory(0.0, (0.2,)),
    trajectory(1.0, (0.0, 0.5, 0.5)),
    trajectory(0.0, (0.1,)),
]


def test_each_name_uses_its_rule() -> None:
    totals = [t.reward.total for t in GROUP if t.reward]
    for name, rule in (("grpo", grpo), ("dr_grpo", dr_grpo), ("rloo", rloo)):
        got = Credit(CreditConfig(name=name)).advantages(GROUP)
        assert got == [(a,) * t.num_turns for a, t in zip(rule(totals), GROUP, strict=True)]
    turns, outcomes = [t.reward.turns for t in GROUP if t.reward], [t.reward.outcome for t in GROUP if t.reward]
    assert Credit(CreditConfig(name="mt_grpo")).advantages(GROUP) == mt_grpo(turns, outcomes)
    pairs = mt_grpo_two_turn(
        [t[0] for t in turns],
        [o + sum(t[1:]) for o, t in zip(outcomes, turns, strict=True)],
        [len(t) > 1 for t in turns],
        eps=1e-6,
    )
    got = Credit(CreditConfig(name="mt_grpo_two_turn")).advantages(GROUP)
    assert [row[0] for row in got] == [p.before for p in pairs]
    assert got[2][1:] == (pairs[2].after, pairs[2].after) and [len(row) for row in got] == [2, 1, 3, 1]


@pytest.mark.parametrize("name", ["grpo", "dr_grpo", "rloo", "mt_grpo", "mt_grpo_two_turn"])
def test_rules_permute_with_the_group_and_survive_odd_groups(name: str) -> None:
    credit = Credit(CreditConfig(name=name))
    order = [2, 0, 3, 1]
    straight = credit.advantages(GROUP)
    for row, i in zip(credit.advantages([GROUP[i] for i in order]), order, strict=True):
        assert row == pytest.approx(straight[i], abs=1e-12)
    assert credit.advantages([]) == [] and credit.advantages(GROUP[1:2]) == [(0.0,)]
    empty = trajectory(0.0, (), StopReason.CONTEXT_LIMIT)
    assert credit.advantages([GROUP[0], empty])[1] == ()
    assert credit.in_loss([GROUP[0], empty], [(1.0, 1.0), ()]) == [True, False]


@pytest.mark.parametrize(
    ("setting", "value"),
    [("std", "population"), ("std", "none"), ("eps", 0.5), ("gate", "above"), ("overlong", OverlongConfig(5, 4))],
)
def test_each_option_changes_the_advantages(setting: str, value: object) -> None:
    changed = replace(CreditConfig(), **{setting: value})  # type: ignore[arg-type]
    assert Credit(changed).advantages(GROUP) != Credit(CreditConfig()).advantages(GROUP)


def test_options_of_single_groups_and_turns() -> None:
    alone = GROUP[:1]
    assert Credit(CreditConfig(single="reward", eps=0.0)).advantages(alone) == [(1.7, 1.7)]
    half = Credit(CreditConfig(name="mt_grpo", turn_coef=0.5)).advantages(GROUP)
    assert half != Credit(CreditConfig(name="mt_grpo")).advantages(GROUP)


def test_failed_trajectories_do_not_touch_the_others() -> None:
    failed = replace(trajectory(9.0, (1.0, 1.0), StopReason.ENGINE_FAILED), reward=None)
    credit = Credit(CreditConfig())
    got = credit.advantages([GROUP[0], failed, *GROUP[1:]])
    assert got[1] == (0.0, 0.0) and [got[0], *got[2:]] == credit.advantages(GROUP)
    assert credit.in_loss([GROUP[0], failed], got[:2]) == [True, False]
    assert credit.advantages([failed]) == [(0.0, 0.0)]


def test_truncated_trajectories_can_be_masked_and_stay_in_the_statistics() -> None:
    group = [*GROUP[:3], trajectory(0.0, (0.1,), StopReason.TURN_LIMIT)]
    keep, mask = Credit(CreditConfig()), Credit(CreditConfig(truncated="mask"))
    assert mask.advantages(group) == keep.advantages(group) == keep.advantages(GROUP)
    assert keep.in_loss(group, keep.advantages(group)) == [True] * 4
    assert mask.in_loss(group, mask.advantages(group)) == [True, True, True, False]


def test_groups_without_signal_can_be_dropped() -> None:
    same = [trajectory(1.0), trajectory(1.0)]
    keep, drop = Credit(CreditConfig()), Credit(CreditConfig(zero_variance="drop"))
    assert keep.advantages(same) == [(0.0,), (0.0,)]
    assert keep.in_loss(same, keep.advantages(same)) == [True, True]
    assert drop.in_loss(same, drop.advantages(same)) == [False, False]
    assert drop.in_loss(GROUP, drop.advantages(GROUP)) == [True] * 4
    # equal totals with unequal turns still teach MT-GRPO something
    uneven = [trajectory(0.5, (0.5,)), trajectory(1.0, (0.0,))]
    turns = Credit(CreditConfig(name="mt_grpo", zero_variance="drop", turn_coef=0.5))
    assert turns.in_loss(uneven, turns.advantages(uneven)) == [True, True]


def test_the_gate_stops_step_rewards_of_failed_episodes() -> None:
    group = [trajectory(1.0, (0.3,)), trajectory(0.0, (0.3,)), trajectory(0.0, (0.0,))]
    plain = Credit(CreditConfig(name="dr_grpo")).advantages(group)
    above = Credit(CreditConfig(name="dr_grpo", gate="above")).advantages(group)
    at_least = Credit(CreditConfig(name="dr_grpo", gate="at_least")).advantages(group)
    assert plain[1] > plain[2] and above[1] == above[2] and at_least == plain
    assert Credit(CreditConfig(name="dr_grpo", gate="at_least", gate_threshold=0.5)).advantages(group) == above


def test_long_trajectories_are_punished_by_their_sampled_tokens() -> None:
    config = CreditConfig(name="dr_grpo", overlong=OverlongConfig(max_tokens=10, buffer_tokens=4))
    group = [trajectory(1.0, sampled=6), trajectory(1.0, sampled=8), trajectory(1.0, sampled=20)]
    assert Credit(config).advantages(group) == [(0.5,), (0.0,), (-0.5,)]
    no_ids = replace(group[0], turns=(replace(group[0].turns[0], token_ids=None),))
    with pytest.raises(DataError, match="t0: its engine reported no token ids"):
        Credit(config).advantages([no_ids, group[1]])


@pytest.mark.parametrize(
    ("reward", "part"),
    [
        (None, "t0: no reward"),
        (Reward(1.0, 1.0, (0.0, 0.0)), "2 turn rewards for 1 turns"),
        (Reward(float("nan"), 0.0, (float("nan"),)), "not finite"),
        (Reward(float("inf"), float("inf"), (0.0,)), "not finite"),
    ],
)
def test_bad_rewards_are_named(reward: Reward | None, part: str) -> None:
    with pytest.raises(DataError, match=part):
        Credit(CreditConfig()).advantages([replace(trajectory(0.0), reward=reward), trajectory(1.0)])


def test_config_errors() -> None:
    with pytest.raises(ConfigError, match="no credit named 'gpro'; nearest is 'grpo'"):
        Credit(CreditConfig(name="gpro"))
    for values, part in (
        ({"eps": -1}, "credit: eps must not be negative"),
        ({"overlong": {"max_tokens": 4, "buffer_tokens": 9}}, "credit.overlong: buffer_tokens must lie in 1..4"),
    ):
        with pytest.raises(ConfigError, match=part):
            build(CreditConfig, values, prefix="credit")


def test_a_rule_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def signs(rewards, config):\n    return [(1.0,) * len(r.turns) for r in rewards]\n")
    name = f"{file}:signs"
    with pytest.raises(ConfigError, match="only when you name it"):
        Credit(CreditConfig(name=name))
    assert Credit(CreditConfig(name=name), allow_code=True).advantages(GROUP)[2] == (1.0, 1.0, 1.0)
    file.write_text("def signs(rewards, config):\n    return [(1.0,) for r in rewards]\n")
    with pytest.raises(DataError, match="gave 1 advantages for 2 turns"):
        Credit(CreditConfig(name=name), allow_code=True).advantages(GROUP)


def test_advantages_of_a_large_group_are_centred() -> None:
    rng = random.Random(0)
    group = [trajectory(rng.random(), index=i) for i in range(64)]
    for name in ("grpo", "dr_grpo", "rloo"):
        assert abs(sum(row[0] for row in Credit(CreditConfig(name=name)).advantages(group))) < 1e-9
