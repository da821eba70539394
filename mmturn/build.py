"""Resolved settings -> objects. The only place that knows how the parts are put together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mmturn.batching.patches import Patches
from mmturn.components import env_factory, env_parts, env_settings, make_context, make_grammar, make_tools
from mmturn.credit.method import Method
from mmturn.engines.hf import HFEngine
from mmturn.envs.gui.needs import Needs
from mmturn.errors import ConfigError
from mmturn.families import family_of
from mmturn.interfaces import ActionGrammar, ContextPolicy, Engine, EnvHost, Environment
from mmturn.media import ImageStore
from mmturn.models.files import model_folder
from mmturn.models.load import LoadedModel, load_configured
from mmturn.recipe import Recipe
from mmturn.rendering.renderer import Renderer
from mmturn.rewards.rubric import rubric_of
from mmturn.rollout import Driver, InlineHost, RolloutConfig, ThreadHost
from mmturn.rollout.workers.link import Start
from mmturn.rollout.workers.pool import WorkerPool
from mmturn.rollout.workers.remote import WorkerHost, stand_in
from mmturn.rollout.workers.starting import check_workers, make_pool
from mmturn.types import Json, Request


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
    env_settings: Json
    """What workers make the same environments of."""

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
        """The multi-turn loop on an engine. Raises ConfigError where the machine lacks what environments need."""
        config = rollout or self.recipe.rollout
        env = self.make_env()
        lacking = env.lacks() if isinstance(env, Needs) and config.workers.kind != "ray" else ""
        if lacking:
            raise ConfigError(lacking)
        pool = make_pool(config, Start("mmturn.components:env_of", self.env_settings))
        make_env = self.make_env if pool is None else stand_in(env, pool, self.store)
        meta = {"model": str(self.loaded.folder.name), "banned_ids": list(self.renderer.banned_ids)}
        return Driver(
            engine, self.renderer, self.grammar, make_env, make_host(config, pool), config,
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
    check_workers(recipe.rollout.workers)
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
        env_settings(recipe, loaded.family, allow_code),
    )


def make_host(config: RolloutConfig, pool: WorkerPool | None = None) -> EnvHost:
    """Threads beside the engine, or the caller's thread for a single worker in deterministic runs. With a pool, what
    waits for its workers."""
    if pool is not None:
        return WorkerHost(pool)
    if config.deterministic and config.env_workers == 1:
        return InlineHost()
    return ThreadHost(config.env_workers, config.env_timeout_s)
