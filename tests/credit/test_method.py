from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmturn.config import build
from mmturn.credit.gae import bilevel_gae, gae
from mmturn.credit.gain import igpo, information_gains
from mmturn.credit.graded import (
    Graded,
    Signals,
    attempts_of,
    example_batch,
    example_graded,
    flat,
    graded_of,
    per_token,
    per_turn,
    stretches,
)
from mmturn.credit.method import Assigned, Method, MethodConfig
from mmturn.credit.outcome import dr_grpo, grpo, rloo
from mmturn.credit.returns import returns_to_go
from mmturn.credit.togo import minus_others, turn_returns
from mmturn.credit.turns import mt_grpo, mt_grpo_two_turn
from mmturn.credit.whiten import whiten
from mmturn.errors import ConfigError, DataError
from mmturn.registry import CREDITS, NORMALISERS, SELECTS, SHAPES
from mmturn.types import Observation, Reward, StopReason, Task, Trajectory, Turn

GROUP = [
    example_graded(0, 1.0, (0.2, 0.5)),
    example_graded(1, 0.0, (0.2,)),
    example_graded(2, 1.0, (0.0, 0.5, 0.5)),
    example_graded(3, 0.0, (0.1,)),
]
CENTRED = {"name": "group", "std": "none"}
OTHER = [replace(g, id=f"{g.id}b", group="h", outcome=g.outcome * 0.5) for g in GROUP]


def made(batch: Sequence[Graded] = GROUP, **boxes: Any) -> list[Assigned]:
    return Method(build(MethodConfig, boxes)).assign(batch)


def advantages(batch: Sequence[Graded] = GROUP, **boxes: Any) -> list[Any]:
    return [each.advantages for each in made(batch, **boxes)]


def kept(select: str, batch: Sequence[Graded], **settings: Any) -> list[tuple[bool, ...]]:
    return [each.kept for each in made(batch, select=[{"name": select, **settings}], normalise=[CENTRED])]


def test_rows_of_outcome_methods_are_their_formulas() -> None:
    totals = [g.total for g in GROUP]
    rows = [
        ([{"name": "group"}], grpo(totals)),
        ([{"name": "group", "std": "population", "eps": 0.5}], grpo(totals, "population", 0.5)),
        ([CENTRED], dr_grpo(totals)),
        ([{"name": "leave_one_out"}], rloo(totals)),
    ]
    for normalise, wanted in rows:
        assert advantages(normalise=normalise) == [(a,) * g.num_turns for a, g in zip(wanted, GROUP, strict=True)]
    assert advantages() == advantages(normalise=[{"name": "group"}]), "the default is GRPO"
    outcome = grpo([g.outcome for g in GROUP])
    assert [row[0] for row in advantages(credit={"name": "outcome"})] == list(outcome)


def test_rows_of_turn_methods_are_their_formulas() -> None:
    turns, outcomes = [g.turns for g in GROUP], [g.outcome for g in GROUP]
    assert advantages(credit={"name": "mt_grpo", "coef": 0.5}, normalise=[]) == mt_grpo(turns, outcomes, 0.5)
    rest = [o + sum(t[1:]) for o, t in zip(outcomes, turns, strict=True)]
    pairs = mt_grpo_two_turn([t[0] for t in turns], rest, [len(t) > 1 for t in turns])
    got = advantages(credit={"name": "mt_grpo_two_turn"}, normalise=[])
    assert [row[0] for row in got] == [p.before for p in pairs]
    assert got[2][1:] == (pairs[2].after, pairs[2].after) and [len(row) for row in got] == [2, 1, 3, 1]
    returned = turn_returns(turns, outcomes, 0.5)
    assert advantages(credit={"name": "returns", "gamma": 0.5}, normalise=[]) == returned
    assert advantages(credit={"name": "returns_less_others", "gamma": 0.5}, normalise=[]) == minus_others(returned)
    assert advantages(credit={"name": "own_turn"}, normalise=[]) == [g.stream for g in GROUP]
    gold = [g.signals.gold or () for g in GROUP]
    wanted = igpo([information_gains(rows) for rows in gold], [g.total for g in GROUP], 0.9, "joint")
    assert advantages(credit={"name": "igpo", "gamma": 0.9, "pool": "joint"}, normalise=[]) == wanted


