"""Recipes: YAML files with at most one level of ``extends:``, dotted overrides, the origin of each value, and a hash.

YAML is read by its 1.2 core rules: ``off`` and ``no`` are text, ``1e-3`` is a number, ``010`` is ten; a key given
twice, an alias and a tag are errors. The typed side (``build``, ``describe``) is in ``mmturn.schema``.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from mmturn.errors import ConfigError
from mmturn.resources import resource_root
from mmturn.schema import FieldDoc, build, describe, to_values

__all__ = [
    "FieldDoc",
    "Resolved",
    "build",
    "config_hash",
    "describe",
    "load_recipe",
    "read_yaml",
    "shipped_recipes",
    "to_values",
]

T = TypeVar("T")

RECIPE_FOLDERS = ("train", "eval")
"""Folders of shipped recipes, searched in this order."""


@dataclass(frozen=True)
class Resolved:
    """A recipe after ``extends:`` and overrides."""

    values: Mapping[str, Any]
    origin: Mapping[str, str]
    """Dotted key of each value that was written -> ``file:line`` or ``override a.b=c``; a default has no entry."""
    path: Path | None = None
    """The recipe's file; None for values that came from elsewhere."""

    @property
    def hash(self) -> str:
        """SHA-256 of the written values (``config_hash`` of a built config covers the defaults too)."""
        return config_hash(self.values)

    def build(self, cls: type[T], key: str = "") -> T:
        """The values (or those under the dotted ``key``) as a ``cls``; see ``mmturn.schema.build``."""
        section: Any = self.values
        for part in key.split(".") if key else ():
            section = section.get(part, {}) if isinstance(section, Mapping) else {}
        return build(cls, section, self.origin, key)

    def explain(self, config: Any) -> list[tuple[str, Any, str]]:
        """(dotted key, value, origin) for each setting of a built config; origin is ``default`` if nobody wrote it."""
        rows: list[tuple[str, Any, str]] = []
        for key, value in _leaves(to_values(config), ""):
            written, parent = self.origin.get(key), key
            while written is None and parent:  # a list or a whole mapping may have been written at once
                parent = parent.rpartition(".")[0]
                written = self.origin.get(parent) if not isinstance(_at(self.values, parent), Mapping) else None
            rows.append((key, value, written or "default"))
        return rows


def load_recipe(path: str | Path, overrides: Sequence[str] = (), presets: Sequence[str | Path] = ()) -> Resolved:
    """Read a recipe: a YAML file, or the name of a shipped one (``nano_rl``).

    The file may name its base in ``extends:`` (relative to the file, or shipped), or several, of which the later win;
    a base extends nothing. ``presets`` are further files, laid over the recipe. Mappings merge key by key, except that
    a nested mapping whose ``name`` differs replaces the base's, since its other settings belong to another component;
    lists and scalars replace. ``overrides`` are ``a.b=value`` with a YAML value, applied last. Raises ConfigError.
    """
    file = _find(str(path), Path.cwd())
    values, origin = read_yaml(file)
    bases, where = values.pop("extends", []), origin.pop("extends", "")
    for name in reversed([bases] if isinstance(bases, str) else bases):
        if not isinstance(name, str):
            raise ConfigError(f"{where}: extends: wanted names of files or recipes, got {name!r}")
        values, origin = _laid_over(values, origin, name, file.parent, f"{where}: extends: ")
    for preset in presets:
        top, top_origin = _base(str(preset), Path.cwd(), "")
        values, origin = _merge(values, top, origin, ""), {**origin, **top_origin}
    for text in overrides:
        _override(values, origin, text)
    return Resolved(values, origin, file)


def _laid_over(
    values: dict[str, Any], origin: dict[str, str], name: str, folder: Path, where: str
) -> tuple[dict[str, Any], dict[str, str]]:
    """Values over those of a base."""
    base, base_origin = _base(name, folder, where)
    merged = _merge(base, values, base_origin, "")
    return merged, {**base_origin, **origin}


