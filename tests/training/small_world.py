"""A small world to train in: a tiny random model, two pictures, and trajectories made up from seeds.

The trajectories need no driver and no engine, yet they are what those would record: token ids with provenance, views,
and the log-probs of the policy that is being trained, so that a wrong weight anywhere shows.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from mmturn.batching.patches import Patches
from mmturn.credit.method import Assigned, Method
from mmturn.media import ImageStore, fit
from mmturn.models.features import FeatureCache
from mmturn.models.load import LoadedModel, load_model
from mmturn.models.policy import PolicyModule
from mmturn.models.value_head import ValueHead
from mmturn.rollout.groups import Episode
from mmturn.training.feed import Feed
from mmturn.training.microbatches import MicroBatch
from mmturn.training.processes import start_processes
from mmturn.training.rl import RlParts
from mmturn.training.run import RunSetup
from mmturn.training.settings import RlConfig, TrainingConfig
from mmturn.training.updater import Updater
from mmturn.types import Action, Observation, PixelBudget, Reward, StopReason, Task, Trajectory, Turn, View

TRAINING = TrainingConfig(
    updates=6, lr=1e-3, micro_batch_rows=3, save_every=2, log=(), progress=False, deterministic=True
)


@dataclass
class World:
    """A loaded model with what goes around it."""

    loaded: LoadedModel
    policy: PolicyModule
    store: ImageStore
    feed: Feed
    views: list[View]
    version: int = 0
    """Of the policy that samples."""

    def publish(self, version: int) -> None:
        """The policy has reached a version."""
        self.version = version

    def add_picture(self, seed: int) -> None:
        """One more picture that trajectories may show."""
        pixels = np.random.default_rng(seed).integers(0, 255, (70, 90, 3), dtype=np.uint8)
        reference = self.store.put_image(Image.fromarray(pixels))
        self.views.append(fit(reference, self.loaded.family.size_rule, PixelBudget(1024, 5000)))

    def trajectory(self, seed: int, *, images: bool = True, turns: int | None = None) -> Trajectory:
        """One made-up trajectory: its number of turns, tokens and pictures follow from the seed."""
        dice = random.Random(seed)
        count = turns or dice.randint(1, 3)
        parts = [self._turn(dice, k, images, last=k == count - 1) for k in range(count)]
        return Trajectory(
            id=f"t{seed}", task=Task(f"task{seed % 5}", "?"), group=f"g{seed}", index=0, seed=seed, turns=tuple(parts),
            stop=StopReason.ANSWERED, meta={"engine": "made up"},
        )  # fmt: skip

    def _turn(self, dice: random.Random, index: int, images: bool, last: bool) -> Turn:
        views = [dice.choice(self.views)] if images else []
        shown = [self.feed.image_token_id] * sum(self.loaded.family.image_tokens(view.size) for view in views)
        text = [dice.randint(10, 200) for _ in range(dice.randint(2, 5))]
        said = [dice.randint(10, 200) for _ in range(dice.randint(2, 7))]
        return Turn(
            index=index,
            observation=Observation(tuple(views)),
            text="x",
            token_ids=(*shown, *text, *said),
            provenance="i" * len(shown) + "t" * len(text) + "s" * len(said),
            logprobs=(-5.0,) * len(said),
            fresh_context=index == 0,
            context_views=tuple(views) if index == 0 else None,
            actions=(Action("answer" if last else "tool", "answer" if last else "crop"),),
        )

    def sampled(self, trajectories: Sequence[Trajectory]) -> list[Trajectory]:
        """The same with the log-probs that the policy has now, as a sampler would report them."""
        result = []
        for trajectory in trajectories:
            rows = self.feed.rows(trajectory)
            with torch.no_grad():
                scores = self.policy(self.feed.batch(rows))
            values = iter(scores.logprobs[self.feed.batch(rows).loss_mask.bool()].tolist())
            turns = [
                replace(t, logprobs=tuple(next(values) for _ in t.logprobs or ()), policy_version=self.version)
                for t in trajectory.turns
            ]
            result.append(replace(trajectory, turns=tuple(turns)))
        return result

    def roll(self, episodes: Sequence[Episode]) -> list[Trajectory]:
        """What a driver does, made up."""
        made = []
        for episode in episodes:
            base = self.trajectory(episode.seed % 100_000)
            made.append(replace(base, id=episode.id, task=episode.task, group=episode.group, index=episode.index))
        return self.sampled(made)

    def pieces(self, trajectories: Sequence[Trajectory], rows: int = 2) -> list[MicroBatch]:
        """Micro-batches of ``rows`` rows, with an advantage that follows from the trajectory."""
        all_rows = [row for t in trajectories for row in self.feed.rows(t)]
        worth = [[(-1.0) ** len(row.token_ids) * mask for mask in row.loss_mask] for row in all_rows]
        return [
            MicroBatch(self.feed.batch(all_rows[i : i + rows], worth[i : i + rows]))
            for i in range(0, len(all_rows), rows)
        ]

    def packed(self, trajectories: Sequence[Trajectory], config: TrainingConfig) -> list[MicroBatch]:
        """The same rows cut as the settings say, their pictures left to ``Images``."""
        rows = [row for t in trajectories for row in self.feed.rows(t)]
        worth = [[(-1.0) ** len(row.token_ids) * mask for mask in row.loss_mask] for row in rows]
        return [MicroBatch(batch) for _, batch in self.feed.batches(rows, config, worth)]


def make_world(model: Path, *, critic: bool = False, **load: Any) -> World:
    """Load ``model`` (``load_model``'s arguments), with a value head or without, and draw two pictures."""
    loaded = load_model(model, **load)
    store = ImageStore(view_bytes=0)
    banned = (loaded.image_token_id,)
    policy = PolicyModule(loaded, 1.0, banned, ValueHead.of(loaded) if critic else None)
    world = World(loaded, policy, store, Feed.of(loaded, Patches(store, loaded.family), banned), [])
    for seed in range(2):
        world.add_picture(seed)
    return world


def grade(trajectory: Trajectory) -> Reward:
    """A reward that varies: how many tokens were sampled, modulo 3."""
    value = float(sum(turn.provenance.count("s") for turn in trajectory.turns) % 3)
    return Reward(value, value, (0.0,) * trajectory.num_turns, {"answer": float(value > 0)})


class Source:
    """Tasks in turn, forever."""

    def __init__(self, count: int = 5) -> None:
        self.tasks, self.taken = [Task(f"task{i}", "?") for i in range(count)], 0

    def next(self, count: int) -> list[tuple[Task, int]]:
        numbers = range(self.taken, self.taken + count)
        self.taken += count
        return [(self.tasks[n % len(self.tasks)], n // len(self.tasks)) for n in numbers]

    def state(self) -> dict[str, Any]:
        return {"taken": self.taken}

    def load_state(self, state: Any) -> None:
        self.taken = state["taken"]


def rl_parts(
    world: World, folder: Path, training: TrainingConfig = TRAINING, config: RlConfig | None = None, **setup: Any
) -> RlParts:
    """A run of reinforcement learning in the world."""
    updater = Updater(world.policy, training, start_processes("cpu"))
    resolved = {"training": {"lr": training.lr, "updates": training.updates}}
    options = {"resolved": resolved, "assets": world.loaded.folder, **setup}
    return RlParts(
        setup=RunSetup(folder, training, updater, **options),
        config=config or RlConfig(group_size=3, groups_per_update=2),
        source=Source(),
        roll=world.roll,
        rubric=grade,
        method=Method(),
        feed=world.feed,
        images=world.store,
        publish=world.publish,
        features=FeatureCache(1 << 24),
    )


def credited(trajectories: Sequence[Trajectory]) -> list[tuple[Trajectory, Assigned]]:
    """Trajectories with the advantages that they bear, all turns kept."""
    return [(t, Assigned(t.advantages or (), (True,) * t.num_turns, t.advantages or ())) for t in trajectories]


def weights_of(world: World) -> dict[str, torch.Tensor]:
    """A copy of all weights."""
    return {name: p.detach().clone() for name, p in world.policy.model.named_parameters()}
