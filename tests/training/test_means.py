"""Means, sums, maxima and covariances of pieces equal those of the whole."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmturn.training.means import Means

PAIRS = st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), min_size=1, max_size=12)


def noted(pairs: list[tuple[int, int]]) -> Means:
    means = Means()
    for x, y in pairs:
        means.add("mean", x)
        means.count("sum", y)
        means.top("top", x)
        means.covary("pair", x, y)
        means.covary("spread", x, x)
    return means


def test_by_hand() -> None:
    found = noted([(1, 2), (3, 2), (5, 8)]).result()
    assert found == pytest.approx({"mean": 3.0, "sum": 12.0, "top": 5.0, "pair": 4.0, "spread": 8 / 3})


@given(PAIRS, st.integers(0, 12))
def test_two_pieces_are_one(pairs: list[tuple[int, int]], cut: int) -> None:
    merged = Means()
    merged.merge([noted(pairs[:cut]), noted(pairs[cut:])])
    assert merged.result() == pytest.approx(noted(pairs).result())
    xs = [float(x) for x, _ in pairs]
    assert merged.result()["spread"] == pytest.approx(statistics.pvariance(xs), abs=1e-9)
