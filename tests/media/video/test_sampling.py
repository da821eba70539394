"""Which frames are looked at."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmturn.errors import DataError, ToolError
from mmturn.media.video.clock import Clock
from mmturn.media.video.sampling import between, frame_number, pool, uniform


def clock_of(count: int, rate: int) -> Clock:
    return Clock(np.arange(count), Fraction(1, rate), count)


def test_published_examples() -> None:
    assert uniform(10, 24, 8) == [10, 12, 14, 16, 18, 20, 22, 24], "Video-MTR retrieves 10,24 of its pool"
    assert uniform(0, 63, 16) == np.linspace(0, 63, 16).round().astype(int).tolist()
    assert between(0, 900, 8, 901) == np.linspace(1, 899, 8).astype(int).tolist(), "FrameThinker, its code"
    with pytest.raises(ToolError, match="no room for 8"):
        between(0, 8, 8, 100)
    assert frame_number(4503, Fraction(30000, 1001)) == 134955


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(1, 80))
def test_uniform_frames_rise_within_their_ends(one: int, other: int, count: int) -> None:
    first, last = sorted((one, other))
    for rounding in ("nearest", "down"):
        found = uniform(first, last, count, rounding)
        assert len(found) == len(set(found)) == min(count, last - first + 1) and found == sorted(found)
        assert found[0] == first and (found[-1] == last or count == 1)
        exact = np.linspace(first, last, len(found))
        assert all(
            abs(index - value) <= (0.5 if rounding == "nearest" else 1) + 1e-6 for index, value in zip(found, exact)
        )


def test_rounding_is_chosen() -> None:
    assert uniform(0, 10, 4) == [0, 3, 7, 10] and uniform(0, 10, 4, "down") == [0, 3, 6, 10]


def test_a_pool_is_one_frame_a_second_and_not_more_than_its_limit() -> None:
    assert pool(clock_of(100, 10)) == list(range(0, 100, 10))
    long = pool(clock_of(30_000, 10), limit=64)
    assert len(long) == 64 and long[0] == 0 and long[-1] == 29_990
    assert pool(clock_of(4, 1), per_second=4) == [0, 1, 2, 3], "a frame shown for long is one candidate"
    assert len(pool(clock_of(100, 10), per_second=2)) == 20


def test_impossible_choices_are_refused() -> None:
    with pytest.raises(DataError, match="cannot choose"):
        uniform(3, 2, 4)
    with pytest.raises(DataError, match="cannot choose"):
        uniform(0, 2, 0)
    with pytest.raises(DataError, match="positive"):
        pool(clock_of(4, 1), per_second=0)
    for first, last in ((-1, 50), (0, 100), (100, 101)):
        with pytest.raises(ToolError, match="frames 0 to 99"):
            between(first, last, 8, 100)
