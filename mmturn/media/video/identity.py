"""Which file this is, told in a millisecond however long it is."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from mmturn.errors import DataError

SAMPLE_BYTES = 1 << 16
"""Read at the start, in the middle and at the end of a file."""


@dataclass(frozen=True, slots=True)
class FileIdentity:
    """A regular file as it was when it was looked at."""

    path: str
    """Absolute."""
    size: int
    """Bytes."""
    mtime_ns: int
    digest: str
    """SHA-256, 64 hex digits, of length, modification time and three samples: a file of gigabytes costs no more than
    a short one. A copy that keeps its time has the same; a change keeps it only if it keeps length, time and samples.
    """

    def unchanged(self) -> None:
        """Raises DataError when the file has gone or been written to since."""
        status = _status(self.path)
        if (status.st_size, status.st_mtime_ns) != (self.size, self.mtime_ns):
            raise DataError(f"{self.path}: the video has changed since it was opened; open it again")


def identify(path: str | Path) -> FileIdentity:
    """Raises DataError, naming the path, for what is no readable, regular file of at least one byte."""
    place = os.path.abspath(path)
    status = _status(place)
    if not stat.S_ISREG(status.st_mode):
        raise DataError(f"{path}: the video cannot be read: it is not a file")
    if status.st_size == 0:
        raise DataError(f"{path}: the file is empty")
    digest = hashlib.sha256(f"{status.st_size}:{status.st_mtime_ns}:".encode())
    try:
        with open(place, "rb") as file:
            for start in sorted({0, status.st_size // 2, max(0, status.st_size - SAMPLE_BYTES)}):
                file.seek(start)
                digest.update(file.read(SAMPLE_BYTES))
    except OSError as error:
        raise DataError(f"{path}: the video cannot be read: {error.strerror or error}") from error
    return FileIdentity(place, status.st_size, status.st_mtime_ns, digest.hexdigest())


def _status(path: str) -> os.stat_result:
    try:
        return os.stat(path)
    except OSError as error:
        raise DataError(f"{path}: the video cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise DataError(f"{path!r} is not a path: {error}") from error
