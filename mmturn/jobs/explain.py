"""A recipe's settings with where each comes from, and what each means; those of its components included. Torch-free."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Any

from mmturn.components import tool_settings
from mmturn.config import Resolved, shipped_recipes
from mmturn.recipe import Recipe, settings_of
from mmturn.registry import CONTEXTS, ENVS, GRAMMARS, REWARDS, TOOLS, Registry, names_code
from mmturn.schema import FieldDoc, build, describe, to_values

_WHOLE = ("env", "grammar", "context", "reward.settings")
_COMPONENTS = ("env.", "grammar.", "context.", "tools", "reward.settings.")


@dataclass(frozen=True)
class Setting:
    """One value of a recipe."""

    key: str
    value: Any
    origin: str
    """``file:line``, ``override a.b=c`` or ``default``."""

    def __str__(self) -> str:
        return f"{self.key} = {json.dumps(self.value, ensure_ascii=False)}"


def settings_with_origins(recipe: Recipe, resolved: Resolved) -> list[Setting]:
    """Every value of a recipe, components' defaults included. Raises ConfigError where a component refuses its own.

    Code named by a path is not run: of such a component the written settings alone are listed.
    """
    rows = [Setting(*row) for row in resolved.explain(recipe)]
    found = [row for row in rows if not row.key.startswith(_COMPONENTS) and row.key not in _WHOLE]
    for prefix, name, registry, settings in _components(recipe):
        if prefix.startswith("reward."):
            values: dict[str, Any] = {}
        else:
            values = {"name": name or "(the model family's own)"}
        config_class = _config_class(registry, name)
        if config_class is None:
            values |= settings
        else:
            made = to_values(build(config_class, settings, resolved.origin, prefix))
            values |= {"as" if key == "name" and registry is TOOLS else key: value for key, value in made.items()}
        found += [
            Setting(f"{prefix}.{key}", value, _origin(resolved, f"{prefix}.{key}")) for key, value in values.items()
        ]
    return found


def setting_docs(recipe: Recipe) -> list[FieldDoc]:
    """What each setting of a recipe means, with type and default; those of the components that it names included."""
    docs = [doc for doc in describe(Recipe) if doc.key not in ("env", "grammar", "context", "tools")]
    for prefix, name, registry, _ in _components(recipe):
        config_class = _config_class(registry, name)
        if config_class is not None:
            docs += describe(config_class, f"{prefix}.")
    return docs


def recipe_summaries() -> list[tuple[str, Path, str]]:
    """(name, file, first comment) of every shipped recipe."""
    return [(name, path, first_comment(path)) for name, path in shipped_recipes().items()]


def first_comment(path: Path) -> str:
    """The comment at the top of a recipe, its first line."""
    with path.open(encoding="utf-8") as file:
        line = file.readline()
    return line.lstrip("#").strip() if line.startswith("#") else ""


def _components(recipe: Recipe) -> Iterator[tuple[str, str, Registry, Mapping[str, Any]]]:
    """(dotted key, name, registry, own settings) of each named component."""
    yield "env", recipe.env["name"], ENVS, settings_of(recipe.env)
    yield "grammar", recipe.grammar.get("name", ""), GRAMMARS, settings_of(recipe.grammar)
    yield "context", recipe.context["name"], CONTEXTS, settings_of(recipe.context)
    for index, tool in enumerate(recipe.tools):
        yield f"tools.{index}", tool["name"], TOOLS, tool_settings(tool)
    for term in recipe.reward.terms:
        yield f"reward.settings.{term}", term, REWARDS, recipe.reward.settings.get(term, {})


def _config_class(registry: Registry, name: str) -> type | None:
    """The config of a component that needs no foreign code to be looked up."""
    if not name or names_code(name):
        return None
    found = getattr(registry.resolve(name), "Config", None)
    return found if isinstance(found, type) and is_dataclass(found) else None


def _origin(resolved: Resolved, key: str) -> str:
    """Where a value was written: at its own key, or as part of a list or mapping that was written at once."""
    if key in resolved.origin:
        return resolved.origin[key]
    above = key.rpartition(".")[0]
    while above:
        written = resolved.origin.get(above, "")
        if written.startswith("override") and _holds(resolved.values, key):
            return written
        above = above.rpartition(".")[0]
    return "default"


def _holds(values: Any, key: str) -> bool:
    for part in key.split("."):
        if isinstance(values, list) and part.isdigit() and int(part) < len(values):
            values = values[int(part)]
        elif isinstance(values, Mapping) and part in values:
            values = values[part]
        else:
            return False
    return True
