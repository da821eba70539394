"""A recipe as typed settings: every section of the YAML file, each owned by its component. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from mmturn.config import Resolved, load_recipe
from mmturn.credit.method import Method, MethodConfig
from mmturn.engines.settings import HFConfig
from mmturn.errors import ConfigError
from mmturn.models.settings import ModelConfig
from mmturn.rewards.rubric import RubricConfig
from mmturn.rollout.settings import RolloutConfig
from mmturn.tasks.worlds import WORLDS
from mmturn.training.critic_settings import CriticConfig
from mmturn.training.offline_settings import OfflineConfig
from mmturn.training.settings import (
    CurriculumConfig,
    PreferenceConfig,
    RlConfig,
    SftConfig,
    TrainingConfig,
    check_seed,
)
from mmturn.types import Json

Named = dict[str, Any]
"""A component: its registered ``name`` (or ``./file.py:Name``) and its own settings beside it."""


@dataclass(frozen=True)
class DataConfig:
    """Where tasks come from: a JSONL file (see docs/data.md), a generated world (``visual_search``, ``video_world``;
    ``sites``, ``miniwob``: tasks of the browser), ``board`` or ``navigation`` (generated houses)."""

    train: str = "visual_search"
    """Tasks to train on."""
    validation: str = ""
    """Tasks to evaluate on during training; empty: a generated world's validation split, or none for own data."""
    train_tasks: int = 600
    """Generated tasks: number for training."""
    validation_tasks: int = 64
    """Generated tasks: number for validation."""
    levels: tuple[str, ...] = ()
    """Generated world: which of its levels; empty: all."""
    seed: int = 0
    """Generated tasks: seed of scenes and openings."""

    def __post_init__(self) -> None:
        worlds = [WORLDS[name] for name in (self.train, self.validation) if name in WORLDS]
        known = {level for world in worlds or WORLDS.values() for level in world.levels}
        unknown = [level for level in self.levels if level not in known]
        if unknown:
            raise ConfigError(f"data.levels: unknown {', '.join(unknown)} (known: {', '.join(sorted(known))})")
        for name in ("train_tasks", "validation_tasks"):
            if getattr(self, name) < 0:
                raise ConfigError(f"data.{name} must be 0 or more, got {getattr(self, name)}")
        check_seed("data.seed", self.seed)


@dataclass(frozen=True)
class OracleConfig:
    """Supervised trajectories built from the gold boxes and stretches, by running the true environment."""

    trajectories: str = ""
    """Stored trajectories (a run folder or .jsonl) to learn from instead; empty: build them."""
    least_reward: float | None = None
    """Of stored trajectories, learn from those whose reward is at least this; null: from all."""
    per_task: int = 1
    """Trajectories per task."""
    scale: tuple[float, float] = (1.5, 2.5)
    """Side of the crop, in sides of the gold region, drawn log-uniformly; of a stretch, its length."""
    jitter: float = 0.1
    """Standard deviation of the crop's centre, in sides of the crop."""
    offset: tuple[float, float] = (0.0, 0.0)
    """Mean error of the crop's centre, in sides of the crop: a teacher that looks beside the point. Of a stretch, the
    first of the two."""
    least_s: float = 0.0
    """Least length of a stretch, in seconds."""
    look: bool = True
    """False: the trajectories answer at once, for single-turn policies."""

    def __post_init__(self) -> None:
        if self.per_task < 1:
            raise ConfigError(f"oracle.per_task must be at least 1, got {self.per_task}")
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ConfigError(f"oracle.scale must be [least, most] with 0 < least <= most, got {list(self.scale)}")
        for name in ("jitter", "least_s"):
            if getattr(self, name) < 0:
                raise ConfigError(f"oracle.{name} must be 0 or more, got {getattr(self, name)}")


@dataclass(frozen=True)
class EvalConfig:
    """Evaluation during and after training."""

    temperature: float = 1.0
    """Sampling temperature; 0 is greedy."""
    samples: int = 1
    """Trajectories per task (Avg@k)."""
    tasks: int = 0
    """Evaluate on the first this many tasks; 0: all."""

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise ConfigError(f"evaluation.samples must be at least 1, got {self.samples}")
        for name in ("temperature", "tasks"):
            if getattr(self, name) < 0:
                raise ConfigError(f"evaluation.{name} must be 0 or more, got {getattr(self, name)}")


