from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmturn.credit.outcome import grpo, spread
from mmturn.credit.select import (
    dynamic_sampling,
    entropy_threshold,
    fresh_enough,
    high_entropy_steps,
    top_spread,
    without_void_turns,
)
from tests.vectors import VECTORS


def test_top_spread_vector() -> None:
    vector = VECTORS["ragen_filter"]
    groups, keep, wanted = vector["inputs"]["rewards_by_group"], vector["params"]["keep"], vector["expected"]
    assert [spread(group, "unbiased") for group in groups] == pytest.approx(wanted["std"], abs=1e-6)
    assert top_spread(groups, keep) == wanted["kept_groups"]
    assert top_spread([groups[0], [0.4, 0.5, 0.4, 0.5], *groups[2:]], keep) != wanted["kept_groups"]
    assert top_spread(groups, 0.4) != wanted["kept_groups"]


def test_top_spread_ties_and_odd_groups() -> None:
    # [0.3, 0.4] and [0.1, 0.2] spread the same up to rounding
    assert top_spread([[0.1, 0.2], [0.3, 0.4], [0.1, 0.2]], 0.67) == [0, 1]
    assert top_spread([[0.5], [], [1.0, 1.0]], 1.0) == [0, 1, 2] and top_spread([], 0.5) == []
    assert top_spread([[0.0, 1.0]] * 3, 0.3) == []
    # three values close together and two far apart change places with the denominator
    pair, trio = [0.0, 1.0], [0.0, 1.0, 1.0]
    assert top_spread([trio, pair], 0.5) == [1]
    assert top_spread([[0.0, 1.0, 1.0, 0.0], [0.0, 1.02, 1.02, 0.0], [0.0, 0.9]], 0.34) == [2]
    assert top_spread([[0.0, 1.0, 1.0, 0.0], [0.0, 1.02, 1.02, 0.0], [0.0, 0.9]], 0.34, "population") == [1]
    for call, part in (
        (lambda: top_spread([[0.0]], 1.5), "keep must lie"),
        (lambda: top_spread([[0.0], [float("nan")]], 1.0), r"rewards\[1\]\[0\] is not finite"),
    ):
        with pytest.raises(ValueError, match=part):
            call()


def test_dynamic_sampling_vector() -> None:
    vector = VECTORS["dynamic_sampling"]
    groups = vector["inputs"]["group_acc"]
    assert dynamic_sampling(groups) == vector["expected"]["kept"]
    assert dynamic_sampling({**groups, "a": [1, 1, 1, 0]}) != vector["expected"]["kept"]


def test_void_turn_vector() -> None:
    vector = VECTORS["void_turn_mask"]
    flags, wanted = vector["inputs"]["void_flags"], vector["expected"]["traj_loss_mask"]
    assert [int(keep) for keep in without_void_turns(flags)] == wanted
    assert [int(keep) for keep in without_void_turns([[1], *flags[1:]])] != wanted
    adv = grpo(vector["inputs"]["reward"], "unbiased", vector["params"]["eps"])
    assert adv == pytest.approx(tuple(vector["expected"]["adv_stats_all"]), abs=1e-6)
    assert without_void_turns([[], [False]]) == [True, True]


def test_entropy_vector() -> None:
    vector = VECTORS["dart_entropy"]
    entropies, quantile, wanted = vector["inputs"]["step_entropy"], vector["params"]["quantile"], vector["expected"]
    assert entropy_threshold(entropies, quantile) == pytest.approx(wanted["threshold"], abs=1e-6)
    assert [int(keep) for keep in high_entropy_steps(entropies, quantile)] == wanted["keep"]
    assert (
        high_entropy_steps(entropies) == high_entropy_steps(entropies, quantile) != high_entropy_steps(entropies, 0.5)
    )
    assert entropy_threshold([*entropies[:-1], 0.01], quantile) != pytest.approx(wanted["threshold"], abs=1e-6)


@given(
    st.lists(st.integers(0, 40).map(lambda n: n / 16), min_size=1, max_size=20),
    st.integers(0, 100).map(lambda n: n / 100),
)
def test_threshold_is_numpys_quantile(entropies: list[float], quantile: float) -> None:
    threshold = entropy_threshold(entropies, quantile)
    assert threshold == pytest.approx(float(np.quantile(entropies, quantile)), abs=1e-12)
    kept = high_entropy_steps(entropies, quantile)
    assert kept == list(np.array(entropies) >= np.quantile(entropies, quantile)) and any(kept)


def test_entropy_odd_groups() -> None:
    assert high_entropy_steps([]) == [] and high_entropy_steps([0.3]) == [True]
    assert high_entropy_steps([0.3, 0.3], 1.0) == [True, True]
    for call, part in (
        (lambda: entropy_threshold([], 0.2), "no entropies"),
        (lambda: entropy_threshold([0.1], 1.2), "quantile must lie"),
        (lambda: high_entropy_steps([float("nan")]), r"entropies\[0\] is not finite"),
    ):
        with pytest.raises(ValueError, match=part):
            call()


def test_the_oldest_turn_decides_how_fresh_a_trajectory_is() -> None:
    assert fresh_enough([[5, 5], [4, 5], [3, 5], []], current=5, max_lag=1) == [True, True, False, True]
    assert fresh_enough([[3, 5]], current=5, max_lag=2) == [True]
    with pytest.raises(ValueError, match="trajectory 1 was sampled by version 6, after the current 5"):
        fresh_enough([[5], [6]], 5, 1)
