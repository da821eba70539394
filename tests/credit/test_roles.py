from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmturn.credit.roles import generation_rewards, pag_returns, pag_rewards, tapo_returns
from tests.vectors import VECTORS


def near(wanted: Any) -> Any:
    return pytest.approx(tuple(wanted), abs=1e-6)


def test_pag_vector() -> None:
    vector = VECTORS["pag_roleadvnorm"]
    i, p, wanted = vector["inputs"], vector["params"], near(vector["expected"]["shaped"])
    shaped = pag_rewards(i["reward"], i["prev_attempt_reward"], p["alpha"])
    assert shaped == wanted == pag_returns(i["traj"], shaped, p["gamma_turn"])
    assert pag_rewards(i["reward"], i["prev_attempt_reward"], 0.9) != wanted
    assert pag_rewards([0.1, *i["reward"][1:]], i["prev_attempt_reward"], p["alpha"]) != wanted
    assert pag_returns(i["traj"], shaped, 0.5) != wanted


def test_returns_stay_within_a_trajectory() -> None:
    assert pag_returns(["a", "b", "a", "b"], [1.0, 2.0, 3.0, 4.0], 0.5) == near([2.5, 4.0, 3.0, 4.0])
    assert pag_returns([], []) == pag_rewards([], [], 1.0) == ()
    for call, part in (
        (lambda: pag_rewards([1.0], [], 1.0), "lengths differ: rewards 1, previous 0"),
        (lambda: pag_rewards([1.0], [float("nan")], 1.0), r"previous\[0\] is not finite"),
        (lambda: pag_rewards([float("nan")], [None], 1.0), r"rewards\[0\] is not finite"),
        (lambda: pag_returns([0], []), "lengths differ"),
    ):
        with pytest.raises(ValueError, match=part):
            call()


def test_tapo_vector() -> None:
    vector = VECTORS["reveal_tapo"]
    rates, checked = vector["inputs"]["passrate_gen_turns"], vector["inputs"]["ver_acc"]
    p, wanted = vector["params"], vector["expected"]

    def returns(rates: Any, checked: Any) -> tuple[float, ...]:
        return tapo_returns(generation_rewards(rates, p["abs"], p["imp"]), checked)

    earned = generation_rewards(rates, p["abs"], p["imp"])
    assert [r is None for r in earned] == [r is None for r in wanted["r_gen"]]
    assert [r for r in earned if r is not None] == pytest.approx([r for r in wanted["r_gen"] if r is not None])
    assert returns(rates, checked) == near(wanted["turn_return"])
    total = [p["r_outcome"] + r for r in returns(rates, checked)]
    assert total == near(wanted["total_return_per_turn"])
    assert returns([0.2, None, 0.61, None, 1.0], checked) != near(wanted["turn_return"])
    assert returns(rates, [None, 0.5, None, 0.81, None]) != near(wanted["turn_return"])


def test_tapo_ends_with_a_verification_and_weighs() -> None:
    assert tapo_returns([0.5, None], [None, 1.0]) == (0.5, 1.0) and tapo_returns([], []) == ()
    assert generation_rewards([0.5, None, 0.75], 1.0, 0.0) == (0.5, None, 0.75)
    assert generation_rewards([0.5, None, 0.75], 1.0, 2.0) == (0.5, None, 1.25)
    for call, part in (
        (lambda: tapo_returns([0.5], [0.5]), "turn 0 needs a generation or a verification reward, not both"),
        (lambda: tapo_returns([0.5, None], [None, None]), "turn 1 .* not none"),
        (lambda: tapo_returns([0.5], []), "lengths differ"),
        (lambda: tapo_returns([None], [float("inf")]), "not finite"),
        (lambda: generation_rewards([float("nan")]), "not finite"),
    ):
        with pytest.raises(ValueError, match=part):
            call()


@given(st.lists(st.integers(0, 8).map(lambda n: n / 8), min_size=1, max_size=6))
def test_generation_rewards_telescope(rates: list[float]) -> None:
    spaced = [value for rate in rates for value in (rate, None)]
    assert sum(r for r in generation_rewards(spaced) if r is not None) == pytest.approx(rates[-1])
