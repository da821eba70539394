"""Preference learning from a recipe: on stored rollouts, on some sampled first, or on looks beside the gold boxes."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from mmturn.build import Policy
from mmturn.credit.pairs import Label, Pair, graded
from mmturn.errors import ConfigError, DataError
from mmturn.interfaces import Rubric
from mmturn.jobs.rollout import oracle_trajectories, store_rollouts
from mmturn.jobs.stored import check_stored, rewarded, rollout_files, stored_trajectories, trainable
from mmturn.jobs.train import open_trainee, say_problems, seeded, setup_of, shared_tasks
from mmturn.models.features import FeatureCache
from mmturn.models.heads import ObjectiveHeads
from mmturn.recipe import Recipe, check_preference
from mmturn.rewards.rubric import RubricConfig, rubric_of
from mmturn.training.comparisons import compared
from mmturn.training.feed import Feed
from mmturn.training.preference import PreferenceParts, train
from mmturn.training.processes import Processes
from mmturn.training.rl import ROLLOUTS_NAME
from mmturn.training.run import check_fresh
from mmturn.training.settings import PreferenceConfig
from mmturn.training.updater import Updater
from mmturn.types import Row, Task, Trajectory

SEEN = RubricConfig({"gold_in_crop": 1.0})
"""How looks at the gold boxes and beside them are told apart."""


@dataclass(frozen=True)
class Material:
    """What trajectories give to learn from."""

    rows: list[list[Row]]
    """Of each trajectory that can be used."""
    found: list[Pair] | list[Label]
    """Trajectories by their places in ``rows``."""
    problems: list[str]
    """Why the others cannot be used, by name."""


def prefer_policy(
    recipe: Recipe,
    out: Path,
    *,
    resume: bool = False,
    allow_code: bool = False,
    on_update: Callable[[int, Mapping[str, float]], None] | None = None,
    console: Console | None = None,
) -> Path:
    """Train on preferences between trajectories; the folder of the last checkpoint."""
    check_preference(recipe)
    recipe = seeded(recipe)
    config = recipe.preference
    check_fresh(out, resume)
    check_rollouts(config, out, resume)
    trainee = open_trainee(recipe, allow_code=allow_code)
    policy, processes = trainee.policy, trainee.processes
    feed = Feed.of(policy.loaded, policy.patches, policy.renderer.banned_ids)
    rubric = rubric_of(SEEN if config.source == "oracle" else recipe.reward, allow_code)
    tasks, bad_rows = ([], []) if config.trajectories else shared_tasks(recipe, "train", out, processes)
    say_problems(bad_rows, console)
    material = material_of(trajectories_for(policy, tasks, out, processes, rubric), config, feed, rubric)
    if console is not None and processes.is_main:
        say_material(material, config, console)
    if config.heads == "per_objective":
        trainee.module.heads = ObjectiveHeads.of(policy.loaded, config.objectives)
    updater = Updater(trainee.module, recipe.training, processes)
    validation = shared_tasks(recipe, "val", out, processes)[0] if recipe.training.eval_every else []
    setup = setup_of(recipe, policy, updater, out, validation, resume, console)
    features = FeatureCache(recipe.engine.feature_bytes, recipe.engine.feature_spill_bytes)
    parts = PreferenceParts(
        setup=setup, config=config, rows=material.rows, found=material.found, feed=feed, features=features,
        price=trainee.price(), on_update=on_update,
    )  # fmt: skip
    return train(parts)


def check_rollouts(config: PreferenceConfig, out: Path, resume: bool) -> None:
    """Raise DataError where the stored trajectories are missing, and ConfigError where ones would be sampled over
    others: before any weight is loaded."""
    if config.trajectories:
        check_stored(Path(config.trajectories))
    elif config.source == "rollouts" and not resume and (out / ROLLOUTS_NAME).exists():
        raise ConfigError(
            f"{out / ROLLOUTS_NAME} is there already: learn from it (--set preference.trajectories="
            f"{out / ROLLOUTS_NAME}), or name another folder"
        )


def trajectories_for(
    policy: Policy, tasks: Sequence[Task], out: Path, processes: Processes, rubric: Rubric
) -> list[Trajectory]:
    """What the recipe of a policy compares: stored trajectories, or ones of ``tasks`` that are sampled or built now.
    All processes must call it. Raises DataError where there are neither trajectories nor tasks."""
    config = policy.recipe.preference
    if not (config.trajectories or tasks):
        raise DataError("nothing to compare: set data.train (--data) or preference.trajectories")
    if config.source == "oracle":
        return beside_the_point(policy, tasks)
    if not config.trajectories:
        sources = [sampled(policy, tasks, out, processes, rubric)]
    else:
        sources = rollout_files(Path(config.trajectories))
    return stored_trajectories(policy, sources)


def sampled(policy: Policy, tasks: Sequence[Task], out: Path, processes: Processes, rubric: Rubric) -> Path:
    """The rollouts of a run that samples before it learns; the main process samples them, once."""
    folder, unfinished = out / ROLLOUTS_NAME, out / f".{ROLLOUTS_NAME}"
    if processes.is_main and not folder.exists():
        shutil.rmtree(unfinished, ignore_errors=True)
        store_rollouts(policy, tasks, unfinished, group_size=policy.recipe.preference.samples, rubric=rubric)
        unfinished.rename(folder)
    processes.barrier()
    return folder


def beside_the_point(policy: Policy, tasks: Sequence[Task]) -> list[Trajectory]:
    """Looks at the gold boxes and copies of them that look beside, each two a group, not graded yet."""
    oracle, beside = policy.recipe.oracle, policy.recipe.preference.beside
    return [
        *(replace(t, group=t.id) for t in oracle_trajectories(policy, tasks, oracle)),
        *(replace(t, group=t.id, id=f"{t.id} beside") for t in oracle_trajectories(policy, tasks, oracle, beside)),
    ]


def material_of(trajectories: Iterable[Trajectory], config: PreferenceConfig, feed: Feed, rubric: Rubric) -> Material:
    """Comparisons and rows, in an order that names decide; ``rubric`` grades what has no reward yet.

    Raises DataError when there is nothing to compare.
    """
    known, problems = graded(rewarded(trajectories, rubric), config.objectives)
    used: list[Trajectory] = []
    rows: list[list[Row]] = []
    for trajectory in known:
        try:
            rows.append(trainable(feed.rows(trajectory), trajectory))
            used.append(trajectory)
        except DataError as error:
            problems.append(str(error))
    found = compared(used, config)
    if not found:
        groups = len({trajectory.group for trajectory in used})
        raise DataError(
            f"nothing to compare among {len(used)} trajectories in {groups} groups (preference.pairs: {config.pairs})"
            + (f"; {len(problems)} left out: {problems[0]}" if problems else "")
        )
    return Material(rows, found, problems)


def say_material(material: Material, config: PreferenceConfig, console: Console) -> None:
    """How much there is to learn from, and what was left out."""
    noun = "labels" if config.loss == "m_kto" else "pairs to choose from" if config.pairs == "widest" else "pairs"
    text = f"{len(material.found)} {noun} among {len(material.rows)} trajectories"
    console.print(text, markup=False, highlight=False, soft_wrap=True)
    if material.problems:
        text = f"{len(material.problems)} trajectories left out: {material.problems[0]}"
        console.print(text, style="yellow", markup=False, highlight=False, soft_wrap=True)
