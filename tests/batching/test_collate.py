"""Batches hold every row as it was, each unique view once, and what the loss needs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mmturn.batching.collate import collate, empty_batch, spread_advantages
from mmturn.batching.patches import Patches
from mmturn.batching.rows import rows_of
from mmturn.errors import DataError
from mmturn.families.forward import patchify, positions
from mmturn.rendering.renderer import Renderer
from mmturn.testing.conversations import NoisePixels, random_observation, random_trajectory
from mmturn.types import Row

PAD = 418


@pytest.fixture
def rows(renderer: Renderer) -> list[Row]:
    rng = np.random.default_rng(0)
    shared = random_observation(renderer.family, rng, [(3, 2)])
    shapes = ([[], [(1, 1)]], [[], [(2, 2), (1, 3)]], [[]])
    group = [random_trajectory(renderer, rng, shape, name=f"g{n}", first=shared) for n, shape in enumerate(shapes)]
    group.append(random_trajectory(renderer, rng, [[], [], []], name="text"))
    return [row for t in group for row in rows_of(t, renderer.family, renderer.image_token_id)]


def test_each_row_is_found_again(renderer: Renderer, rows: list[Row]) -> None:
    noise, family = NoisePixels(), renderer.family
    advantages = [spread_advantages(row, [0.5, -1.0, 2.0]) for row in rows]
    batch = collate(
        rows, advantages, family, Patches(noise, family), image_token_id=renderer.image_token_id, pad_id=PAD
    )
    width = max(len(row.token_ids) for row in rows)
    assert batch.input_ids.shape == (4, width) and batch.position_ids.shape == (3, 4, width)
    assert batch.old_logprobs is not None
    for number, row in enumerate(rows):
        size = len(row.token_ids)
        assert batch.input_ids[number, :size].tolist() == list(row.token_ids)
        assert (batch.input_ids[number, size:] == PAD).all()
        assert batch.attention_mask[number].tolist() == [1] * size + [0] * (width - size)
        assert batch.loss_mask[number].tolist() == [*row.loss_mask, *[0] * (width - size)]
        assert batch.turn_index[number].tolist() == [*row.turn_index, *[-1] * (width - size)]
        assert batch.old_logprobs[number, :size].tolist() == pytest.approx(list(row.logprobs or ()))
        assert batch.advantages[number, :size].tolist() == pytest.approx(advantages[number])
        assert not batch.advantages[number, size:].any() and not batch.old_logprobs[number, size:].any()
        grids = [family.grid(view.size) for view in row.views]
        where, _ = positions(row.token_ids, renderer.image_token_id, grids, family.merge_size)
        assert (batch.position_ids[:, number, :size].numpy() == where).all()
    assert batch.num_tokens == tuple(sum(row.loss_mask) for row in rows)
    assert batch.trajectory_ids == ("g0", "g1", "g2", "text")


def test_each_unique_view_is_shown_once_and_kept_as_bytes(renderer: Renderer, rows: list[Row]) -> None:
    noise, family = NoisePixels(), renderer.family
    batch = collate(rows, None, family, Patches(noise, family), image_token_id=renderer.image_token_id)
    assert noise.calls == len(batch.grids) == 4
    assert batch.image_index == ((0, 1), (0, 2, 3), (0,), ())
    assert batch.patches.dtype == torch.uint8
    views = [rows[0].views[0], rows[0].views[1], *rows[1].views[1:]]
    assert batch.grids.tolist() == [list(family.grid(view.size)) for view in views]
    expected = torch.cat([patchify(NoisePixels().pixels(view), family) for view in views])
    assert torch.equal(batch.patches, expected)
    assert not batch.advantages.any()


def test_advantages_land_on_the_tokens_of_their_turn(renderer: Renderer, rows: list[Row]) -> None:
    spread = spread_advantages(rows[1], [0.25, -2.0])
    for turn, mask, advantage in zip(rows[1].turn_index, rows[1].loss_mask, spread, strict=True):
        assert advantage == ([0.25, -2.0][turn] if mask else 0.0)
    with pytest.raises(DataError, match="trajectory g1: 1 advantages, but a token of turn 1"):
        spread_advantages(rows[1], [0.25])


def test_rows_that_do_not_fit_are_named(renderer: Renderer, rows: list[Row]) -> None:
    from dataclasses import replace

    image = renderer.image_token_id
    with pytest.raises(DataError, match="trajectory g0: 1 advantages for a row of"):
        collate(rows[:1], [[0.0]], renderer.family, Patches(NoisePixels(), renderer.family), image_token_id=image)
    lost = replace(rows[0], views=rows[0].views[:1])
    with pytest.raises(DataError, match="trajectory g0: .* image placeholders for 1 images"):
        collate([lost], None, renderer.family, Patches(NoisePixels(), renderer.family), image_token_id=image)


def test_old_log_probs_are_none_unless_all_have_them(renderer: Renderer, rows: list[Row]) -> None:
    from dataclasses import replace

    mixed = [rows[0], replace(rows[1], logprobs=None)]
    batch = collate(
        mixed, None, renderer.family, Patches(NoisePixels(), renderer.family), image_token_id=renderer.image_token_id
    )
    assert batch.old_logprobs is None


def test_no_rows_make_an_empty_batch_that_a_policy_can_run(renderer: Renderer) -> None:
    batch = collate(
        [],
        None,
        renderer.family,
        Patches(NoisePixels(), renderer.family),
        image_token_id=renderer.image_token_id,
        pad_id=PAD,
    )
    assert batch.input_ids.tolist() == [[PAD]] == empty_batch(renderer.family, PAD).input_ids.tolist()
    assert batch.num_tokens == (0,) and batch.image_index == ((),) and not batch.loss_mask.any()
    assert batch.patches.shape == (0, 3 * renderer.family.patch_size**2) and batch.grids.shape == (0, 3)


def test_moving_to_a_device_keeps_what_is_there(renderer: Renderer, rows: list[Row]) -> None:
    batch = collate(
        rows, None, renderer.family, Patches(NoisePixels(), renderer.family), image_token_id=renderer.image_token_id
    )
    assert batch.to("cpu") is batch and batch.device.type == "cpu"
    moved = batch.to("meta")
    assert moved.device.type == moved.patches.device.type == "meta" and moved.image_index == batch.image_index
