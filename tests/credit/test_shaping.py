from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmturn.credit.shaping import activevln_reward, improvements, status_reward
from tests.vectors import VECTORS


def walks(inputs: dict[str, Any], success_base: float, ndtw_base: float) -> list[float]:
    rows = zip(inputs["goal"], inputs["dist"], inputs["ndtw"], strict=True)
    return [activevln_reward(bool(goal), dist, ndtw, success_base, ndtw_base) for goal, dist, ndtw in rows]


def test_activevln_vector() -> None:
    vector = VECTORS["activevln_reward"]
    inputs, p, wanted = vector["inputs"], vector["params"], pytest.approx(vector["expected"]["reward"], abs=1e-6)
    assert walks(inputs, p["success_base"], p["ndtw_base"]) == wanted
    assert walks({**inputs, "dist": [0.61, 2.4, 0.5]}, p["success_base"], p["ndtw_base"]) != wanted
    assert walks({**inputs, "goal": [1, 1, 1]}, p["success_base"], p["ndtw_base"]) != wanted
    assert walks(inputs, p["success_base"], 0.1) != wanted


def test_activevln_edges() -> None:
    assert activevln_reward(True, 0.0, 0.0) == 15.0 and activevln_reward(True, 3.0, 1.0) == 0.0
    assert activevln_reward(True, 99.0, 0.5, ndtw_base=2.0) == 1.0 == activevln_reward(False, 0.0, 0.5, ndtw_base=2.0)
    assert activevln_reward(True, 5.0, 0.0, radius_m=10.0) == 7.5
    for arguments in ((True, float("nan"), 0.0), (True, 0.0, float("inf")), (True, -1.0, 0.0)):
        with pytest.raises(ValueError, match="distance_m"):
            activevln_reward(*arguments)


def test_status() -> None:
    assert (status_reward(True, True), status_reward(False, True)) == (1.0, 0.0)
    assert status_reward(True, False) == status_reward(False, False) == -0.2
    assert status_reward(False, False, unfinished=-1.0) == -1.0


def test_improvements() -> None:
    rates = [0.2, 0.6, 0.4, 0.6, 0.7]
    assert improvements(rates) == pytest.approx((0.2, 0.4, -0.2, 0.2, 0.1))
    assert improvements(rates, "best") == pytest.approx((0.2, 0.4, 0.0, 0.0, 0.1))
    assert improvements(rates[1:], start=rates[0]) == pytest.approx(improvements(rates)[1:])
    assert improvements([]) == () and improvements([0.1], "best", start=0.5) == (0.0,)
    with pytest.raises(ValueError, match=r"qualities\[0\] is not finite"):
        improvements([float("nan")])


@given(st.lists(st.integers(-8, 8).map(lambda n: n / 8), min_size=1, max_size=6))
def test_improvements_telescope(qualities: list[float]) -> None:
    assert sum(improvements(qualities, start=-1.0)) == pytest.approx(qualities[-1] + 1.0)
    assert sum(improvements(qualities, "best", start=-1.0)) == pytest.approx(max(qualities) + 1.0)
