"""Replay: carry a stored trajectory's actions out again and compare, step by step."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from mmturn.build import Policy, env_factory, make_grammar, make_policy, make_tools
from mmturn.errors import MmturnError, ToolError
from mmturn.families import family_of
from mmturn.families.spec import Family
from mmturn.interfaces import Environment, Rubric
from mmturn.media import ImageStore
from mmturn.models.files import model_folder
from mmturn.models.policy import PolicyModule
from mmturn.recipe import Recipe
from mmturn.rewards.rubric import rubric_of
from mmturn.store.trajectories import images_folder, read_trajectories, trajectory_file
from mmturn.training.feed import Feed
from mmturn.types import Observation, Task, Trajectory, Turn, View


@dataclass(frozen=True)
class Divergence:
    """Where a replay first differs from what is stored."""

    trajectory: str
    turn: int | None
    """None: the trajectory as a whole (its reward)."""
    what: str
    """views, error, facts, answer, reward or logprobs."""
    stored: str
    replayed: str

    def __str__(self) -> str:
        where = "" if self.turn is None else f" turn {self.turn}"
        return f"{self.trajectory}{where}: {self.what}: stored {self.stored}, replayed {self.replayed}"


@dataclass(frozen=True)
class Replay:
    """What replaying one trajectory gave."""

    trajectory: str
    divergence: Divergence | None
    logprob_gap: float | None
    """Largest difference between stored and recomputed log-probs; None when not recomputed."""


@dataclass(frozen=True)
class ReplayOutcome:
    """What replaying a run gave."""

    count: int
    divergences: tuple[Divergence, ...]
    logprob_gap: float | None
    """Largest over all trajectories; None when nothing was recomputed."""


def replay_run(recipe: Recipe, run: Path, *, limit: int = 0, logprobs: bool = True) -> ReplayOutcome:
    """Replay a run folder or file with the recipe it was sampled with. Code named in the recipe is run."""
    stored = list(itertools.islice(read_trajectories(trajectory_file(run)), limit or None))
    store = ImageStore()
    store.add_folder(images_folder(run))
    policy = make_policy(recipe, allow_code=True, store=store) if logprobs else None
    family = policy.loaded.family if policy is not None else family_of(model_folder(recipe.model.path), recipe.model.family)
    results = list(
        replay(
            stored, recipe, family, store, images_folder(run),
            rubric=rubric_of(recipe.reward, True), policy=policy, allow_code=True,
        )
    )  # fmt: skip
    gaps = [result.logprob_gap for result in results if result.logprob_gap is not None]
    return ReplayOutcome(len(results), tuple(r.divergence for r in results if r.divergence), max(gaps, default=None))


def replay_tools(trajectory: Trajectory, env: Environment, grammar_parse: Callable[..., object]) -> Divergence | None:
    """Carry out every action again; the first difference in what came of it."""
    task = trajectory.task
    try:
        shown = env.reset(task, trajectory.seed).views
    except MmturnError as error:
        return Divergence(trajectory.id, 0, "reset", "an image", str(error))
    seen: list[View] = []
    for turn in trajectory.turns:
        if turn.observation.is_error and turn.observation.views:
            env.note_shown(turn.observation.views)
        elif turn.observation.views != shown:
            return _differs(trajectory, turn, "views", turn.observation.views, shown)
        seen += turn.observation.views
        if not turn.actions:
            shown = ()
            problem = _parse_problem(turn, seen, env, grammar_parse)
            if problem is None and turn.error is not None:
                return _differs(trajectory, turn, "error", turn.error, "the completion parses")
            continue
        try:
            step = env.step(turn.actions)
        except ToolError as error:
            if turn.error != str(error):
                return _differs(trajectory, turn, "error", turn.error, str(error))
            shown = ()
            continue
        if turn.error is not None:
            return _differs(trajectory, turn, "error", turn.error, "none")
        if dict(step.facts) != dict(turn.facts):
            return _differs(trajectory, turn, "facts", turn.facts, step.facts)
        if step.terminated and step.answer != trajectory.answer:
            return _differs(trajectory, turn, "answer", trajectory.answer, step.answer)
        shown = step.observation.views if isinstance(step.observation, Observation) else ()
    return None


def replay_reward(trajectory: Trajectory, rubric: Rubric) -> Divergence | None:
    """Grade again and compare with the stored reward, if there is one."""
    if trajectory.reward is None:
        return None
    again = rubric(trajectory)
    if math.isclose(again.total, trajectory.reward.total, abs_tol=1e-9):
        return None
    return Divergence(trajectory.id, None, "reward", f"{trajectory.reward.total:g}", f"{again.total:g}")


@torch.no_grad()
def logprob_gaps(policy: Policy, trajectories: Sequence[Trajectory], module: PolicyModule) -> dict[str, float]:
    """Largest difference between stored and teacher-forced log-probs of each trajectory that has some."""
    feed = Feed.of(policy.loaded, policy.store, policy.renderer.banned_ids)
    gaps: dict[str, float] = {}
    for trajectory in trajectories:
        rows = [row for row in feed.rows(trajectory) if row.logprobs is not None]
        if not rows:
            continue
        batch = feed.batch(rows).to(policy.loaded.device)
        new = module(batch).logprobs
        assert batch.old_logprobs is not None
        mask = batch.loss_mask.bool()
        gaps[trajectory.id] = float((new - batch.old_logprobs)[mask].abs().max()) if bool(mask.any()) else 0.0
    return gaps


def replay(
    trajectories: Sequence[Trajectory],
    recipe: Recipe,
    family: Family,
    store: ImageStore,
    images: Path,
    *,
    rubric: Rubric | None = None,
    policy: Policy | None = None,
    allow_code: bool = False,
) -> Iterator[Replay]:
    """Replay stored trajectories: tools always, rewards with ``rubric``, log-probs with ``policy``. ``images`` is the
    run's own folder of images, used where a task's file is gone.

    Raises ConfigError where the recipe is not the one they were sampled with (another grammar or family).
    """
    make_env = env_factory(recipe, family, store, make_tools(recipe, allow_code), allow_code)
    grammar = make_grammar(recipe.grammar, family, allow_code)
    module = None
    if policy is not None:
        module = PolicyModule(policy.loaded, recipe.rollout.temperature, policy.renderer.banned_ids).eval()
    for stored in trajectories:
        trajectory = replace(stored, task=_with_stored_images(stored, images))
        found = replay_tools(trajectory, make_env(), grammar.parse)
        if found is None and rubric is not None:
            found = replay_reward(stored, rubric)
        gap = None
        if policy is not None and module is not None:
            gap = logprob_gaps(policy, [stored], module).get(stored.id)
            if found is None and gap is not None and gap > 1e-3:
                found = Divergence(stored.id, None, "logprobs", "sampler's", f"up to {gap:.2g} away")
        yield Replay(stored.id, found, gap)


def _with_stored_images(trajectory: Trajectory, images: Path) -> Task:
    """The task with its images read from the run's own folder where they are gone, so that a moved data set replays."""
    first = trajectory.turns[0].observation.views if trajectory.turns else ()
    paths = list(trajectory.task.images)
    for index, view in enumerate(first[: len(paths)]):
        sha256 = view.source.sha256
        kept = sorted((images / sha256[:2]).glob(f"{sha256}.*"))
        if kept and not Path(paths[index]).is_file():
            paths[index] = str(kept[0])
    return replace(trajectory.task, images=tuple(paths))


def _parse_problem(turn: Turn, seen: Sequence[View], env: Environment, parse: Callable[..., object]) -> str | None:
    try:
        parse(turn.text, tuple(seen), env.tools, turn.index)
    except MmturnError as error:
        return str(error)
    return None


def _differs(trajectory: Trajectory, turn: Turn, what: str, stored: object, replayed: object) -> Divergence:
    return Divergence(trajectory.id, turn.index, what, f"{stored!r:.200}", f"{replayed!r:.200}")
