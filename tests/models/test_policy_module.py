"""Teacher-forced scores of padded batches equal those of single rows, and are the sampler's own distribution."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from mmturn.batching.collate import Batch, collate, empty_batch
from mmturn.batching.patches import Patches
from mmturn.batching.rows import rows_of
from mmturn.errors import ConfigError
from mmturn.models.load import LoadedModel, load_model
from mmturn.models.policy import PolicyModule
from mmturn.models.settings import LoraSettings
from mmturn.rendering.renderer import Renderer
from mmturn.testing.conversations import NoisePixels, random_observation, random_trajectory
from mmturn.types import Row

SHAPES = ([[(3, 2)], [(1, 2), (2, 2)]], [[(1, 1)], [(4, 1)], [(2, 1)]], [[], []], [[(3, 3)]])


@pytest.fixture(scope="module")
def rows(loaded: LoadedModel, renderer: Renderer) -> list[Row]:
    rng = np.random.default_rng(2)
    made = [random_trajectory(renderer, rng, shapes, name=str(n)) for n, shapes in enumerate(SHAPES)]
    return [row for t in made for row in rows_of(t, loaded.family, loaded.image_token_id, renderer.banned_ids)]


def batch_of(loaded: LoadedModel, rows: list[Row], source: NoisePixels | None = None) -> Batch:
    return collate(
        rows,
        None,
        loaded.family,
        Patches(source or NoisePixels(), loaded.family),
        image_token_id=loaded.image_token_id,
        pad_id=loaded.pad_id,
    )


def test_padded_batches_equal_single_rows_and_the_models_own_path(
    loaded: LoadedModel, renderer: Renderer, rows: list[Row], reference: Callable[[LoadedModel, Row], Tensor]
) -> None:
    policy = PolicyModule(loaded, 0.7, renderer.banned_ids)
    with torch.no_grad():
        together = policy(batch_of(loaded, rows))
    for number, row in enumerate(rows):
        with torch.no_grad():
            alone = policy(batch_of(loaded, [row]))
        size = len(row.token_ids)
        for both, single in zip(together[:2], alone[:2], strict=True):
            torch.testing.assert_close(both[number, :size], single[0], rtol=0, atol=1e-5)
            assert not both[number, size:].any()
        logits = reference(loaded, row) / 0.7
        logits[:, list(renderer.banned_ids)] = float("-inf")
        expected = logits.log_softmax(-1)
        for t in range(size):
            if row.loss_mask[t]:
                assert together.logprobs[number, t] == pytest.approx(float(expected[t - 1, row.token_ids[t]]), abs=1e-5)
                entropy = torch.distributions.Categorical(logits=logits[t - 1]).entropy()
                assert together.entropy[number, t] == pytest.approx(float(entropy), abs=1e-4)
            else:
                assert together.logprobs[number, t] == 0


def test_temperature_and_banned_ids_matter(loaded: LoadedModel, renderer: Renderer, rows: list[Row]) -> None:
    batch = batch_of(loaded, rows)
    with torch.no_grad():
        base = PolicyModule(loaded, 1.0, renderer.banned_ids)(batch).logprobs
        assert not torch.allclose(base, PolicyModule(loaded, 0.7, renderer.banned_ids)(batch).logprobs)
        assert not torch.allclose(base, PolicyModule(loaded, 1.0, ())(batch).logprobs)
    with pytest.raises(ConfigError, match="temperature"):
        PolicyModule(loaded, 0.0, ())


def test_each_unique_view_is_encoded_once(
    loaded: LoadedModel, renderer: Renderer, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(3)
    shared = random_observation(loaded.family, rng, [(4, 3)])
    group = [random_trajectory(renderer, rng, [[], [(1, 2)]], name=str(n), first=shared) for n in range(4)]
    rows = [row for t in group for row in rows_of(t, loaded.family, loaded.image_token_id)]
    seen: list[int] = []
    visual = loaded.base.model.visual
    forward = visual.forward
    monkeypatch.setattr(visual, "forward", lambda x, *a, **k: (seen.append(len(x)), forward(x, *a, **k))[1])
    source = NoisePixels()
    with torch.no_grad():
        PolicyModule(loaded, 1.0, ())(batch_of(loaded, rows, source))
    # one view of 4 x 3 tokens and four of 1 x 2, four patches a token, one call
    assert seen == [4 * (12 + 4 * 2)]
    assert source.calls == 5


def gradients(folder: Path, **settings: object) -> Callable[[list[Row]], dict[str, Tensor | None]]:
    own = load_model(folder, **settings)  # type: ignore[arg-type]
    policy = PolicyModule(own, 1.0, ()).train()

    def run(rows: list[Row]) -> dict[str, Tensor | None]:
        policy.zero_grad()
        scores = policy(batch_of(own, rows) if rows else empty_batch(own.family, own.pad_id))
        (scores.logprobs.sum() + 0.1 * scores.entropy.sum()).backward()
        return {name: p.grad for name, p in policy.model.named_parameters() if p.requires_grad}

    return run


def test_every_parameter_is_reached_with_images_with_text_and_with_nothing(
    loaded: LoadedModel, tiny_folders: dict[str, Path], rows: list[Row]
) -> None:
    run = gradients(loaded.folder)
    assert all(grad is not None for grad in run(rows).values())
    text_only = run([row for row in rows if not row.views])
    assert all(grad is not None for grad in text_only.values())
    assert not any(grad.any() for name, grad in text_only.items() if "visual" in name and grad is not None)
    assert any(grad.any() for name, grad in text_only.items() if "language_model" in name and grad is not None)
    nothing = run([])
    assert all(grad is not None and not grad.any() for grad in nothing.values())


def test_frozen_tower_and_activation_checkpointing_give_the_same_gradients(
    loaded: LoadedModel, rows: list[Row]
) -> None:
    plain = gradients(loaded.folder)(rows)
    frozen = gradients(loaded.folder, freeze_vision=True, activation_checkpointing=True)(rows)
    assert set(frozen) == {name for name in plain if "visual" not in name}
    for name, grad in frozen.items():
        torch.testing.assert_close(grad, plain[name], rtol=1e-4, atol=1e-6)
    checkpointed = gradients(loaded.folder, activation_checkpointing=True)(rows)
    for name, grad in checkpointed.items():
        torch.testing.assert_close(grad, plain[name], rtol=1e-4, atol=1e-6)


def test_adapters_start_as_nothing_and_are_all_that_trains(
    loaded: LoadedModel, renderer: Renderer, rows: list[Row]
) -> None:
    adapted = load_model(loaded.folder, lora=LoraSettings(rank=2))
    batch = batch_of(loaded, rows)
    with torch.no_grad():
        expected = PolicyModule(loaded, 1.0, renderer.banned_ids)(batch).logprobs
        torch.testing.assert_close(PolicyModule(adapted, 1.0, renderer.banned_ids)(batch).logprobs, expected)
    grads = gradients(loaded.folder, lora=LoraSettings(rank=2), activation_checkpointing=True)(rows)
    assert grads and all("lora_" in name and "visual" not in name for name in grads)
    assert any(grad is not None and grad.any() for grad in grads.values())


def test_bfloat16_runs(loaded: LoadedModel, renderer: Renderer, rows: list[Row]) -> None:
    half = load_model(loaded.folder, dtype="bfloat16")
    policy = PolicyModule(half, 1.0, renderer.banned_ids).train()
    scores = policy(batch_of(half, rows))
    assert scores.logprobs.dtype == torch.float32
    scores.logprobs.sum().backward()
    with torch.no_grad():
        full = PolicyModule(loaded, 1.0, renderer.banned_ids)(batch_of(loaded, rows))
    assert (scores.logprobs - full.logprobs).abs().max() < 0.5


def test_casting_the_weights_leaves_rotary_frequencies_precise(loaded: LoadedModel, rows: list[Row]) -> None:
    policy = PolicyModule(load_model(loaded.folder), 1.0, (1,)).bfloat16()
    assert {p.dtype for p in policy.parameters()} == {torch.bfloat16}
    frequencies = {name: b for name, b in policy.named_buffers() if "inv_freq" in name}
    assert frequencies and all(b.dtype == torch.float32 for b in frequencies.values())
    expected = dict(PolicyModule(load_model(loaded.folder), 1.0, ()).named_buffers())
    assert all(torch.equal(b, expected[name]) for name, b in frequencies.items())
    half = PolicyModule(load_model(loaded.folder, dtype="bfloat16"), 1.0, (1,))
    with torch.no_grad():
        batch = batch_of(loaded, rows)
        torch.testing.assert_close(policy(batch).logprobs, half(batch).logprobs)
