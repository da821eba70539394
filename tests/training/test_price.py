"""The machine's peak."""

from __future__ import annotations

import time

import torch

from mmturn.training.price import measured_peak


def test_the_peak_is_measured_quickly_and_draws_nothing() -> None:
    torch.manual_seed(3)
    want = torch.rand(1)
    torch.manual_seed(3)
    started = time.perf_counter()
    peak = measured_peak(torch.device("cpu"), torch.float32)
    assert time.perf_counter() - started < 10
    assert torch.equal(torch.rand(1), want), "a run draws as if the peak had not been measured"
    left = torch.randn(1024, 1024)
    started = time.perf_counter()
    left @ left
    assert peak >= 0.2 * 2 * 1024**3 / (time.perf_counter() - started)