def test_rows_with_a_critic_and_whitening_are_their_formulas() -> None:
    graded = GROUP[2]
    values = [value for turn in graded.signals.values or () for value in turn]
    rewards = [0.0, 0.0, 0.0, 0.5, 0.0, 1.5]
    by_token = advantages(credit={"name": "gae", "lam": 0.9}, normalise=[])[2]
    assert [a for turn in by_token for a in turn] == list(gae(rewards, values, 1.0, 0.9))
    by_level = advantages(credit={"name": "bilevel_gae"}, normalise=[])[2]
    assert [a for turn in by_level for a in turn] == list(
        bilevel_gae(rewards, values, [1] * 6, [1, 3, 5], 1.0, 1.0, 0.95)
    )
    ends = advantages(credit={"name": "turn_gae", "anchor": "last"}, normalise=[])[2]
    assert ends == gae(graded.stream, values[1::2], 0.99, 0.95)
    whitened = advantages(credit={"name": "token_returns"}, normalise=[{"name": "whiten"}])
    rows = [[r for turn in per_token(g, worth) for r in turn] for g, worth in zip(GROUP, RETURNS, strict=True)]
    flat = [[a for turn in row for a in turn] for row in whitened]
    assert flat == [list(row) for row in whiten(rows, [[1] * len(row) for row in rows])]
    limited = replace(graded, signals=replace(graded.signals, final_value=0.5), status="truncated")
    assert advantages([limited], credit={"name": "gae"}, normalise=[]) != advantages(
        [graded], credit={"name": "gae"}, normalise=[]
    )


RETURNS = turn_returns([g.turns for g in GROUP], [g.outcome for g in GROUP])


def test_a_kl_penalty_comes_off_each_tokens_reward() -> None:
    graded = GROUP[2]
    drift = [value for turn in graded.signals.drift or () for value in turn]
    rewards = [0.0, 0.0, 0.0, 0.5, 0.0, 1.5]
    boxes = {"credit": {"name": "token_returns", "gamma": 0.5, "kl_coef": 0.1}, "normalise": []}
    found = advantages(**boxes)[2]
    penalised = [reward - 0.1 * value for reward, value in zip(rewards, drift, strict=True)]
    assert [a for turn in found for a in turn] == list(returns_to_go(penalised, 0.5))
    plain = advantages(credit={"name": "token_returns", "gamma": 0.5}, normalise=[])[2]
    assert found != plain and [a for turn in plain for a in turn] == list(returns_to_go(rewards, 0.5))
    assert Method(build(MethodConfig, boxes)).needs == {"drift"}
    assert Method(build(MethodConfig, {"credit": {"name": "token_returns"}})).needs == frozenset()
    seen = made(**boxes)[2]
    assert seen.drift == tuple(drift), "what the penalty is on can be logged"
    with pytest.raises(DataError, match="trajectory 0: no reference policy"):
        made([replace(g, signals=Signals()) for g in GROUP], **boxes)
    with pytest.raises(ConfigError, match="kl_coef must be 0 or more"):
        Method(build(MethodConfig, {"credit": {"name": "token_returns", "kl_coef": -0.1}}))


def test_the_raw_worth_is_kept_for_critics() -> None:
    found = made(credit={"name": "gae"}, normalise=[{"name": "whiten"}])
    assert [each.raw for each in found] == advantages(credit={"name": "gae"}, normalise=[])
    assert [each.advantages for each in found] != [each.raw for each in found]


def test_pools_are_groups_roles_and_kinds_of_tasks() -> None:
    batch = [*GROUP, *OTHER]
    assert advantages(batch)[:4] == advantages(GROUP), "groups do not touch each other"
    turn_pool = advantages(credit={"name": "own_turn"})
    assert sum(a for row in turn_pool for a in row) == pytest.approx(0) and turn_pool[2][0] != turn_pool[2][1]
    seats = [replace(g, seats=("policy", "verifier", "policy")[: g.num_turns]) for g in GROUP]
    less = made(credit={"name": "returns"}, normalise=[{"name": "less_values"}])
    expected = (1.7, 1.9, 1.6, 1.7)
    assert flat(less[0].advantages) == pytest.approx(expected), "each token's value comes off its turn's return"  # type: ignore[arg-type]
    roles = advantages(seats, credit={"name": "own_turn"}, normalise=[{"name": "by_role"}])
    for seat in ("policy", "verifier"):
        own = [a for g, row in zip(seats, roles, strict=True) for a, s in zip(row, g.seats, strict=True) if s == seat]
        assert sum(own) == pytest.approx(0, abs=1e-9)
    assert roles != turn_pool
    levels = [replace(g, meta={"level": g.group}) for g in batch]
    apart = advantages(levels, normalise=[{"name": "group"}, {"name": "by_task"}])
    assert apart != advantages(batch, normalise=[{"name": "group"}, {"name": "by_task"}])
    own = [a for row in apart[:4] for turn in row for a in turn]
    assert sum(own) == pytest.approx(0, abs=1e-9) and sum(a * a for a in own) / len(own) == pytest.approx(1)


