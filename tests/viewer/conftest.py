"""Images, trajectories and a browser for pages."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmturn.geometry import Box, Size, Transform
from mmturn.media.store import ImageStore
from mmturn.types import Action, ImageRef, Observation, Reward, StopReason, Task, Trajectory, Turn, View

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)


def see(ref: ImageRef, region: Box | None = None, size: Size | None = None) -> View:
    """A view of a region at a size."""
    size = size or Size(96, 64)
    return View(ref, Transform.region(region or Box(0, 0, ref.size.width, ref.size.height), size), size)


def build(ref: ImageRef, number: int = 0, answer: str | None = "7", **changes: Any) -> Trajectory:
    """A crop, then an answer, with rewards, advantages and tokens."""
    task = Task(
        id=f"task-{number // 4}",
        question=f"What does sign {number // 4} say?",
        images=("x.png",),
        answer="7",
        answer_type="number",
        boxes=(Box(300, 200, 360, 240),),
        meta={"level": 1 + number // 4 % 2},
    )
    asked = [38.0, 24.0, 60.0, 42.0]
    first = Turn(
        0,
        Observation((see(ref), task.question)),
        "<think>there</think>crop",
        (1, 2, 2, 3, 4, 5, 6),
        "tiiosst",
        (-0.1, -2.0),
        actions=(Action("tool", "crop", {"bbox_2d": asked}, 0),),
        facts={"crop": [220.0, 160.0, 400.0, 280.0]},
    )
    second = Turn(
        1,
        Observation(("got", see(ref, Box(220, 160, 400, 280), Size(48, 32)))),
        f"<answer>{answer}</answer>",
        (7, 2, 8, 9),
        "oist",
        (-0.3,),
        fresh_context=False,
        actions=(Action("answer", "answer", {"text": answer}),),
    )
    right = float(answer == "7")
    fields: dict[str, Any] = {
        "id": f"t{number}",
        "task": task,
        "group": f"{task.id}@0",
        "index": number % 4,
        "seed": number,
        "turns": (first, second),
        "stop": StopReason.ANSWERED,
        "answer": answer,
        "reward": Reward(right + 0.1, right, (0.1, 0.0), {"answer": right, "format": 0.1}),
        "advantages": (right - 0.5, right - 0.5),
        "meta": {"engine": "scripted"},
    }
    return Trajectory(**{**fields, **changes})


@pytest.fixture(scope="session")
def picture(tmp_path_factory: pytest.TempPathFactory) -> tuple[ImageStore, ImageRef]:
    """A store with one image."""
    grid = np.random.default_rng(0).integers(0, 255, (10, 15, 3), dtype=np.uint8)
    store = ImageStore(tmp_path_factory.mktemp("images"))
    return store, store.put_image(Image.fromarray(grid).resize((600, 400), Image.Resampling.NEAREST))


@pytest.fixture
def make(picture: tuple[ImageStore, ImageRef]) -> Callable[..., Trajectory]:
    """``build`` on the picture."""
    return lambda *arguments, **changes: build(picture[1], *arguments, **changes)


@pytest.fixture
def dump(chromium: str, tmp_path: Path) -> Callable[..., str]:
    """Loads a page in headless Chromium and gives the document as it stands afterwards."""

    def run(page: Path, fragment: str = "", width: int = 1280) -> str:
        profile = tmp_path / "profile"
        command = [
            chromium,
            *FLAGS,
            f"--user-data-dir={profile}",
            f"--window-size={width},1600",
            "--virtual-time-budget=3000",
            "--dump-dom",
            page.as_uri() + fragment,
        ]
        done = subprocess.run(command, capture_output=True, timeout=240, check=True)
        return done.stdout.decode("utf-8", "replace")

    return run
