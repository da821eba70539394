"""Clips made for tests: each frame carries its number, so that a wrong frame is seen whatever the codec does to it."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

BITS = 12
CELL = 16
WIDTH, HEIGHT = BITS * CELL // 2, 4 * CELL
"""96 x 64: two rows of six squares for the number, and below them a picture that moves."""


def picture(number: int, width: int = WIDTH, height: int = HEIGHT) -> NDArray[np.uint8]:
    """The number in squares, over colours that move."""
    y, x = np.mgrid[0:height, 0:width]
    frame = np.stack([(x + 3 * number) % 256, (2 * y + number) % 256, (x + y + 2 * number) % 256], -1).astype(np.uint8)
    for bit in range(BITS):
        row, column = divmod(bit, BITS // 2)
        value = 235 if number >> bit & 1 else 20
        frame[row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL] = value
    return frame


def number_of(frame: NDArray[np.uint8]) -> int:
    """The number in a frame of at least 96 x 64 pixels."""
    number = 0
    for bit in range(BITS):
        row, column = divmod(bit, BITS // 2)
        middle = frame[row * CELL + 4 : row * CELL + 12, column * CELL + 4 : column * CELL + 12]
        number |= int(middle.mean() > 128) << bit
    return number


def write_clip(
    path: Path,
    count: int,
    codec: str = "libx264",
    rate: int = 25,
    ticks: Sequence[int] | None = None,
    time_base: Fraction | None = None,
    options: Mapping[str, str] | None = None,
    size: tuple[int, int] = (WIDTH, HEIGHT),
    audio: bool = False,
    colors: int | None = None,
    stored: str = "yuv420p",
) -> Path:
    """``count`` numbered frames. ``ticks``: when each is shown, in ``time_base`` (default: 0, 1, 2, ... in frames).
    ``colors``: the tag of the YUV matrix, e.g. 1 for BT.709. ``stored``: the pixel format."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=rate, options=dict(options or {}))
        stream.width, stream.height, stream.pix_fmt = *size, stored
        unit = time_base or Fraction(1, rate)
        stream.time_base = stream.codec_context.time_base = unit
        if colors is not None:
            stream.codec_context.colorspace = colors
        sound = out.add_stream("aac", rate=16000) if audio else None
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(picture(number, *size), format="rgb24")
            frame.pts, frame.time_base = number if ticks is None else ticks[number], unit
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
        if sound is not None:
            _write_sound(out, sound, math.ceil(count / rate))
    return path


def write_sound(path: Path, seconds: int = 1) -> Path:
    """A file of sound alone."""
    with av.open(str(path), "w") as out:
        _write_sound(out, out.add_stream("aac", rate=16000), seconds)
    return path


def _write_sound(out: av.container.OutputContainer, stream: av.AudioStream, seconds: int) -> None:
    for start in range(0, 16000 * seconds, 1024):
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 16000, start, Fraction(1, 16000)
        out.mux(stream.encode(frame))
    out.mux(stream.encode(None))


TURNS = {0: (1, 0, 0, 1), 90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}
"""Degrees clockwise -> a, b, c, d of the display matrix."""


def turn(path: Path, numbers: Sequence[int]) -> Path:
    """Write a, b, c, d into the display matrix of the first track of an mp4 or mov."""
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 4
    a, b, c, d = (value << 16 for value in numbers)
    struct.pack_into(">9i", data, start + (52 if data[start] == 1 else 40), a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


def sequential(path: Path) -> list[NDArray[np.uint8]]:
    """Every frame as PyAV decodes it from the first to the last, as stored."""
    with av.open(str(path)) as file:
        return [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]


def sequential_times(path: Path) -> list[Fraction]:
    """When each frame is shown, from the first on, by decoding."""
    with av.open(str(path)) as file:
        times = [frame.pts * Fraction(frame.time_base) for frame in file.decode(video=0)]
    return [moment - times[0] for moment in times]
