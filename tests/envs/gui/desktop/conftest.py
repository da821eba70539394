"""A desktop environment per test, on one pool for all of them; skipped where something is missing."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mmturn.envs.gui.desktop.env import DesktopConfig, DesktopEnv
from mmturn.geometry import Size
from mmturn.media import ImageStore
from mmturn.types import PixelBudget, Task


def desktop_task(name: str = "t", **row: object) -> Task:
    """A task that wants ``done.txt``, unless ``row`` says what else."""
    checks = [{"path": "files[path=done.txt].kind", "op": "equals", "value": "file"}]
    return Task(name, "?", meta={"desktop": {"checks": checks, **row}})


def same_size(size: Size, budget: PixelBudget) -> Size:
    return size


@pytest.fixture
def make_env(desktop: None) -> Iterator[Callable[..., DesktopEnv]]:
    """``make_env(**settings)``."""
    made: list[DesktopEnv] = []

    def make(rule: object = same_size, **settings: object) -> DesktopEnv:
        env = DesktopEnv(DesktopConfig(**{"size": (640, 480), "prewarmed": 1, **settings}), ImageStore(), rule, [])
        made.append(env)
        return env

    yield make
    for env in made:
        env.close()


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users may enter: pytest's own may not be."""
    folder = Path(tempfile.mkdtemp(prefix="mmturn-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
