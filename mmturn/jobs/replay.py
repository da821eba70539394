"""Replay: run a stored trajectory again with its completions given, and compare, step by step.

The true driver, renderer, grammar, environment and tools run; only the engine repeats what was sampled. So the first
difference in anything that follows from the completions shows: views, words, token ids, actions, errors, facts, how
it ended. Rewards are computed again from the record, log-probs by the trainer's forward pass.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from mmturn.build import Policy, env_factory, make_policy
from mmturn.components import make_context, make_grammar, make_tools
from mmturn.errors import DataError
from mmturn.families import family_of
from mmturn.families.spec import Family
from mmturn.interfaces import Rubric
from mmturn.media import ImageStore
from mmturn.models.files import model_folder
from mmturn.models.policy import PolicyModule
from mmturn.recipe import Recipe
from mmturn.rendering.renderer import Renderer
from mmturn.rendering.tokenizer import load_tokenizer
from mmturn.rewards.rubric import rubric_of
from mmturn.rollout import Driver, Episode, InlineHost
from mmturn.store.trajectories import images_folder, read_trajectories, trajectory_file
from mmturn.training.feed import Feed
from mmturn.types import MEASURED, Completion, Request, StopReason, Task, Trajectory, Turn

LOGPROB_TOLERANCE = {torch.float32: 1e-3}
"""Largest gap between sampler and trainer that is no divergence; rounding of a batch's shape alone stays below."""
_COARSE_TOLERANCE = 0.5


@dataclass(frozen=True)
class Divergence:
    """Where a replay first differs from what is stored."""

    trajectory: str
    turn: int | None
    """None: the trajectory as a whole."""
    what: str
    """seat, views, words, token_ids, actions, error, facts, text, turns, stop, answer, reward, rows or logprobs."""
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
    images = images_folder(run)
    stored = itertools.islice(read_trajectories(trajectory_file(run)), limit or None)
    store = ImageStore()
    store.add_folder(images)
    policy = make_policy(recipe, allow_code=True, store=store) if logprobs else None
    if policy is not None:
        renderer = policy.renderer
    else:
        folder = model_folder(recipe.model.path)
        renderer = Renderer(family_of(folder, recipe.model.family), load_tokenizer(folder))
    results = list(
        replay(
            stored, recipe, renderer, store, images,
            rubric=rubric_of(recipe.reward, True), policy=policy, allow_code=True,
        )
    )  # fmt: skip
    gaps = [result.logprob_gap for result in results if result.logprob_gap is not None]
    return ReplayOutcome(len(results), tuple(r.divergence for r in results if r.divergence), max(gaps, default=None))


def replay(
    trajectories: Iterator[Trajectory] | Sequence[Trajectory],
    recipe: Recipe,
    renderer: Renderer,
    store: ImageStore,
    images: Path,
    *,
    rubric: Rubric | None = None,
    policy: Policy | None = None,
    allow_code: bool = False,
) -> Iterator[Replay]:
    """Replay stored trajectories: tools always, rewards with ``rubric``, log-probs with ``policy``. ``images`` is the
    run's own folder of images, used where a task's file is gone."""
    family: Family = renderer.family
    make_env = env_factory(recipe, family, store, make_tools(recipe, allow_code), allow_code)
    engine = RecordedEngine()
    driver = Driver(
        engine, renderer, make_grammar(recipe.grammar, family, allow_code), make_env, InlineHost(),
        replace(recipe.rollout, deterministic=True, gold=False), context=make_context(recipe.context, allow_code),
        prepare=store.pixels,
    )  # fmt: skip
    module = None if policy is None else PolicyModule(policy.loaded, 1.0, renderer.banned_ids).eval()
    for stored in trajectories:
        engine.load(stored)
        episode = Episode(
            _with_stored_images(stored, images), stored.group, stored.index, stored.seed,
            int(stored.meta.get("env_seed", stored.seed)),
        )  # fmt: skip
        (again,) = driver.run([episode])
        found = first_difference(stored, again, renderer)
        if found is None and rubric is not None:
            found = replay_reward(stored, rubric)
        gap = None
        if policy is not None and module is not None:
            gap, problem = logprob_gap(policy, stored, module)
            found = found or problem
        yield Replay(stored.id, found, gap)
    driver.close()


class RecordedEngine:
    """Answers each request with the completion that a trajectory has recorded for the turn."""

    name = "recorded"
    version = 0

    def __init__(self) -> None:
        self._turns: tuple[Turn, ...] = ()
        self._waiting: list[Request] = []

    def load(self, trajectory: Trajectory) -> None:
        """Take the completions of this trajectory."""
        self._turns, self._waiting = trajectory.turns, []

    def submit(self, request: Request) -> None:
        """Queue a request."""
        self._waiting.append(request)

    def collect(self, max_steps: int | None = None) -> list[Completion]:
        """What was recorded; an error where the record ends."""
        waiting, self._waiting = self._waiting, []
        return [self._answer(request) for request in waiting]

    @property
    def room(self) -> int:
        """Any number."""
        return 1

    @property
    def idle(self) -> bool:
        """True when no request waits."""
        return not self._waiting

    def close(self) -> None:
        """Nothing to free."""

    def _answer(self, request: Request) -> Completion:
        if request.turn >= len(self._turns):
            return Completion(request.id, "", finish="error", error=f"the record ends before turn {request.turn}")
        turn = self._turns[request.turn]
        return Completion(request.id, turn.text, turn.said, turn.logprobs, turn.finish, None, turn.policy_version)


