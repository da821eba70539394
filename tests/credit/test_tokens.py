from __future__ import annotations

import pytest

from mmturn.credit.tokens import discount, finite, one_length, sampled, scatter

NAN = float("nan")


def test_positions_there_and_back() -> None:
    assert sampled([0, 1, 1.0, False, True]) == [1, 2, 4] and sampled([]) == []
    assert scatter([1, 3], [0.5, 0.25], 5) == (0.0, 0.5, 0.0, 0.25, 0.0) and scatter([], [], 2) == (0.0, 0.0)


def test_what_stands_at_mask_0_is_never_read() -> None:
    assert sampled([0, 1], rewards=[NAN, 1.0], values=[float("inf"), 0.0]) == [1]
    with pytest.raises(ValueError, match=r"values\[1\] is not finite: nan"):
        sampled([0, 1], rewards=[0.0, 1.0], values=[0.0, NAN])


def test_refusals_name_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="lengths differ: mask 2, rewards 1"):
        sampled([0, 1], rewards=[0.0])
    with pytest.raises(ValueError, match=r"mask\[1\] must be 0 or 1, got 0.5"):
        sampled([0, 0.5])
    with pytest.raises(ValueError, match=r"x\[1\] is not finite: inf"):
        finite("x", [0, float("inf")])
    with pytest.raises(ValueError, match="lengths differ: a 1, b 0"):
        one_length(a=[1], b=[])
    for bad in (-0.1, 1.1, NAN):
        with pytest.raises(ValueError, match=r"gamma must lie in 0\.\.1"):
            discount("gamma", bad)
    assert finite("x", [1, 2.5]) == [1.0, 2.5] and one_length(a=[1], b="x") == 1 and discount("gamma", 1) == 1
