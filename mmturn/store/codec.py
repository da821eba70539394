"""Frozen dataclasses <-> JSON values, by their type annotations, without loss.

``encode(value, Class)`` gives JSON values that strict parsers accept; ``decode(data, Class)`` gives an equal object
back. Four escapes, all objects with one key that starts with ``$``, carry what JSON cannot:
``{"$float": "nan"}`` for NaN and infinities, ``{"$text": [..]}`` for text in which separate surrogate code points stand
side by side (JSON would join them), ``{"$pairs": [[k, v], ..]}`` for a mapping whose keys would be taken for an escape
or need one, and ``"$type"`` beside the fields where an annotation allows several dataclasses.
"""

from __future__ import annotations

import dataclasses
import math
import numbers
import re
import types
from collections.abc import Callable, Mapping
from enum import Enum
from functools import cache
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from mmturn.errors import DataError

T = TypeVar("T")
Convert = Callable[[Any], Any]

_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")
_ESCAPES = ("$float", "$text", "$pairs")


class _MismatchError(Exception):
    """A value that does not fit its annotation; the path grows on the way out."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message
        self.path: list[str] = []

    def at(self, step: str) -> _MismatchError:
        """The same, one level further out."""
        self.path.append(step)
        return self

    def __str__(self) -> str:
        place = "".join(reversed(self.path)).lstrip(".")
        return f"{place}: {self.message}" if place else self.message


def encode(value: T, kind: type[T]) -> Any:
    """JSON values (None, bool, int, float, str, list, dict) of an object annotated as ``kind``.

    Tuples inside free JSON mappings become lists; numpy scalars become Python numbers. Raises DataError that names the
    field which holds something else than its annotation says.
    """
    return _run(_codec(kind)[0], value)


def decode(data: Any, kind: type[T]) -> T:
    """The object behind ``encode``'s result. A missing field takes its default.

    Raises DataError that names the field for an unknown key, a missing field without default or a wrong type.
    """
    result: T = _run(_codec(kind)[1], data)
    return result


def _run(convert: Convert, value: Any) -> Any:
    try:
        return convert(value)
    except _MismatchError as error:
        raise DataError(str(error)) from None
    except RecursionError:
        raise DataError("a value is nested too deeply to be stored") from None


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _codec(kind: Any) -> tuple[Convert, Convert]:
    """(encoder, decoder) of an annotation, built once. Raises TypeError for an annotation that cannot be stored."""
    return _build(kind)


@cache
def _build(kind: Any) -> tuple[Convert, Convert]:
    origin, args = get_origin(kind), get_args(kind)
    if kind is Any:
        return _encode_json, _decode_json
    if kind in _SCALARS:
        return _SCALARS[kind]
    if origin is Literal:
        check = _literal(args)
        return check, check
    if origin in (Union, types.UnionType):
        return _union(args)
    if origin is tuple:
        return _tuple(args)
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        return _mapping(args)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return _enum(kind)
    if dataclasses.is_dataclass(kind):
        return _dataclass(kind)
    raise TypeError(f"cannot store values annotated {kind!r}")


# Scalars


def _text_out(value: Any) -> Any:
    if not isinstance(value, str):
        raise _MismatchError(f"expected text, got {_show(value)}")
    value = str.__str__(value)  # the text of a str subclass such as an enum member
    if value.isascii() or not _PAIR.search(value):
        return value
    cuts = [match.start() + 1 for match in _PAIR.finditer(value)]
    return {"$text": [value[a:b] for a, b in zip([0, *cuts], [*cuts, len(value)], strict=True)]}


def _text_in(data: Any) -> str:
    if isinstance(data, str):
        return data
    if isinstance(data, dict) and isinstance(data.get("$text"), list):
        return "".join(map(_text_in, data["$text"]))
    raise _MismatchError(f"expected text, got {_show(data)}")


def _int(value: Any) -> int:
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        return int(value)
    raise _MismatchError(f"expected a whole number, got {_show(value)}")


def _float_out(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise _MismatchError(f"expected a number, got {_show(value)}")
    if isinstance(value, numbers.Integral):
        return int(value)
    number = float(value)
    return number if math.isfinite(number) else {"$float": str(number)}


def _float_in(data: Any) -> Any:
    if isinstance(data, (float, int)) and not isinstance(data, bool):
        return data
    if isinstance(data, dict) and data.get("$float") in ("nan", "inf", "-inf"):
        return float(data["$float"])
    raise _MismatchError(f"expected a number, got {_show(data)}")


def _bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise _MismatchError(f"expected true or false, got {_show(value)}")


def _none(value: Any) -> None:
    if value is not None:
        raise _MismatchError(f"expected null, got {_show(value)}")


_SCALARS: dict[Any, tuple[Convert, Convert]] = {
    str: (_text_out, _text_in),
    int: (_int, _int),
    float: (_float_out, _float_in),
    bool: (_bool, _bool),
    type(None): (_none, _none),
}


def _literal(options: tuple[Any, ...]) -> Convert:
    def check(value: Any) -> Any:
        if value in options:
            return value
        raise _MismatchError(f"expected one of {', '.join(map(repr, options))}, got {_show(value)}")

    return check


def _enum(kind: type[Enum]) -> tuple[Convert, Convert]:
    def out(value: Any) -> Any:
        if isinstance(value, kind):
            return value.value
        raise _MismatchError(f"expected a {kind.__name__}, got {_show(value)}")

    def into(data: Any) -> Enum:
        try:
            return kind(data)
        except ValueError:
            options = ", ".join(repr(member.value) for member in kind)
            raise _MismatchError(f"expected one of {options}, got {_show(data)}") from None

    return out, into


# Free JSON


def _encode_json(value: Any) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _text_out(value)
    if isinstance(value, numbers.Real):
        return _float_out(value)
    if isinstance(value, (list, tuple)):
        return [_step(_encode_json, item, f"[{i}]") for i, item in enumerate(value)]
    if isinstance(value, Mapping):
        return _mapping_out(value, _encode_json)
    if type(value).__module__ == "numpy" and getattr(value, "ndim", None) == 0:
        return _encode_json(value.item())
    raise _MismatchError(f"expected a JSON value, got {type(value).__name__} {_show(value)}")


def _decode_json(data: Any) -> Any:
    if isinstance(data, list):
        return [_decode_json(item) for item in data]
    if isinstance(data, dict):
        if "$float" in data:
            return _float_in(data)
        if "$text" in data:
            return _text_in(data)
        return _mapping_in(data, _decode_json)
    return data


# Containers


def _step(convert: Convert, value: Any, step: str) -> Any:
    try:
        return convert(value)
    except _MismatchError as error:
        raise error.at(step) from None


def _mapping_out(value: Mapping[Any, Any], item: Convert) -> Any:
    result: dict[str, Any] = {}
    plain = True
    for key, entry in value.items():
        if not isinstance(key, str):
            raise _MismatchError(f"expected text as key, got {_show(key)}")
        plain = plain and not key.startswith("$") and (key.isascii() or not _PAIR.search(key))
        result[key] = _step(item, entry, f".{key}")
    return result if plain else {"$pairs": [[_text_out(key), entry] for key, entry in result.items()]}


def _mapping_in(data: Any, item: Convert) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise _MismatchError(f"expected an object, got {_show(data)}")
    if "$pairs" in data:
        try:
            pairs = [(_text_in(key), entry) for key, entry in data["$pairs"]]
        except (TypeError, ValueError):
            raise _MismatchError("expected a list of [key, value] under $pairs") from None
    else:
        pairs = list(data.items())
    return {key: _step(item, entry, f".{key}") for key, entry in pairs}


def _mapping(args: tuple[Any, ...]) -> tuple[Convert, Convert]:
    if len(args) != 2 or args[0] is not str:
        raise TypeError(f"cannot store a mapping with arguments {args!r}: keys must be text")
    out, into = _codec(args[1])

    def write(value: Any) -> Any:
        if not isinstance(value, Mapping):
            raise _MismatchError(f"expected a mapping, got {_show(value)}")
        return _mapping_out(value, out)

    return write, lambda data: _mapping_in(data, into)


def _tuple(args: tuple[Any, ...]) -> tuple[Convert, Convert]:
    if len(args) == 2 and args[1] is Ellipsis:
        out, into = _codec(args[0])
        plain = args[0] if args[0] in (int, float) else None

        def write(value: Any) -> list[Any]:
            if not isinstance(value, (tuple, list)):
                raise _MismatchError(f"expected a tuple, got {_show(value)}")
            # Token ids and log-probs are long; nothing of them needs a conversion in the usual case.
            if plain and set(map(type, value)) <= {plain} and (plain is int or all(map(math.isfinite, value))):
                return list(value)
            return [_step(out, item, f"[{i}]") for i, item in enumerate(value)]

        def read(data: Any) -> tuple[Any, ...]:
            if not isinstance(data, list):
                raise _MismatchError(f"expected a list, got {_show(data)}")
            if plain and set(map(type, data)) <= {plain}:
                return tuple(data)
            return tuple(_step(into, item, f"[{i}]") for i, item in enumerate(data))

        return write, read
    codecs = [_codec(arg) for arg in args]

    def fixed(value: Any, side: int) -> list[Any]:
        if not isinstance(value, (tuple, list)) or len(value) != len(codecs):
            raise _MismatchError(f"expected {len(codecs)} values, got {_show(value)}")
        return [_step(codecs[i][side], item, f"[{i}]") for i, item in enumerate(value)]

    return (lambda value: fixed(value, 0)), (lambda data: tuple(fixed(data, 1)))


def _union(args: tuple[Any, ...]) -> tuple[Convert, Convert]:
    records: dict[str, Any] = {getattr(arg, "__name__", ""): arg for arg in args if dataclasses.is_dataclass(arg)}
    others = [arg for arg in args if not dataclasses.is_dataclass(arg)]
    tagged = len(records) > 1

    def write(value: Any) -> Any:
        for name, kind in records.items():
            if type(value) is kind:
                data = _codec(kind)[0](value)
                return {"$type": name, **data} if tagged else data
        return _first(0, value)

    def read(data: Any) -> Any:
        if records and isinstance(data, dict) and not any(escape in data for escape in _ESCAPES):
            if not tagged:
                return _codec(next(iter(records.values())))[1](data)
            if data.get("$type") in records:
                rest = {key: value for key, value in data.items() if key != "$type"}
                return _codec(records[data["$type"]])[1](rest)
        return _first(1, data)

    def _first(side: int, value: Any) -> Any:
        problem: _MismatchError | None = None
        for arg in others:
            try:
                return _codec(arg)[side](value)
            except _MismatchError as error:
                # Of several refusals the one that looked furthest into the value tells most.
                problem = error if problem is None or len(error.path) > len(problem.path) else problem
        if problem is not None and problem.path:
            raise problem
        expected = " or ".join([getattr(arg, "__name__", str(arg)) for arg in args])
        raise _MismatchError(f"expected {expected}, got {_show(value)}")

    return write, read


def _dataclass(kind: Any) -> tuple[Convert, Convert]:
    hints = get_type_hints(kind)
    fields = [field for field in dataclasses.fields(kind) if field.init]
    codecs = {field.name: _codec(hints[field.name]) for field in fields}
    needed = {
        field.name
        for field in fields
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }

    def write(value: Any) -> dict[str, Any]:
        if type(value) is not kind:
            raise _MismatchError(f"expected {kind.__name__}, got {_show(value)}")
        return {name: _step(codec[0], getattr(value, name), f".{name}") for name, codec in codecs.items()}

    def read(data: Any) -> Any:
        if not isinstance(data, dict):
            raise _MismatchError(f"expected an object with the fields of {kind.__name__}, got {_show(data)}")
        if not codecs.keys() >= data.keys():
            unknown = ", ".join(sorted(data.keys() - codecs.keys()))
            raise _MismatchError(f"{kind.__name__} has no field {unknown} (written by a newer mmturn?)")
        if not data.keys() >= needed:
            raise _MismatchError(f"{kind.__name__} lacks {', '.join(sorted(needed - data.keys()))}")
        return kind(**{name: _step(codecs[name][1], value, f".{name}") for name, value in data.items()})

    return write, read
