"""Which frames stand for many."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmturn.envs.stream.clusters import middles
from mmturn.envs.stream.features import FEATURES, colours, thumbnail


def test_each_heap_has_its_middle() -> None:
    rng = np.random.default_rng(0)
    heaps = np.concatenate([rng.normal(centre, 0.1, (10, 3)) for centre in (0.0, 5.0, 9.0)])
    assert [index // 10 for index in middles(heaps, 3)] == [0, 1, 2]
    means = [heaps[k * 10 : k * 10 + 10].mean(0) for k in range(3)]
    nearest = [
        k * 10 + int(((heaps[k * 10 : k * 10 + 10] - mean) ** 2).sum(1).argmin()) for k, mean in enumerate(means)
    ]
    assert middles(heaps, 3) == nearest


def test_few_points_or_equal_ones() -> None:
    points = np.arange(6, dtype=float).reshape(3, 2)
    assert middles(points, 5) == [0, 1, 2]
    assert middles(np.ones((7, 2)), 3) == [0]
    with pytest.raises(ValueError, match="at least 1"):
        middles(points, 0)


@given(st.lists(st.tuples(st.floats(-9, 9), st.floats(-9, 9)), min_size=1, max_size=30), st.integers(1, 8))
def test_never_more_than_asked_for_and_the_same_again(points: list[tuple[float, float]], count: int) -> None:
    chosen = middles(np.array(points), count)
    assert 1 <= len(chosen) <= count and chosen == sorted(set(chosen))
    assert middles(np.array(points), count) == chosen


def test_features_see_what_they_say() -> None:
    left, right = np.zeros((32, 48, 3), np.uint8), np.zeros((32, 48, 3), np.uint8)
    left[8:16, 8:16], right[8:16, 32:40] = (255, 0, 0), (255, 0, 0)
    assert np.array_equal(colours(left), colours(right)), "a histogram is blind to places"
    assert np.abs(thumbnail(left) - thumbnail(right)).max() > 0.5
    assert {name: make(left).shape for name, make in FEATURES.items()} == {"thumbnail": (192,), "colours": (64,)}
    assert (colours(left) ** 2).sum() == pytest.approx(1)
