from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmturn.credit.returns import returns_to_go, token_returns
from tests.vectors import VECTORS

NUMBERS = st.lists(st.integers(-16, 16).map(lambda n: n / 8), max_size=8)


def near(wanted: Any) -> Any:
    return pytest.approx(tuple(wanted), abs=1e-6)


def test_monte_carlo_vector() -> None:
    vector = VECTORS["mc_returns"]
    rewards, gamma, wanted = vector["inputs"]["r"], vector["params"]["gamma"], near(vector["expected"]["returns"])
    assert returns_to_go(rewards, gamma) == wanted
    assert returns_to_go([0, 0.001, 1.0], gamma) != wanted and returns_to_go(rewards, 0.98) != wanted


def test_observations_pass_a_return_on_vector() -> None:
    vector = VECTORS["reinforcepp_reset_trap"]
    inputs, gamma = vector["inputs"], vector["params"]["gamma"]
    for b, mask in enumerate(inputs["mask"]):
        rewards, wanted = inputs["token_rewards"][b], near(vector["expected"]["returns_skip_obs"][b])
        assert token_returns(rewards, mask, gamma) == wanted
        assert token_returns([r + 0.001 for r in rewards], mask, gamma) != wanted
    assert near(vector["expected"]["returns_with_mask_reset"][0]) != near(vector["expected"]["returns_skip_obs"][0])


def test_observations_cost_no_discount_and_are_not_read() -> None:
    nan = float("nan")
    assert token_returns([0.0, nan, nan, 1.0], [1, 0, 0, 1], 0.5) == (0.5, 0.0, 0.0, 1.0)
    assert token_returns([nan], [0], 0.5) == (0.0,) and token_returns([], [], 1.0) == returns_to_go([], 1.0) == ()
    with pytest.raises(ValueError, match="lengths differ"):
        token_returns([1.0], [1, 1], 0.5)
    with pytest.raises(ValueError, match=r"rewards\[0\] is not finite"):
        returns_to_go([nan], 0.5)
    with pytest.raises(ValueError, match="gamma"):
        returns_to_go([1.0], 1.5)


@given(NUMBERS, st.integers(0, 10).map(lambda n: n / 10))
def test_definition(rewards: list[float], gamma: float) -> None:
    sums = [sum(gamma ** (k - t) * rewards[k] for k in range(t, len(rewards))) for t in range(len(rewards))]
    assert returns_to_go(rewards, gamma) == near(sums)
    # the same tokens with an observation before each
    spaced = token_returns([v for r in rewards for v in (9.0, r)], [0, 1] * len(rewards), gamma)
    assert spaced[1::2] == near(sums) and not any(spaced[::2])
