"""Numbers in answers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmturn.grading import numbers_equal, parse_number
from mmturn.grading.numbers import Number


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7", 7),
        ("+7", 7),
        ("-3", -3),
        ("\u22123", -3),
        (".5", 0.5),
        ("5.", 5),
        ("1,234", 1234),
        ("1,234,567.5", 1234567.5),
        ("100,000,", 100000),
        ("$7", 7),
        ("1e-3", 0.001),
        ("3/4", 0.75),
        ("7 cars", 7),
        ("There are 7 red cars.", 7),
        ("7 and 7", 7),
        ("**7**", 7),
        ("(7)", 7),
        ("seven", 7),
        ("Twenty.", 20),
        ("\uff11\uff12", 12),
    ],
)
def test_numbers(text: str, value: float) -> None:
    assert parse_number(text) == Number(value)


@pytest.mark.parametrize(
    "text",
    [
        *("", "x", "1,5", "12,34", "1.2.3", "3 of 7", "1-2", "2020-01-01", "12:30", "B2", "x86", "7th", "7px", "0x10"),
        *("1/0", "nan", "inf", "1e999", "9" * 400, "7 " * 5000, "twelve and a half"),
    ],
)
def test_what_is_no_one_number(text: str) -> None:
    assert parse_number(text) is None


def test_percent() -> None:
    percent, share, plain = parse_number("45 %"), parse_number("0.45"), parse_number("45")
    assert percent == Number(45, percent=True)
    assert share is not None
    assert plain is not None
    assert numbers_equal(percent, share)
    assert numbers_equal(share, percent)
    assert numbers_equal(percent, plain)
    assert not numbers_equal(share, plain)
    assert not numbers_equal(Number(45, True), Number(0.45, True))


def test_tolerance() -> None:
    assert not numbers_equal(Number(100), Number(101))
    assert numbers_equal(Number(100), Number(101), rel_tol=0.01)
    assert numbers_equal(Number(0), Number(0.5), abs_tol=0.5)


@given(st.integers(-(10**15), 10**15))
def test_whole_numbers_come_back(number: int) -> None:
    assert parse_number(str(number)) == Number(float(number))
    assert parse_number(f"{number:,}") == Number(float(number))


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=-1e15, max_value=1e15))
def test_floats_come_back(number: float) -> None:
    assert parse_number(repr(number)) == Number(number)
