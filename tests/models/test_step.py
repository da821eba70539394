"""A step over cached keys and values equals the whole forward pass."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import DynamicCache

from mmturn.batching.patches import Patches
from mmturn.batching.rows import rows_of
from mmturn.engines.hf import _evaluating
from mmturn.engines.slots import Slots
from mmturn.families.forward import positions
from mmturn.models.kernels import PackedLinears
from mmturn.models.load import LoadedModel
from mmturn.models.step import decode_step, encode_views, forward_step
from mmturn.rendering.renderer import Renderer
from mmturn.testing.conversations import NoisePixels, random_trajectory
from mmturn.types import Row, Trajectory

SHAPES = (
    [[(3, 2)], [(1, 2), (2, 2)], []],
    [[(1, 1)], [(4, 1)], [(2, 1)]],
    [[], [(2, 3)], [(1, 1)]],
    [[(5, 4), (1, 1)], [], [(3, 1)]],
)
"""Images of each turn of four rows: crops at turn two, several images, none at all."""


def spans(trajectory: Trajectory) -> list[tuple[int, int, int, int]]:
    """Per turn: first and last token, first and last view."""
    out, token, view = [], 0, 0
    for turn in trajectory.turns:
        size, shown = len(turn.token_ids or ()), len(turn.observation.views)
        out.append((token, token + size, view, view + shown))
        token, view = token + size, view + shown
    return out


def test_turns_over_a_cache_equal_the_whole_forward_pass(
    loaded: LoadedModel, renderer: Renderer, reference: Callable[[LoadedModel, Row], Tensor]
) -> None:
    rng, family = np.random.default_rng(0), loaded.family
    cut = Patches(NoisePixels(), family)
    trajectories = [random_trajectory(renderer, rng, shapes, name=str(n)) for n, shapes in enumerate(SHAPES)]
    rows = [rows_of(t, family, loaded.image_token_id, renderer.banned_ids)[0] for t in trajectories]
    wanted = [reference(loaded, row) for row in rows]
    where = [
        positions(row.token_ids, loaded.image_token_id, [family.grid(v.size) for v in row.views], family.merge_size)[0]
        for row in rows
    ]
    cache, mask = DynamicCache(config=loaded.base.config.get_text_config()), torch.zeros(len(rows), 0, dtype=torch.long)
    # a model state that earlier calls left behind must not matter
    loaded.base.model.rope_deltas = torch.full((1, 1), 999)
    for turn in range(3):
        parts = [spans(t)[turn] for t in trajectories]
        width = max(end - start for start, end, _, _ in parts)
        ids = torch.full((len(rows), width), loaded.pad_id)
        pos = torch.zeros(3, len(rows), width, dtype=torch.long)
        new = torch.zeros(len(rows), width, dtype=torch.long)
        views = []
        for number, (start, end, first, last) in enumerate(parts):
            # padded on the left: in the middle of the whole context
            ids[number, width - (end - start) :] = torch.tensor(rows[number].token_ids[start:end])
            pos[:, number, width - (end - start) :] = torch.from_numpy(where[number][:, start:end].copy())
            new[number, width - (end - start) :] = 1
            views += rows[number].views[first:last]
        mask = torch.cat([mask, new], 1)
        features = encode_views(loaded, {view: cut(view) for view in views})
        with torch.no_grad():
            logits = forward_step(loaded, ids, pos, mask, cache, features)
        for number, (_, end, _, _) in enumerate(parts):
            torch.testing.assert_close(logits[number], wanted[number][end - 1], rtol=0, atol=1e-5)
    loaded.base.model.rope_deltas = None


def test_chosen_columns_and_right_padding(
    loaded: LoadedModel, renderer: Renderer, reference: Callable[[LoadedModel, Row], Tensor], noise: NoisePixels
) -> None:
    rng, family = np.random.default_rng(1), loaded.family
    cut = Patches(noise, family)
    rows = [
        rows_of(random_trajectory(renderer, rng, [shapes], name=str(n)), family, loaded.image_token_id)[0]
        for n, shapes in enumerate([[(2, 2)], [(1, 3), (2, 1)], []])
    ]
    width = max(len(row.token_ids) for row in rows)
    ids, pos = torch.full((3, width), loaded.pad_id), torch.zeros(3, 3, width, dtype=torch.long)
    mask = torch.zeros(3, width, dtype=torch.long)
    for number, row in enumerate(rows):
        size, grids = len(row.token_ids), [family.grid(view.size) for view in row.views]
        ids[number, :size], mask[number, :size] = torch.tensor(row.token_ids), 1
        pos[:, number, :size] = torch.from_numpy(positions(row.token_ids, loaded.image_token_id, grids, 2)[0])
    features = encode_views(loaded, {view: cut(view) for row in rows for view in row.views}, max_patches=8)
    ends = torch.tensor([len(row.token_ids) - 1 for row in rows])
    with torch.no_grad():
        cache = DynamicCache(config=loaded.base.config.get_text_config())
        logits = forward_step(loaded, ids, pos, mask, cache, features, columns=ends)
    for number, row in enumerate(rows):
        torch.testing.assert_close(logits[number], reference(loaded, row)[-1], rtol=0, atol=1e-5)


def test_features_do_not_depend_on_how_images_are_chunked(loaded: LoadedModel, noise: NoisePixels) -> None:
    from mmturn.testing.conversations import noise_view

    views = [noise_view(loaded.family, c, r, n) for n, (c, r) in enumerate([(1, 1), (3, 4), (5, 2)])]
    shown = {view: Patches(noise, loaded.family)(view) for view in views}
    whole = encode_views(loaded, shown)
    single = encode_views(loaded, shown, max_patches=1)
    assert [f.pooled.shape[0] for f in whole] == [1, 12, 10]
    assert len(whole[0].deepstack) == (1 if loaded.family.name == "qwen3_vl" else 0)
    assert whole[1].num_bytes == 12 * 64 * 4 * (1 + len(whole[1].deepstack))
    for one, other in zip(whole, single, strict=True):
        assert not one.pooled.requires_grad
        for a, b in zip((one.pooled, *one.deepstack), (other.pooled, *other.deepstack), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-5)
    assert encode_views(loaded, {}) == []


def test_features_that_do_not_fit_the_placeholders_are_refused(loaded: LoadedModel, noise: NoisePixels) -> None:
    from mmturn.testing.conversations import noise_view

    view = noise_view(loaded.family, 2, 1, 0)
    features = encode_views(loaded, {view: Patches(noise, loaded.family)(view)})
    ids = torch.tensor([[1, loaded.image_token_id, 2]])
    pos, mask = torch.arange(3).expand(3, 1, 3), torch.ones(1, 3, dtype=torch.long)
    with pytest.raises(ValueError, match="do not match"), torch.no_grad():
        forward_step(loaded, ids, pos, mask, DynamicCache(config=loaded.base.config.get_text_config()), features)


def test_a_decode_step_is_a_forward_step_of_one_token(loaded: LoadedModel) -> None:
    slots = Slots(loaded.kv_shape, loaded.device, 3)
    slots.allocate(3, 64)
    slots.data.normal_(generator=torch.Generator().manual_seed(0))
    before, columns = slots.data.clone(), torch.tensor([[9], [4], [30]])
    ids, pos = torch.tensor([[5], [6], [7]]), torch.tensor([[20], [3], [31]]).expand(3, 3, 1)
    mask = torch.zeros(3, 1, 1, 32).masked_fill_(~(torch.arange(32) <= columns)[:, None, None], float("-inf"))
    with torch.no_grad(), _evaluating(loaded):
        want = forward_step(loaded, ids, pos, mask, slots.cache(0, columns, 32), [])
        kept, slots.data = slots.data, before
        for linear in (lambda layer, x: layer(x), PackedLinears()):
            found = decode_step(loaded, ids, pos, mask, slots.cache(0, columns, 32), linear)
            torch.testing.assert_close(found, want, rtol=0, atol=1e-5)
            torch.testing.assert_close(slots.data, kept, rtol=0, atol=1e-5)
