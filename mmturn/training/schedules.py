"""Learning rate as a function of the update, so that resuming needs no scheduler state."""

from __future__ import annotations

import math

from mmturn.training.settings import TrainingConfig


def learning_rate(config: TrainingConfig, update: int, total: int | None = None) -> float:
    """Learning rate of ``update`` (counted from 1) in a run of ``total`` updates (default ``config.updates``)."""
    return config.lr * schedule_factor(config, update, total)


def schedule_factor(config: TrainingConfig, update: int, total: int | None = None) -> float:
    """Share of the peak learning rate, of whatever parameters."""
    last = config.updates if total is None else total
    if update <= config.warmup:
        return update / config.warmup
    if config.schedule == "constant":
        return 1.0
    span = max(1, last - config.warmup)
    progress = min(1.0, (update - config.warmup) / span)
    fall = 0.5 * (1 + math.cos(math.pi * progress)) if config.schedule == "cosine" else 1.0 - progress
    return config.min_lr_ratio + (1 - config.min_lr_ratio) * fall