def _base(name: str, folder: Path, where: str) -> tuple[dict[str, Any], dict[str, str]]:
    """A file that others are laid over, or that is laid over others. Raises ConfigError that begins with ``where``."""
    try:
        values, origin = read_yaml(_find(name, folder))
    except ConfigError as error:
        raise ConfigError(f"{where}{error}") from error
    if "extends" in values:
        raise ConfigError(f"{where}{name} itself extends {values['extends']!r}; one level is allowed")
    return values, origin


def shipped_recipes() -> dict[str, Path]:
    """Name -> file of every recipe that ships, e.g. ``nano_rl`` or ``nano/reader``."""
    root = resource_root()
    found: dict[str, Path] = {}
    for folder in RECIPE_FOLDERS:
        for file in sorted((root / folder).rglob("*.yaml")):
            found.setdefault(file.relative_to(root / folder).with_suffix("").as_posix(), file)
    return found


def config_hash(config: Any) -> str:
    """SHA-256 (64 hex digits) of a config dataclass or mapping, as canonical JSON: order and YAML style do not
    count, 1 and 1.0 differ. Raises ConfigError for values that JSON has no word for."""
    try:
        text = json.dumps(to_values(config), sort_keys=True, separators=(",", ":"), allow_nan=True)
    except TypeError as error:
        raise ConfigError(f"a config holds plain values only: {error}") from error
    return hashlib.sha256(text.encode()).hexdigest()


