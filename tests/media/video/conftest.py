"""Clips that several tests read, made once."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import pytest

from mmturn.media.video import VideoConfig, VideoStore
from tests.media.video.clips import write_clip, write_sound

VARYING = [0, 40, 80, 1080, 1113, 1146, 1200, 1300, 5000, 5001, 5040, 9000]


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """mp4 with B-frames, its frames in open groups, mkv, webm, mpeg4 in avi, transport stream, varying rate, ..."""
    place = tmp_path_factory.mktemp("clips")
    milli = Fraction(1, 1000)
    open_groups = {"x264-params": "keyint=10:min-keyint=10:open-gop=1:bframes=3"}
    return {
        "mp4": write_clip(place / "b.mp4", 60, options={"g": "12", "bf": "3"}),
        "open": write_clip(place / "open.mp4", 60, options=open_groups),
        "mkv": write_clip(place / "b.mkv", 60, options={"g": "12", "bf": "3"}, audio=True),
        "webm": write_clip(place / "v.webm", 40, "libvpx-vp9", options={"g": "10", "deadline": "realtime"}),
        "avi": write_clip(place / "m.avi", 40, "mpeg4", options={"g": "10"}),
        "ts": write_clip(place / "t.ts", 40, options={"g": "10", "bf": "2"}),
        "vfr": write_clip(place / "v.mp4", len(VARYING), ticks=VARYING, time_base=milli, options={"g": "4", "bf": "2"}),
        "late": write_clip(place / "late.mp4", 30, ticks=range(90, 120), options={"g": "10", "bf": "2"}),
        "one": write_clip(place / "one.mp4", 1),
        "sound": write_sound(place / "sound.m4a"),
    }


@pytest.fixture(scope="module")
def videos() -> Iterator[VideoStore]:
    """A store with the default settings, but patience for a busy machine."""
    with VideoStore(VideoConfig(request_limit_s=120)) as store:
        yield store
