from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmturn.credit.curriculum import GainWeights, igpo_weights, ramp, rollouts, step_budget, turn_cap
from mmturn.credit.gain import igpo
from tests.vectors import VECTORS


def test_turn_cap_vector() -> None:
    vector = VECTORS["scaling_inter"]
    p, steps, wanted = vector["params"], vector["inputs"]["steps"], vector["expected"]["max_turns"]
    assert [turn_cap(step, p["rounds"], p["interval"]) for step in steps] == wanted
    assert [turn_cap(step, p["rounds"], p["interval"] + 1) for step in steps] != wanted
    assert [turn_cap(step + 1, p["rounds"], p["interval"]) for step in steps] != wanted
    for arguments in ((0, [], 1), (-1, [5], 1), (0, [5], 0)):
        with pytest.raises(ValueError, match="wanted caps"):
            turn_cap(*arguments)


def test_weights_go_straight_and_stay() -> None:
    assert [ramp(step, 4, 1.0, 0.5) for step in (0, 1, 2, 4, 9)] == [1.0, 0.875, 0.75, 0.5, 0.5]
    assert igpo_weights(0, 10) == GainWeights(0.5, 1.0) and igpo_weights(10, 10) == GainWeights(1.0, 0.5)
    for arguments in ((0, 0), (-1, 4)):
        with pytest.raises(ValueError, match="wanted steps"):
            ramp(*arguments, 0.0, 1.0)


def test_weights_matter_in_a_joint_pool_only() -> None:
    gains, outcomes, w = [[0.2], [-0.1], [0.3]], [1.0, 0.0, 0.5], igpo_weights(0, 10)
    weighted = [[w.gain * g for g in row] for row in gains], [w.outcome * o for o in outcomes]
    joint: Any = [igpo(g, o, pool="joint") for g, o in ((gains, outcomes), weighted)]
    apart: Any = [igpo(g, o, pool="separate") for g, o in ((gains, outcomes), weighted)]
    assert joint[0][0] != pytest.approx(joint[1][0], abs=1e-3) and apart[0][0] == pytest.approx(apart[1][0], abs=1e-4)


def test_easy_tasks_get_fewer_rollouts() -> None:
    assert [rollouts(rate) for rate in (0.0, 0.6, 0.7, 0.75, 0.8, 0.9, 1.0)] == [8, 8, 5, 5, 4, 3, 2]
    assert all(rollouts(k / 64) == max(2, int(9 * 64 / k - 7)) for k in range(39, 65)), "the repository's formula"
    assert rollouts(1.0, least=1) == 1 and rollouts(0.7, threshold=0.7) == 8 and rollouts(0.5, most=4) == 4
    for arguments in ((1.1,), (0.5, 8, 0), (0.5, 2, 4), (0.5, 8, 2, 1.0), (float("nan"),)):
        with pytest.raises(ValueError, match="wanted success_rate"):
            rollouts(*arguments)


@given(st.integers(0, 100), st.integers(0, 100))
def test_rollouts_fall_as_success_rises(a: int, b: int) -> None:
    low, high = sorted((a / 100, b / 100))
    assert 8 >= rollouts(low) >= rollouts(high) >= 2


def test_step_budget_vector() -> None:
    vector = VECTORS["activevln_reward"]
    tolerance, limit = vector["params"]["tol"], vector["params"]["max_steps"]
    wanted = vector["expected"]["step_budget_for_expert_len_30_80"]
    assert [step_budget(n, tolerance, limit) for n in (30, 80)] == [step_budget(n) for n in (30, 80)] == wanted
    assert [step_budget(n, 1.5, limit) for n in (30, 80)] != wanted != [step_budget(n, tolerance, 90) for n in (30, 80)]
    for arguments in ((-1,), (1, -1.0), (1, float("nan")), (1, float("inf"))):
        with pytest.raises(ValueError, match="wanted expert_steps"):
            step_budget(*arguments)
