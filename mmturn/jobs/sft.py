"""Supervised learning from a recipe: a cold start on oracle trajectories, or on stored ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from rich.console import Console

from mmturn.build import Policy
from mmturn.errors import DataError
from mmturn.jobs.rollout import oracle_trajectories
from mmturn.jobs.train import open_trainee, seeded, setup_of, shared_tasks
from mmturn.models.features import FeatureCache
from mmturn.recipe import OracleConfig, Recipe
from mmturn.rewards.env_score import told_score
from mmturn.store.trajectories import images_folder, read_trajectories, trajectory_file
from mmturn.tasks.rows import RowProblem
from mmturn.training.feed import Feed
from mmturn.training.processes import Processes
from mmturn.training.sft import SftParts, train
from mmturn.training.updater import Updater
from mmturn.types import Row, Trajectory


def sft_policy(
    recipe: Recipe,
    out: Path,
    *,
    resume: bool = False,
    allow_code: bool = False,
    on_update: Callable[[int, Mapping[str, float]], None] | None = None,
    console: Console | None = None,
) -> Path:
    """Train on supervised trajectories; the folder of the last checkpoint."""
    recipe = seeded(recipe)
    trainee = open_trainee(recipe, allow_code=allow_code)
    policy = trainee.policy
    feed = Feed.of(policy.loaded, policy.patches, policy.renderer.banned_ids)
    rows, problems = sft_rows(policy, feed, out, trainee.processes)
    if problems and console is not None:
        text = f"{len(problems)} trajectories left out: {problems[0]}"
        console.print(text, style="yellow", markup=False, highlight=False, soft_wrap=True)
    updater = Updater(trainee.module, recipe.training, trainee.processes)
    validation = shared_tasks(recipe, "val", out, trainee.processes)[0] if recipe.training.eval_every else []
    setup = setup_of(recipe, policy, updater, out, validation, resume, console)
    features = FeatureCache(recipe.engine.feature_bytes, recipe.engine.feature_spill_bytes)
    parts = SftParts(
        setup=setup, config=recipe.sft, rows=rows, feed=feed, features=features, price=trainee.price(),
        on_update=on_update,
    )  # fmt: skip
    return train(parts)


def sft_rows(policy: Policy, feed: Feed, out: Path, processes: Processes) -> tuple[list[Row], list[str]]:
    """Training rows of the recipe's stored or oracle trajectories, in an order that their names decide; and those
    that could not be used, by name. Raises DataError when none can."""
    stored = policy.recipe.oracle.trajectories
    bad_rows: list[RowProblem] = []
    trajectories: list[Trajectory] = []
    if stored:
        policy.store.add_folder(images_folder(Path(stored)))
        trajectories = list(read_trajectories(trajectory_file(Path(stored))))
    else:
        tasks, bad_rows = shared_tasks(policy.recipe, "train", out, processes)
        trajectories = list(oracle_trajectories(policy, tasks, policy.recipe.oracle))
    rows: list[Row] = []
    problems = [str(problem) for problem in bad_rows]
    for trajectory in sorted(trajectories, key=lambda t: t.id):
        unfit = _unfit(trajectory, policy.recipe.oracle)
        if unfit:
            problems.append(f"trajectory {trajectory.id}: {unfit}")
            continue
        try:
            rows += feed.rows(trajectory)
        except DataError as error:
            problems.append(str(error))
    if not rows:
        raise DataError(f"nothing to learn from{f': {problems[0]}' if problems else ''}")
    return rows, problems


def _unfit(trajectory: Trajectory, config: OracleConfig) -> str:
    """Why nothing should be learned from a trajectory; empty: it should."""
    if trajectory.stop.status == "failed":
        return str(trajectory.error)
    if config.trajectories:
        reward = None if trajectory.reward is None else trajectory.reward.total
        if config.least_reward is None or (reward is not None and reward >= config.least_reward):
            return ""
        found = "it has no reward" if reward is None else f"its reward is {reward:g}"
        return f"{found}, and oracle.least_reward is {config.least_reward:g}"
    score = told_score(trajectory)
    return "" if score is None or score >= 1 else f"played by its scripted solution it scores {score:g}"
