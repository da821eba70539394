from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmturn.credit.gae import bilevel_gae, gae, length_lam, token_gae, value_targets
from mmturn.credit.graded import example_graded
from mmturn.credit.pieces import credit
from tests.vectors import VECTORS

NAN = float("nan")
EIGHTHS = st.integers(-16, 16).map(lambda n: n / 8)


def near(wanted: Any) -> Any:
    return pytest.approx(tuple(wanted), abs=1e-6)


def bilevel(vector: dict[str, Any], **changes: Any) -> tuple[float, ...]:
    i, p = {**vector["inputs"], **changes}, {**vector["params"], **changes}
    return bilevel_gae(i["rewards"], i["values"], i["mask"], i["turn_ends"], p["gamma"], p["lam"], p["gamma_high"])


def test_bilevel_vector() -> None:
    vector = VECTORS["bilevel_gae_basic"]
    wanted, inputs = vector["expected"], vector["inputs"]
    assert bilevel(vector) == near(wanted["adv_unwhitened"])
    assert value_targets(bilevel(vector), inputs["values"], inputs["mask"]) == near(wanted["returns"])
    assert bilevel(vector, gamma_high=1.0) == near(wanted["adv_gamma_high_1"]) != near(wanted["adv_unwhitened"])
    values = [*inputs["values"][:5], 0.61, *inputs["values"][6:]]
    assert bilevel(vector, values=values) != near(wanted["adv_unwhitened"])
    assert bilevel(vector, turn_ends=[3, 9]) != near(wanted["adv_unwhitened"])


def test_turns_without_a_reward_end_all_the_same() -> None:
    vector = VECTORS["bilevel_gae_obs_zero_turn"]
    wanted, i, p = vector["expected"], vector["inputs"], vector["params"]
    assert bilevel(vector) == near(wanted["adv_unwhitened"])
    from_rewards = [t for t, reward in enumerate(i["rewards"]) if reward]
    assert bilevel(vector, turn_ends=from_rewards) == near(wanted["adv_if_ends_from_nonzero_reward"])
    assert bilevel(vector, turn_ends=from_rewards) != near(wanted["adv_unwhitened"])
    plain = token_gae(i["rewards"], i["values"], i["mask"], p["gamma"], p["lam"])
    assert plain == near(wanted["token_gae_masked"]) != near(wanted["adv_unwhitened"])
    assert token_gae(i["rewards"], i["values"], i["mask"], p["gamma"], 0.9) != near(wanted["token_gae_masked"])


def test_turn_vector() -> None:
    vector = VECTORS["turn_gae"]
    rewards, values = vector["inputs"]["turn_rewards"], vector["inputs"]["turn_values"]
    gamma, lam = vector["params"]["gamma"], vector["params"]["lam"]
    got = gae(rewards, values, gamma, lam)
    assert got == near(vector["expected"]["adv_unwhitened"])
    assert value_targets(got, values) == near(vector["expected"]["returns"])
    for other in (gae(rewards, [0.5, 0.6, 0.71], gamma, lam), gae(rewards, values, gamma, lam, bootstrap=0.01)):
        assert other != near(vector["expected"]["adv_unwhitened"])


def test_a_truncated_trajectory_bootstraps() -> None:
    assert gae([0.0], [0.5], 0.9, 1.0, bootstrap=1.0) == near([0.4])
    assert token_gae([0.0, NAN, 0.0], [0.5, NAN, 0.25], [1, 0, 1], 1.0, 1.0, bootstrap=1.0) == near([0.5, 0, 0.75])
    ended = bilevel_gae([0.0, 0.0], [0.5, 0.25], [1, 1], [0, 1], 1.0, 1.0, 0.5)
    cut = bilevel_gae([0.0, 0.0], [0.5, 0.25], [1, 1], [0, 1], 1.0, 1.0, 0.5, bootstrap=1.0)
    assert cut == near([ended[0] + 0.25, ended[1] + 0.5])


