"""What a forward pass of the trainer says of trajectories, before any step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mmturn.credit.graded import Signals
from mmturn.models.features import FeatureCache
from mmturn.training.images import Images
from mmturn.training.processes import start_processes
from mmturn.training.reference import Reference
from mmturn.training.signals import SignalPass
from mmturn.training.updater import Updater
from mmturn.types import StopReason, Trajectory
from tests.training.small_world import TRAINING, World, make_world


def score(
    world: World, trajectories: Sequence[Trajectory], needs: Sequence[str] = ("values",), reference: Any = None
) -> dict[str, Signals]:
    """Signals under a head that is not 0."""
    assert world.policy.critic is not None
    torch.nn.init.normal_(world.policy.critic.weight, generator=torch.Generator().manual_seed(0))
    processes = start_processes("cpu")
    images = Images(world.policy, world.feed.source, FeatureCache(1 << 24), processes)
    updater = Updater(world.policy, TRAINING, processes)
    return SignalPass(updater, TRAINING, world.feed, images, reference)(trajectories, frozenset(needs))


def test_signals_are_the_values_before_tokens_and_after_a_limit(qwen3: Path) -> None:
    world = make_world(qwen3, critic=True)
    ended, cut_off = world.trajectory(1), replace(world.trajectory(2), stop=StopReason.CONTEXT_LIMIT)
    nothing = replace(world.trajectory(3), turns=(), stop=StopReason.CONTEXT_LIMIT)
    signals = score(world, [ended, cut_off, nothing], ("values", "entropies"))
    for trajectory in (ended, cut_off):
        with torch.no_grad():
            scores = world.policy(world.feed.batch(world.feed.rows(trajectory)))
        sampled = world.feed.batch(world.feed.rows(trajectory)).loss_mask.bool()
        found = signals[trajectory.id]
        assert found.values is not None and found.entropies is not None
        values = [value for turn in found.values for value in turn]
        assert values == pytest.approx(scores.values[sampled].tolist(), abs=1e-5)
        assert [len(turn) for turn in found.values] == [turn.provenance.count("s") for turn in trajectory.turns]
        after = float(scores.final_values[-1]) if trajectory is cut_off else 0.0
        assert found.final_value == pytest.approx(after, abs=1e-5)
    assert signals["t2"].final_value != 0.0
    assert signals["t3"] == Signals(values=(), entropies=())
    assert score(world, [cut_off], ("entropies",))["t2"].values is None


def test_contexts_that_begin_anew_are_valued_as_one_stream(qwen3: Path) -> None:
    """MEM1 and the like: several rows make one trajectory, and the value behind a row is that of the next."""
    world = make_world(qwen3, critic=True)
    whole = replace(world.trajectory(3, turns=3), stop=StopReason.TURN_LIMIT)
    turns = tuple(
        replace(turn, fresh_context=True, context_views=turn.observation.views) if turn.index else turn
        for turn in whole.turns
    )
    signals = score(world, [replace(whole, turns=turns)])["t3"]
    assert signals.values is not None
    assert [len(turn) for turn in signals.values] == [turn.provenance.count("s") for turn in turns]
    with torch.no_grad():
        last = world.policy(world.feed.batch(world.feed.rows(replace(whole, turns=turns))))
    assert signals.final_value == pytest.approx(float(last.final_values[-1]), abs=1e-5)


def test_drift_is_what_the_policy_and_its_reference_differ_by(qwen3: Path) -> None:
    world = make_world(qwen3, critic=True)
    trajectories = [world.trajectory(seed) for seed in (1, 2)]

    def logprobs(trajectory: Trajectory) -> list[float]:
        batch = world.feed.batch(world.feed.rows(trajectory))
        with torch.no_grad():
            return world.policy(batch).logprobs[batch.loss_mask.bool()].tolist()

    reference = Reference(world.policy, TRAINING, start_processes("cpu"))
    before = [logprobs(trajectory) for trajectory in trajectories]
    for found in score(world, trajectories, ("drift",), reference).values():
        assert found.values is None and found.drift is not None
        assert [value for turn in found.drift for value in turn] == pytest.approx([0.0] * sum(map(len, found.drift)))
    with torch.no_grad():
        for weight in world.policy.model.parameters():
            weight.mul_(1.1)
    signals = score(world, trajectories, ("drift", "values"), reference)
    for trajectory, old in zip(trajectories, before, strict=True):
        found = signals[trajectory.id]
        assert found.drift is not None and found.values is not None
        gaps = [new - was for new, was in zip(logprobs(trajectory), old, strict=True)]
        assert max(map(abs, gaps)) > 0.01
        assert [value for turn in found.drift for value in turn] == pytest.approx(gaps, abs=1e-5)
