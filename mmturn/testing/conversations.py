"""Random conversations with images, for tests of rendering, batching, models, engines and training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mmturn.families.spec import Family
from mmturn.geometry import Box, Size, Transform
from mmturn.rendering.renderer import Renderer
from mmturn.types import Clip, ImageRef, Observation, StopReason, Task, Trajectory, Turn, View

WORDS = ("red", "blue", "circle", "left of", "next to the star", "\n", "12", "é", "What is it?", " ")


class NoisePixels:
    """A ``batching.patches.PixelSource`` that shows each view as noise of its own; counts how often it is asked."""

    def __init__(self) -> None:
        self.calls = 0

    def pixels(self, view: View) -> NDArray[np.uint8]:
        """uint8 [H, W, 3], the same for the same view; of a clip [T, H, W, 3]."""
        self.calls += 1
        if view.clip is not None:
            return np.stack([NoisePixels().pixels(frame) for frame in view.frames])
        seed = int(view.source.sha256[:8], 16)
        return np.random.default_rng(seed).integers(0, 256, (view.size.height, view.size.width, 3), dtype=np.uint8)


def noise_view(family: Family, columns: int, rows: int, seed: int) -> View:
    """A view of ``columns`` x ``rows`` image tokens whose pixels ``NoisePixels`` makes from ``seed``."""
    size = Size(columns * family.factor, rows * family.factor)
    source = ImageRef(f"{seed % (1 << 32):08x}" + "0" * 56, size)
    return View(source, Transform.region(Box(0, 0, size.width, size.height), size), size)


def noise_clip(family: Family, columns: int, rows: int, frames: int, seed: int, pace_s: float = 0.7) -> View:
    """A clip of ``frames`` such views, one each ``pace_s`` seconds from ``seed % 7`` seconds on."""
    views = [noise_view(family, columns, rows, seed + number) for number in range(frames)]
    seconds = tuple(seed % 7 + number * pace_s for number in range(frames))
    return replace(views[0], clip=Clip(tuple(view.source for view in views[1:]), seconds, pace_s))


def random_observation(family: Family, rng: np.random.Generator, images: Sequence[tuple[int, ...]]) -> Observation:
    """A few words, then each image, of (columns, rows) image tokens, with words after it; (columns, rows, frames) is a
    clip."""
    parts: list[str | View] = [_words(rng)]
    for columns, rows, *frames in images:
        seed = int(rng.integers(1 << 31))
        parts += [
            noise_clip(family, columns, rows, frames[0], seed) if frames else noise_view(family, columns, rows, seed)
        ]
        parts += [_words(rng)]
    return Observation(tuple(parts))


def _words(rng: np.random.Generator) -> str:
    return " ".join(rng.choice(WORDS, rng.integers(1, 6)))


def random_trajectory(
    renderer: Renderer,
    rng: np.random.Generator,
    images: Sequence[Sequence[tuple[int, ...]]],
    *,
    name: str = "0",
    first: Observation | None = None,
    logprobs: bool = True,
) -> Trajectory:
    """A trajectory of random sampled ids with one turn per entry of ``images``.

    Args:
        images: per turn the (columns, rows) of its images, in image tokens, or (columns, rows, frames) of its clips.
        first: the first observation instead of a random one, to share it within a group.
    """
    allowed = [i for i in range(len(renderer.tokenizer)) if i not in {*renderer.banned_ids, renderer.end_id}]
    turns = []
    for index, shapes in enumerate(images):
        shown = first if index == 0 and first is not None else random_observation(renderer.family, rng, shapes)
        delta = renderer.reply(shown) if index else renderer.opening("answer", shown)
        sampled = (*(int(i) for i in rng.choice(allowed, rng.integers(1, 12))), renderer.end_id)
        turns.append(
            Turn(
                index=index,
                observation=shown,
                text=renderer.decode(sampled),
                token_ids=(*delta.token_ids, *sampled),
                provenance=delta.provenance + "s" * len(sampled),
                logprobs=tuple(-rng.random(len(sampled))) if logprobs else None,
                fresh_context=index == 0,
                context_views=shown.views if index == 0 else None,
            )
        )
    return Trajectory(
        id=name, task=Task(name, "?"), group="0", index=0, seed=0, turns=tuple(turns), stop=StopReason.ANSWERED
    )
