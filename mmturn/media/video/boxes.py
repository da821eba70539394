"""The index of an mp4 or mov file, read from its ``moov`` box alone: no packet is touched.

What PyAV does not tell without decoding or reading the whole file is here: how the frames lie, and when each is
shown. Whatever is unusual (fragments, edits that cut, several video tracks) is left to PyAV: there is no answer then.
Source: ISO/IEC 14496-12, sections 8.2 to 8.7.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mmturn.media.video.orientation import Orientation

MAX_MOOV_BYTES = 1 << 28
"""A larger index is left to PyAV."""
MAX_FRAMES = 1 << 26

_FIRST = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"uuid")
_HEADER = struct.Struct(">I4s")


@dataclass(frozen=True, slots=True, eq=False)
class Mp4Track:
    """The only video track of a file."""

    orientation: Orientation
    timescale: int
    """Ticks per second."""
    pts: NDArray[np.int64] | None
    """[N] when each stored frame is shown, in storage order; None where edits or fragments make it uncertain."""
    keys: NDArray[np.bool_] | None
    """[N] which of them can be decoded alone."""
    end: int
    """When the last frame ends, in ticks; 0 where ``pts`` is None."""


def read_track(path: str | Path) -> Mp4Track | None:
    """The video track, or None for another format, a damaged or unusual index. Raises OSError."""
    moov = _read_moov(Path(path))
    if moov is None:
        return None
    try:
        tracks = [body for kind, body in _boxes(moov) if kind == b"trak"]
        seen = [body for body in tracks if _handler(body) == b"vide"]
        if len(seen) != 1:
            return None
        movie = _timescale(_one(moov, b"mvhd"))
        fragmented = any(kind == b"mvex" for kind, _ in _boxes(moov))
        return _track(seen[0], movie, fragmented)
    except (_Unusual, struct.error, ValueError):
        return None


class _Unusual(Exception):
    """The box is damaged, or says something that is left to PyAV."""


def _read_moov(path: Path) -> memoryview | None:
    with path.open("rb") as file:
        size = path.stat().st_size
        position = 0
        while position + 8 <= size:
            file.seek(position)
            head = file.read(16)
            if len(head) < 8:
                return None
            length, kind = _HEADER.unpack_from(head)
            if position == 0 and kind not in _FIRST:
                return None
            start = 8
            if length == 1 and len(head) == 16:
                length, start = int.from_bytes(head[8:], "big"), 16
            elif length == 0:
                length = size - position
            if length < start or kind == b"moof":
                return None
            if kind == b"moov":
                if length > MAX_MOOV_BYTES or position + length > size:
                    return None
                file.seek(position + start)
                return memoryview(file.read(length - start))
            position += length
    return None


def _boxes(data: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    position = 0
    while position + 8 <= len(data):
        length, kind = _HEADER.unpack_from(data, position)
        start = 8
        if length == 1:
            (length,) = struct.unpack_from(">Q", data, position + 8)
            start = 16
        elif length == 0:
            length = len(data) - position
        if length < start or position + length > len(data):
            raise _Unusual
        yield kind, data[position + start : position + length]
        position += length


def _one(data: memoryview, *path: bytes) -> memoryview:
    for name in path:
        data = next((body for kind, body in _boxes(data) if kind == name), memoryview(b""))
        if not data:
            raise _Unusual
    return data


def _some(data: memoryview, name: bytes) -> memoryview | None:
    return next((body for kind, body in _boxes(data) if kind == name), None)


def _handler(trak: memoryview) -> bytes:
    return bytes(_one(trak, b"mdia", b"hdlr")[8:12])


def _timescale(header: memoryview) -> int:
    """Of an ``mvhd`` or ``mdhd``."""
    (scale,) = struct.unpack_from(">I", header, 20 if header[0] == 1 else 12)
    if scale == 0:
        raise _Unusual
    return scale


def _track(trak: memoryview, movie: int, fragmented: bool) -> Mp4Track:
    header = _one(trak, b"tkhd")
    matrix = struct.unpack_from(">9i", header, 52 if header[0] == 1 else 40)
    timescale = _timescale(_one(trak, b"mdia", b"mdhd"))
    orientation = Orientation.of_matrix(matrix)
    if not fragmented:
        try:
            pts, keys, end = _times(trak, timescale, movie)
            return Mp4Track(orientation, timescale, pts, keys, end)
        except (_Unusual, struct.error, ValueError):
            pass  # the orientation stands all the same
    return Mp4Track(orientation, timescale, None, None, 0)


def _times(trak: memoryview, timescale: int, movie: int) -> tuple[NDArray[np.int64], NDArray[np.bool_], int]:
    table = _one(trak, b"mdia", b"minf", b"stbl")
    _, count = struct.unpack_from(">II", _one(table, b"stsz"), 4)
    lengths, deltas = _pairs(_one(table, b"stts"), ">u4")
    if not 0 < count <= MAX_FRAMES or int(lengths.sum()) != count or bool(np.any(deltas < 0)):
        raise _Unusual
    steps = np.repeat(deltas, lengths)
    pts = np.concatenate([np.zeros(1, np.int64), np.cumsum(steps)[:-1]])
    offsets = _some(table, b"ctts")
    if offsets is not None:
        lengths, shifts = _pairs(offsets, ">i4")
        if int(lengths.sum()) != count:
            raise _Unusual
        pts = pts + np.repeat(shifts, lengths)
    end = int(pts.max()) + int(steps[int(pts.argmax())])
    start = _edit_start(_some(trak, b"edts"), pts, timescale, movie)
    return pts - start, _keys(_some(table, b"stss"), count), end - start


def _pairs(body: memoryview, value: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Run lengths and values of an ``stts`` or ``ctts``."""
    (entries,) = struct.unpack_from(">I", body, 4)
    if 8 + 8 * entries > len(body):
        raise _Unusual
    both = np.frombuffer(body, np.dtype([("n", ">u4"), ("v", value)]), entries, 8)
    lengths, values = both["n"].astype(np.int64), both["v"].astype(np.int64)
    if int(lengths.sum()) > MAX_FRAMES:
        raise _Unusual
    return lengths, values


def _keys(body: memoryview | None, count: int) -> NDArray[np.bool_]:
    if body is None:
        return np.ones(count, np.bool_)
    (entries,) = struct.unpack_from(">I", body, 4)
    numbers = np.frombuffer(body, ">u4", entries, 8).astype(np.int64) - 1
    if entries == 0 or int(numbers.min()) < 0 or int(numbers.max()) >= count:
        raise _Unusual
    keys = np.zeros(count, np.bool_)
    keys[numbers] = True
    return keys


def _edit_start(edits: memoryview | None, pts: NDArray[np.int64], timescale: int, movie: int) -> int:
    """How much earlier frames are shown than their times say, by edits that show each of them at its normal speed."""
    if edits is None:
        return 0
    body = _one(edits, b"elst")
    (entries,) = struct.unpack_from(">I", body, 4)
    form = struct.Struct(">QqI" if body[0] == 1 else ">IiI")
    if not 0 < entries <= 2:
        raise _Unusual
    *empty, (length, start, rate) = (form.unpack_from(body, 8 + form.size * number) for number in range(entries))
    shown = start + Fraction(length * timescale, movie)
    if rate != 1 << 16 or start != int(pts.min()) or (length and shown <= int(pts.max())):
        raise _Unusual
    for wait, nothing, _ in empty:
        if nothing != -1:
            raise _Unusual
        start -= round(Fraction(wait * timescale, movie))
    return start
