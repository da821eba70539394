"""Settings of the video reader."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mmturn.errors import ConfigError


@dataclass(frozen=True)
class VideoConfig:
    """Which decoder reads videos, for how long it may, and how much memory is kept."""

    decoder: Literal["auto", "decord", "pyav"] = "auto"
    """auto: decord for short files whose frames it is known to seek exactly, PyAV for the rest. decord: for files of
    any length. pyav: always."""
    cache_bytes: int = 1 << 27
    """Memory for decoded frames, of all videos together."""
    table_bytes: int = 1 << 26
    """Memory for tables of exact timestamps, of all videos together: about 10 bytes a frame."""
    request_bytes: int = 1 << 29
    """Most pixels, in bytes, that one request may return."""
    request_limit_s: float = 60.0
    """A request that takes longer fails, and the process that decodes is killed."""
    idle_limit_s: float = 30.0
    """A process that was asked for nothing for so long ends; the next request starts another."""
    max_workers: int = 4
    """Processes that may be alive at once. One more video ends the one unused for the longest, or waits."""

    def __post_init__(self) -> None:
        if self.decoder not in ("auto", "decord", "pyav"):
            raise ConfigError(f"video.decoder must be auto, decord or pyav, got {self.decoder!r}")
        for name in ("cache_bytes", "table_bytes"):
            if getattr(self, name) < 0:
                raise ConfigError(f"video.{name} must be at least 0, got {getattr(self, name)}")
        for name in ("request_bytes", "max_workers"):
            if getattr(self, name) < 1:
                raise ConfigError(f"video.{name} must be at least 1, got {getattr(self, name)}")
        for name in ("request_limit_s", "idle_limit_s"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ConfigError(f"video.{name} must be a positive number of seconds, got {getattr(self, name)}")
