from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mmturn.credit.outcome import dr_grpo, grpo, mean, overlong_penalty, rloo, spread, zero_variance
from tests.vectors import VECTORS

REWARDS = st.lists(st.integers(-40, 40).map(lambda n: n / 8), min_size=1, max_size=12)


def same(got: Sequence[float], wanted: Sequence[float]) -> bool:
    return len(got) == len(wanted) and all(abs(a - b) <= 1e-6 for a, b in zip(got, wanted, strict=True))


def advantages(name: str, inputs: dict[str, Any], params: dict[str, Any]) -> tuple[float, ...]:
    if name == "dr_grpo":
        return dr_grpo(inputs["rewards"])
    if name == "rloo":
        return rloo(inputs["rewards"])
    return grpo(inputs["rewards"], "unbiased" if params["ddof"] else "population", params["eps"], "reward")


@pytest.mark.parametrize("name", ["grpo_ddof1", "grpo_ddof0", "dr_grpo", "rloo", "grpo_zero_var"])
def test_vectors(name: str) -> None:
    vector = VECTORS[name]
    inputs, wanted = vector["inputs"], vector["expected"]["adv"]
    assert same(advantages(name, inputs, vector["params"]), wanted)
    for i in range(len(inputs["rewards"])):
        other = {"rewards": [r + 0.01 * (k == i) for k, r in enumerate(inputs["rewards"])]}
        assert not same(advantages(name, other, vector["params"]), wanted)


def test_the_conventions_differ() -> None:
    wanted = VECTORS["grpo_ddof1"]["expected"]["adv"]
    rewards = VECTORS["grpo_ddof1"]["inputs"]["rewards"]
    assert not same(grpo(rewards, "population"), wanted) and not same(grpo(rewards, eps=1e-4), wanted)


def test_vector_of_groups_with_a_lone_trajectory() -> None:
    vector = VECTORS["grpo_groups_singleton"]
    rewards, groups = vector["inputs"]["rewards"], vector["inputs"]["group"]
    got = [0.0] * len(rewards)
    for group in set(groups):
        members = [i for i, g in enumerate(groups) if g == group]
        for i, a in zip(members, grpo([rewards[i] for i in members], single="reward"), strict=True):
            got[i] = a
    assert same(got, vector["expected"]["adv"])
    assert grpo([0.7]) == (0.0,) and grpo([0.7], "none", single="reward") == (0.7,)


def test_groups_without_signal_give_exact_zeros() -> None:
    for rewards in ([], [0.3], [0.1] * 3, [0.1 + 0.2] * 7):
        assert zero_variance(rewards)
        for values in (grpo(rewards, eps=0.0), grpo(rewards, "population"), dr_grpo(rewards), rloo(rewards)):
            assert values == (0.0,) * len(rewards)
    assert VECTORS["grpo_zero_var"]["expected"]["drop_group"] == zero_variance(
        VECTORS["grpo_zero_var"]["inputs"]["rewards"]
    )


@given(REWARDS, st.randoms())
def test_permuting_trajectories_permutes_advantages(rewards: list[float], random: Any) -> None:
    order = list(range(len(rewards)))
    random.shuffle(order)
    for method in (grpo, dr_grpo, rloo):
        straight = method(rewards)
        assert same(method([rewards[i] for i in order]), [straight[i] for i in order])


@given(REWARDS, st.integers(-5, 5), st.integers(1, 8))
def test_shift_and_scale(rewards: list[float], shift: int, scale: int) -> None:
    assume(not zero_variance(rewards))
    moved = [scale * r + shift for r in rewards]
    assert same(grpo(moved, eps=0.0), grpo(rewards, eps=0.0))
    assert same(grpo(moved, "population", 0.0), grpo(rewards, "population", 0.0))
    for method in (dr_grpo, rloo):
        assert same(method(moved), [scale * a for a in method(rewards)])


@given(REWARDS)
def test_centred_and_rloo_is_dr_grpo_scaled(rewards: list[float]) -> None:
    size = len(rewards)
    for method in (grpo, dr_grpo, rloo):
        assert abs(sum(method(rewards))) < 1e-6
    if size > 1:
        assert same(rloo(rewards), [size / (size - 1) * a for a in dr_grpo(rewards)])
        others = [r - (sum(rewards) - r) / (size - 1) for r in rewards]
        assert same(rloo(rewards), others)


def test_means_and_spreads() -> None:
    for name in ("grpo_ddof1", "grpo_ddof0"):
        rewards, wanted = VECTORS[name]["inputs"]["rewards"], VECTORS[name]["expected"]
        std: Any = "unbiased" if VECTORS[name]["params"]["ddof"] else "population"
        assert same([spread(rewards, std)], [wanted["std"]]) and not same(
            [spread([*rewards, 0.1], std)], [wanted["std"]]
        )
    assert same([mean(VECTORS["grpo_ddof1"]["inputs"]["rewards"])], [VECTORS["grpo_ddof1"]["expected"]["mean"]])
    assert spread([], "unbiased") == spread([0.3], "unbiased") == spread([0.1] * 3, "population") == 0.0
    # squares of these are too small for a float
    assert grpo([0.0, 1e-200], eps=0.0) == pytest.approx((-(0.5**0.5), 0.5**0.5))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_none_are_named(bad: float) -> None:
    for method in (grpo, dr_grpo, rloo):
        with pytest.raises(ValueError, match=r"rewards\[1\] is not finite"):
            method([0.0, bad])


def test_overlong_vector() -> None:
    vector = VECTORS["overlong_shaping"]
    p, lengths, wanted = vector["params"], vector["inputs"]["len"], vector["expected"]["reward"]
    got = [overlong_penalty(n, p["L_max"], p["buffer"], p["factor"]) for n in lengths]
    assert same(got, wanted) and not math.copysign(1, got[0]) < 0
    assert not same([overlong_penalty(n, p["L_max"], p["buffer"] - 9, p["factor"]) for n in lengths], wanted)
    assert overlong_penalty(30000, 20480, 4096, 0.5) == -0.5
    with pytest.raises(ValueError, match="buffer"):
        overlong_penalty(1, 10, 11)
