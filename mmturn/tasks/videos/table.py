"""Rows of question files, whatever their format, and videos by name."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mmturn.errors import DataError
from mmturn.types import Json

VIDEO_SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v")
Row = Mapping[str, Json]


def rows_of(path: Path) -> Iterator[tuple[str, Row]]:
    """(where, row) of a .json list, .jsonl, .tsv or .parquet file. Raises DataError, naming file and line."""
    try:
        if path.suffix == ".parquet":
            yield from _numbered(path, _parquet(path))
        elif path.suffix == ".tsv":
            csv.field_size_limit(sys.maxsize)
            with path.open(encoding="utf-8", newline="") as file:
                yield from _numbered(path, csv.DictReader(file, delimiter="\t"))
        elif path.suffix == ".jsonl":
            lines = path.read_text(encoding="utf-8").splitlines()
            yield from _numbered(path, (json.loads(line) for line in lines if line.strip()))
        else:
            yield from _numbered(path, json.loads(path.read_text(encoding="utf-8-sig")))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read as {path.suffix or 'JSON'}: {error}") from error


def _numbered(path: Path, rows: Iterable[Any]) -> Iterator[tuple[str, Row]]:
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, Mapping):
            raise DataError(f"{path}: row {number} must be an object, got {row!r:.80}")
        yield f"{path.name}:{number}", row


def _parquet(path: Path) -> list[dict[str, Json]]:
    try:
        import pyarrow.parquet as parquet  # comes with datasets; slow to import
    except ImportError as error:
        raise DataError(f"{path}: reading .parquet needs pyarrow: pip install pyarrow, or give .jsonl") from error
    found: list[dict[str, Json]] = parquet.read_table(path).to_pylist()
    return found


def question_files(folder: Path, *patterns: str) -> list[Path]:
    """The files of the first pattern that finds any, sorted. Raises DataError that says what was looked for."""
    for pattern in patterns:
        found = sorted(path for path in folder.glob(pattern) if path.is_file())
        if found:
            return found
    raise DataError(f"{folder}: no questions here; looked for {', '.join(patterns)}")


class VideoFiles:
    """The videos below a folder, by path, file name or name without suffix; where a name is there twice, by path."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._by_name: dict[str, list[Path]] = {}
        for path in sorted(folder.rglob("*")):
            if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file():
                for name in {path.name, path.stem}:
                    self._by_name.setdefault(name, []).append(path)

    def find(self, name: Json) -> Path:
        """The video that a row names. Raises DataError where there is none, or more than one."""
        if not isinstance(name, str) or not name.strip():
            raise DataError(f"a video is named by a text, got {name!r:.80}")
        path = (self.folder / name).resolve()
        if path.is_file() and path.is_relative_to(self.folder.resolve()):
            return path
        found = self._by_name.get(Path(name).name) or self._by_name.get(Path(name).stem) or []
        beneath = [path for path in found if path.as_posix().endswith(f"/{name}")]
        found = beneath or found
        if len(found) != 1:
            what = "no video" if not found else f"{len(found)} videos"
            raise DataError(f"{what} named {name!r:.120} below {self.folder}")
        return found[0].resolve()
