"""Optical flow: none where nothing moves, its length where something does, and what appears counts."""

from __future__ import annotations

import numpy as np
import pytest

from mmturn.envs.stream.motion import Floats, grey, motion


def texture(shift: float) -> Floats:
    """A smooth pattern, moved to the right by so many pixels."""
    y, x = np.mgrid[0:48, 0:64].astype(float)
    return np.asarray(0.5 + 0.2 * np.sin((x - shift) / 4) + 0.2 * np.sin(y / 5 + (x - shift) / 9))


def test_equal_pictures_do_not_move() -> None:
    assert motion(texture(0), texture(0)) == 0


@pytest.mark.parametrize("shift", [0.25, 0.5, 1.0])
def test_a_shift_is_told_by_its_length(shift: float) -> None:
    measured = motion(texture(0), texture(shift))
    assert 0.75 * shift < measured < 1.15 * shift
    assert motion(texture(0), texture(2 * shift)) > 1.5 * measured


def test_what_appears_on_a_plain_wall_counts_and_noise_does_not() -> None:
    plain = np.full((48, 64), 0.5)
    symbol = plain.copy()
    symbol[10:30, 20:40] = 0.9
    noisy = plain + np.random.default_rng(0).normal(0, 0.004, plain.shape)
    assert motion(plain, symbol) > 20 * motion(plain, noisy)
    assert motion(plain, noisy) < 0.02


def test_grey_is_brightness() -> None:
    frame = np.zeros((2, 2, 3), np.uint8)
    frame[0, 0], frame[0, 1] = 255, (0, 255, 0)
    assert grey(frame) == pytest.approx(np.array([[1.0, 0.587], [0.0, 0.0]]))
