"""What the end-to-end tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

SMALL = (
    "data.train_tasks=6",
    "data.validation_tasks=4",
    "rl.group_size=4",
    "rl.groups_per_update=3",
    "rollout.max_new_tokens=40",
)
"""Overrides that make a recipe of the small policy run in seconds."""


@pytest.fixture(scope="session")
def nano(repo: Path) -> Path:
    """The shipped small policy."""
    return repo / "checkpoints" / "nano"
