"""Trajectories to compare in the small world: they begin alike, and one of them spreads over two rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmturn.credit.pairs import Label, Pair
from mmturn.models.features import FeatureCache
from mmturn.models.heads import ObjectiveHeads
from mmturn.training.preference import PreferenceParts
from mmturn.training.processes import start_processes
from mmturn.training.run import RunSetup
from mmturn.training.settings import PreferenceConfig, TrainingConfig
from mmturn.training.updater import Updater
from mmturn.types import Reward, Row, Trajectory, Turn
from tests.training.small_world import World

PAIRS = (Pair(0, 1), Pair(2, 3), Pair(4, 5))


def siblings(world: World, groups: int = 3) -> list[Trajectory]:
    """Two trajectories of each group, the first better; they share their first turn and what it leads to, and each
    third of them starts a new context in its last."""
    made: list[Trajectory] = []
    for group in range(groups):
        first, shown, *_ = world.trajectory(group, turns=3).turns
        for index in range(2):
            number = 2 * group + index
            other = world.trajectory(40 + number, turns=3)
            last = other.turns[2]
            if number % 3 == 0:
                last = replace(last, fresh_context=True, context_views=last.observation.views)
            value = float(1 - index)
            made.append(
                replace(
                    other, id=f"g{group}#{index}", group=f"g{group}", index=index,
                    turns=(first, answering(shown, other.turns[1]), last),
                    reward=Reward(value, value, (0.0,) * 3, {"answer": value}),
                )
            )  # fmt: skip
    return made


def answering(shown: Turn, said: Turn) -> Turn:
    """A turn that shows what one does and samples what the other does."""
    before, after = shown.provenance.index("s"), said.provenance.index("s")
    ids = (*(shown.token_ids or ())[:before], *(said.token_ids or ())[after:])
    return replace(shown, token_ids=ids, provenance=shown.provenance[:before] + said.provenance[after:], logprobs=None)


def rows_of(world: World, trajectories: Sequence[Trajectory]) -> list[list[Row]]:
    return [world.feed.rows(trajectory) for trajectory in trajectories]


def parts_of(
    world: World,
    folder: Path,
    training: TrainingConfig,
    config: PreferenceConfig,
    found: Sequence[Pair | Label] = PAIRS,
    **setup: Any,
) -> PreferenceParts:
    """A run of preference learning in the world."""
    if config.heads == "per_objective":
        world.policy.heads = ObjectiveHeads.of(world.loaded, config.objectives)
    updater = Updater(world.policy, training, start_processes("cpu"))
    return PreferenceParts(
        RunSetup(folder, training, updater, **setup), config, rows_of(world, siblings(world)), found, world.feed,
        FeatureCache(1 << 24),
    )  # fmt: skip
