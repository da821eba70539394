from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmturn.credit.outcome import grpo
from mmturn.credit.turns import TwoTurn, mt_grpo, mt_grpo_two_turn, over_tokens
from tests.vectors import VECTORS


def spread_over_tokens(inputs: dict[str, Any], params: dict[str, Any]) -> np.ndarray:
    used = [bool(flag) for flag in inputs["has_tool_result"]]
    pairs = mt_grpo_two_turn(
        inputs["turn_reward"], inputs["outcome_reward"], used, params["coef"], "unbiased", params["eps"]
    )
    rows = zip(pairs, inputs["mask"], inputs["tool_result_split"], strict=True)
    return np.array([over_tokens(pair, mask, split) for pair, mask, split in rows])


def test_published_form_vector() -> None:
    vector = VECTORS["mt_grpo_repo"]
    inputs, params, wanted = vector["inputs"], vector["params"], np.array(vector["expected"]["token_adv"])
    np.testing.assert_allclose(spread_over_tokens(inputs, params), wanted, rtol=0, atol=1e-6)
    for key, value in (("turn_reward", [0.7, 0.2, 0.01, 0.2]), ("outcome_reward", [1.7, 0.2, 0.21, 0.2])):
        assert not np.allclose(spread_over_tokens({**inputs, key: value}, params), wanted, rtol=0, atol=1e-6)
    all_used = {**inputs, "has_tool_result": [1, 1, 1, 1]}
    assert not np.allclose(spread_over_tokens(all_used, params), wanted, rtol=0, atol=1e-6)
    assert not np.allclose(spread_over_tokens(inputs, {**params, "coef": 0.5}), wanted, rtol=0, atol=1e-6)


def test_tokens_before_and_after_the_first_result() -> None:
    pair = TwoTurn(2.0, 1.0)
    assert over_tokens(pair, [1, 1, 0, 1], 2) == (2.0, 2.0, 0.0, 1.0)
    assert over_tokens(pair, [1, 0, 0, 1], None) == (2.0, 0.0, 0.0, 2.0)
    assert over_tokens(pair, [], None) == ()
    with pytest.raises(ValueError, match="lengths differ: turn_rewards 2, outcome_rewards 2, used_tool 1"):
        mt_grpo_two_turn([0.0, 1.0], [0.0, 1.0], [True])


def kturn(inputs: dict[str, Any], eps: float) -> np.ndarray:
    ragged = [row[:n] for row, n in zip(inputs["turn_rewards"], inputs["n_turns"], strict=True)]
    padded = np.zeros((len(ragged), len(inputs["turn_rewards"][0])))
    for i, row in enumerate(mt_grpo(ragged, inputs["outcome"], eps=eps)):
        padded[i, : len(row)] = row
    return padded


def test_k_turn_vector() -> None:
    vector = VECTORS["mt_grpo_kturn"]
    inputs, eps, wanted = vector["inputs"], vector["params"]["eps"], np.array(vector["expected"]["adv"])
    np.testing.assert_allclose(kturn(inputs, eps), wanted, rtol=0, atol=1e-6)
    only_turns = np.array(vector["expected"]["adv_turn"])
    np.testing.assert_allclose(kturn({**inputs, "outcome": [0, 0, 0]}, eps), only_turns, rtol=0, atol=1e-6)
    other = {**inputs, "turn_rewards": [[0.2, 0.5, 0.0], [0.2, 0.0, 0.0], [0.0, 0.6, 0.5]]}
    assert not np.allclose(kturn(other, eps), wanted, rtol=0, atol=1e-6)
    assert not np.allclose(kturn({**inputs, "n_turns": [3, 3, 3]}, eps), wanted, rtol=0, atol=1e-6)


def test_a_turn_that_one_trajectory_has_gets_the_outcome_alone() -> None:
    outcome = grpo([1.0, 0.0])
    got = mt_grpo([[0.5], [0.5, 9.0]], [1.0, 0.0])
    assert got == [(outcome[0],), (outcome[1], outcome[1])]
    assert mt_grpo([], []) == [] and mt_grpo([()], [1.0]) == [()]
    assert mt_grpo([[0.5, 0.1]], [1.0], single="reward", std="none") == [(1.0, 1.0)]


RAGGED = st.lists(st.lists(st.integers(-8, 8).map(lambda n: n / 4), max_size=4), min_size=1, max_size=8)


@given(RAGGED, st.randoms())
def test_permutation_shift_and_own_turn_only(turns: list[list[float]], random: Any) -> None:
    outcomes = [float(i % 3) for i in range(len(turns))]
    straight = mt_grpo(turns, outcomes)
    order = list(range(len(turns)))
    random.shuffle(order)
    permuted = mt_grpo([turns[i] for i in order], [outcomes[i] for i in order])
    shifted = mt_grpo([[r + 3.0 for r in row] for row in turns], [o - 2.0 for o in outcomes])
    for i, k in enumerate(order):
        np.testing.assert_allclose(permuted[i], straight[k], rtol=0, atol=1e-6)
    for a, b in zip(shifted, straight, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)
    changed = mt_grpo([[*row[:1], *(9.0 * i for i, _ in enumerate(row[1:]))] for row in turns], outcomes)
    assert [row[:1] for row in changed] == [row[:1] for row in straight]
