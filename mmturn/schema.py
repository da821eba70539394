"""Plain values -> nested frozen dataclasses, strictly, and the documentation of their fields."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import inspect
import math
import textwrap
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

from mmturn.errors import ConfigError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class FieldDoc:
    """What is known of one setting."""

    key: str
    """Dotted key."""
    type: str
    default: str
    """Text of the default, ``required`` when there is none."""
    doc: str
    """The string under the field in the source; empty when there is none."""


@dataclass(frozen=True, slots=True)
class _Place:
    """Where in a config a value stands, for messages."""

    key: str
    origin: Mapping[str, str]

    def child(self, name: str) -> _Place:
        return _Place(f"{self.key}.{name}" if self.key else name, self.origin)

    def error(self, message: str) -> ConfigError:
        key, where = self.key, ""
        while key and not where:
            where = self.origin.get(key, "")
            key = key.rpartition(".")[0]
        lead = f"{where}: " if where else ""
        return ConfigError(f"{lead}{self.key + ': ' if self.key else ''}{message}")


def build(cls: type[T], values: Mapping[str, Any], origin: Mapping[str, str] | None = None, prefix: str = "") -> T:
    """``values`` as an instance of the dataclass ``cls``.

    ``origin`` (dotted key -> where it was written) and ``prefix`` (dotted key at which ``values`` stands) go into
    the messages. Wanted types: bool, int, float, str, None, Path, Literal, Enum, Optional and unions, tuple, list,
    Sequence, dict, Mapping, Any and dataclasses; nothing is converted but number text to float (``1e-3``), int to
    float, list to tuple, text to Path and to Enum. Raises ConfigError for an unknown key, a missing one, a value
    of another type, or what a ``__post_init__`` refuses.
    """
    return typing.cast(T, _dataclass(cls, values, _Place(prefix, origin or {})))


def to_values(value: Any) -> Any:
    """A config as plain JSON values; ``build`` gives it back."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_values(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_values(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_values(item) for item in value]
    if isinstance(value, Enum):
        return value.value
    return str(value) if isinstance(value, Path) else value


def describe(cls: type, prefix: str = "") -> list[FieldDoc]:
    """Every setting of a config dataclass, nested ones flattened to dotted keys, in the order of the source."""
    hints, docs, rows = _hints(cls), _field_docs(cls), []
    for f in dataclasses.fields(cls):
        key, wanted = prefix + f.name, hints[f.name]
        nested = [t for t in (wanted, *typing.get_args(wanted)) if dataclasses.is_dataclass(t)]
        default = "required"
        if f.default is not dataclasses.MISSING:
            default = repr(to_values(f.default))
        elif f.default_factory is not dataclasses.MISSING:
            default = repr(to_values(f.default_factory()))
        if wanted in nested:
            rows.extend(describe(wanted, key + "."))
            continue
        rows.append(FieldDoc(key, type_name(wanted), default, docs.get(f.name, "")))
        for inner in nested if type(None) in typing.get_args(wanted) else ():
            rows.extend(describe(typing.cast(type, inner), key + "."))
    return rows


def type_name(wanted: Any) -> str:
    """A type as it is written in a config's documentation."""
    origin, args = typing.get_origin(wanted), typing.get_args(wanted)
    if origin is typing.Literal:
        return " | ".join(map(repr, args))
    if origin in (typing.Union, types.UnionType):
        return " | ".join(map(type_name, args))
    if wanted is type(None) or wanted is None:
        return "null"
    if wanted is Ellipsis:
        return "..."
    name: str = getattr(origin or wanted, "__name__", str(wanted))
    return f"{name}[{', '.join(map(type_name, args))}]" if args else name


def _dataclass(cls: type, values: Any, place: _Place) -> Any:
    if isinstance(values, cls):
        return values
    if not isinstance(values, Mapping):
        raise place.error(f"wanted settings of {cls.__name__}, got {_got(values)}")
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}
    for key in values:
        if key not in fields:
            near = difflib.get_close_matches(str(key), fields, n=1, cutoff=0.5)
            prefix = f"{place.key}." if place.key else ""
            hint = f"nearest is {prefix}{near[0]}" if near else f"known here: {', '.join(fields)}"
            raise place.child(str(key)).error(f"unknown key; {hint}")
    hints, arguments = _hints(cls), {}
    for name, f in fields.items():
        if name in values:
            arguments[name] = _value(hints[name], values[name], place.child(name))
        elif f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
            raise place.child(name).error(f"is required (wanted {type_name(hints[name])})")
    try:
        return cls(**arguments)
    except (ConfigError, ValueError) as error:
        raise place.error(str(error)) from error


