"""Settings of the video reader."""

from __future__ import annotations

import pytest

from mmturn.errors import ConfigError
from mmturn.media.video.settings import VideoConfig


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("decoder", "ffmpeg"), ("cache_bytes", -1), ("table_bytes", -1), ("request_bytes", 0), ("max_workers", 0),
        ("request_limit_s", 0.0), ("request_limit_s", float("nan")), ("idle_limit_s", float("inf")),
    ],
)  # fmt: skip
def test_impossible_settings_are_named(key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"video.{key}"):
        VideoConfig(**{key: value})
