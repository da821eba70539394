"""Resolved settings -> objects. The only place that knows how the parts are put together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mmturn.batching.patches import Patches
from mmturn.components import env_parts, made, make_context, make_grammar, make_tools
from mmturn.credit.method import Method
from mmturn.engines.hf import HFEngine
from mmturn.families import family_of
from mmturn.families.spec import Family
from mmturn.interfaces import ActionGrammar, ContextPolicy, Engine, EnvHost, Environment, Tool
from mmturn.media import ImageStore
from mmturn.models.files import model_folder
from mmturn.models.load import LoadedModel, load_configured
from mmturn.recipe import Recipe
from mmturn.rendering.renderer import Renderer
from mmturn.rewards.rubric import rubric_of
from mmturn.rollout import Driver, InlineHost, RolloutConfig, ThreadHost
from mmturn.types import Request


@dataclass(frozen=True)
class Policy:
    """A model with everything that rollouts with it need."""

    recipe: Recipe
    loaded: LoadedModel
    renderer: Renderer
    grammar: ActionGrammar
    store: ImageStore
    patches: Patches
    """Of the store's images."""
    make_env: Callable[[], Environment]
    context: ContextPolicy

    def engine(self, *, forced: Callable[[Request], Sequence[int]] | None = None) -> HFEngine:
        """An engine on the loaded weights; ``forced``: see HFEngine."""
        return HFEngine(
            self.loaded,
            self.patches,
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
            context=self.context, prepare=self.patches, meta=meta,
        )  # fmt: skip


def make_policy(recipe: Recipe, *, allow_code: bool = False, store: ImageStore | None = None) -> Policy:
    """Load the model and build what surrounds it. Everything that can be wrong without weights is checked first."""
    tools = make_tools(recipe, allow_code)
    folder = model_folder(recipe.model.path, download=recipe.model.download, weights=False)
    env_parts(recipe, family_of(folder, recipe.model.family), allow_code)
    context = make_context(recipe.context, allow_code)
    rubric_of(recipe.reward, allow_code)
    Method(recipe.method, allow_code)
    loaded = load_configured(recipe.model, activation_checkpointing=recipe.training.activation_checkpointing)
    images = store or ImageStore(view_bytes=0)  # views are kept as patches
    return Policy(
        recipe,
        loaded,
        Renderer(loaded.family, loaded.tokenizer),
        make_grammar(recipe.grammar, loaded.family, allow_code),
        images,
        Patches(images, loaded.family),
        env_factory(recipe, loaded.family, images, tools, allow_code),
        context,
    )


def env_factory(
    recipe: Recipe, family: Family, store: ImageStore, tools: list[Tool], allow_code: bool = False
) -> Callable[[], Environment]:
    """Makes environments; the settings are checked now."""
    cls, config = env_parts(recipe, family, allow_code)

    def make() -> Environment:
        env: Environment = cls(config, store, family.size_rule, tools)
        return env

    made(make, "env")
    return make


def make_host(config: RolloutConfig) -> EnvHost:
    """Threads beside the engine, or the caller's thread for a single worker in deterministic runs."""
    if config.deterministic and config.env_workers == 1:
        return InlineHost()
    return ThreadHost(config.env_workers, config.env_timeout_s)
