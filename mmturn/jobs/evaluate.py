"""Evaluation of a policy on tasks: rollouts, scores, a report."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from mmturn.build import Policy
from mmturn.evaluation.report import EvalReport
from mmturn.evaluation.rows import GROUPS, RunInfo, ScoreRow, run_info
from mmturn.evaluation.runner import evaluate
from mmturn.evaluation.suites import ResultWriter, scorer_of
from mmturn.interfaces import Engine, Scorer
from mmturn.rollout import RolloutConfig, episodes
from mmturn.schema import to_values
from mmturn.types import Json, Task, Trajectory

EvalProgress = Callable[[int, int, ScoreRow | None], None]


def eval_rollout(policy: Policy) -> RolloutConfig:
    """The recipe's rollout at the temperature of its evaluation; no gold answer is scored, since nobody reads it."""
    return replace(policy.recipe.rollout, temperature=policy.recipe.evaluation.temperature, gold=False)


def evaluate_policy(
    policy: Policy,
    tasks: Sequence[Task],
    out: Path,
    *,
    suite: str = "",
    engine: Engine | None = None,
    scorer: Scorer | None = None,
    name: str = "",
    seeds: dict[str, Json] | None = None,
    groups: tuple[str, ...] = GROUPS,
    progress: EvalProgress | None = None,
    resume: bool = True,
    keep_trajectories: bool = True,
    results: ResultWriter | None = None,
) -> EvalReport:
    """Evaluate with visit 0 of each task, so that a seed gives the same samples whatever came before.

    ``suite`` is what the report calls the tasks; empty: what the recipe trains on. ``name`` tells apart policies that
    share a config (the weights' version, a baseline); it is part of what resumed rows must agree on. ``results``:
    writes samples in their benchmark's own layout too (see ``Suite``).
    """
    recipe = policy.recipe
    rollout, samples = eval_rollout(policy), recipe.evaluation.samples
    chosen = tasks[: recipe.evaluation.tasks] if recipe.evaluation.tasks else tasks
    engine = engine or policy.engine()

    def roll(pending: Sequence[Task]) -> Iterator[Trajectory]:
        driver = policy.driver(engine, rollout)
        try:
            yield from driver.run(episodes(((task, 0) for task in pending), samples, recipe.seed))
        finally:
            driver.close()

    info = eval_info(policy, suite or Path(recipe.data.train).stem, rollout, name, seeds, groups)
    return evaluate(
        chosen, roll, scorer or scorer_of(chosen), out, info=info, images=policy.store, samples=samples,
        progress=progress, resume=resume, keep_trajectories=keep_trajectories,
        also=None if results is None else partial(_write, results, policy, out),
    )  # fmt: skip


def _write(results: ResultWriter, policy: Policy, out: Path, trajectory: Trajectory, row: ScoreRow) -> None:
    """A sample's files in its benchmark's own layout."""
    observation = str(policy.recipe.env.get("observation", "screenshot"))
    results(out, trajectory, row, policy.store, model=policy.loaded.folder.name, observation=observation)


def eval_info(
    policy: Policy,
    suite: str,
    rollout: RolloutConfig,
    name: str,
    seeds: dict[str, Json] | None = None,
    groups: tuple[str, ...] = GROUPS,
) -> RunInfo:
    """Header of an evaluation: everything that its scores depend on."""
    values = to_values(policy.recipe)
    used = {key: values[key] for key in ("env", "tools", "grammar", "context", "evaluation", "seed")}
    sampling = {**to_values(rollout), "samples": policy.recipe.evaluation.samples}
    config = {**used, "rollout": to_values(rollout), "model": str(policy.loaded.folder), "policy": name}
    return run_info(suite, config, sampling=sampling, seeds={"run": policy.recipe.seed, **(seeds or {})}, groups=groups)
