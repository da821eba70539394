"""Trajectories that the present policy and a stale copy of it sample together."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from mmturn.errors import ConfigError
from mmturn.jobs.data import tasks_of
from mmturn.jobs.samplers import Samplers
from mmturn.jobs.train import open_trainee, train_policy
from mmturn.models.copies import copy_of
from mmturn.models.policy import PolicyModule
from mmturn.recipe import Recipe, check_rl, read_recipe
from mmturn.rollout.routing import falls_to_other
from mmturn.rollout.seeds import seed_of
from mmturn.store.trajectories import images_folder, read_trajectories
from mmturn.training.feed import Feed
from mmturn.training.log import read_metrics
from mmturn.training.settings import CrossPolicyConfig, RlConfig, TrainingConfig
from mmturn.types import Task, Trajectory

SMALL = (
    "rl.group_size=4", "rl.groups_per_update=2", "training.updates=3", "training.save_every=1", "training.log=[]",
    "training.progress=false", "training.schedule=constant", "training.keep_checkpoints=9", "training.lr=0.003",
    "rl.cross_policy.refresh_every=2", "method.select=[]",
)  # fmt: skip


def recipe_of(*overrides: str) -> Recipe:
    return read_recipe("nano_rl", (*SMALL, *overrides), "agentrl")[0]


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> list[Task]:
    recipe = recipe_of("data.train_tasks=8", "data.validation_tasks=0")
    return tasks_of(recipe.data, "train", tmp_path_factory.mktemp("world"))[0][:2]


def run(folder: Path, tasks: list[Task], *overrides: str, resume: bool = False) -> tuple[list[Trajectory], str]:
    """A run's rollouts and what it said."""
    screen = io.StringIO()
    console = Console(file=screen, width=300)
    train_policy(recipe_of(*overrides), folder, tasks=tasks, validation=(), resume=resume, console=console)
    return list(read_trajectories(folder / "rollouts")), screen.getvalue()


@pytest.fixture(scope="module")
def trained(tasks: list[Task], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Trajectory]]:
    folder = tmp_path_factory.mktemp("cross") / "run"
    return folder, run(folder, tasks)[0]


def test_each_turn_is_by_the_policy_that_its_seed_names(trained: tuple[Path, list[Trajectory]]) -> None:
    folder, stored = trained
    stale, seen = [], set()
    for trajectory in stored:
        present = trajectory.meta["update"] - 1
        for turn in trajectory.turns:
            by_copy = falls_to_other(seed_of(trajectory.seed, turn.index), 0.5)
            assert turn.policy_version == (present - present % 2 if by_copy else present)
            stale.append(turn.policy_version < present)
        seen.add(len({turn.policy_version for turn in trajectory.turns}))
    assert seen == {1, 2}, "some trajectories are by both"
    lines = read_metrics(folder)
    assert [line["rollout/stale_turns"] > 0 for line in lines] == [False, True, False]
    of_second = [t for t in stored if t.meta["update"] == 2]
    share = [turn.policy_version == 0 for t in of_second for turn in t.turns]
    assert lines[1]["rollout/stale_turns"] == pytest.approx(sum(share) / len(share))
    assert lines[1]["rollout/version_lag_max"] == 1.0


def test_log_probs_are_those_of_whoever_sampled(trained: tuple[Path, list[Trajectory]], repo: Path) -> None:
    folder, stored = trained
    of_second = [t for t in stored if t.meta["update"] == 2 and t.num_turns > 1]
    checkpoints = [repo / "checkpoints" / "nano", folder / "checkpoints" / "update_000001" / "policy"]
    gaps = {by: gaps_of(path, folder, of_second) for by, path in enumerate(checkpoints)}
    for by, found in gaps.items():
        own = [gap for version, gap in found if version == by]
        others = [gap for version, gap in found if version != by]
        assert max(own) < 2e-3 and max(others) > 10 * max(own), by


