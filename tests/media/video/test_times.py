"""MM:SS and HH:MM:SS <-> seconds."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmturn.errors import ParseError
from mmturn.media.video.times import format_time, parse_time


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("02:15", 135), ("75:03", 4503), ("00:00", 0), ("1:02:03", 3723), ("01:02:03.25", Fraction(14893, 4)),
        ("90", 90), ("7.5", Fraction(15, 2)), (" 100:00 ", 6000), ("00:59.999", Fraction(59999, 1000)), ("5:7", 307),
    ],
)  # fmt: skip
def test_times_are_read(text: str, seconds: Fraction) -> None:
    assert parse_time(text) == seconds


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "MM:SS"), ("a:b", "MM:SS"), ("-1:00", "MM:SS"), ("1:60", "at most 59 seconds"), ("1:2:3:4", "MM:SS"),
        ("1:60:00", "at most 59 minutes"), ("1.5:00", "MM:SS"), ("١:٠٢", "MM:SS"), ("1e3", "MM:SS"),
        ("9" * 40, "MM:SS"), ("00:01.", "MM:SS"), ("nan", "MM:SS"),
    ],
)  # fmt: skip
def test_what_is_no_time_is_refused_with_an_example(text: str, words: str) -> None:
    with pytest.raises(ParseError, match=words):
        parse_time(text)


def test_times_are_cut_off_not_rounded() -> None:
    assert format_time(Fraction(5999, 100)) == "00:59"
    assert format_time(Fraction(5999, 100), 1) == "00:59.9"
    assert format_time(4503) == "75:03" and format_time(4503, hours=True) == "01:15:03"
    assert format_time(Fraction(1, 3), 3) == "00:00.333"
    with pytest.raises(ValueError, match="negative"):
        format_time(Fraction(-1, 2))


@given(st.fractions(0, 10**6), st.integers(0, 9), st.booleans())
def test_what_is_written_is_read_back_but_for_what_was_cut_off(moment: Fraction, digits: int, hours: bool) -> None:
    lost = moment - parse_time(format_time(moment, digits, hours))
    assert 0 <= lost < Fraction(1, 10**digits)


@given(st.integers(0, 10**8))
def test_whole_seconds_go_both_ways(seconds: int) -> None:
    assert parse_time(format_time(seconds)) == parse_time(format_time(seconds, hours=True)) == seconds