def test_odd_shapes_and_refusals() -> None:
    assert gae([], [], 1.0, 1.0) == () and bilevel_gae([], [], [], [], 1.0, 1.0, 1.0) == ()
    assert bilevel_gae([NAN], [NAN], [0], [], 1.0, 1.0, 1.0) == token_gae([NAN], [NAN], [0], 1.0, 1.0) == (0.0,)
    assert value_targets([1.0, NAN], [2.0, NAN], [1, 0]) == (3.0, 0.0)
    for ends in ([1, 0], [0, 0, 3], [0, 2, 3], [0, 9], [0], []):
        with pytest.raises(ValueError, match="turn_ends must rise over sampled positions"):
            bilevel_gae([0.0] * 4, [0.0] * 4, [1, 1, 0, 1], ends, 1.0, 1.0, 1.0)
    for call, part in (
        (lambda: gae([0.0], [0.0, 1.0], 1.0, 1.0), "lengths differ: rewards 1, values 2"),
        (lambda: gae([0.0], [NAN], 1.0, 1.0), r"values\[0\] is not finite"),
        (lambda: gae([0.0], [0.0], 1.0, 1.0, NAN), r"bootstrap\[0\] is not finite"),
        (lambda: gae([0.0], [0.0], 1.0, -1.0), "lam must lie"),
        (lambda: token_gae([0.0], [0.0], [1, 1], 1.0, 1.0), "lengths differ: mask 2"),
    ):
        with pytest.raises(ValueError, match=part):
            call()


@st.composite
def turns(draw: Any) -> tuple[list[float], list[float], list[int], list[int]]:
    """Rewards at turn ends alone, values, mask and ends of 1 to 4 turns with observations between them."""
    rewards: list[float] = []
    values: list[float] = []
    mask: list[int] = []
    ends = []
    for _ in range(draw(st.integers(1, 4))):
        seen, said = draw(st.integers(0, 2)), draw(st.integers(1, 3))
        mask += [0] * seen + [1] * said
        rewards += [NAN] * seen + [0.0] * (said - 1) + [draw(EIGHTHS)]
        values += [NAN] * seen + [draw(EIGHTHS) for _ in range(said)]
        ends.append(len(mask) - 1)
    return rewards, values, mask, ends


@given(turns())
def test_without_discount_two_levels_are_one(trajectory: Any) -> None:
    rewards, values, mask, ends = trajectory
    plain = token_gae(rewards, values, mask, 1.0, 1.0)
    assert bilevel_gae(rewards, values, mask, ends, 1.0, 1.0, 1.0) == near(plain)
    # undiscounted, lambda 1: what is still to come minus the value
    left = [sum(rewards[e] for e in ends if e >= t) - values[t] if m else 0.0 for t, m in enumerate(mask)]
    assert plain == near(left)


@given(turns(), st.integers(0, 10).map(lambda n: n / 10))
def test_a_turn_ends_with_its_own_advantage(trajectory: Any, gamma: float) -> None:
    rewards, values, mask, ends = trajectory
    got = bilevel_gae(rewards, values, mask, ends, gamma, 0.9, 0.8)
    assert [got[e] for e in ends] == near(gae([rewards[e] for e in ends], [values[e] for e in ends], 0.8, 0.9))


def test_with_discount_two_levels_are_two() -> None:
    inputs = VECTORS["bilevel_gae_basic"]["inputs"]
    two = bilevel(VECTORS["bilevel_gae_basic"], gamma=0.95, gamma_high=0.95)
    one = token_gae(inputs["rewards"], inputs["values"], inputs["mask"], 0.95, 1.0)
    assert max(abs(a - b) for a, b in zip(one, two, strict=True)) == pytest.approx(0.176, abs=1e-3)


def test_lambda_by_length() -> None:
    assert [length_lam(length, 0.05) for length in (10, 20, 40, 2000)] == near([0.0, 0.0, 0.5, 0.99])
    for length, alpha in ((0, 0.05), (10, 0.0), (10, -1.0)):
        with pytest.raises(ValueError, match="wanted alpha > 0"):
            length_lam(length, alpha)


def test_the_box_takes_lambda_from_each_trajectory() -> None:
    made = example_graded(0, 1.0, [0.0, 0.0])
    values = tuple(tuple(0.25 for _ in range(count)) for count in made.tokens)
    graded = replace(made, signals=replace(made.signals, values=values))
    length, box = sum(graded.tokens), credit.gae
    assert box([graded], length_alpha=4 / length) == box([graded], lam=0.75) != box([graded], lam=1.0)
    assert box([graded], lam=0.5) == box([graded], lam=0.5, length_alpha=0.0)
