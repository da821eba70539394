"""Append-only JSON lines with a version, which survive being cut off at any byte.

The first line is a header ``{"format": name, "version": number, ...}``; every further line is one record. Lines are
ASCII (text is escaped), so that any text, lone surrogates included, comes back as it was.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mmturn.errors import DataError
from mmturn.types import Json

Record = dict[str, Any]
Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class LineFormat:
    """A stored format: its name, present version and how older records become present ones."""

    name: str
    """Goes into the header, e.g. ``mmturn/trajectories``."""
    version: int
    """Version that is written."""
    upgrades: Mapping[int, Callable[[Record], Record]] = field(default_factory=dict)
    """version -> function that turns a record of that version into one of the next."""

    def upgrade(self, record: Record, version: int) -> Record:
        """A record of ``version`` as one of the present version."""
        for step in range(version, self.version):
            record = self.upgrades[step](record)
        return record


class StoreWarning(UserWarning):
    """Something of a stored run is lost (a line cut off by a crash, an image that is gone); the rest is not."""


def warn_torn(message: str) -> None:
    """Report what is lost as a StoreWarning."""
    warnings.warn(message, StoreWarning, stacklevel=3)


def dump_line(record: Mapping[str, Json]) -> bytes:
    """One record as a line of ASCII JSON with its newline. Raises DataError for NaN, infinities and non-JSON values."""
    try:
        text = json.dumps(record, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError(f"a record cannot be stored as JSON: {error}") from error
    return text.encode("ascii") + b"\n"


def _parse(line: bytes) -> Record | None:
    """The record of a line; None where the line is no JSON object."""
    try:
        data = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return data if isinstance(data, dict) else None


def _check_header(path: Path, header: Record | None, form: LineFormat) -> int:
    """Version of a file. Raises DataError for another format or a version that this mmturn does not know."""
    if header is None or "format" not in header:
        raise DataError(f'{path}: line 1 is not a header like {{"format": "{form.name}", "version": {form.version}}}')
    if header["format"] != form.name:
        raise DataError(f"{path}: holds {header['format']!r}, expected {form.name!r}")
    version = header.get("version")
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise DataError(f"{path}: version in line 1 must be a whole number from 1, got {version!r}")
    if version > form.version:
        raise DataError(
            f"{path}: {form.name} version {version} was written by a newer mmturn; this one reads up to "
            f"{form.version}: update mmturn"
        )
    return version


def read_header(path: Path, form: LineFormat) -> Record:
    """The header line of a file; empty when the file was cut off within it. Raises DataError as ``read_lines``."""
    with _open(path) as file:
        line = file.readline()
    header = _parse(line)
    if header is None and not line.endswith(b"\n"):
        return {}
    _check_header(path, header, form)
    return header or {}


def read_lines(path: Path, form: LineFormat, report: Report = warn_torn) -> Iterator[tuple[int, Record]]:
    """Every complete record with its line number (from 1, the header's), upgraded to the present version, streamed.

    A last line that was cut off is left out and told to ``report`` (a StoreWarning by default). Raises DataError, which
    names the file and line, for another format, an unknown version, or a line that is damaged anywhere else.
    """
    with _open(path) as file:
        version: int | None = None
        for number, line in enumerate(file, start=1):
            record = _parse(line)
            if record is None:
                if not line.strip():
                    continue
                if not line.endswith(b"\n"):
                    report(f"{path}: line {number} was cut off by a crash ({len(line)} bytes left out)")
                    return
                if version is not None:
                    raise DataError(f"{path}: line {number} is not a JSON object; restore it or delete the line")
            if version is None:
                version = _check_header(path, record, form)
            elif record is not None:
                yield number, form.upgrade(record, version) if version != form.version else record
        if version is None:
            report(f"{path}: is empty; it was cut off by a crash before its first line")


def _open(path: Path) -> Any:
    try:
        return path.open("rb")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error


class LineWriter:
    """Appends records to a file, one whole line at a time; repairs a cut-off last line when it opens the file.

    Raises DataError where the file holds another format or another version: rows of two versions never mix.
    """

    def __init__(
        self, path: Path, form: LineFormat, header: Mapping[str, Json] | None = None, report: Report = warn_torn
    ) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab", buffering=0)
        try:
            self._repair(form, report)
            if self.position == 0:
                self._append(dump_line({"format": form.name, "version": form.version, **(header or {})}))
        except BaseException:
            self._file.close()
            raise

    @property
    def position(self) -> int:
        """Bytes written; ``rewind`` goes back to it."""
        return os.fstat(self._file.fileno()).st_size

    def write(self, record: Mapping[str, Json], *, sync: bool = False) -> None:
        """Append a record; a killed process keeps it, and with ``sync`` so does a machine that loses power."""
        self._append(dump_line(record))
        if sync:
            self.sync()

    def sync(self) -> None:
        """Wait until the disk has everything."""
        os.fsync(self._file.fileno())

    def rewind(self, position: int) -> None:
        """Forget what was written after ``position`` (a resumed run redoes it). Raises DataError for a longer one."""
        if not 0 <= position <= self.position:
            raise DataError(f"{self.path}: cannot go to byte {position} of {self.position}")
        self._file.truncate(position)

    def close(self) -> None:
        """Sync and close; closing twice is fine."""
        if not self._file.closed:
            self.sync()
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _append(self, line: bytes) -> None:
        start = self.position
        rest = memoryview(line)
        try:
            while rest:
                rest = rest[self._file.write(rest) or 0 :]
        except OSError:
            self._file.truncate(start)  # a full disk must not leave half a line before the next one
            raise

    def _repair(self, form: LineFormat, report: Report) -> None:
        size = self.position
        if size == 0:
            return
        with self.path.open("rb") as file:
            header = file.readline()
            start = _last_line_start(file, size)
            file.seek(start)
            last = file.read()
        complete = _parse(last) is not None
        if complete and not last.endswith(b"\n"):
            self._append(b"\n")
        elif not complete and last.endswith(b"\n") and last.strip():
            raise DataError(f"{self.path}: its last line is damaged; restore it or delete the line")
        elif not last.endswith(b"\n"):
            report(f"{self.path}: the last line was cut off by a crash; removed its {len(last)} bytes")
            self._file.truncate(start)
        if self.position == 0:
            return
        if _check_header(self.path, _parse(header), form) != form.version:
            raise DataError(f"{self.path}: was begun at an older version; write to a new file")


def _last_line_start(file: Any, size: int) -> int:
    """Offset at which the last line starts, read backwards in blocks."""
    end = size - 1  # a final newline belongs to the last line
    while end > 0:
        begin = max(0, end - 65536)
        file.seek(begin)
        found = file.read(end - begin).rfind(b"\n")
        if found >= 0:
            return int(begin + found + 1)
        end = begin
    return 0
