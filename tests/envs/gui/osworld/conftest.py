"""An OSWorld environment per test, on desktops of ours; skipped where something is missing."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from mmturn.envs.gui.osworld.env import OSWorldConfig, OSWorldEnv
from mmturn.geometry import Size
from mmturn.media import ImageStore
from mmturn.types import PixelBudget

QUICK = {"size": (640, 480), "prewarmed": 1, "settle_s": 0.05, "setup_pause_s": 0.05, "setup_tries": 2}
"""Settings for desktops of ours, which need no long waits."""


def same_size(size: Size, budget: PixelBudget) -> Size:
    return size


@pytest.fixture
def make_env(desktop: None) -> Iterator[Callable[..., OSWorldEnv]]:
    """``make_env(rule of sizes, **settings)``."""
    made: list[OSWorldEnv] = []

    def make(rule: object = same_size, **settings: object) -> OSWorldEnv:
        env = OSWorldEnv(OSWorldConfig(**{**QUICK, **settings}), ImageStore(), rule, [])
        made.append(env)
        return env

    yield make
    for env in made:
        env.close()