def test_a_trajectory_may_count_once_for_each_of_its_turns() -> None:
    """DART: of two steps that succeeded and three that did not, whatever trajectories they belong to."""
    group = [example_graded(0, 1.0, (0.0, 0.0)), example_graded(1, 0.0, (0.0, 0.0, 0.0)), example_graded(2, 0.0, ())]
    over = advantages(group, normalise=[{"name": "group", "over": "turn"}])
    steps = grpo([1.0, 1.0, 0.0, 0.0, 0.0])
    assert over == [steps[:2], steps[2:], ()] and over != advantages(group)
    tokens: dict[str, Any] = {"credit": {"name": "token_returns"}, "batch": group[:2]}
    assert advantages(**tokens) == advantages(normalise=[{"name": "group", "over": "turn"}], **tokens)


def test_a_seat_is_compared_with_its_own_past_which_a_checkpoint_keeps() -> None:
    game = [replace(g, seats=("a", "b", "a")[: g.num_turns], meta={"game": "board"}) for g in GROUP]
    config = build(MethodConfig, {"credit": {"name": "own_turn"}, "normalise": [{"name": "seat_baseline"}]})
    method = Method(config)
    first = [each.advantages for each in method.assign(game)]
    assert first[0] == (pytest.approx(0.2), pytest.approx(1.5)), "baselines begin at 0"
    assert first[2][0] == first[2][2] != first[2][1], "a seat's turns have one advantage"
    state = method.state()
    second = [each.advantages for each in method.assign(game)]
    other = Method(config)
    assert [each.advantages for each in other.assign(game)] == first
    other.load_state(state)
    assert [each.advantages for each in other.assign(game)] == second != first
    assert Method().state() == {}


def test_shapes_change_rewards() -> None:
    gate = [{"name": "gate"}]
    open_, shut = advantages(GROUP[:2], shape=gate, normalise=[CENTRED]), advantages(GROUP[:2], normalise=[CENTRED])
    assert open_[0][0] - open_[1][0] == pytest.approx(1.7) and shut[0][0] - shut[1][0] == pytest.approx(1.5)
    even = [{"name": "gate", "passes": "at_least"}]
    assert advantages(GROUP[:2], shape=even, normalise=[CENTRED]) == shut
    raw = {"normalise": [], "credit": {"name": "total"}}
    long = [replace(example_graded(i, 1.0, (0.0,)), tokens=(n,)) for i, n in enumerate((6, 8, 20))]
    overlong = [{"name": "overlong", "max_tokens": 10, "buffer_tokens": 4}]
    assert advantages(long, shape=overlong, **raw) == [(1.0,), (0.5,), (0.0,)]
    cut = [GROUP[0], replace(GROUP[1], status="truncated")]
    assert advantages(cut, shape=[{"name": "status"}], **raw) == [(1.7, 1.7), (-0.2,)]
    mute = [replace(GROUP[2], acted=(True, False, True))]
    credit = {"credit": {"name": "own_turn"}, "normalise": []}
    assert advantages(mute, shape=[{"name": "no_action"}], **credit) == [(0.0, 0.4, 1.5)]
    seen = [replace(GROUP[2], turns=(0.0,) * 3, per_turn={"iou": (0.5, 0.25, 0.75)})]
    rises = [{"name": "improvement", "of": "iou"}]
    assert advantages(seen, shape=rises, **credit) == [(0.5, -0.25, 1.5)]
    best = [{"name": "improvement", "of": "iou", "over": "best", "weight": 2.0}]
    assert advantages(seen, shape=best, **credit) == [(1.0, 0.0, 1.5)]
    revised = [{"name": "revision_bonus", "alpha": 2.0}]
    assert advantages([GROUP[2]], shape=revised, **credit)[0] == pytest.approx((0.0, 1.5, 3.5))


