"""Images that are encoded once, and learned from afterwards, give the gradients of the plain path."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mmturn.models.features import FeatureCache
from mmturn.training.images import Images
from mmturn.training.processes import start_processes
from mmturn.training.updater import Updater
from mmturn.types import Trajectory
from tests.training.small_world import World, make_world, weights_of
from tests.training.test_updater import CONFIG, STEPS, objective

SEEDS = (1, 2, 3, 5)


@pytest.fixture(params=["qwen2_5", "qwen3"])
def model(request: pytest.FixtureRequest) -> Path:
    folder: Path = request.getfixturevalue(request.param)
    return folder


def images_of(world: World, max_patches: int = 8192, cache: FeatureCache | None = None) -> Images:
    cache = FeatureCache(1 << 24) if cache is None else cache
    return Images(world.policy, world.feed.source, cache, start_processes("cpu"), max_patches=max_patches)


def group_of(world: World) -> list[Trajectory]:
    """Trajectories of one group: they begin alike, and go on with several pictures."""
    made = [world.trajectory(seed, turns=3) for seed in SEEDS]
    first = made[0].turns[0]
    return [replace(t, group="g", turns=(first, *t.turns[1:])) for t in made]


@pytest.mark.parametrize("settings", [{}, {"image_patches": 1}, {"micro_batch_tokens": 60}, {"layout": "padded"}])
def test_updates_equal_those_of_the_plain_path(model: Path, settings: dict[str, Any]) -> None:
    config = replace(CONFIG, **settings)
    plain, own = make_world(model), make_world(model)
    pieces = plain.pieces(group_of(plain), rows=100)
    updater = Updater(plain.policy, CONFIG, start_processes("cpu"))
    want = [updater.update(pieces, objective(pieces), filler=plain.feed.filler(), lr=CONFIG.lr) for _ in range(STEPS)]
    packed = own.packed(group_of(own), config)
    images = images_of(own, config.image_patches)
    updater = Updater(own.policy, config, start_processes("cpu"))
    found = [
        updater.update(packed, objective(pieces), filler=own.feed.filler(), lr=CONFIG.lr, images=images)
        for _ in range(STEPS)
    ]
    for ours, theirs in zip(found, want, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-5)
        assert ours["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-4)
    for (name, weight), expected in zip(weights_of(own).items(), weights_of(plain).values(), strict=True):
        torch.testing.assert_close(weight, expected, rtol=0, atol=2e-6, msg=name)


def test_each_image_is_encoded_once_for_features_and_once_for_gradients(model: Path) -> None:
    world = make_world(model)
    pieces = world.packed(group_of(world), replace(CONFIG, micro_batch_tokens=60))
    assert len(pieces) > 1
    unique = len({view for piece in pieces for view in piece.batch.views})
    images = images_of(world)
    updater = Updater(world.policy, CONFIG, start_processes("cpu"))
    updater.update(pieces, objective(pieces), filler=world.feed.filler(), lr=0.0, images=images)
    assert images.encoded == 2 * unique and len(images.cache) == 0


def test_features_of_the_sampler_are_taken_over(model: Path) -> None:
    world = make_world(model)
    pieces = world.packed(group_of(world), CONFIG)
    images = images_of(world)
    images.begin([piece.batch for piece in pieces])
    rolled, before = images.cache, images.encoded
    images = images_of(world, cache=rolled)
    updater = Updater(world.policy, CONFIG, start_processes("cpu"))
    updater.update(pieces, objective(pieces), filler=world.feed.filler(), lr=1e-2, images=images)
    assert images.encoded == before, "for gradients alone"
    assert len(rolled) == 0, "the tower has changed"


def test_a_frozen_tower_is_never_run_again(model: Path) -> None:
    world = make_world(model, freeze_vision=True)
    pieces = world.packed(group_of(world), CONFIG)
    images = images_of(world)
    updater = Updater(world.policy, CONFIG, start_processes("cpu"))
    for _ in range(2):
        updater.update(pieces, objective(pieces), filler=world.feed.filler(), lr=1e-2, images=images)
    assert images.encoded == len(images.cache) == len({view for piece in pieces for view in piece.batch.views})


def test_stale_features_would_be_seen(model: Path) -> None:
    """Negative control: features of other weights change the loss."""
    world = make_world(model)
    pieces = world.packed(group_of(world), CONFIG)
    images = images_of(world)
    images.begin([piece.batch for piece in pieces])
    with torch.no_grad():
        for weight in world.policy.model.model.visual.parameters():
            weight.add_(0.05)
    updater = Updater(world.policy, CONFIG, start_processes("cpu"))
    stale = updater.score(pieces, filler=world.feed.filler(), images=images)[0].logprobs
    images.stepped()
    fresh = updater.score(pieces, filler=world.feed.filler(), images=images)[0].logprobs
    assert (stale - fresh).abs().max() > 1e-3
