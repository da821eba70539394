"""Intervals and tests against published values, brute force and coverage."""

from __future__ import annotations

import itertools
import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmturn.errors import DataError
from mmturn.evaluation.metrics import Interval, bootstrap, mcnemar, paired_difference, wilson


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        # R. G. Newcombe, Statistics in Medicine 17 (1998) 857-872, table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_equals_newcombes_table(successes: int, n: int, low: float, high: float) -> None:
    interval = wilson(successes, n)
    assert (round(interval.low, 4), round(interval.high, 4)) == (low, high)
    assert round(wilson(successes + 1, n).high, 4) != high  # negative control


@given(st.integers(0, 500), st.integers(0, 500), st.sampled_from([0.5, 0.9, 0.95, 0.999]))
@settings(deadline=None)
def test_wilson_holds_its_share(a: int, b: int, level: float) -> None:
    interval = wilson(a, a + b, level)
    assert 0 <= interval.low <= interval.high <= 1
    if a + b:
        assert interval.low <= a / (a + b) <= interval.high
    mirror = wilson(b, a + b, level)
    assert math.isclose(interval.low, 1 - mirror.high, abs_tol=1e-12)


def test_wilson_refuses_nonsense() -> None:
    assert wilson(0, 0) == Interval(0.0, 1.0, 0.95, "wilson")
    with pytest.raises(ValueError, match=r"0\.\.3"):
        wilson(4, 3)
    with pytest.raises(ValueError, match="level"):
        wilson(1, 3, level=95)


def test_bootstrap_is_seeded_and_exact_in_small() -> None:
    values = [0.0, 1.0, 1.0]
    assert bootstrap(values, seed=1) == bootstrap(values, seed=1)
    means = sorted(sum(pick) / 3 for pick in itertools.product(values, repeat=3))
    interval = bootstrap(values, resamples=20000, level=0.8)
    assert interval is not None
    assert (interval.low, interval.high) == (means[2], means[-3])
    assert bootstrap([1.0]) is None and bootstrap([]) is None and bootstrap([1, 0], ["a", "a"]) is None


def test_clusters_widen_the_interval() -> None:
    values = [1.0] * 40 + [0.0] * 40
    alone = bootstrap(values)
    together = bootstrap(values, [i // 20 for i in range(80)])
    assert alone is not None and together is not None
    assert together.high - together.low > 2 * (alone.high - alone.low)
    ones = bootstrap(values, list(range(80)))
    assert ones is not None and (ones.low, ones.high) == (alone.low, alone.high)
    with pytest.raises(ValueError, match="80 values but 1 clusters"):
        bootstrap(values, ["a"])


@given(st.lists(st.tuples(st.sampled_from([0.0, 1.0, 0.1, 0.3]), st.integers(0, 6)), min_size=2), st.randoms())
@settings(deadline=None, max_examples=50)
def test_the_order_of_rows_does_not_matter(rows: list[tuple[float, int]], dice: random.Random) -> None:
    """Rows come as they finish, so that a rerun has them in another order."""
    mixed = dice.sample(rows, len(rows))
    for grouped in (False, True):
        one, other = (
            bootstrap([v for v, _ in part], [c for _, c in part] if grouped else None, resamples=50)
            for part in (rows, mixed)
        )
        assert one == other
    first, second = (
        paired_difference([1 - v for v, _ in part], [v for v, _ in part], [c for _, c in part], resamples=50)
        for part in (rows, mixed)
    )
    assert first == second


def test_clustered_bootstrap_covers_the_truth() -> None:
    generator = np.random.default_rng(0)
    hits, naive = 0, 0
    for trial in range(150):
        scene = generator.beta(2, 2, size=40)
        values = [float(generator.random() < p) for p in scene for _ in range(5)]
        clusters = [i // 5 for i in range(200)]
        with_clusters = bootstrap(values, clusters, resamples=400, seed=trial)
        without = bootstrap(values, resamples=400, seed=trial)
        assert with_clusters is not None and without is not None
        hits += with_clusters.low <= 0.5 <= with_clusters.high
        naive += without.low <= 0.5 <= without.high
    assert hits >= 0.88 * 150
    assert naive < hits


def test_mcnemar_equals_its_definition() -> None:
    first, second = [0] * 12 + [1] * 3 + [1] * 20, [1] * 12 + [0] * 3 + [1] * 20
    result = mcnemar(first, second)
    assert (result.gained, result.lost) == (12, 3)
    assert math.isclose(result.p_value, 2 * sum(math.comb(15, k) for k in range(4)) / 2**15)
    assert mcnemar(second, first).p_value == result.p_value
    assert mcnemar([1, 0], [1, 0]).p_value == 1.0
    # many changed tasks, all one way: tiny, but no impossibility
    assert mcnemar([0] * 2000, [1] * 2000).p_value == pytest.approx(2.0 * 0.5**1000 * 0.5**1000, abs=1e-300)
    assert 0 < mcnemar([0] * 100, [1] * 100).p_value == pytest.approx(2.0 * 0.5**100)
    assert mcnemar([0, 1], [1, 0]).p_value == 1.0
    assert mcnemar([0] * 3000, [1] * 3000).p_value == 0.0
    assert math.isclose(mcnemar([0] * 5, [1] * 5).p_value, 0.0625)
    with pytest.raises(ValueError, match="same tasks"):
        mcnemar([1], [1, 0])
    with pytest.raises(ValueError, match="0 or 1"):
        mcnemar([0.5], [1])


def test_paired_difference() -> None:
    result = paired_difference([0, 0, 1, 0], [1, 1, 1, 0], ["a", "a", "b", "c"])
    assert (result.mean, result.n, result.num_clusters) == (0.5, 4, 3)
    assert result.interval is not None and result.interval.low <= 0.5 <= result.interval.high
    assert paired_difference([0], [1]).interval is None
    with pytest.raises(DataError, match="nothing to compare"):
        paired_difference([], [])
    with pytest.raises(ValueError, match="same tasks"):
        paired_difference([1], [])