@dataclass(frozen=True)
class Recipe:
    """All of a run's settings."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    env: Named = field(default_factory=lambda: {"name": "visual_qa"})
    tools: tuple[Named, ...] = ({"name": "crop"},)
    grammar: Named = field(default_factory=dict)
    """``name`` is the model family's own when left out."""
    context: Named = field(default_factory=lambda: {"name": "append"})
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    engine: HFConfig = field(default_factory=HFConfig)
    reward: RubricConfig = field(default_factory=RubricConfig)
    method: MethodConfig = field(default_factory=MethodConfig)
    curriculum: CurriculumConfig = field(default_factory=CurriculumConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    rl: RlConfig = field(default_factory=RlConfig)
    critic: CriticConfig = field(default_factory=CriticConfig)
    sft: SftConfig = field(default_factory=SftConfig)
    oracle: OracleConfig = field(default_factory=OracleConfig)
    evaluation: EvalConfig = field(default_factory=EvalConfig)
    out: str = ""
    """Folder of the run; empty: runs/NAME."""
    seed: int = 0
    """The run's seed: samples, environments and the order of tasks follow from it."""
    preference: PreferenceConfig = field(default_factory=PreferenceConfig)
    offline: OfflineConfig = field(default_factory=OfflineConfig)

    def __post_init__(self) -> None:
        if "name" not in self.env:
            raise ConfigError("env.name is missing: which environment? e.g. visual_qa")
        if "name" not in self.context:
            raise ConfigError("context.name is missing: which context policy? e.g. append")
        for index, tool in enumerate(self.tools):
            if "name" not in tool:
                raise ConfigError(f"tools[{index}].name is missing: which tool? e.g. crop")
        check_seed("seed", self.seed)


Kind = Literal["train", "sft", "eval", "rollout"]


METHODS = "methods"
"""Folder of the shipped methods, under ``train``."""


def read_recipe(
    path: str | Path, overrides: tuple[str, ...] = (), method: str | None = None
) -> tuple[Recipe, Resolved]:
    """A recipe file with overrides, checked: unknown keys and wrong types raise ConfigError.

    ``method``: a shipped method (``igpo``) or a YAML file of one's own, laid over the recipe.
    """
    presets = () if method is None else (method if method.endswith(".yaml") else f"{METHODS}/{method}",)
    resolved = load_recipe(path, overrides, presets)
    return resolved.build(Recipe), resolved


def check_rl(recipe: Recipe) -> None:
    """Refuse, before any weight is loaded, what policy-gradient training cannot do right."""
    if recipe.rollout.temperature <= 0:
        raise ConfigError("rollout.temperature must be above 0 in RL: greedy samples carry no gradient")
    if recipe.rollout.top_p < 1:
        raise ConfigError(
            f"rollout.top_p is {recipe.rollout.top_p}: the trainer cannot reproduce a nucleus, so that its log-probs "
            "would disagree with the sampler's; use top_p 1 in RL"
        )
    if recipe.model.lora is not None and recipe.model.lora.dropout > 0:
        raise ConfigError("model.lora.dropout must be 0 in RL: dropout changes the log-probs that were sampled from")
    _check_success(recipe)
    _check_cross_policy(recipe)


def _check_success(recipe: Recipe) -> None:
    """What the curriculum asks of successes."""
    curriculum, terms = recipe.curriculum, recipe.reward.terms
    if (curriculum.success_pool or curriculum.easy_above < 1) and curriculum.success not in terms:
        raise ConfigError(
            f"curriculum.success is {curriculum.success!r}, which grades nothing: name a term of reward.terms "
            f"({', '.join(terms)})"
        )
    if curriculum.success_pool and recipe.rl.keep_rollouts_every != 1:
        raise ConfigError(
            "curriculum.success_pool is read off the stored rollouts where a run is resumed: set "
            f"rl.keep_rollouts_every: 1 (it is {recipe.rl.keep_rollouts_every})"
        )
    if curriculum.success_pool and not recipe.rl.weighs_samplers:
        raise ConfigError(_UNWEIGHED.format("curriculum.success_pool trains on what"))


def _check_cross_policy(recipe: Recipe) -> None:
    """What a second policy asks of training."""
    if not recipe.rl.cross_policy.share:
        return
    if recipe.training.zero_stage == 3:
        raise ConfigError(
            "rl.cross_policy keeps a whole copy of the weights in each process, which ZeRO-3 is there to avoid: set "
            "training.zero_stage: 2, or rl.cross_policy.share: 0"
        )
    if not recipe.rl.weighs_samplers:
        raise ConfigError(_UNWEIGHED.format("rl.cross_policy trains on what"))


_UNWEIGHED = (
    "{} older weights sampled, and the loss would take it for the present policy's: set rl.old_logprobs: sampler, or "
    "rl.old_logprobs: recompute with rl.correction"
)


def method_of(recipe: Recipe, allow_code: bool = False) -> tuple[Method, CriticConfig | None]:
    """A run's method, and how its critic learns: None where nothing reads one. Raises ConfigError for boxes that are
    wrong, and for a critic that does not give what the method reads."""
    method, critic = Method(recipe.method, allow_code), recipe.critic
    read = sorted(method.needs & {"values", "utterances"})
    if not critic.enabled and not read:
        return method, None
    for signal in read:
        if signal != critic.signal:
            kind = "value" if signal == "values" else "utterance"
            raise ConfigError(
                f"method {recipe.method.row!r} reads {signal}, which a critic of another kind gives: set "
                f"critic.kind: {kind}"
            )
    if critic.kind == "utterance":
        _check_replay(recipe, method)
    anchor = method.value_anchor
    if anchor is not None and critic.anchor not in ("all", anchor):
        raise ConfigError(
            f"critic.anchor is {critic.anchor}, but method.credit reads the value at the {anchor} token of each turn: "
            f"set critic.anchor: {anchor}, or all"
        )
    return method, critic


def wants_reference(recipe: Recipe, method: Method) -> bool:
    """Whether a run compares its policy with the one that it was loaded as: in the loss, or in the method's rewards."""
    return recipe.rl.kl_coef > 0 or "drift" in method.needs


def _check_replay(recipe: Recipe, method: Method) -> None:
    """What a critic needs that learns from trajectories of earlier updates again."""
    if recipe.critic.replay and recipe.rl.keep_rollouts_every != 1:
        raise ConfigError(
            "critic.replay is above 0: a resumed run reads the trajectories back from its stored rollouts, so set "
            f"rl.keep_rollouts_every: 1 (it is {recipe.rl.keep_rollouts_every}), or critic.replay: 0"
        )
    if not method.shapes_alone:
        raise ConfigError(
            "method.shape has a box that sees several trajectories at once, but a critic learns from single ones "
            "again: take another box, or another critic.kind"
        )
    if method.shape_needs:
        signals = ", ".join(sorted(method.shape_needs))
        raise ConfigError(
            f"method.shape reads {signals}, which trajectories no longer have when a critic learns from them again: "
            "take another box of method.shape, or another critic.kind"
        )


def settings_of(component: Mapping[str, Json]) -> dict[str, Json]:
    """A named component's own settings."""
    return {key: value for key, value in component.items() if key != "name"}


def check_preference(recipe: Recipe) -> None:
    """Refuse, before any weight is loaded, what preference learning cannot do right."""
    config = recipe.preference
    if recipe.rollout.temperature <= 0:
        raise ConfigError("rollout.temperature must be above 0: log-probs are those at the sampling temperature")
    if recipe.model.lora is not None and recipe.model.lora.dropout > 0:
        raise ConfigError("model.lora.dropout must be 0 in preference learning: dropout blurs what is compared")
    if config.source == "oracle":
        if not (recipe.oracle.look and recipe.tools):
            raise ConfigError("preference.source oracle compares looks: it needs a tool, and oracle.look: true")
        known = ["total"]
    elif config.trajectories:
        return
    else:
        known = ["total", "outcome", *recipe.reward.terms]
    unknown = [name for name in config.objectives if name not in known]
    if unknown:
        raise ConfigError(f"preference.objectives: nothing grades {', '.join(unknown)} (known: {', '.join(known)})")


def check_offline(recipe: Recipe) -> None:
    """Refuse, before any weight is loaded, what offline learning cannot do right."""
    config, lora = recipe.offline, recipe.model.lora
    if not config.trajectories:
        raise ConfigError("offline.trajectories is empty: name stored trajectories (a .jsonl, its folder, or a run)")
    if recipe.rollout.temperature <= 0:
        raise ConfigError("rollout.temperature must be above 0: log-probs are those at the sampling temperature")
    if lora is not None and config.trunk == "frozen":
        raise ConfigError(
            "model.lora adapts a trunk that offline.trunk: frozen keeps as it is: set offline.trunk: learns"
        )
    if lora is not None and lora.dropout > 0:
        raise ConfigError("model.lora.dropout must be 0 in offline learning: dropout blurs what values are read off")
