"""Stored trajectories in the small world: rewards in between and at the end, two contexts, and one that was cut off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmturn.models.features import FeatureCache
from mmturn.training.offline import Lived, OfflineParts, give_critic, lived_of
from mmturn.training.offline_settings import OfflineConfig
from mmturn.training.processes import start_processes
from mmturn.training.run import RunSetup
from mmturn.training.settings import TrainingConfig
from mmturn.training.updater import Updater
from mmturn.types import Reward, StopReason, Trajectory
from tests.training.small_world import World


def stored(world: World, count: int = 5) -> list[Trajectory]:
    """Of different length; each third begins its last turn anew, each second was cut off."""
    made = []
    for number in range(count):
        trajectory = world.trajectory(60 + number, turns=1 + number % 3)
        turns = list(trajectory.turns)
        if len(turns) == 3:
            turns[2] = replace(turns[2], fresh_context=True, context_views=turns[2].observation.views)
        looks = tuple(0.25 * (k + number % 2) for k in range(len(turns)))
        outcome = float(number % 2 == 0)
        made.append(
            replace(
                trajectory, turns=tuple(turns), reward=Reward(outcome + sum(looks), outcome, looks),
                stop=StopReason.TURN_LIMIT if number % 2 else StopReason.ANSWERED,
            )
        )  # fmt: skip
    return made


def lived(world: World, trajectories: Sequence[Trajectory]) -> list[Lived]:
    return [lived_of(t, world.feed.rows(t), str(number)) for number, t in enumerate(trajectories)]


def offline_parts(
    world: World,
    folder: Path,
    training: TrainingConfig,
    config: OfflineConfig,
    trajectories: Sequence[Trajectory] | None = None,
    **setup: Any,
) -> OfflineParts:
    """A run of offline learning in the world."""
    examples = lived(world, stored(world) if trajectories is None else trajectories)
    give_critic(world.policy, world.loaded, config, seed=training.seed)
    updater = Updater(world.policy, training, start_processes("cpu"))
    return OfflineParts(
        RunSetup(folder, training, updater, **setup), config, examples, world.feed, FeatureCache(1 << 24)
    )