def test_video_mtr_is_its_formula_in_both_forms() -> None:
    # looks of overlap 0.45 and 0.3, then the answer; nothing was shown before, so the first look beats 0
    graded = replace(GROUP[2], values={"answer": 1.0}, per_turn={"iou": (0.45, 0.3, 0.0)})
    credit = {"credit": {"name": "own_turn"}, "normalise": []}
    paper = [{"name": "video_mtr", "quality": "iou"}]
    assert advantages([graded], shape=paper, **credit)[0] == pytest.approx((1.5025, 0.9, 1.1))
    wrong = replace(graded, values={"answer": 0.0})
    assert advantages([wrong], shape=paper, **credit)[0] == pytest.approx((0.0, 0.0, 0.1))
    code = [{"name": "video_mtr", "quality": "iou", "form": "code"}]
    assert advantages([graded], shape=code, **credit)[0] == pytest.approx((0.6, 0.1, 0.9))
    with pytest.raises(DataError, match="no term 'iou' of the rubric grades turns"):
        advantages(GROUP, shape=paper)


def test_selections_leave_statistics_alone() -> None:
    cut = [*GROUP[:3], replace(GROUP[3], status="truncated")]
    assert kept("finished", cut) == [(True,) * 2, (True,), (True,) * 3, (False,)]
    assert advantages(cut, select=[{"name": "finished"}]) == advantages(cut)
    flat = [replace(g, id=f"{g.id}f", group="flat", outcome=1.0, turns=(0.0,) * g.num_turns) for g in GROUP]
    assert {k for row in kept("with_signal", [*GROUP, *flat])[4:] for k in row} == {False}
    assert all(k for row in kept("with_signal", [*GROUP, *flat])[:4] for k in row)
    right = [replace(g, id=f"{g.id}r", group="right", values={"answer": 1.0}) for g in GROUP]
    assert [any(row) for row in kept("mixed", [*GROUP, *right])] == [True] * 4 + [False] * 4
    wrong = [replace(g, id=f"{g.id}w", group="wrong", values={"answer": 0.0}) for g in GROUP]
    assert [any(row) for row in kept("solved", [*GROUP, *right, *wrong])] == [True] * 8 + [False] * 4
    assert [any(row) for row in kept("top_spread", [*GROUP, *OTHER, *flat], keep=0.34)] == [True] * 4 + [False] * 8
    mute = [GROUP[0], replace(GROUP[2], acted=(True, False, True))]
    assert [any(row) for row in kept("no_void_turns", mute)] == [True, False]
    old = [replace(GROUP[0], versions=(4, 5)), replace(GROUP[2], versions=(3, 5, 5))]
    assert [any(row) for row in kept("fresh", old, max_lag=1)] == [True, False]
    drawn = [example_graded(0, 0.0, (0.0, 0.5)), example_graded(1, 0.5, (0.0,))]
    turns = made(drawn, credit={"name": "own_turn"}, normalise=[], select=[{"name": "nonzero"}])
    assert [each.kept for each in turns] == [(False, True), (True,)] and turns[0].in_loss
    assert [each.refused for each in turns] == [{"nonzero": 1}, {"nonzero": 0}]
    steps = [replace(GROUP[2], signals=Signals(entropies=((0.1, 0.2), (0.9, 0.7), (0.5, 0.5))))]
    assert kept("high_entropy", steps, quantile=0.4) == [(False, True, True)]
    both = [{"name": "finished"}, {"name": "no_void_turns"}]
    found = made([*mute, cut[3]], select=both)
    assert [any(each.kept) for each in found] == [True, False, False]
    refused = [(0, 0), (0, 3), (1, int(not all(cut[3].acted)))]
    assert [(each.refused["finished"], each.refused["no_void_turns"]) for each in found] == refused


def test_what_a_method_needs_is_known_beforehand() -> None:
    assert Method().needs == frozenset()
    needing = {"credit": {"name": "gae"}, "select": [{"name": "high_entropy"}]}
    assert Method(build(MethodConfig, needing)).needs == {"values", "entropies"}
    assert Method(build(MethodConfig, {"credit": {"name": "igpo"}})).needs == {"gold"}
    bare = [replace(g, signals=Signals()) for g in GROUP]
    for boxes, part in (({"credit": {"name": "gae"}}, "critic"), ({"credit": {"name": "igpo"}}, "gold answer")):
        with pytest.raises(DataError, match=f"trajectory 0: .*{part}"):
            made(bare, **boxes)


@pytest.mark.parametrize("name", [*NORMALISERS.names()])
@given(st.randoms())
def test_order_does_not_matter(name: str, dice: random.Random) -> None:
    batch = [*GROUP, *OTHER]
    shuffled = list(batch)
    dice.shuffle(shuffled)
    straight = dict(zip([g.id for g in batch], advantages(batch, normalise=[{"name": name}]), strict=True))
    for graded, found in zip(shuffled, advantages(shuffled, normalise=[{"name": name}]), strict=True):
        assert found == straight[graded.id]


