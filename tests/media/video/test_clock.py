"""The time base: index, seconds and MM:SS, at constant and at varying frame rates."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmturn.errors import DataError
from mmturn.media.video.clock import SLACK_S, Clock
from mmturn.media.video.times import parse_time


def clock_of(gaps: list[int], unit: Fraction, first: int = 0) -> Clock:
    ticks = np.cumsum([first, *gaps], dtype=np.int64)
    return Clock(ticks, unit, int(ticks[-1]) + (gaps[-1] if gaps else 1))


@st.composite
def clocks(draw: st.DrawFn) -> Clock:
    unit = draw(st.sampled_from([Fraction(1, 90000), Fraction(1, 1000), Fraction(1001, 30000), Fraction(1, 25)]))
    # neighbours at least a millisecond apart, as no camera films faster
    least = max(1, round(Fraction(1, 1000) / unit))
    gaps = draw(st.lists(st.integers(least, least * 5000), max_size=40))
    return clock_of(gaps, unit, draw(st.integers(-(10**6), 10**12)))


@given(clocks(), st.data())
def test_every_frame_is_found_by_its_own_time_and_label(clock: Clock, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(clock) - 1))
    moment = clock.seconds(index)
    assert clock.shown_at(moment) == clock.shown_at(float(moment)) == index
    assert clock.nearest(moment) == clock.nearest(float(moment)) == index
    assert clock.nearest(parse_time(clock.label(index))) == index
    assert clock.seconds(0) == 0 and clock.duration_s > moment


@given(clocks(), st.fractions(0, 10**5))
def test_the_frame_shown_is_the_last_that_is_not_later(clock: Clock, moment: Fraction) -> None:
    times = [clock.seconds(index) for index in range(len(clock))]
    if moment + SLACK_S >= clock.duration_s:
        with pytest.raises(DataError, match="outside the video"):
            clock.shown_at(moment)
        return
    shown = clock.shown_at(moment)
    assert times[shown] < moment + Fraction(1, 1_000_000) and all(later > moment for later in times[shown + 1 :])


@given(clocks(), st.fractions(-10, 10**5))
def test_nearest_is_nearest_and_the_earlier_of_two(clock: Clock, moment: Fraction) -> None:
    away = [abs(clock.seconds(index) - moment) for index in range(len(clock))]
    assert clock.nearest(moment) == away.index(min(away))


@given(clocks(), st.integers(0, 10**8), st.integers(0, 10**8))
def test_spans_are_half_open(clock: Clock, one: int, other: int) -> None:
    start, end = sorted((Fraction(one, 1000), Fraction(other, 1000)))
    inside = [index for index in range(len(clock)) if start <= clock.seconds(index) < end]
    assert list(clock.span(start, end)) == inside
    middle = (start + end) / 2
    assert [*clock.span(start, middle), *clock.span(middle, end)] == inside, "neighbouring spans share nothing"


def test_floats_that_round_down_still_find_their_frame() -> None:
    clock = clock_of([1] * 30000, Fraction(1001, 30000))
    missed = [index for index in range(len(clock)) if clock.shown_at(float(clock.seconds(index))) != index]
    assert missed == []
    assert any(Fraction(float(clock.seconds(index))) < clock.seconds(index) for index in range(100)), (
        "some do round down"
    )
    assert clock.shown_at(clock.seconds(7) - Fraction(1, 10**6)) == 6, "a microsecond is not forgiven"


def test_labels_are_as_short_as_they_can_be() -> None:
    slow, ntsc = clock_of([1] * 5000, Fraction(1)), clock_of([1001] * 200, Fraction(1, 30000))
    assert slow.label(4503) == "75:03"
    assert [ntsc.label(index) for index in (0, 1, 30)] == ["00:00", "00:00.03", "00:01"]
    assert ntsc.label(31) == "00:01.03"


def test_varying_rates_convert_exactly() -> None:
    clock = clock_of([40, 40, 1000, 33, 33], Fraction(1, 1000), first=5000)
    assert [clock.seconds(index) for index in range(6)] == [Fraction(n, 1000) for n in (0, 40, 80, 1080, 1113, 1146)]
    assert clock.shown_at(1) == 2 and clock.nearest(1) == 3 and clock.shown_at(parse_time("00:01.08")) == 3
    assert list(clock.span(0.04, 1.113)) == [1, 2, 3] and list(clock.span(0.1, 1)) == []
    assert clock.mean_rate == Fraction(6000, 1179)


def test_what_no_clock_can_tell_is_refused() -> None:
    clock = clock_of([1, 1], Fraction(1))
    for act, words in (
        (lambda: clock.seconds(3), "frames 0 to 2"),
        (lambda: clock.seconds(-1), "no frame -1"),
        (lambda: clock.shown_at(-0.5), "outside"),
        (lambda: clock.shown_at(float("nan")), "finite"),
        (lambda: clock.nearest(float("inf")), "finite"),
        (lambda: clock.span(2, 1), "end before it starts"),
        (lambda: Clock(np.array([3, 3]), Fraction(1), 4), "follow one another"),
        (lambda: Clock(np.array([3, 4]), Fraction(1), 3), "end after"),
        (lambda: Clock(np.array([], np.int64), Fraction(1), 3), "at least one frame"),
    ):
        with pytest.raises(DataError, match=words):
            act()
    assert clock.nearest(10**30) == 2 and clock.nearest(-(10**30)) == 0


def test_a_single_frame_is_a_video() -> None:
    clock = Clock(np.array([900]), Fraction(1, 90000), 900)
    assert len(clock) == 1 and clock.duration_s == 0 and clock.mean_rate is None and clock.shown_at(0) == 0
