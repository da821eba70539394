"""Offline learning from a recipe: critics on stored trajectories, and the policy that leans to what was worth more."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from rich.console import Console

from mmturn.errors import DataError
from mmturn.interfaces import Rubric
from mmturn.jobs.stored import check_stored, rewarded, rollout_files, stored_trajectories, trainable
from mmturn.jobs.train import open_trainee, seeded, setup_of, shared_tasks
from mmturn.models.features import FeatureCache
from mmturn.recipe import Recipe, check_offline
from mmturn.rewards.rubric import rubric_of
from mmturn.training.feed import Feed
from mmturn.training.offline import Lived, OfflineParts, give_critic, lived_of, train
from mmturn.training.run import check_fresh
from mmturn.training.updater import Updater
from mmturn.types import Trajectory


def learn_offline(
    recipe: Recipe,
    out: Path,
    *,
    resume: bool = False,
    allow_code: bool = False,
    on_update: Callable[[int, Mapping[str, float]], None] | None = None,
    console: Console | None = None,
) -> Path:
    """Learn from stored trajectories alone; the folder of the last checkpoint."""
    check_offline(recipe)
    recipe = seeded(recipe)
    config = recipe.offline
    check_fresh(out, resume)
    check_stored(Path(config.trajectories))
    trainee = open_trainee(recipe, allow_code=allow_code)
    policy, processes = trainee.policy, trainee.processes
    feed = Feed.of(policy.loaded, policy.patches, policy.renderer.banned_ids)
    stored = stored_trajectories(policy, rollout_files(Path(config.trajectories)))
    lived, problems = material_of(stored, feed, rubric_of(recipe.reward, allow_code))
    if console is not None and processes.is_main:
        say_material(lived, problems, console)
    give_critic(trainee.module, policy.loaded, config, recipe.seed)
    updater = Updater(trainee.module, recipe.training, processes)
    validation = shared_tasks(recipe, "val", out, processes)[0] if recipe.training.eval_every else []
    setup = setup_of(recipe, policy, updater, out, validation, resume, console)
    features = FeatureCache(recipe.engine.feature_bytes, recipe.engine.feature_spill_bytes)
    price = trainee.price() if config.trunk == "learns" else None  # it knows no trunk that only runs forwards
    parts = OfflineParts(
        setup=setup, config=config, lived=lived, feed=feed, features=features, price=price, on_update=on_update
    )
    return train(parts)


def material_of(trajectories: Iterable[Trajectory], feed: Feed, rubric: Rubric) -> tuple[list[Lived], list[str]]:
    """What can be learned from, in an order that names decide; and, by name, why the rest is left out: it failed, or
    its engine reported no token ids. Raises DataError when nothing can."""
    lived: list[Lived] = []
    problems: list[str] = []
    for number, trajectory in enumerate(rewarded(trajectories, rubric)):
        try:
            if trajectory.stop.status == "failed":
                raise DataError(f"trajectory {trajectory.id}: failed ({trajectory.error or trajectory.stop.value})")
            lived.append(lived_of(trajectory, trainable(feed.rows(trajectory), trajectory), f"{number}"))
        except DataError as error:
            problems.append(str(error))
    if not lived:
        raise DataError(f"nothing to learn from{f': {problems[0]}' if problems else ': no trajectory is stored there'}")
    return lived, problems


def say_material(lived: list[Lived], problems: list[str], console: Console) -> None:
    """How much there is to learn from, and what was left out."""
    tokens, total = (sum(len(one.rewards) for one in lived), sum(sum(one.rewards) for one in lived))
    text = f"{len(lived)} trajectories of {tokens} sampled tokens, mean reward {total / len(lived):.3g}"
    console.print(text, markup=False, highlight=False, soft_wrap=True)
    if problems:
        text = f"{len(problems)} trajectories left out: {problems[0]}"
        console.print(text, style="yellow", markup=False, highlight=False, soft_wrap=True)
