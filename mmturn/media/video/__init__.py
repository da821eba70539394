"""Videos: headers at once, exact times, frames by index and by time, decoded where they can do no harm.

Nothing is imported before it is used, so that the process that decodes, a part of this package, starts quickly.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmturn.media.video.clock import Clock
    from mmturn.media.video.reader import VideoReader, VideoStore
    from mmturn.media.video.settings import VideoConfig
    from mmturn.media.video.showing import FrameLook
    from mmturn.media.video.times import format_time, parse_time

__all__ = ["Clock", "FrameLook", "VideoConfig", "VideoReader", "VideoStore", "format_time", "parse_time"]

_HOMES = {
    "Clock": "clock",
    "FrameLook": "showing",
    "VideoConfig": "settings",
    "VideoReader": "reader",
    "VideoStore": "reader",
    "format_time": "times",
    "parse_time": "times",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
