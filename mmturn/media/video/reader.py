"""Videos by path: headers at once, exact clock and frames when asked for, each frame decoded once."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path
from types import TracebackType

import numpy as np

from mmturn.errors import DataError
from mmturn.geometry import Size
from mmturn.media.cache import ByteCache
from mmturn.media.video.clock import Clock
from mmturn.media.video.fitting import fitted
from mmturn.media.video.header import VideoInfo, read_header
from mmturn.media.video.identity import FileIdentity, identify
from mmturn.media.video.orientation import Frame
from mmturn.media.video.process import DecoderProcess, ProcessPool
from mmturn.media.video.settings import VideoConfig
from mmturn.media.video.table import FrameTable
from mmturn.media.video.wire import FRAME, Kind

_TABLE_BYTES = 1 << 30  # the longest table that is believed: a hundred million frames


@dataclass(frozen=True, slots=True, eq=False)
class _Known:
    """What reading a file through has told."""

    table: FrameTable
    clock: Clock

    @property
    def nbytes(self) -> int:
        return self.table.nbytes + self.clock.ticks.nbytes


class VideoStore:
    """Opens videos, and bounds what they hold together: decoded frames, tables, and processes that decode.

    Safe to use from several threads; in a forked process it starts processes of its own.
    """

    def __init__(self, config: VideoConfig | None = None) -> None:
        self.config = config or VideoConfig()
        self.frames: ByteCache[Frame] = ByteCache(self.config.cache_bytes, lambda frame: frame.nbytes)
        self.tables: ByteCache[_Known] = ByteCache(self.config.table_bytes, lambda known: known.nbytes)
        self.pool = ProcessPool(self.config.max_workers)
        self._lock = threading.Lock()
        self._readers: dict[FileIdentity, VideoReader] = {}

    def open(self, path: str | Path) -> VideoReader:
        """The reader of a file; the same one as long as the file has not changed. Only headers are read.

        Raises DataError that names the file when it is missing, empty, damaged, truncated, or no video.
        """
        file = identify(path)
        with self._lock:
            reader = self._readers.get(file)
        if reader is None:
            made = VideoReader(read_header(path), self)
            with self._lock:
                reader = self._readers.setdefault(made.info.file, made)
        return reader

    def close(self) -> None:
        """End the processes. The store can go on being used."""
        self.pool.close()

    def __enter__(self) -> VideoStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@cache
def shared_videos(config: VideoConfig) -> VideoStore:
    """The readers of all environments of this process with these settings."""
    return VideoStore(config)


class VideoReader:
    """One video. Its frames come from a process of its own, which is started, killed and replaced as needed."""

    def __init__(self, info: VideoInfo, store: VideoStore) -> None:
        self.info = info
        self.decoder: str | None = None
        """``decord`` or ``pyav``, whichever read the last frames that were decoded; ``pyav`` after a crash."""
        self._store, config = store, store.config
        self._setting: str = config.decoder
        self._lock = threading.Lock()
        self._process = DecoderProcess(info.path, config.request_limit_s, config.idle_limit_s)

    @property
    def config(self) -> VideoConfig:
        """How it reads."""
        return self._store.config

    def clock(self) -> Clock:
        """The exact time of every frame. An mp4's plain index tells it; other files are read through once, and decoded
        only where their timestamps are useless. Raises DataError."""
        return self._known().clock

    def frames(self, indices: Sequence[int], size: Size | None = None) -> list[Frame]:
        """Frames by index in any order, [height, width, 3] RGB each, upright, of ``size`` or as large as the video.

        Resized by the filter that makes views of images, straight from the decoded frame. Read-only: they are shared.
        Those not in memory are fetched in one pass. Raises DataError, naming the file, for indices outside the video,
        frames that cannot be decoded, a crash, a request beyond the time limit or ``request_bytes``.
        """
        size = size or self.info.size
        if size.width < 1 or size.height < 1:
            raise DataError(f"{self.info.path}: frames cannot be {size.width} x {size.height} px")
        wanted = [int(index) for index in indices]
        known = self._known()
        for index in wanted:
            self._check(known, index)
        self._check_bytes(len(set(wanted)), size)
        with self._lock:
            held = {index: frame for index in set(wanted) if (frame := self._held(index, size)) is not None}
            missing = sorted(set(wanted) - set(held))
            if missing:
                held.update(self._fetch(known, missing, size))
        return [held[index] for index in wanted]

    def frames_at(self, seconds: Sequence[float | Fraction], size: Size | None = None) -> list[Frame]:
        """The frames on screen at times, as ``frames`` gives them. Raises DataError, also for times outside."""
        clock = self.clock()
        try:
            indices = [clock.shown_at(moment) for moment in seconds]
        except DataError as error:
            raise DataError(f"{self.info.path}: {error}") from error
        return self.frames(indices, size)

    def _known(self) -> _Known:
        return self._store.tables.get(self.info.file.digest, self._scan)

    def _scan(self) -> _Known:
        found: list[FrameTable] = []

        def take(kind: Kind, body: bytearray) -> None:
            if kind is Kind.TABLE:
                found.append(FrameTable.from_bytes(body))

        with self._lock, self._store.pool.use(self._process):
            self.info.file.unchanged()
            request = {"ask": "scan", **self._source()}
            self._process.ask(request, b"", "the times of its frames", take, {Kind.TABLE: _TABLE_BYTES})
        if len(found) != 1:
            raise DataError(f"{self.info.path}: the decoder told no times of frames")
        return _Known(found[0], found[0].clock())

    def _fetch(self, known: _Known, indices: list[int], size: Size) -> dict[int, Frame]:
        found: dict[int, Frame] = {}
        width, height = size.width, size.height

        def take(kind: Kind, body: bytearray) -> None:
            if kind is Kind.DONE:
                self.decoder = "decord" if body == b"decord" else "pyav"
                return
            index, *shape = FRAME.unpack_from(body)
            if index not in indices or shape != [width, height] or len(body) != FRAME.size + 3 * width * height:
                raise DataError(f"{self.info.path}: the decoder sent a frame that nobody asked for")
            frame = np.frombuffer(body, np.uint8, 3 * width * height, FRAME.size).reshape(height, width, 3)
            frame.setflags(write=False)
            found[index] = frame

        words = f"frame{'s' if len(indices) > 1 else ''} {_listed(indices)}"
        request = {"ask": "frames", "indices": indices, "size": [width, height], **self._source()}
        self.info.file.unchanged()
        with self._store.pool.use(self._process) as fresh:
            table = known.table.to_bytes() if fresh else b""
            try:
                self._process.ask(request, table, words, take, {Kind.FRAME: FRAME.size + 3 * width * height})
            except DataError:
                if not self._process.alive:
                    self._setting = "pyav"  # decord may have been what hung or crashed; it is not given the file again
                raise
        if len(found) != len(indices):
            missing = sorted(set(indices) - set(found))
            raise DataError(f"{self.info.path}: the decoder left out frames {_listed(missing)}")
        for index, frame in found.items():
            self._store.frames.put(self._key(index, size), frame)
        return found

    def _held(self, index: int, size: Size) -> Frame | None:
        """A frame from memory, at its size or made from the whole frame."""
        frame = self._store.frames.held(self._key(index, size))
        if frame is not None or size == self.info.size:
            return frame
        whole = self._store.frames.held(self._key(index, self.info.size))
        if whole is None:
            return None
        frame = fitted(whole, (size.width, size.height))
        frame.setflags(write=False)
        self._store.frames.put(self._key(index, size), frame)
        return frame

    def _key(self, index: int, size: Size) -> str:
        return f"{self.info.file.digest}:{index}:{size.width}x{size.height}"

    def _source(self) -> dict[str, object]:
        info, turn = self.info, self.info.orientation
        return {
            "path": info.path,
            "stream": info.stream,
            "orientation": [turn.a, turn.b, turn.c, turn.d],
            "pixels": info.size.area,
            "depth": info.depth,
            "codec": info.codec,
            "container": info.container,
            "decoder": self._setting,
        }

    def _check(self, known: _Known, index: int) -> None:
        try:
            known.clock.check(index)
        except DataError as error:
            raise DataError(f"{self.info.path}: {error}") from error

    def _check_bytes(self, count: int, size: Size) -> None:
        needed, most = 3 * size.area * count, self._store.config.request_bytes
        if needed > most:
            raise DataError(
                f"{self.info.path}: {count} frames of {size.width} x {size.height} px take {needed} bytes, "
                f"at most {most} are read at once (video.request_bytes); ask for fewer or for smaller ones"
            )


def _listed(indices: Sequence[int]) -> str:
    shown = ", ".join(map(str, indices[:8]))
    return shown if len(indices) <= 8 else f"{shown} and {len(indices) - 8} more"
