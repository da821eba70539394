"""Resolved settings -> objects. The only place that knows how the parts are put together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

from mmturn.credit.assign import Credit
from mmturn.engines.hf import HFEngine
from mmturn.errors import ConfigError
from mmturn.families.spec import Family
from mmturn.interfaces import ActionGrammar, Engine, EnvHost, Environment, Tool
from mmturn.media import ImageStore
from mmturn.models.load import LoadedModel, load_configured
from mmturn.recipe import Named, Recipe, settings_of
from mmturn.registry import ENVS, GRAMMARS, TOOLS, names_code
from mmturn.rendering.renderer import Renderer
from mmturn.rewards.rubric import rubric_of
from mmturn.rollout import Driver, InlineHost, RolloutConfig, ThreadHost
from mmturn.schema import build
from mmturn.types import Request


@dataclass(frozen=True)
class Policy:
    """A model with everything that rollouts with it need."""

    recipe: Recipe
    loaded: LoadedModel
    renderer: Renderer
    grammar: ActionGrammar
    store: ImageStore
    make_env: Callable[[], Environment]

    def engine(self, *, forced: Callable[[Request], Sequence[int]] | None = None) -> HFEngine:
        """An engine on the loaded weights; ``forced``: see HFEngine."""
        return HFEngine(
            self.loaded,
            self.store,
            self.recipe.engine,
            banned_ids=self.renderer.banned_ids,
            end_ids=[self.renderer.end_id],
            decode=self.renderer.decode,
            forced=forced,
        )

    def token_texts(self, token_ids: Sequence[int]) -> list[str]:
        """One text per id, for pages."""
        return [self.renderer.decode_one(token_id) for token_id in token_ids]

    def driver(self, engine: Engine, rollout: RolloutConfig | None = None) -> Driver:
        """The multi-turn loop on an engine."""
        config = rollout or self.recipe.rollout
        meta = {"model": str(self.loaded.folder.name), "banned_ids": list(self.renderer.banned_ids)}
        return Driver(
            engine, self.renderer, self.grammar, self.make_env, make_host(config), config,
            prepare=self.store.pixels, meta=meta,
        )  # fmt: skip


def make_policy(recipe: Recipe, *, allow_code: bool = False, store: ImageStore | None = None) -> Policy:
    """Load the model and build what surrounds it. Everything that can be wrong without weights is checked first."""
    tools = make_tools(recipe, allow_code)
    rubric_of(recipe.reward, allow_code)
    Credit(recipe.credit, allow_code)
    loaded = load_configured(recipe.model, activation_checkpointing=recipe.training.activation_checkpointing)
    images = store or ImageStore()
    return Policy(
        recipe,
        loaded,
        Renderer(loaded.family, loaded.tokenizer),
        make_grammar(recipe.grammar, loaded.family, allow_code),
        images,
        env_factory(recipe, loaded.family, images, tools, allow_code),
    )


def make_grammar(component: Named, family: Family, allow_code: bool = False) -> ActionGrammar:
    """The grammar that the recipe names, or the family's own; frame and instructions follow the family unless set."""
    cls = GRAMMARS.resolve(component.get("name", family.default_grammar), allow_code)
    settings = settings_of(component)
    config_class = _config_class(cls)
    if config_class is not None:
        known = {field.name for field in fields(config_class)}
        own = {"frame": family.frame, "instructions": family.instructions}
        settings = {**{key: value for key, value in own.items() if key in known}, **settings}
    grammar: ActionGrammar = _construct(cls, settings, "grammar")
    return grammar


def make_tools(recipe: Recipe, allow_code: bool = False) -> list[Tool]:
    """The recipe's tools, in order. Code named by a path is run only with ``allow_code``."""
    tools: list[Tool] = []
    for index, component in enumerate(recipe.tools):
        cls = TOOLS.resolve(component["name"], allow_code)
        settings = settings_of(component)
        if not names_code(component["name"]) and "as" in settings:
            settings["name"] = settings.pop("as")
        tool = _construct(cls, settings, f"tools[{index}]")
        if not isinstance(tool, Tool):
            raise ConfigError(
                f"tools[{index}]: {component['name']} has no `spec`, or cannot be called: it is not a Tool"
            )
        tools.append(tool)
    return tools


def env_factory(
    recipe: Recipe, family: Family, store: ImageStore, tools: list[Tool], allow_code: bool = False
) -> Callable[[], Environment]:
    """Makes environments; the settings are checked now."""
    cls = ENVS.resolve(recipe.env["name"], allow_code)
    config_class = _config_class(cls)
    settings = settings_of(recipe.env)
    config: Any = settings if config_class is None else build(config_class, settings, prefix="env")

    def make() -> Environment:
        env: Environment = cls(config, store, family.size_rule, tools)
        return env

    make()
    return make


def make_host(config: RolloutConfig) -> EnvHost:
    """Threads beside the engine, or the caller's thread for a single worker in deterministic runs."""
    if config.deterministic and config.env_workers == 1:
        return InlineHost()
    return ThreadHost(config.env_workers, config.env_timeout_s)


def with_tool(recipe: Recipe, name: str) -> Recipe:
    """The recipe with a tool added; one of the same registered name is not added twice."""
    if any(tool["name"] == name for tool in recipe.tools):
        return recipe
    return replace(recipe, tools=(*recipe.tools, {"name": name}))


def _config_class(cls: Any) -> type | None:
    """The config of a component, its ``Config`` attribute; None for one that takes no settings."""
    found = getattr(cls, "Config", None)
    return found if isinstance(found, type) and is_dataclass(found) else None


def _construct(cls: Any, settings: dict[str, Any], prefix: str) -> Any:
    """Build a component from its settings, strictly; a class without a config takes none."""
    config_class = _config_class(cls)
    if config_class is not None:
        return cls(build(config_class, settings, prefix=prefix))
    if settings:
        raise ConfigError(f"{prefix}: {getattr(cls, '__name__', cls)} takes no settings, got {', '.join(settings)}")
    return cls()