def first_difference(stored: Trajectory, again: Trajectory, renderer: Renderer) -> Divergence | None:
    """The first difference between a stored trajectory and its replay. Where the infrastructure had failed or run out
    of time, the last turn's outcome and the ending need not come again."""
    broke = stored.stop.status == "failed" or stored.stop is StopReason.TIME_LIMIT
    for old, new in zip(stored.turns, again.turns, strict=False):
        settled = not (broke and old.index == len(stored.turns) - 1)
        for what, was, now in _aspects(old, new, settled):
            if was != now:
                return Divergence(stored.id, old.index, what, f"{was!r:.200}", f"{now!r:.200}")
        if old.logprobs is not None and old.text != renderer.decode(old.said or ()):
            return Divergence(stored.id, old.index, "text", f"{old.text!r:.200}", "another reading of its token ids")
    if len(again.turns) < len(stored.turns) or not broke:
        was, now = _ending(stored), _ending(again)
        if was != now:
            return Divergence(stored.id, None, "stop", was, now)
        if stored.answer != again.answer:
            return Divergence(stored.id, None, "answer", f"{stored.answer!r:.200}", f"{again.answer!r:.200}")
    return None


def _aspects(old: Turn, new: Turn, settled: bool) -> Iterator[tuple[str, Any, Any]]:
    """(name, stored, replayed) of what follows from the completions, in the order in which it comes about."""
    yield "seat", old.seat, new.seat
    yield "views", old.views, new.views
    yield "words", (old.observation, old.unseen), (new.observation, new.unseen)
    yield "token_ids", (old.fresh_context, old.token_ids), (new.fresh_context, new.token_ids)
    yield "token_ids", (old.provenance, old.context_views), (new.provenance, new.context_views)
    yield "actions", _plain(old.actions), _plain(new.actions)
    if settled:
        yield "error", old.error, new.error
        yield "facts", _repeatable(old.facts), _repeatable(new.facts)


def _repeatable(facts: Mapping[str, Any]) -> Any:
    """Facts that come again."""
    return _plain({key: value for key, value in facts.items() if key != MEASURED})


def _plain(value: Any) -> Any:
    """Tuples as lists, as they come back from a file."""
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return replace(value, arguments=_plain(value.arguments)) if hasattr(value, "arguments") else value


def _ending(trajectory: Trajectory) -> str:
    why = f" ({trajectory.error})" if trajectory.error else ""
    return f"{trajectory.stop.value} after {trajectory.num_turns} turns{why}"


def replay_reward(trajectory: Trajectory, rubric: Rubric) -> Divergence | None:
    """Grade again and compare with the stored reward, if there is one."""
    stored = trajectory.reward
    if stored is None:
        return None
    again = rubric(trajectory)
    pairs = [("total", stored.total, again.total), ("outcome", stored.outcome, again.outcome)]
    pairs += [(f"turn {k}", *both) for k, both in enumerate(zip(stored.turns, again.turns, strict=False))]
    pairs += [(name, stored.components.get(name, math.nan), value) for name, value in again.components.items()]
    for name, was, now in pairs:
        if not math.isclose(was, now, rel_tol=1e-9, abs_tol=1e-9):
            return Divergence(trajectory.id, None, "reward", f"{name} {was:g}", f"{now:g}")
    return None


@torch.no_grad()
def logprob_gap(policy: Policy, trajectory: Trajectory, module: PolicyModule) -> tuple[float | None, Divergence | None]:
    """Largest difference between stored and teacher-forced log-probs at the temperature they were sampled at; None
    where none are stored."""
    feed = Feed.of(policy.loaded, policy.patches, policy.renderer.banned_ids)
    temperature = float(trajectory.meta.get("temperature", policy.recipe.rollout.temperature))
    module.temperature = temperature if temperature > 0 else 1.0
    try:
        rows = [row for row in feed.rows(trajectory) if row.logprobs is not None]
        if not rows:
            return None, None
        batch = feed.batch(rows).to(policy.loaded.device)
    except DataError as error:
        return None, Divergence(trajectory.id, None, "rows", "tokens and views", str(error))
    assert batch.old_logprobs is not None, "rows without log-probs are left out"
    mask = batch.loss_mask.bool()
    if not bool(mask.any()):
        return 0.0, None
    gap = float((module(batch).logprobs - batch.old_logprobs)[mask].abs().max())
    tolerance = LOGPROB_TOLERANCE.get(next(policy.loaded.model.parameters()).dtype, _COARSE_TOLERANCE)
    if gap <= tolerance:
        return gap, None
    return gap, Divergence(trajectory.id, None, "logprobs", "sampler's", f"up to {gap:.2g} away")


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
