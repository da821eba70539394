"""What transformers' own processor makes of a conversation with images and clips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from transformers.video_utils import VideoMetadata

from mmturn.families.spec import Family
from mmturn.testing.conversations import NoisePixels, noise_clip
from mmturn.types import Clip, Observation, View

RATE = 10.0


def clip_at(family: Family, columns: int, rows: int, indices: Sequence[int], seed: int, total: int = 0) -> View:
    """A clip of the frames with these numbers of a video of ``RATE`` frames per second, whose stretch has ``total``."""
    view = noise_clip(family, columns, rows, len(indices), seed)
    assert view.clip is not None
    total = total or indices[-1] - indices[0] + 1
    seconds = tuple(index / RATE for index in indices)
    return replace(view, clip=Clip(view.clip.later, seconds, total / RATE / len(indices)))


def metadata_of(clip: Clip) -> VideoMetadata:
    """The metadata with which ``clip_at`` made a clip."""
    return VideoMetadata(
        total_num_frames=round(clip.pace_s * len(clip.seconds) * RATE),
        fps=RATE,
        frames_indices=[round(second * RATE) for second in clip.seconds],
    )


def processed(processor: Any, system: str, shown: Sequence[Observation], said: Sequence[str]) -> dict[str, Any]:
    """Its output for the whole conversation: ids, types of tokens, pixels, grids and ``second_per_grid_ts``."""
    messages: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
    for number, observation in enumerate(shown):
        messages.append({"role": "user", "content": [_content(part) for part in observation.parts]})
        if number < len(said):
            messages.append({"role": "assistant", "content": said[number]})
    text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=len(said) < len(shown))
    views = [view for observation in shown for view in observation.views]
    source = NoisePixels()
    images = [torch.from_numpy(_first(source.pixels(view))) for view in views if view.clip is None]
    clips = [torch.from_numpy(_first(source.pixels(view))) for view in views if view.clip is not None]
    settings: dict[str, Any] = {"do_resize": False}
    if clips:
        metadata = [metadata_of(view.clip) for view in views if view.clip is not None]
        settings |= {"videos": clips, "video_metadata": metadata, "do_sample_frames": False}
    if images:
        settings["images"] = images
    return dict(processor(text=[text], return_tensors="pt", **settings))


def _content(part: str | View) -> dict[str, str]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    return {"type": "image" if part.clip is None else "video"}


def _first(pixels: np.ndarray) -> np.ndarray:
    """Channels before rows and columns."""
    return np.ascontiguousarray(np.moveaxis(pixels, -1, -3))