def gaps_of(path: Path, run: Path, trajectories: Sequence[Trajectory]) -> list[tuple[int, float]]:
    """Of each turn, its version and how far a policy's log-probs are from those that were stored."""
    recipe = recipe_of()
    policy = open_trainee(replace(recipe, model=replace(recipe.model, path=str(path)))).policy
    policy.store.add_folder(images_folder(run / "rollouts"))
    feed = Feed.of(policy.loaded, policy.patches, policy.renderer.banned_ids)
    module = PolicyModule(policy.loaded, recipe.rollout.temperature, policy.renderer.banned_ids)
    found = []
    for trajectory in trajectories:
        batch = feed.batch(feed.rows(trajectory))
        with torch.no_grad():
            distance = (module(batch).logprobs - batch.old_logprobs).abs() * batch.loss_mask
        found += [(t.policy_version, float(distance[batch.turn_index == t.index].max())) for t in trajectory.turns]
    return found


def test_sharing_changes_what_is_sampled_once_the_copy_is_behind(
    trained: tuple[Path, list[Trajectory]], tasks: list[Task], tmp_path: Path
) -> None:
    alone, _ = run(tmp_path / "run", tasks, "rl.cross_policy.share=0.0")
    same = [
        [turn.token_ids for turn in one.turns] == [turn.token_ids for turn in other.turns]
        for one, other in zip(trained[1], alone, strict=True)
    ]
    assert all(same[:8]) and not all(same[8:16]), "the copy is the policy itself at first"
    assert all(turn.policy_version == t.meta["update"] - 1 for t in alone for turn in t.turns)


@pytest.mark.parametrize(("done", "says"), [(1, True), (2, False)])
def test_a_resumed_run_says_where_it_is_not_the_same(tasks: list[Task], tmp_path: Path, done: int, says: bool) -> None:
    run(tmp_path / "run", tasks, f"training.updates={done}")
    stored, said = run(tmp_path / "run", tasks, resume=True)
    assert ("begins anew" in said) == says
    behind = {turn.policy_version for t in stored if t.meta["update"] == done + 1 for turn in t.turns}
    assert behind == {done}, "the copy is the checkpoint's policy"


@pytest.mark.parametrize("frozen", [True, False])
def test_the_copy_is_brought_up_to_date_every_several_updates(frozen: bool) -> None:
    trainee = open_trainee(recipe_of(f"model.freeze_vision={str(frozen).lower()}"))
    loaded = trainee.policy.loaded
    samplers = Samplers(
        trainee.policy, CrossPolicyConfig(0.5, 3), copy_of(loaded), vision_frozen=frozen, exact=False, say=print
    )
    assert samplers._stale is not None
    stale, weight = samplers._stale.engine, loaded.base.lm_head.weight
    assert (stale.features is samplers.present.features) == frozen, "features of a tower of its own are its own"
    held: list[Any] = []
    for version in range(7):
        samplers.publish(version)
        samplers.publish(version)
        held.append(
            (samplers.engine.version, stale.version, bool(torch.equal(stale.loaded.base.lm_head.weight, weight)))
        )
        with torch.no_grad():
            weight.add_(0.01)
    assert [(now, then) for now, then, _ in held] == [(v, v - v % 3) for v in range(7)]
    assert [equal for *_, equal in held] == [True, False, False, True, False, False, True]
    stale.counters["decode_tokens"], samplers.present.counters["decode_tokens"] = 2, 3
    assert samplers.take_counters()["decode_tokens"] == 5 and samplers.take_counters()["decode_tokens"] == 0


def test_what_cannot_be_is_told_before_weights_are_loaded() -> None:
    check_rl(recipe_of())
    crossed = RlConfig(cross_policy=CrossPolicyConfig(0.5))
    with pytest.raises(ConfigError, match="rl.cross_policy.*ZeRO-3"):
        check_rl(Recipe(rl=crossed, training=TrainingConfig(zero_stage=3)))
    with pytest.raises(ConfigError, match=r"rl.cross_policy.*rl\.old_logprobs: sampler"):
        check_rl(Recipe(rl=replace(crossed, old_logprobs="detached")))
    for settings, text in (((1.5,), "share must be from 0 to 1"), ((0.5, 1), "refresh_every must be at least 2")):
        with pytest.raises(ConfigError, match=text):
            CrossPolicyConfig(*settings)