def _value(wanted: Any, value: Any, place: _Place) -> Any:
    if isinstance(wanted, typing.TypeVar) or wanted is Any or wanted is object:
        return value
    origin = typing.get_origin(wanted)
    if origin is typing.Annotated:
        return _value(typing.get_args(wanted)[0], value, place)
    if origin is typing.Literal:
        return _literal(wanted, value, place)
    if origin in (typing.Union, types.UnionType):
        return _union(wanted, value, place)
    kind = origin or wanted
    if dataclasses.is_dataclass(kind):
        return _dataclass(typing.cast(type, kind), value, place)
    if isinstance(kind, type):
        if issubclass(kind, (tuple, list)) or kind is Sequence:
            return _sequence(wanted, value, place)
        if issubclass(kind, dict) or kind is Mapping:
            return _mapping(wanted, value, place)
        return _scalar(kind, value, place)
    raise TypeError(f"{place.key}: a config field cannot be of type {wanted!r}")


def _scalar(wanted: type, value: Any, place: _Place) -> Any:
    if wanted is float:
        return _float(value, place)
    if wanted is Path and isinstance(value, (str, Path)):
        return Path(value)
    if issubclass(wanted, Enum):
        choices = [member.value for member in wanted]
        if value in choices or isinstance(value, wanted):
            return wanted(value)
        raise place.error(f"wanted one of {', '.join(map(repr, choices))}, got {_got(value)}")
    if wanted in (bool, str, type(None)) and isinstance(value, wanted):
        return value
    if wanted is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if wanted not in (bool, str, int, Path, type(None)):
        raise TypeError(f"{place.key}: a config field cannot be of type {wanted!r}")
    hint = ""
    if wanted in (str, Path) and isinstance(value, (int, float)):
        hint = "; put it in quotes"
    elif wanted is int and isinstance(value, float) and value.is_integer():
        hint = f"; write {int(value)}"
    elif wanted is bool and isinstance(value, str):
        hint = "; write true or false"
    raise place.error(f"wanted {type_name(wanted)}, got {_got(value)}{hint}")


def _float(value: Any, place: _Place) -> float:
    number = math.nan
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        number = float(value)
    elif isinstance(value, str):
        try:
            number = float(value)
        except ValueError as error:
            raise place.error(f"wanted float, got {_got(value)}") from error
    if not math.isfinite(number):
        raise place.error(f"wanted float that is finite, got {_got(value)}")
    return number


def _literal(wanted: Any, value: Any, place: _Place) -> Any:
    choices = typing.get_args(wanted)
    for choice in choices:
        if type(choice) is type(value) and choice == value:
            return value
    near = difflib.get_close_matches(str(value), [str(c) for c in choices], n=1)
    hint = f"; nearest is {near[0]!r}" if near else ""
    raise place.error(f"wanted one of {', '.join(map(repr, choices))}, got {_got(value)}{hint}")


def _union(wanted: Any, value: Any, place: _Place) -> Any:
    members = typing.get_args(wanted)
    if value is None and type(None) in members:
        return None
    members = tuple(m for m in members if m is not type(None))
    if len(members) == 1:
        return _value(members[0], value, place)
    # the member of exactly this type first, so that 3 stays an int and "3" a str in `float | int | str`
    for member in sorted(members, key=lambda m: m is not type(value)):
        try:
            return _value(member, value, place)
        except ConfigError:
            continue
    raise place.error(f"wanted {type_name(wanted)}, got {_got(value)}")


def _sequence(wanted: Any, value: Any, place: _Place) -> Any:
    if not isinstance(value, (list, tuple)):
        raise place.error(f"wanted {type_name(wanted)}, a list, got {_got(value)}")
    kind, args = typing.get_origin(wanted) or wanted, typing.get_args(wanted)
    is_tuple = isinstance(kind, type) and issubclass(kind, tuple)
    if is_tuple and args and args[-1] is not Ellipsis:
        if len(args) != len(value):
            raise place.error(f"wanted {len(args)} values ({type_name(wanted)}), got {len(value)}: {_got(value)}")
        return tuple(_value(a, item, place.child(str(i))) for i, (a, item) in enumerate(zip(args, value, strict=True)))
    item_type = args[0] if args else Any
    items = [_value(item_type, item, place.child(str(i))) for i, item in enumerate(value)]
    return items if kind is list else tuple(items)


def _mapping(wanted: Any, value: Any, place: _Place) -> dict[Any, Any]:
    if not isinstance(value, Mapping):
        raise place.error(f"wanted {type_name(wanted)}, got {_got(value)}")
    key_type, item_type = typing.get_args(wanted) or (Any, Any)
    return {
        _value(key_type, key, place.child(str(key))): _value(item_type, item, place.child(str(key)))
        for key, item in value.items()
    }


def _got(value: Any) -> str:
    text = repr(value)
    return f"{text if len(text) <= 80 else text[:77] + '...'} ({'null' if value is None else type(value).__name__})"


@cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls, include_extras=True)


@cache
def _field_docs(cls: type) -> dict[str, str]:
    """Field -> the string literal that follows it in the source."""
    docs: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if not dataclasses.is_dataclass(base):
            continue
        try:
            source = textwrap.dedent(inspect.getsource(base))
        except (OSError, TypeError):
            continue  # a class made at run time has no source, and so no docs
        body = typing.cast(ast.ClassDef, ast.parse(source).body[0]).body
        for statement, following in pairwise(body):
            match statement, following:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(doc))):
                    docs[name] = inspect.cleandoc(doc)
    return docs
