"""Seconds of finer stages than those of a run's own clock."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Stopwatch:
    """Seconds by stage. On CUDA it waits for the device, so that work counts where it was asked for."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = now_s(self._device)
        try:
            yield
        finally:
            self._seconds[stage] = self._seconds.get(stage, 0.0) + now_s(self._device) - start

    def take(self) -> dict[str, float]:
        """Seconds by stage since the last call."""
        taken, self._seconds = self._seconds, {}
        return taken


def now_s(device: torch.device) -> float:
    """The time when all that was launched on a device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
