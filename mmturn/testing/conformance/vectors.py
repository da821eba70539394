"""Files of reference vectors, read as what they are: somebody else's data."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmturn.errors import DataError

DEFAULT_TOLERANCE = 1e-6
MAX_COUNT = 1_000_000
"""No whole number of a vector is larger: it would be a number of turns or tokens to work through."""


class Fields(dict[str, Any]):
    """``inputs`` or ``params`` of a vector; a missing or mistyped entry raises a ValueError that names it."""

    def __init__(self, part: str, values: Any) -> None:
        if not isinstance(values, dict):
            raise ValueError(f"{part} must be an object, not {_kind(values)}")
        super().__init__(values)
        self.part = part

    def __missing__(self, key: str) -> Any:
        raise ValueError(f"{self.part} lacks {key!r}")

    def number(self, key: str) -> float:
        """A number, finite or not."""
        return _number(self[key], f"{self.part}.{key}")

    def whole(self, key: str) -> int:
        """A whole number from 0 to a million."""
        return _whole(self[key], f"{self.part}.{key}")

    def flag(self, key: str) -> bool:
        """true, false, 0 or 1."""
        return _flag(self[key], f"{self.part}.{key}")

    def items_of(self, key: str) -> list[Any]:
        """A list of anything."""
        return _list(self[key], f"{self.part}.{key}")

    def numbers(self, key: str) -> list[float]:
        """A list of numbers."""
        return _numbers(self[key], f"{self.part}.{key}")

    def holes(self, key: str) -> list[float | None]:
        """A list of numbers and nulls."""
        where = f"{self.part}.{key}"
        return [None if v is None else _number(v, f"{where}[{i}]") for i, v in enumerate(_list(self[key], where))]

    def wholes(self, key: str) -> list[int]:
        """A list of whole numbers from 0 to a million."""
        where = f"{self.part}.{key}"
        return [_whole(v, f"{where}[{i}]") for i, v in enumerate(_list(self[key], where))]

    def flags(self, key: str) -> list[bool]:
        """A list of true, false, 0 and 1."""
        return _flags(self[key], f"{self.part}.{key}")

    def rows(self, key: str) -> list[list[float]]:
        """A list of lists of numbers."""
        return _rows(self[key], f"{self.part}.{key}")

    def flag_rows(self, key: str) -> list[list[bool]]:
        """A list of lists of true, false, 0 and 1."""
        where = f"{self.part}.{key}"
        return [_flags(row, f"{where}[{i}]") for i, row in enumerate(_list(self[key], where))]

    def tables(self, key: str) -> list[list[list[float]]]:
        """A list of lists of lists of numbers."""
        where = f"{self.part}.{key}"
        return [_rows(table, f"{where}[{i}]") for i, table in enumerate(_list(self[key], where))]

    def fields(self, key: str) -> Fields:
        """An object."""
        return Fields(f"{self.part}.{key}", self[key])

    def fields_list(self, key: str) -> list[Fields]:
        """A list of objects."""
        where = f"{self.part}.{key}"
        return [Fields(f"{where}[{i}]", value) for i, value in enumerate(_list(self[key], where))]


@dataclass(frozen=True, slots=True)
class Vector:
    """One reference vector."""

    id: str
    method: str
    inputs: Fields
    params: Fields
    expected: Fields


@dataclass(frozen=True, slots=True)
class VectorFile:
    """What a file holds; its entries are looked at one by one, so that a bad one fails alone."""

    tolerance: float
    entries: list[Any]


def read_file(path: Path) -> VectorFile:
    """The file's entries, at least one. Raises DataError in one line for a file that is no such file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: is no JSON text: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict) or not isinstance(content.get("vectors"), list):
        raise DataError(f"{path}: wanted an object with a list 'vectors'")
    if not content["vectors"]:
        raise DataError(f"{path}: holds no vectors")
    meta = content.get("meta", {})
    if not isinstance(meta, dict):
        raise DataError(f"{path}: 'meta' must be an object")
    tolerance = meta.get("tolerance", DEFAULT_TOLERANCE)
    if isinstance(tolerance, bool) or not isinstance(tolerance, (int, float)) or not 0 <= tolerance <= 1:
        raise DataError(f"{path}: meta.tolerance must be a number in 0..1, got {tolerance!r}")
    return VectorFile(float(tolerance), content["vectors"])


def vector_of(entry: Any) -> Vector:
    """An entry, checked for its parts. Raises ValueError naming what is missing or mistyped."""
    vector = Fields("the vector", entry)
    identity, method = vector["id"], vector.get("method", "")
    if not isinstance(identity, str) or not isinstance(method, str):
        raise ValueError("'id' and 'method' must be text")
    inputs, params, expected = (Fields(part, vector[part]) for part in ("inputs", "params", "expected"))
    if not expected:
        raise ValueError("expected has no keys, so there is nothing to compare")
    return Vector(identity, method, inputs, params, expected)


def _numbers(value: Any, where: str) -> list[float]:
    return [_number(v, f"{where}[{i}]") for i, v in enumerate(_list(value, where))]


def _rows(value: Any, where: str) -> list[list[float]]:
    return [_numbers(row, f"{where}[{i}]") for i, row in enumerate(_list(value, where))]


def _flags(value: Any, where: str) -> list[bool]:
    return [_flag(v, f"{where}[{i}]") for i, v in enumerate(_list(value, where))]


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"{where} must be a list, not {_kind(value)}")
    return value


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{where} must be a number, not {_kind(value)}")
    return float(value)


def _whole(value: Any, where: str) -> int:
    number = _number(value, where)
    if not number.is_integer() or not 0 <= number <= MAX_COUNT:
        raise ValueError(f"{where} must be a whole number from 0 to {MAX_COUNT}, got {value}")
    return int(number)


def _flag(value: Any, where: str) -> bool:
    if not isinstance(value, (bool, int, float)) or value not in (0, 1):
        raise ValueError(f"{where} must be 0 or 1, not {_kind(value)}")
    return bool(value)


def _kind(value: Any) -> str:
    return {dict: "an object", str: "text", bool: "a boolean", type(None): "null"}.get(type(value), repr(value)[:40])
