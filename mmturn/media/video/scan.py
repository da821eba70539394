"""The table of a video's frames: from its own index where that is plain, else from packets, else by decoding."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmturn.errors import DataError
from mmturn.media.video.boxes import read_track
from mmturn.media.video.clusters import read_clusters
from mmturn.media.video.header import open_container, read_only
from mmturn.media.video.table import FrameTable

_TRIED = 32  # packets at the start and at the end that an index is compared with


def scan(path: str, stream: int) -> FrameTable:
    """The table of a stream. Nothing is decoded unless timestamps are missing, doubled, or start without a key frame.

    Raises DataError when no frame is found.
    """
    return _from_index(path, stream) or _from_packets(path, stream) or _from_decoding(path, stream)


def _from_index(path: str, number: int) -> FrameTable | None:
    table = _read_index(path)
    if table is None or not _is_plain(table):
        return None
    container = open_container(path)
    try:
        stream = container.streams[number]
        if Fraction(stream.time_base) != table.time_base or stream.frames not in (0, len(table.pts)):
            return None
        last = int(np.flatnonzero(table.keys)[-1])
        return table if _agrees(container, stream, table, 0) and _agrees(container, stream, table, last) else None
    finally:
        container.close()


def _read_index(path: str) -> FrameTable | None:
    """What the file says of itself, read without PyAV."""
    box = read_track(path)
    if box is not None and box.pts is not None and box.keys is not None:
        shown = np.ones(len(box.pts), np.bool_)
        return FrameTable(box.pts, box.keys, shown, Fraction(1, box.timescale), box.end, True)
    track = None if box is not None else read_clusters(path)
    if track is None:
        return None
    shown = np.ones(len(track.pts), np.bool_)
    return FrameTable(track.pts, track.keys, shown, Fraction(track.scale_ns, 10**9), track.end, True)


def _agrees(container: Any, stream: Any, table: FrameTable, place: int) -> bool:
    """Whether packets from a key frame on are what the table says."""
    import av

    try:
        container.seek(int(table.pts[place]), stream=stream)
        for packet in islice(_packets(container, stream), _TRIED):
            if place >= len(table.pts) or packet.is_discard:
                return False
            if packet.pts != table.pts[place] or packet.is_keyframe < table.keys[place]:
                return False
            place += 1
    except av.error.FFmpegError:
        return False
    return True


def _from_packets(path: str, number: int) -> FrameTable | None:
    import av

    container = open_container(path)
    try:
        stream = container.streams[number]
        rows = []
        try:
            for packet in _packets(container, stream):
                if packet.pts is None:
                    return None
                rows.append((packet.pts, packet.duration or 0, packet.is_keyframe, not packet.is_discard))
        except av.error.FFmpegError:
            pass  # what was read before the damage stands
        if not rows:
            return None
        pts, lengths, keys, shown = (np.array(column) for column in zip(*rows, strict=True))
        pts, shown = pts.astype(np.int64), shown & _after_head(container, stream, pts, keys)
        end = int((pts + lengths)[shown].max()) if bool(shown.any()) else 0
        table = FrameTable(pts, keys, shown, Fraction(stream.time_base), end, True)
        return table if _is_plain(table) else None
    finally:
        container.close()


def _after_head(container: Any, stream: Any, pts: NDArray[np.int64], keys: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which packets are shown of a recording that begins within a group of pictures: those from its first key frame on,
    if decoding does begin there."""
    import av

    if bool(keys[0]) or not bool(keys.any()):
        return np.ones(len(pts), np.bool_)
    first = int(pts[int(keys.argmax())])
    try:
        container.seek(int(pts.min()), stream=stream)
        begins = next((frame.pts for frame in decoded(container, stream)), None) == first
    except av.error.FFmpegError:
        begins = False
    return (pts >= first) & begins


def _is_plain(table: FrameTable) -> bool:
    """Whether timestamps tell the frames apart and the first can be decoded alone."""
    times = np.sort(table.pts, kind="stable")
    first = table.keys[: int(table.shown.argmax()) + 1].any()
    return bool(table.shown.any()) and bool(first) and not bool(np.any(times[1:] == times[:-1]))


def _from_decoding(path: str, number: int) -> FrameTable:
    container = open_container(path)
    try:
        stream = container.streams[number]
        stream.thread_type = "AUTO"
        unit = Fraction(stream.time_base)
        step = max(1, round(1 / (stream.average_rate * unit))) if stream.average_rate else 1
        ticks: list[int] = []
        for frame in decoded(container, stream):
            following = ticks[-1] + step if ticks else 0
            tick = following if frame.pts is None else frame.pts
            # clocks run forwards: a frame that claims to be shown before its predecessor comes a tick after it
            ticks.append(max(tick, ticks[-1] + 1) if ticks else tick)
        if not ticks:
            raise DataError(f"{path}: none of its frames can be decoded; it is damaged or truncated")
        pts, all_of = np.array(ticks, np.int64), np.ones(len(ticks), np.bool_)
        return FrameTable(pts, all_of, all_of, unit, ticks[-1] + step, False)
    finally:
        container.close()


def demuxed(container: Any, stream: Any) -> Iterator[Any]:
    """Packets of one stream, and an empty one at the end."""
    try:
        yield from container.demux(stream)
    except IndexError:
        return  # PyAV's, at the end of a damaged file in which streams turn up that no header announced


def decoded(container: Any, stream: Any) -> Any:
    """Frames in the order of showing; packets that cannot be decoded are passed over."""
    import av

    try:
        for packet in demuxed(container, stream):
            try:
                yield from packet.decode()
            except av.error.FFmpegError:
                continue
    except av.error.FFmpegError:
        return


def _packets(container: Any, stream: Any) -> Any:
    """Packets of one stream, those of others unread where the format allows, without the empty last one."""
    read_only(container, stream)
    for packet in demuxed(container, stream):
        if packet.size or packet.pts is not None:
            yield packet
