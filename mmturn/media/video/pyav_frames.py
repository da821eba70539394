"""Frames through PyAV, exactly: each request is decoded from a key frame and recognised by its timestamp."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from mmturn.errors import DataError
from mmturn.media.video.header import open_container, read_only
from mmturn.media.video.orientation import Frame
from mmturn.media.video.scan import decoded, demuxed
from mmturn.media.video.table import FrameTable

SKIPPING = ("h264", "hevc", "mpeg4", "mpeg2video")
"""Codecs whose decoders leave out unneeded frames without losing others."""


def layered(codec: Any) -> bool:
    """Whether a picture that its own temporal layer does not refer to may be needed by another layer: in HEVC, unless
    its configuration record counts one layer. Source: ISO/IEC 14496-15, HEVCDecoderConfigurationRecord."""
    if codec.name != "hevc":
        return False
    record = bytes(codec.extradata or b"")
    return len(record) < 22 or record[0] != 1 or record[21] >> 3 & 7 != 1


class PyAvFrames:
    """Seeks to the key frame before what is wanted, and goes on from where it is when that is nearer.

    Frames that nothing refers to are not decoded unless wanted, until damage is met. From then on everything is decoded
    as PyAV does by itself, and a frame that comes out damaged or not at all is decoded again from earlier key frames,
    until two of them agree or the first frame is reached: that is what decoding the whole file gives.
    """

    def __init__(self, path: str, stream: int, table: FrameTable, upright: Callable[[Frame], Frame]) -> None:
        self._path, self._number, self._table, self._upright = path, stream, table, upright
        self.at: int | None = None
        self._places = table.places()
        self._order = np.argsort(table.pts, kind="stable")
        self._ranked = table.pts[self._order]
        self._careful = False
        self._wanted: set[int] = set()
        self._open()

    def group(self, index: int) -> int:
        """The place of the key frame from which a frame is decoded."""
        return self._table.start(int(self._places[index]))

    def read(self, indices: Sequence[int]) -> Iterator[tuple[int, Frame]]:
        """Frames by index, in the order of showing, [H, W, 3]. Raises DataError for a frame that cannot be decoded."""
        ordered = sorted(set(indices))
        self._wanted = {int(self._table.pts[self._places[index]]) for index in ordered}
        self._since = self._next
        for index in ordered:
            yield index, self._upright(self._one(index))

    def close(self) -> None:
        """Let go of the file."""
        self._container.close()

    def _open(self) -> None:
        from av.video.reformatter import VideoReformatter

        self._container = open_container(self._path)
        self._stream = self._container.streams[self._number]
        self._codec = self._stream.codec_context
        self._skips = not self._careful and self._codec.name in SKIPPING and not layered(self._codec)
        self._convert = VideoReformatter()
        read_only(self._container, self._stream)
        self._ready: deque[Any] = deque()
        self._packets: Iterator[Any] | None = None
        self._held: Any = None  # a packet that was read and not yet decoded
        self._next = 0  # place of the packet that is decoded next
        self._since = 0  # what was decoded before this place was decoded for another request
        self._last_pts: int | None = None

    def _one(self, index: int) -> Frame:
        place = int(self._places[index])
        self.at = self._table.start(place)
        frame = self._reach(place)
        if not self._careful and (frame is None or frame.is_corrupt):
            self.close()
            self._careful = True
            self._open()
            frame = self._reach(place)
        if frame is not None and not frame.is_corrupt:
            return self._pixels(frame)
        return self._from_earlier(index, place)

    def _reach(self, place: int) -> Any:
        """The frame stored at ``place``; None when it does not come out."""
        start, tick = self._table.start(place), int(self._table.pts[place])
        ahead = self._last_pts is None or self._last_pts < tick
        decoded = not self._skips or place >= self._since  # or it may be among those that were not
        if self._packets is None or self._next < start or not ahead or not decoded:
            self._seek(start)
        return self._advance(tick)

    def _from_earlier(self, index: int, place: int) -> Frame:
        """Decode from one key frame before another, each twice as far back."""
        keys = np.flatnonzero(self._table.keys[: self._table.start(place) + 1])
        seen: Frame | None = None
        back = 0
        while True:
            begin = int(keys[max(0, len(keys) - 1 - back)])
            self._seek(begin)
            frame = self._advance(int(self._table.pts[place]))
            pixels = None if frame is None else self._pixels(frame)
            agreed = pixels is not None and seen is not None and np.array_equal(pixels, seen)
            if pixels is not None and (agreed or begin == keys[0]):
                return pixels
            if begin == keys[0]:
                raise DataError(f"{self._path}: frame {index} cannot be decoded; the file is damaged there")
            seen, back = pixels, max(1, 2 * back)

    def _seek(self, start: int) -> None:
        """Make the packet at ``start``, a key frame, the next to be decoded."""
        tick = int(self._table.pts[start])
        for attempt in (tick, int(self._ranked[0]), None):
            if attempt is None:
                self.close()
                self._open()
            elif not self._try_seek(attempt):
                continue
            self._packets = demuxed(self._container, self._stream)
            if self._skip_to(start):
                self._next, self._since, self._last_pts = start, start, None
                self._ready.clear()
                return
        raise DataError(f"{self._path}: the frame stored at place {start} is not found again; the file is damaged")

    def _try_seek(self, tick: int) -> bool:
        import av

        try:
            self._container.seek(tick, stream=self._stream)
        except av.error.FFmpegError:
            return False
        return True

    def _skip_to(self, start: int) -> bool:
        """Read packets up to the one at ``start``; False when the first is already behind it."""
        import av

        assert self._packets is not None
        try:
            for packet in self._packets:
                place = self._place_of(packet)
                if place is None:
                    continue
                if place > start:
                    return False
                if place == start:
                    self._held = packet
                    return True
        except av.error.FFmpegError:
            pass  # the caller tries from further ahead
        return False

    def _place_of(self, packet: Any) -> int | None:
        if packet.pts is None:
            return None
        rank = int(np.searchsorted(self._ranked, packet.pts))
        if rank == len(self._ranked) or int(self._ranked[rank]) != packet.pts:
            return None
        return int(self._order[rank])

    def _advance(self, tick: int) -> Any:
        """The frame shown at ``tick``; None when decoding passes it by, or meets damage and is not careful yet."""
        while True:
            while self._ready:
                frame = self._ready.popleft()
                if frame.pts is None or frame.pts < tick:
                    continue
                if frame.pts > tick:
                    self._ready.appendleft(frame)
                    return None
                self._last_pts = tick
                return frame
            if not self._decode_next():
                return None

    def _decode_next(self) -> bool:
        import av

        assert self._packets is not None
        try:
            packet = next(self._packets) if self._held is None else self._held
        except (StopIteration, av.error.FFmpegError):
            self._packets = None
            return False
        self._held = None
        needless = self._skips and packet.pts is not None and packet.pts not in self._wanted
        self._codec.skip_frame = "NONREF" if needless else "DEFAULT"
        self._next += 1
        try:
            self._ready.extend(packet.decode())
        except av.error.FFmpegError:
            return self._careful  # what refers to this packet comes out damaged or not at all
        return True

    def _pixels(self, frame: Any) -> Frame:
        pixels: Frame = np.asarray(self._convert.reformat(frame, format="rgb24").to_ndarray(), np.uint8)
        return pixels


class CountedFrames:
    """Frames of a file whose timestamps do not tell them apart, counted from the first; going back starts anew."""

    at: int | None = 0

    def __init__(self, path: str, stream: int, upright: Callable[[Frame], Frame]) -> None:
        self._path, self._number, self._upright = path, stream, upright
        self._container: Any = None
        self._start()

    def group(self, index: int) -> int:
        """There is one."""
        return 0

    def read(self, indices: Sequence[int]) -> Iterator[tuple[int, Frame]]:
        """As ``PyAvFrames.read``."""
        for index in sorted(set(indices)):
            if index < self._count:
                self._start()
            frame: Any = None
            while self._count <= index:
                frame = next(self._frames, None)
                self._count += 1
                if frame is None:
                    raise DataError(f"{self._path}: frame {index} cannot be decoded; the file is damaged there")
            yield index, self._upright(frame.to_ndarray(format="rgb24"))

    def close(self) -> None:
        """Let go of the file."""
        self._container.close()

    def _start(self) -> None:
        if self._container is not None:
            self.close()
        self._container = open_container(self._path)
        stream = self._container.streams[self._number]
        stream.thread_type = "AUTO"
        self._frames, self._count = iter(decoded(self._container, stream)), 0
