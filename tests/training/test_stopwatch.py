"""Seconds by stage."""

from __future__ import annotations

import time

import pytest
import torch

from mmturn.training.stopwatch import Stopwatch


def test_stages_add_up_and_are_taken_once() -> None:
    clock = Stopwatch(torch.device("cpu"))
    for _ in range(2):
        with clock("forward"):
            time.sleep(0.01)
    with pytest.raises(ValueError), clock("backward"):
        raise ValueError
    taken = clock.take()
    assert taken["forward"] >= 0.02 > taken["backward"] >= 0
    assert clock.take() == {}
