"""The screen as pixels: Xvfb keeps its framebuffer in a file (``-fbdir``), in the XWD format."""

from __future__ import annotations

import os
import struct
from pathlib import Path

from PIL import Image

from mmturn.errors import EnvError
from mmturn.geometry import Size

_HEADER = struct.Struct(">25I")
_COLOUR_BYTES = 12


class Frames:
    """Reads the screen. By ``pread``, never by a map: where the disk is full, a map of the file would kill the reader.

    The file is opened once, before any application runs, so that none can put another in its place.
    """

    def __init__(self, folder: Path) -> None:
        """``folder``: Xvfb's ``-fbdir``. Raises EnvError for a file that is not what Xvfb writes."""
        self._file = os.open(folder / "Xvfb_screen0", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        header = os.pread(self._file, _HEADER.size, 0)
        fields = _HEADER.unpack(header) if len(header) == _HEADER.size else (0,) * 25
        self.size = Size(fields[4], fields[5])
        self._stride, self._start = fields[12], fields[0] + fields[19] * _COLOUR_BYTES
        if fields[1] != 7 or fields[11] != 32 or fields[7] != 0:
            os.close(self._file)
            raise EnvError("the display's framebuffer is not one of 32 bits per pixel")

    def raw(self) -> bytes:
        """The screen as it is in the file: 4 bytes a pixel, blue first. Raises EnvError when it is gone."""
        data = os.pread(self._file, self._stride * self.size.height, self._start)
        if len(data) < self._stride * self.size.height:
            raise EnvError("the display's framebuffer cannot be read any more")
        return data

    def image(self, data: bytes | None = None) -> Image.Image:
        """The screen (or what ``raw`` gave before) as an RGB image."""
        data = self.raw() if data is None else data
        size = (self.size.width, self.size.height)
        return Image.frombuffer("RGB", size, data, "raw", "BGRX", self._stride, 1)

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
        self._file = -1
