"""Metrics of files of data: JSON, YAML, CSV, SQLite, archives."""

from __future__ import annotations

import contextlib
import csv
import io
import sqlite3
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from mmturn.envs.gui.osworld.metrics.reading import Metric, Unreadable, meets, parse_json, read_text
from mmturn.errors import EnvError, NotRunnable

MAX_UNPACKED = 256 * 1024 * 1024
"""An archive that unpacks to more is not read."""
_MISSING = object()


def check_json(result: str | None, rules: Mapping[str, Any], is_yaml: bool = False) -> float:
    """1.0 when the value at each ``key`` (a list) of ``expect`` meets its rule, and none of ``unexpect`` does."""
    text = read_text(result)
    try:
        data = yaml.safe_load(text) if is_yaml else parse_json(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise Unreadable(f"no YAML: {error}") from error
    if data is None:
        return 0.0
    for rule in rules.get("expect", ()):
        value = _at(data, rule["key"])
        if value is _MISSING or not meets(value, rule):
            return 0.0
    missed = ((_at(data, rule["key"]), rule) for rule in rules.get("unexpect", ()))
    return float(not any(meets(None if value is _MISSING else value, rule) for value, rule in missed))


def _at(value: Any, keys: list[Any]) -> Any:
    for key in keys:
        try:
            value = value[key]
        except (KeyError, TypeError, IndexError):
            return _MISSING
    return value


def is_included_all_json_objects(gold: str | None, result: str | None) -> float:
    """1.0 when a JSON file has every key of another with the same value."""
    if not gold:
        return 0.0
    wanted, found = parse_json(read_text(gold)), parse_json(read_text(result))
    return float(isinstance(found, dict) and all(key in found and found[key] == wanted[key] for key in wanted))


def check_json_settings(actual: str | None, expected: Mapping[str, Any], **_: Any) -> float:
    """1.0 when a JSON file has the keys of ``expected`` with their values."""
    found = parse_json(read_text(actual))
    wanted = expected["expected"]
    return float(isinstance(found, dict) and all(key in found and found[key] == wanted[key] for key in wanted))


def check_json_keybindings(actual: str | None, expected: Mapping[str, Any], **_: Any) -> float:
    """1.0 when a JSON list, perhaps behind a line of comment, holds ``expected``."""
    text = read_text(actual)
    for part in (text, text.partition("\n")[2]):
        with contextlib.suppress(Unreadable):
            found = parse_json(part)
            if isinstance(found, list):
                return float(expected["expected"] in found)
    return 0.0


def check_csv(result: str | None, rules: Mapping[str, Any]) -> float:
    """1.0 when a row has the values of each record of ``expect``, and none those of one of ``unexpect``."""
    rows = list(csv.DictReader(io.StringIO(read_text(result))))

    def there(record: Mapping[str, Any]) -> bool:
        return any(all(row.get(key) == value for key, value in record.items()) for row in rows)

    return float(all(map(there, rules.get("expect", ()))) and not any(map(there, rules.get("unexpect", ()))))


def run_sqlite3(result: str | None, rules: Mapping[str, Any]) -> float:
    """The first number that a query finds in a database, which it may only read."""
    if not result:
        return 0.0
    try:
        with contextlib.closing(sqlite3.connect(f"{Path(result).resolve().as_uri()}?mode=ro", uri=True)) as database:
            row = database.execute(rules["sql"]).fetchone()
    except sqlite3.OperationalError as error:
        raise Unreadable(str(error)) from error
    except sqlite3.DatabaseError as error:
        raise Unreadable(f"no database: {error}") from error
    return float((row or [0])[0] or 0)


def members(path: str | None) -> dict[str, bytes]:
    """The files of a zip or tar archive by name. Raises Unreadable."""
    if not path:
        raise Unreadable("there is no file")
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                _limit(sum(entry.file_size for entry in archive.infolist()))
                return {entry.filename: archive.read(entry) for entry in archive.infolist() if not entry.is_dir()}
        with tarfile.open(path) as tar:
            files = [entry for entry in tar if entry.isfile()]
            _limit(sum(entry.size for entry in files))
            return {entry.name.removeprefix("./"): (tar.extractfile(entry) or io.BytesIO()).read() for entry in files}
    except (OSError, tarfile.TarError, zipfile.BadZipFile, EOFError, RuntimeError) as error:
        raise Unreadable(f"no archive: {error}") from error


def _limit(size: int) -> None:
    if size > MAX_UNPACKED:
        raise Unreadable("the archive is too large")


def compare_zip_files(actual: str | None, expected: str, **_: Any) -> float:
    """1.0 when two archives hold the same files. PDF files are not read here: such a task is not runnable."""
    one, other = members(actual), members(expected)
    if any(name.lower().endswith(".pdf") for name in other):
        raise NotRunnable("compare_zip_files cannot read PDF files here")
    return float(one == other)


def compare_archive(pred: str | None, gold: str, file_path: str = "", file_type: str = "text", **options: Any) -> float:
    """The mean over the files of a folder of two archives of how they compare: as text, or as images."""
    from mmturn.envs.gui.osworld.metrics import documents, pictures, texts

    compare: Mapping[str, Metric] = {
        "text": texts.compare_text_file,
        "csv": texts.compare_csv,
        "image": pictures.compare_images,
        "docx": documents.compare_docx_files,
    }
    if file_type not in compare:
        raise NotRunnable(f"compare_archive cannot compare files of the kind {file_type!r:.40} here")
    ours, theirs = _folder(members(pred), file_path), _folder(members(gold), file_path)
    if not theirs:
        raise EnvError(f"compare_archive: the gold archive has no files in {file_path!r}")
    if set(ours) != set(theirs):
        return 0.0
    base = Path(pred or "").parent
    scores = []
    for number, name in enumerate(sorted(theirs)):
        places = []
        for side, content in (("pred", ours[name]), ("gold", theirs[name])):
            place = base / f"archive-{number}-{side}{Path(name).suffix}"
            place.write_bytes(content)
            places.append(str(place))
        scores.append(compare[file_type](*places, **options))
    return sum(scores) / len(scores)


def _folder(files: Mapping[str, bytes], folder: str) -> dict[str, bytes]:
    """The files that lie right in a folder, by their own names."""
    start = f"{folder.strip('/')}/" if folder.strip("/") else ""
    found = {name[len(start) :]: content for name, content in files.items() if name.startswith(start)}
    return {name: content for name, content in found.items() if "/" not in name}


METRICS: Mapping[str, Metric] = {
    metric.__name__: metric
    for metric in (
        check_json, is_included_all_json_objects, check_json_settings, check_json_keybindings, check_csv, run_sqlite3,
        compare_zip_files, compare_archive,
    )
}  # fmt: skip