def test_odd_groups() -> None:
    assert made([]) == [] and advantages([GROUP[1]]) == [(0.0,)]
    assert advantages([GROUP[0]], normalise=[{"name": "group", "single": "reward", "eps": 0.0}]) == [(1.7, 1.7)]
    empty = example_graded(9, 0.0, ())
    found = made([GROUP[0], empty])
    assert found[1].advantages == () and not found[1].in_loss
    for name in CREDITS.names():
        assert made(example_batch(), credit={"name": name})[3].advantages == ()


@pytest.mark.parametrize(
    ("boxes", "part"),
    [
        ({"credit": {"name": "totl"}}, "no credit named 'totl'; nearest is 'total'"),
        ({"credit": {}}, "credit.name is missing"),
        ({"normalise": [{"std": "none"}]}, r"normalise\[0\].name is missing"),
        ({"normalise": [{"name": "group", "sdt": "none"}]}, r"normalise\[0\].sdt: unknown key; nearest is .*std"),
        ({"normalise": [{"name": "group", "std": "sample"}]}, "wanted one of 'unbiased'"),
        ({"shape": [{"name": "overlong", "max_tokens": 4}]}, "buffer_tokens: is required"),
        ({"shape": [{"name": "overlong", "max_tokens": 4, "buffer_tokens": 9}]}, r"overlong buffer must lie in 1..4"),
        ({"select": [{"name": "top_spread", "keep": 2}]}, "keep must lie in 0..1"),
        ({"credit": {"name": "returns", "gamma": -1.0}}, "gamma"),
        ({"select": [{"name": "fresh"}]}, "max_lag: is required"),
        ({"normalise": [{"name": "seat_baseline", "decay": 2.0}]}, r"normalise\[0\]: decay must lie in 0..1"),
        ({"credit": {"name": "returns"}, "normalise": [{"name": "leave_one_out"}]}, "returns_less_others"),
    ],
)
def test_bad_boxes_are_told_before_anything_runs(boxes: dict[str, Any], part: str) -> None:
    with pytest.raises(ConfigError, match=part):
        Method(build(MethodConfig, boxes, prefix="method"))


def test_boxes_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "def signs(group, *, scale: float = 1.0):\n    return [(scale,) * g.num_turns for g in group]\n"
        "def first(batch, advantages):\n    return [g.index == 0 for g in batch]\n"
        "def short(group):\n    return [(1.0,) for g in group]\n"
    )
    mine = {"credit": {"name": f"{file}:signs", "scale": 2.0}, "normalise": [], "select": [{"name": f"{file}:first"}]}
    with pytest.raises(ConfigError, match="only when you name it"):
        Method(build(MethodConfig, mine))
    found = Method(build(MethodConfig, mine), allow_code=True).assign(GROUP)
    assert found[2].advantages == (2.0,) * 3 and [each.in_loss for each in found] == [True, False, False, False]
    with pytest.raises(ConfigError, match="wanted float"):
        Method(build(MethodConfig, {"credit": {"name": f"{file}:signs", "scale": "big"}}), allow_code=True)
    with pytest.raises(DataError, match="trajectory 0: .*short' gave 1 advantages for 2 turns"):
        Method(build(MethodConfig, {"credit": {"name": f"{file}:short"}}), allow_code=True).assign(GROUP)


def test_every_box_is_tried_here() -> None:
    files = (Path(__file__), Path(__file__).with_name("test_explore.py"))
    text = "".join(file.read_text(encoding="utf-8") for file in files)
    for registry in (SHAPES, CREDITS, NORMALISERS, SELECTS):
        for name in registry.names():
            assert f'"{name}"' in text or name in ("tapo",), name


def test_tapo_credits_verification_with_the_next_generation() -> None:
    graded = replace(example_graded(0, 6.0, (0.2, 0.5, 0.4)), seats=("policy", "verifier", "policy"))
    found = advantages([graded], credit={"name": "tapo"}, normalise=[])[0]
    assert found == pytest.approx((6.2, 6.9, 6.4))
    looks = replace(
        example_graded(0, 6.0, (0.0, 0.2, 0.1, 0.5, 0.0, 0.4)),
        seats=("policy",) * 2 + ("verifier",) * 2 + ("policy",) * 2,
    )
    found = advantages([looks], credit={"name": "tapo"}, normalise=[])[0]
    assert found == pytest.approx((6.2, 6.2, 7.0, 7.0, 6.4, 6.4)), "a look has what its stretch returns"


