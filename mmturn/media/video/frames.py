"""Frames of one file by index, upright and at a size, through the decoder that is exact for it."""

from __future__ import annotations

import importlib.util
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

from mmturn.media.video.fitting import fitted
from mmturn.media.video.orientation import Frame, Orientation
from mmturn.media.video.pyav_frames import CountedFrames, PyAvFrames
from mmturn.media.video.table import FrameTable

SHORT_FRAMES = 3000
"""Decord reads a whole file when it opens it, so that of longer ones PyAV is the quicker reader."""

DECORD_CODECS = ("h264", "hevc", "mpeg4")
DECORD_CONTAINERS = ("mp4",)
"""Where decord's seeking was found exact, frame by frame; it is known to go wrong in webm."""


AHEAD = 2
"""Frames that are decoded while an earlier one is resized: no more than so many whole frames are held."""


@dataclass(frozen=True, slots=True)
class Source:
    """What a decoder needs to know of a file."""

    path: str
    stream: int
    orientation: Orientation
    codec: str
    container: str
    decoder: str
    """The setting: auto, decord or pyav."""

    @staticmethod
    def of(request: Mapping[str, Any]) -> Source:
        """From a request; see wire.py."""
        turn = Orientation(*request["orientation"])
        return Source(
            request["path"], request["stream"], turn, request["codec"], request["container"], request["decoder"]
        )

    def choose(self, table: FrameTable) -> str:
        """``decord`` or ``pyav``: decord where it is installed and exact, and with ``auto`` where the file is short."""
        if self.decoder == "pyav" or importlib.util.find_spec("decord") is None:
            return "pyav"
        known = self.codec in DECORD_CODECS and any(one in DECORD_CONTAINERS for one in self.container.split(","))
        short = self.decoder == "decord" or len(table.pts) <= SHORT_FRAMES
        return "decord" if known and short and table.closed() and not self.orientation.mirrors else "pyav"


class Decoder(Protocol):
    """Frames in the order of showing."""

    def read(self, indices: Sequence[int]) -> Iterator[tuple[int, Frame]]:
        """Each frame once, [H, W, 3]. Raises DataError."""
        ...


class DecordFrames:
    """Frames through decord, upright. Raises what decord raises: RuntimeError and its own errors."""

    def __init__(self, path: str, count: int) -> None:
        import decord

        decord.logging.set_level(decord.logging.QUIET)
        # one frame that was filled in from its neighbours is one too many
        self._reader: Any = decord.VideoReader(path, ctx=decord.cpu(0), fault_tol=1e-9)
        if len(self._reader) != count:
            raise RuntimeError(f"decord counts {len(self._reader)} frames, {count} are shown")

    def read(self, indices: Sequence[int]) -> Iterator[tuple[int, Frame]]:
        """Each frame once, [H, W, 3]."""
        for index in sorted(set(indices)):
            yield index, self._reader[index].asnumpy()


class FrameReader:
    """Reads frames, turns them upright and resizes each while the next is decoded."""

    def __init__(self, source: Source, table: FrameTable) -> None:
        self._source, self._table = source, table
        self.decoder = source.choose(table)
        """``decord`` or ``pyav``, whichever reads what comes next."""
        self._frames: Decoder | None = None

    def read(self, indices: Sequence[int], size: tuple[int, int]) -> Iterator[tuple[int, Frame]]:
        """Frames by index, rising, each [H, W, 3] at ``size`` (width, height). Raises DataError."""
        waiting: deque[tuple[int, Future[Frame]]] = deque()
        with ThreadPoolExecutor(1) as beside:
            for index, frame in self._upright(sorted(set(indices))):
                waiting.append((index, beside.submit(fitted, frame, size)))
                if len(waiting) > AHEAD:
                    index, job = waiting.popleft()
                    yield index, job.result()
            for index, job in waiting:
                yield index, job.result()

    def _upright(self, left: list[int]) -> Iterator[tuple[int, Frame]]:
        if self.decoder == "decord":
            for index, frame in self._through_decord(left):
                left = left[1:]
                yield index, frame
        if left:
            if self._frames is None:
                self._frames = self._open_pyav()
            for index, frame in self._frames.read(left):
                yield index, self._source.orientation.upright(frame)

    def _through_decord(self, indices: Sequence[int]) -> Iterator[tuple[int, Frame]]:
        """As many frames as decord reads; what it cannot read is left to PyAV, from then on."""
        from decord import DECORDError, DECORDLimitReachedError

        try:
            if self._frames is None:
                self._frames = DecordFrames(self._source.path, len(self._table.places()))
            yield from self._frames.read(indices)
        except (RuntimeError, AssertionError, StopIteration, DECORDError, DECORDLimitReachedError):
            self.decoder, self._frames = "pyav", None

    def _open_pyav(self) -> Decoder:
        if not self._table.seekable:
            return CountedFrames(self._source.path, self._source.stream)
        return PyAvFrames(self._source.path, self._source.stream, self._table)
