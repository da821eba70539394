"""Values stand where the sampled tokens are, and are read off the hidden states before them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mmturn.batching.collate import Batch, collate, empty_batch
from mmturn.batching.patches import Patches
from mmturn.batching.rows import rows_of
from mmturn.models.load import LoadedModel, load_model
from mmturn.models.policy import PolicyModule
from mmturn.models.settings import LoraSettings
from mmturn.models.value_head import ValueHead
from mmturn.rendering.renderer import Renderer
from mmturn.testing.conversations import NoisePixels, random_trajectory
from mmturn.types import Row

SHAPES = ([[(3, 2)], [(1, 2)]], [[], []], [[(1, 1)]])


@pytest.fixture(scope="module")
def rows(loaded: LoadedModel, renderer: Renderer) -> list[Row]:
    rng = np.random.default_rng(2)
    made = [random_trajectory(renderer, rng, shapes, name=str(n)) for n, shapes in enumerate(SHAPES)]
    return [row for t in made for row in rows_of(t, loaded.family, loaded.image_token_id, renderer.banned_ids)]


def batch_of(loaded: LoadedModel, rows: list[Row], packed: bool = False) -> Batch:
    return collate(
        rows, None, loaded.family, Patches(NoisePixels(), loaded.family), image_token_id=loaded.image_token_id,
        pad_id=loaded.pad_id, groups=[1] * len(rows) if packed else None,
    )  # fmt: skip


def valued(loaded: LoadedModel, detach: bool = False) -> PolicyModule:
    """A policy whose values are not all 0."""
    policy = PolicyModule(loaded, 0.7, (1, 2), ValueHead.of(loaded))
    assert policy.critic is not None
    nn.init.normal_(policy.critic.weight, generator=torch.Generator().manual_seed(0))
    nn.init.constant_(policy.critic.bias, 0.25)
    policy.critic.detach = detach
    return policy


def test_the_first_values_are_zero_and_no_critic_has_none(loaded: LoadedModel, rows: list[Row]) -> None:
    batch = batch_of(loaded, rows)
    with torch.no_grad():
        fresh, bare = (
            PolicyModule(loaded, 0.7, (1, 2), ValueHead.of(loaded))(batch),
            PolicyModule(loaded, 0.7, (1, 2))(batch),
        )
    assert fresh.values.shape == batch.loss_mask.shape and not fresh.values.any()
    assert fresh.final_values.shape == (len(rows),) and not fresh.final_values.any()
    assert bare.values is None and bare.final_values is None
    assert torch.equal(fresh.logprobs, bare.logprobs) and torch.equal(fresh.entropy, bare.entropy)


@pytest.mark.parametrize("packed", [False, True])
def test_values_come_from_the_state_before_each_token(loaded: LoadedModel, rows: list[Row], packed: bool) -> None:
    policy, seen = valued(loaded), []
    hook = loaded.base.model.language_model.norm.register_forward_hook(lambda _m, _i, out: seen.append(out.detach()))
    try:
        with torch.no_grad():
            scores = policy(batch_of(loaded, rows, packed))
            for number, row in enumerate(rows):
                seen.clear()
                policy(batch_of(loaded, [row]))
                states: Tensor = seen[-1][0]
                values = states @ policy.critic.weight + policy.critic.bias  # type: ignore[union-attr]
                size = len(row.token_ids)
                mask = torch.tensor(row.loss_mask).bool()
                expected = torch.where(mask[1:], values[: size - 1], 0.0)
                torch.testing.assert_close(scores.values[number, 1:size], expected, rtol=0, atol=2e-5)
                assert not scores.values[number, size:].any() and not scores.values[number, 0]
                torch.testing.assert_close(scores.final_values[number], values[size - 1], rtol=0, atol=2e-5)
                shifted = torch.where(mask[1:], values[1:size], 0.0)
                assert not torch.allclose(scores.values[number, 1:size], shifted, atol=1e-3), "off by one would show"
    finally:
        hook.remove()


def gradients(policy: PolicyModule, batch: Batch) -> dict[str, Tensor | None]:
    policy.train().zero_grad()
    scores = policy(batch)
    (scores.values.square().sum() + 0.0 * scores.logprobs.sum()).backward()
    return {name: p.grad for name, p in policy.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("detach", [False, True])
def test_whether_gradients_of_values_reach_the_language_model(
    loaded: LoadedModel, rows: list[Row], detach: bool
) -> None:
    own = load_model(loaded.folder)
    found = gradients(valued(own, detach), batch_of(own, rows))
    assert found["critic.weight"] is not None and found["critic.weight"].any()
    others = [grad for name, grad in found.items() if not name.startswith("critic.")]
    assert any(grad is not None and grad.any() for grad in others) is not detach


def test_a_batch_without_a_sampled_token_reaches_the_head(loaded: LoadedModel) -> None:
    own = load_model(loaded.folder)
    found = gradients(valued(own), empty_batch(own.family, own.pad_id))
    assert all(grad is not None and not grad.any() for grad in found.values())


def test_the_head_learns_beside_adapters_and_is_no_part_of_the_model(tiny_folders: dict[str, Path]) -> None:
    own = load_model(tiny_folders["qwen3_vl"], lora=LoraSettings(rank=2))
    policy = valued(own)
    trained = {name for name, p in policy.named_parameters() if p.requires_grad}
    assert {"critic.weight", "critic.bias"} < trained and all("lora_" in n or "critic." in n for n in trained)
    assert not any("critic" in name for name, _ in policy.model.named_parameters())


def test_values_are_float32_whatever_the_policy_is(
    tiny_folders: dict[str, Path], loaded: LoadedModel, rows: list[Row]
) -> None:
    half = load_model(loaded.folder, dtype="bfloat16")
    policy = valued(half)
    assert policy.critic is not None and policy.critic.weight.dtype == torch.float32
    with torch.no_grad():
        own = policy(batch_of(half, rows))
        full = valued(loaded)(batch_of(loaded, rows))
    assert own.values.dtype == own.final_values.dtype == torch.float32
    assert (own.values - full.values).abs().max() < 0.1 * full.values.abs().max()
