"""Frames of one file by index, upright and at a size, through the decoder that is exact for it."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

from mmturn.media.video.fitting import fitted
from mmturn.media.video.lanes import Decoder, Lanes, processors
from mmturn.media.video.orientation import Frame, Orientation
from mmturn.media.video.pyav_frames import CountedFrames, PyAvFrames
from mmturn.media.video.table import FrameTable

SHORT_FRAMES = 3000
"""Decord reads a whole file when it opens it, so that of longer ones PyAV is the quicker reader."""

DECORD_CODECS = ("h264", "hevc", "mpeg4")
DECORD_CONTAINERS = ("mp4",)
"""Where decord's seeking was found exact, frame by frame; it is known to go wrong in webm."""

DECORD_DEPTH = 8
"""Bits of a sample. Of more it loses grey levels by the dozen."""


@dataclass(frozen=True, slots=True)
class Source:
    """What a decoder needs to know of a file."""

    path: str
    stream: int
    orientation: Orientation
    pixels: int
    """Of a frame."""
    depth: int | None
    """Bits of a sample, if known."""
    codec: str
    container: str
    decoder: str
    """The setting: auto, decord or pyav."""

    @staticmethod
    def of(request: Mapping[str, Any]) -> Source:
        """From a request; see wire.py."""
        names = ("path", "stream", "pixels", "depth", "codec", "container", "decoder")
        return Source(orientation=Orientation(*request["orientation"]), **{name: request[name] for name in names})

    def choose(self, table: FrameTable) -> str:
        """``decord`` or ``pyav``: decord where it is installed and exact, and with ``auto`` where the file is short."""
        if self.decoder == "pyav" or importlib.util.find_spec("decord") is None:
            return "pyav"
        known = self.codec in DECORD_CODECS and any(one in DECORD_CONTAINERS for one in self.container.split(","))
        known = known and self.depth == DECORD_DEPTH
        short = self.decoder == "decord" or len(table.pts) <= SHORT_FRAMES
        return "decord" if known and short and table.closed() and not self.orientation.mirrors else "pyav"


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
    """Reads frames, turns them upright and resizes each while others are decoded."""

    def __init__(self, source: Source, table: FrameTable) -> None:
        self._source, self._table = source, table
        self.decoder = source.choose(table)
        """``decord`` or ``pyav``, whichever reads what comes next."""
        self._decord: DecordFrames | None = None
        self._lanes = Lanes(self._open_pyav, source.pixels * (2 if (source.depth or 16) > 8 else 1))

    def read(self, indices: Sequence[int], size: tuple[int, int]) -> Iterator[tuple[int, Frame]]:
        """Frames by index, each once and as soon as it is done, [H, W, 3] at ``size`` (width, height). Raises
        DataError."""
        running: dict[Future[Any], Iterator[tuple[int, Frame]] | None] = {}
        with ThreadPoolExecutor(processors()) as pool:
            for lane in self._split(sorted(set(indices))):
                running[pool.submit(next, lane, None)] = lane
            while running:
                for job in wait(running, return_when=FIRST_COMPLETED).done:
                    source, found = running.pop(job), job.result()
                    if source is None:
                        yield found
                    elif found is not None:
                        # in this order, so that no more than a few whole frames are held
                        running[pool.submit(_resized, found, size)] = None
                        running[pool.submit(next, source, None)] = source

    def _split(self, indices: list[int]) -> list[Iterator[tuple[int, Frame]]]:
        return [self._through_decord(indices)] if self.decoder == "decord" else self._lanes.split(indices)

    def _through_decord(self, indices: list[int]) -> Iterator[tuple[int, Frame]]:
        """Frames as long as decord reads them; what it cannot read is left to PyAV, from then on."""
        from decord import DECORDError, DECORDLimitReachedError

        try:
            if self._decord is None:
                self._decord = DecordFrames(self._source.path, len(self._table.places()))
            for index, frame in self._decord.read(indices):
                indices = indices[1:]
                yield index, frame
        except (RuntimeError, AssertionError, StopIteration, DECORDError, DECORDLimitReachedError):
            self.decoder, self._decord = "pyav", None
        for lane in self._lanes.split(indices):
            yield from lane

    def _open_pyav(self) -> Decoder:
        path, stream, upright = self._source.path, self._source.stream, self._source.orientation.upright
        if not self._table.seekable:
            return CountedFrames(path, stream, upright)
        return PyAvFrames(path, stream, self._table, upright)


def _resized(found: tuple[int, Frame], size: tuple[int, int]) -> tuple[int, Frame]:
    index, frame = found
    return index, fitted(frame, size)