def test_an_attempt_is_the_last_turn_of_a_stretch() -> None:
    graded = replace(example_graded(0, 0.0, (0.0,) * 5), seats=("policy", "policy", "verifier", "policy", "policy"))
    assert [k for k, own in enumerate(attempts_of(graded, "policy")) if own] == [1, 4]
    assert attempts_of(replace(graded, seats=("policy",) * 5), "policy") == [True] * 5
    assert attempts_of(graded, "nobody") == [False] * 5
    assert stretches(()) == [] and stretches("aab") == [range(2), range(2, 3)]


def test_a_generation_earns_what_it_gains() -> None:
    graded = replace(example_graded(0, 0.0, (0.25, 0.5, 0.75)), seats=("policy", "verifier", "policy"))
    for settings, last in (({}, 0.5), ({"absolute": 1.0}, 1.25), ({"improvement": 0.5}, 0.25)):
        found = advantages(
            [graded], shape=[{"name": "generation_gain", **settings}], credit={"name": "own_turn"}, normalise=[]
        )[0]
        assert found == pytest.approx((0.25, 0.5, last))


def trajectory(reward: Reward | None, stop: StopReason = StopReason.ANSWERED) -> Trajectory:
    turn = Turn(0, Observation(("hi",)), "x", token_ids=(1, 2, 3), provenance="tss")
    return Trajectory("t0", Task("a", "?", meta={"level": "one"}), "g", 0, 0, (turn,), stop, reward=reward)


def test_a_trajectory_as_credit_sees_it() -> None:
    reward = Reward(1.5, 1.0, (0.5,), {"answer": 1.0}, {"iou": (0.25,)})
    graded = graded_of(trajectory(reward, StopReason.TURN_LIMIT))
    assert (graded.total, graded.stream, graded.tokens, graded.status) == (1.5, (1.5,), (2,), "truncated")
    assert graded.meta == {"level": "one"} and graded.per_turn == {"iou": (0.25,)} and graded.acted == (False,)
    assert per_turn(graded, ((1.0, 2.0),)) == (1.5,) and per_token(graded, 0.5) == ((0.5, 0.5),)
    with pytest.raises(DataError, match="no token ids"):
        per_token(replace(graded, tokens=(0,)), 0.5)


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
        graded_of(trajectory(reward))
    with pytest.raises(DataError, match="t0: it failed"):
        graded_of(trajectory(Reward(0.0, 0.0, (0.0,)), StopReason.ENV_FAILED))


def test_advantages_of_a_large_group_are_centred() -> None:
    dice = random.Random(0)
    group = [example_graded(i, dice.random(), (0.0,)) for i in range(64)]
    for normalise in ([{"name": "group"}], [CENTRED], [{"name": "leave_one_out"}]):
        assert abs(sum(row[0] for row in advantages(group, normalise=normalise))) < 1e-9


def test_a_turn_is_worth_its_smaller_q_less_its_smaller_v() -> None:
    said = ((0.9, 1.0, 0.5, 0.6), (0.2, -0.1, 0.3, 0.1), (0.0, 0.0, -1.0, 2.0))
    graded = replace(example_graded(0, 5.0, (7.0, 8.0, 9.0)), signals=Signals(utterances=said))
    boxes = {"credit": {"name": "q_minus_v"}, "normalise": []}
    assert advantages([graded], **boxes)[0] == pytest.approx((0.4, -0.2, 1.0)), "rewards are the critic's business"
    assert Method(build(MethodConfig, boxes)).needs == {"utterances"}
    assert made([graded], **boxes)[0].lesson is None, "a value head has nothing to learn from it"
    for lacking in (None, (said[0], said[1], ())):
        bare = replace(graded, signals=Signals(utterances=lacking))
        with pytest.raises(DataError, match="trajectory 0: no critic over utterances judged"):
            made([bare], **boxes)


def test_shaping_is_what_credit_sees_of_rewards() -> None:
    gate = [{"name": "gate", "threshold": 0.5}]
    method = Method(build(MethodConfig, {"shape": gate}))
    assert [method.shaped(example_graded(0, outcome, (0.2,))).total for outcome in (0.0, 1.0)] == [0.0, 1.2]
    assert method.shape_needs == frozenset()