def read_yaml(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """A YAML mapping and ``file:line`` of each of its keys (dotted). An empty file is an empty mapping.
    Raises ConfigError."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    origin: dict[str, str] = {}
    values = _parse(text, _shown(path), origin)
    if not isinstance(values, dict) and values is not None:
        raise ConfigError(f"{_shown(path)}: wanted settings (key: value), got {type(values).__name__}")
    return values or {}, origin


def _parse(text: str, name: str, origin: dict[str, str]) -> Any:
    import yaml

    try:
        node = yaml.compose(text, Loader=_loader_class())
        return None if node is None else _construct(node, name, "", origin)
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{name}{line}: not a recipe in YAML: {error.problem or error.context}") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{name}: not a recipe in YAML: {error}") from error


def _construct(node: Any, name: str, key: str, origin: dict[str, str]) -> Any:
    import yaml

    here = f"{name}:{node.start_mark.line + 1}"
    if isinstance(node, yaml.MappingNode) and node.tag == "tag:yaml.org,2002:map":
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = f"{name}:{key_node.start_mark.line + 1}"
            if not isinstance(key_node, yaml.ScalarNode):
                raise ConfigError(f"{line}: {key or 'top level'}: a key must be text")
            child = str(key_node.value)
            dotted = f"{key}.{child}" if key else child
            if child in result:
                raise ConfigError(f"{line}: {dotted}: given twice, first at {origin[dotted]}")
            origin[dotted] = line
            result[child] = _construct(value_node, name, dotted, origin)
        return result
    if isinstance(node, yaml.SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
        return [_construct(item, name, f"{key}.{i}", origin) for i, item in enumerate(node.value)]
    if isinstance(node, yaml.ScalarNode) and node.tag in _SCALARS:
        return _SCALARS[node.tag](str(node.value))
    raise ConfigError(f"{here}: {key or 'top level'}: tags such as {node.tag} are not allowed in recipes")


def _int(text: str) -> int:
    digits = text.replace("_", "")
    return int(digits, 16) if "x" in digits else int(digits)


_TAG = "tag:yaml.org,2002:"
_SCALARS: dict[str, Callable[[str], Any]] = {
    _TAG + "null": lambda text: None,
    _TAG + "bool": lambda text: text.lower() == "true",
    _TAG + "int": _int,
    _TAG + "float": lambda text: float(text.replace("_", "").replace(".inf", "inf").replace(".nan", "nan")),
    _TAG + "str": str,
}
_PATTERNS = (
    (_TAG + "null", r"~|null|Null|NULL|", ("~", "n", "N", "")),
    (_TAG + "bool", r"true|True|TRUE|false|False|FALSE", tuple("tTfF")),
    (_TAG + "int", r"[-+]?[0-9][0-9_]*|0x[0-9a-fA-F]+", tuple("-+0123456789")),
    (
        _TAG + "float",
        r"[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan",
        tuple("-+.0123456789"),
    ),
)


@cache
def _loader_class() -> Any:
    import yaml

    class RecipeLoader(yaml.SafeLoader):
        yaml_implicit_resolvers: ClassVar[dict[str, list[tuple[str, re.Pattern[str]]]]] = {}

        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                event = self.peek_event()
                raise yaml.MarkedYAMLError(problem="aliases (*name) are not allowed", problem_mark=event.start_mark)
            return super().compose_node(parent, index)

    for tag, pattern, first in _PATTERNS:
        RecipeLoader.add_implicit_resolver(tag, re.compile(f"^(?:{pattern})$"), list(first))
    return RecipeLoader


def _find(name: str, folder: Path) -> Path:
    """A file relative to ``folder``, else the shipped recipe of that name."""
    path = folder / Path(name).expanduser()
    if path.is_file():
        return path
    shipped = shipped_recipes()
    found = shipped.get(name.removesuffix(".yaml"))
    if found is None:
        raise ConfigError(f"no recipe {name!r}: neither a file nor shipped (shipped: {', '.join(shipped) or 'none'})")
    return found


def _merge(base: Mapping[str, Any], top: Mapping[str, Any], base_origin: dict[str, str], key: str) -> dict[str, Any]:
    """``top`` over ``base``; origins of what is replaced are dropped from ``base_origin``."""
    merged = dict(base)
    for name, value in top.items():
        dotted = f"{key}.{name}" if key else name
        below = merged.get(name)
        if isinstance(below, Mapping) and isinstance(value, Mapping) and not _other_component(below, value):
            merged[name] = _merge(below, value, base_origin, dotted)
            continue
        if isinstance(below, (Mapping, list)):
            for written in [k for k in base_origin if k.startswith(dotted + ".")]:
                del base_origin[written]
        merged[name] = value
    return merged


def _other_component(below: Mapping[str, Any], top: Mapping[str, Any]) -> bool:
    return "name" in below and "name" in top and below["name"] != top["name"]


def _override(values: dict[str, Any], origin: dict[str, str], text: str) -> None:
    key, equals, raw = text.partition("=")
    key = key.strip()
    parts = key.split(".")
    if not equals or not all(parts):
        raise ConfigError(f"override {text!r}: wanted key=value with a dotted key, e.g. rollout.max_turns=3")
    if not raw.strip():
        raise ConfigError(f"override {text!r}: no value; write {key}=null for none or {key}=\"''\" for empty text")
    scope = values
    for i, part in enumerate(parts[:-1]):
        below = scope.setdefault(part, {})
        if not isinstance(below, dict):
            raise ConfigError(f"override {text!r}: {'.'.join(parts[: i + 1])} is {below!r}, not a group of settings")
        scope = below
    for written in [k for k in origin if k.startswith(key + ".")]:
        del origin[written]
    inner: dict[str, str] = {}
    scope[parts[-1]] = _parse(raw, f"override {text!r}", inner)
    origin[key] = f"override {text}"
    origin.update({f"{key}.{k}": f"override {text}" for k in inner})


def _leaves(value: Any, key: str) -> list[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        return [leaf for name, item in value.items() for leaf in _leaves(item, f"{key}.{name}" if key else name)]
    return [(key, value)]


def _at(values: Any, key: str) -> Any:
    for part in key.split(".") if key else ():
        values = values.get(part) if isinstance(values, Mapping) else None
    return values


def _shown(path: Path) -> str:
    """Relative to the current folder where that is shorter."""
    relative = os.path.relpath(path)
    return relative if not relative.startswith("..") else str(path)
