"""Rates of a machine are finite, however slow it is at the moment."""

from __future__ import annotations

import time

import pytest
import torch

from mmturn.jobs.plan import probe


def test_a_run_that_outlasts_the_time_for_it_is_measured_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "_LONG_S", 0.0)
    seconds = probe._best_s(torch.device("cpu"), lambda: time.sleep(0.005))
    assert 0.005 <= seconds < 5.0
