"""Whether a file is as long as its own headers say."""

from __future__ import annotations

import os
import struct
from typing import BinaryIO

_BOXES = (b"ftyp", b"moov", b"mdat", b"moof", b"free", b"skip", b"wide", b"uuid")
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"


def missing_bytes(path: str) -> int:
    """How many bytes an mp4, mov or matroska file lacks at its end; 0 for complete files and for other formats.

    A download that was broken off is told so, even where what there is could be played. Raises OSError.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(12)
        if head[:4] == _EBML:
            return max(0, _segment_end(file) - size)
        return max(0, _boxes_end(file, size) - size) if head[4:8] in _BOXES else 0


def _boxes_end(file: BinaryIO, size: int) -> int:
    """Where the last box of a known kind ends."""
    position = 0
    while position + 8 <= size:
        file.seek(position)
        head = file.read(16)
        length, kind = struct.unpack_from(">I4s", head)
        if length == 1 and len(head) == 16:
            length = int.from_bytes(head[8:], "big")
        if kind not in _BOXES or length < 8:  # another kind may be rubbish behind the end; 0 is up to the end
            return min(position, size)
        position += length
    return position


def _segment_end(file: BinaryIO) -> int:
    """Where the segment of a matroska file ends; 0 where it does not say."""
    file.seek(4)
    length = _number(file)
    if length is None:
        return 0
    file.seek(length, os.SEEK_CUR)
    if file.read(4) != _SEGMENT:
        return 0
    length = _number(file)
    return 0 if length is None else file.tell() + length


def _number(file: BinaryIO) -> int | None:
    """A number of one to eight bytes, of which the first says how many; None where it is unknown."""
    first = file.read(1)
    if not first or first[0] == 0:
        return None
    width = 9 - first[0].bit_length()
    rest = file.read(width - 1)
    value = int.from_bytes(bytes([first[0] & (0xFF >> width)]) + rest, "big")
    return None if len(rest) < width - 1 or value == (1 << 7 * width) - 1 else value
