"""Frames as images of the image store."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mmturn.errors import DataError
from mmturn.geometry import Box, Size
from mmturn.media import ImageStore, crop
from mmturn.media.video import FrameLook, VideoStore
from mmturn.types import PixelBudget
from tests.media.video.clips import HEIGHT, WIDTH, number_of

BUDGET = PixelBudget(1, 48 * 32)


def rule(size: Size, budget: PixelBudget) -> Size:
    scale = (budget.max_pixels / size.area) ** 0.5
    return Size(int(size.width * scale), int(size.height * scale))


@pytest.fixture
def look() -> FrameLook:
    return FrameLook(ImageStore(), rule, BUDGET)


def test_views_show_frames_at_the_size_rule_gives(clips: dict[str, Path], videos: VideoStore, look: FrameLook) -> None:
    reader = videos.open(clips["mp4"])
    views = look.views(reader, [40, 3])
    assert [view.size for view in views] == [view.source.size for view in views] == [Size(48, 32)] * 2
    frames = reader.frames([40, 3], Size(48, 32))
    assert all(np.array_equal(look.store.pixels(view), frame) for view, frame in zip(views, frames))
    assert look.views(reader, [3, 40]) == views[::-1]


def test_whole_frames_show_the_same_and_can_be_looked_into(
    clips: dict[str, Path], videos: VideoStore, look: FrameLook
) -> None:
    reader = videos.open(clips["mp4"])
    (small,), (whole,) = look.views(reader, [21]), look.whole(reader, [21])
    assert whole.size == small.size and whole.source.size == Size(WIDTH, HEIGHT)
    assert np.array_equal(look.store.pixels(whole), look.store.pixels(small))
    assert number_of(np.asarray(look.store.open(whole.source))) == 21
    inside = crop(whole, Box(0, 0, 24, 16), rule, BUDGET)
    assert inside.region == Box(0, 0, 48, 32), "sharp from the whole frame"


def test_frames_are_stored_once(
    clips: dict[str, Path], videos: VideoStore, look: FrameLook, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = []
    original = ImageStore.put_image
    monkeypatch.setattr(ImageStore, "put_image", lambda self, *a, **k: (stored.append(1), original(self, *a, **k))[1])
    reader = videos.open(clips["mp4"])
    look.views(reader, [5, 6, 5])
    look.views(reader, [6])
    assert len(stored) == 2
    with pytest.raises(DataError, match="no frame 60"):
        look.views(reader, [60])


def test_frames_are_made_again_rather_than_kept(clips: dict[str, Path], videos: VideoStore) -> None:
    look = FrameLook(ImageStore(decoded_bytes=0), rule, BUDGET)
    reader = videos.open(clips["mp4"])
    (view,) = look.views(reader, [9])
    (entry,) = look.store._entries.values()
    assert entry.data is None and not entry.paths
    assert np.array_equal(look.store.pixels(view), reader.frames([9], Size(48, 32))[0])
