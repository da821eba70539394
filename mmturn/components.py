"""The components that a recipe names: grammar, tools, context policy, made and checked without weights. Torch-free."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from functools import partial
from typing import Any

from mmturn.errors import ConfigError, MmturnError
from mmturn.families.spec import Family
from mmturn.interfaces import ActionGrammar, ContextPolicy, Tool
from mmturn.recipe import Named, Recipe, settings_of
from mmturn.registry import CONTEXTS, ENVS, GRAMMARS, TOOLS, names_code
from mmturn.schema import build
from mmturn.types import Json


def make_grammar(component: Named, family: Family, allow_code: bool = False) -> ActionGrammar:
    """The grammar that the recipe names, or the family's own; frame and instructions follow the family unless set."""
    cls = GRAMMARS.resolve(component.get("name", family.default_grammar), allow_code)
    settings = settings_of(component)
    kind = config_class(cls)
    if kind is not None:
        known = {field.name for field in fields(kind)}
        own = {"frame": family.frame, "instructions": family.instructions}
        settings = {**{key: value for key, value in own.items() if key in known}, **settings}
    grammar: ActionGrammar = _construct(cls, settings, "grammar")
    return grammar


def make_tools(recipe: Recipe, allow_code: bool = False) -> list[Tool]:
    """The recipe's tools, in order. Code named by a path is run only with ``allow_code``."""
    tools: list[Tool] = []
    for index, component in enumerate(recipe.tools):
        cls = TOOLS.resolve(component["name"], allow_code)
        tool = _construct(cls, tool_settings(component), f"tools[{index}]")
        if not isinstance(tool, Tool):
            raise ConfigError(
                f"tools[{index}]: {component['name']} has no `spec`, or cannot be called: it is not a Tool"
            )
        tools.append(tool)
    return tools


def tool_settings(component: Named) -> dict[str, Json]:
    """A tool's own settings; ``as`` is the name by which the policy calls a shipped one, its setting ``name``."""
    settings = settings_of(component)
    if not names_code(component["name"]) and "as" in settings:
        settings["name"] = settings.pop("as")
    return settings


def make_context(component: Named, allow_code: bool = False) -> ContextPolicy:
    """The context policy that the recipe names."""
    policy = _construct(CONTEXTS.resolve(component["name"], allow_code), settings_of(component), "context")
    if not isinstance(policy, ContextPolicy):
        raise ConfigError(
            f"context: {component['name']} is no ContextPolicy: it lacks `name`, `instructions` or a method `next`"
        )
    return policy


def env_parts(recipe: Recipe, family: Family, allow_code: bool = False) -> tuple[Any, Any]:
    """Class and settings of the environment that the recipe names. Raises ConfigError for settings that cannot be, or
    that ask for video tokens of a family that has none."""
    cls = ENVS.resolve(recipe.env["name"], allow_code)
    kind, settings = config_class(cls), settings_of(recipe.env)
    config = settings if kind is None else build(kind, settings, prefix="env")
    if getattr(config, "shown_as", None) == "video" and family.video is None:
        raise ConfigError(
            f"env.shown_as is video, but the model family {family.name} has no video tokens: set env.shown_as: frames"
        )
    return cls, config


def with_tool(recipe: Recipe, name: str) -> Recipe:
    """The recipe with a tool added; one of the same registered name is not added twice."""
    if any(tool["name"] == name for tool in recipe.tools):
        return recipe
    return replace(recipe, tools=(*recipe.tools, {"name": name}))


def config_class(cls: Any) -> type | None:
    """The config of a component, its ``Config`` attribute; None for one that takes no settings."""
    found = getattr(cls, "Config", None)
    return found if isinstance(found, type) and is_dataclass(found) else None


def _construct(cls: Any, settings: dict[str, Any], prefix: str) -> Any:
    """Build a component from its settings, strictly; a class without a config takes none."""
    kind = config_class(cls)
    if kind is not None:
        return made(partial(cls, build(kind, settings, prefix=prefix)), prefix)
    if settings:
        raise ConfigError(f"{prefix}: {getattr(cls, '__name__', cls)} takes no settings, got {', '.join(settings)}")
    return made(cls, prefix)


def made(make: Any, prefix: str) -> Any:
    """What a class makes. It may be anybody's: what it raises is told with the setting that named it."""
    try:
        return make()
    except MmturnError:
        raise
    except Exception as error:
        raise ConfigError(f"{prefix}: cannot be made: {type(error).__name__}: {error}") from error
