"""Rows -> one batch of tensors: padded on the right, each unique view once and as bytes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields, replace
from itertools import repeat
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmturn.batching.patches import PatchSource
from mmturn.batching.tree import Packed, pack
from mmturn.errors import ConfigError, DataError
from mmturn.families.forward import positions, widened
from mmturn.families.spec import Family
from mmturn.types import Row, View


@dataclass(frozen=True)
class Batch:
    """Rows as tensors. B rows of at most T tokens, N unique views of n_1 ... n_N patches."""

    input_ids: Tensor
    """int64 [B, T], padded on the right."""
    attention_mask: Tensor
    """int64 [B, T], 1 on real tokens."""
    position_ids: Tensor
    """int64 [3, B, T] rotary positions: time, row, column."""
    loss_mask: Tensor
    """int64 [B, T], 1 on sampled tokens."""
    turn_index: Tensor
    """int64 [B, T], the turn that sampled the token, -1 elsewhere."""
    old_logprobs: Tensor | None
    """float32 [B, T] the sampler's log-probs, 0 where the mask is 0; None unless every row has them."""
    advantages: Tensor
    """float32 [B, T], 0 where the mask is 0."""
    views: tuple[View, ...]
    """The unique views, in order of first appearance."""
    patches: Tensor
    """uint8 [sum n, 3 * patch * patch], the unique views one after the other (see ``collate_images``); no patches
    where features of the views are given to the policy instead."""
    grids: Tensor
    """int64 [N, 3] patches of each unique view: time, rows, columns; [0, 3] without patches."""
    image_index: tuple[tuple[int, ...], ...]
    """Per row, which unique view stands behind each of its images, in order."""
    num_tokens: tuple[int, ...]
    """Per row, how many tokens were sampled."""
    trajectory_ids: tuple[str, ...]
    """Per row."""
    packed: Packed | None = None
    """How the rows go through the model as trees; None: as they are, padded."""
    head: Tensor | None = None
    """int64 [B], which of the policy's heads scores each row; None: its own output layer scores all."""

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.input_ids.device

    @property
    def columns(self) -> int:
        """Tokens that go through the language model: packed, or with padding."""
        return self.input_ids.numel() if self.packed is None else len(self.packed.row)

    @property
    def head_positions(self) -> int:
        """Tokens that go through the head."""
        return int(self.loss_mask[:, 1:].sum()) if self.packed is None else len(self.packed.before)

    def to(self, device: torch.device | str) -> Batch:
        """The same on another device; itself where it is there already."""
        moved: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor) and value.device != torch.device(device):
                moved[field.name] = value.to(device, non_blocking=True)
        if moved and self.packed is not None:
            moved["packed"] = self.packed.to(device)
        return replace(self, **moved) if moved else self


def spread_advantages(row: Row, per_turn: Sequence[float | Sequence[float]]) -> tuple[float, ...]:
    """One advantage per token of a row, [T], from those of its trajectory's turns, [K]: each one number for all sampled
    tokens of the turn, or one for each of them. 0 on tokens that are not trained on.

    Raises DataError naming the trajectory where turns or tokens are missing.
    """
    if row.turn_index and max(row.turn_index) >= len(per_turn):
        raise DataError(
            f"trajectory {row.trajectory_id}: {len(per_turn)} advantages, but a token of turn {max(row.turn_index)}"
        )
    streams = [iter(turn) if isinstance(turn, Sequence) else repeat(float(turn)) for turn in per_turn]
    spread = [next(streams[turn], None) if turn >= 0 else 0.0 for turn in row.turn_index]
    if None in spread:
        turn = row.turn_index[spread.index(None)]
        raise DataError(f"trajectory {row.trajectory_id}: turn {turn} has more sampled tokens than advantages")
    return tuple(float(value) if mask else 0.0 for value, mask in zip(spread, row.loss_mask, strict=True))  # type: ignore[arg-type]


def collate(
    rows: Sequence[Row],
    advantages: Sequence[Sequence[float]] | None,
    family: Family,
    source: PatchSource | None,
    *,
    image_token_id: int,
    pad_id: int = 0,
    groups: Sequence[int] | None = None,
) -> Batch:
    """One batch of rows.

    Args:
        rows: any number; none makes ``empty_batch``.
        advantages: per row one number per token (``spread_advantages``); None: 0 everywhere (supervised learning).
        source: asked for each unique view once; None leaves the patches out.
        groups: number of rows of each group, whose rows stand together: they are packed as trees; None pads.
    Raises DataError naming the trajectory where advantages or placeholders do not fit a row.
    """
    if not rows:
        return empty_batch(family, pad_id)
    shape = (len(rows), max(1, *(len(row.token_ids) for row in rows)))
    input_ids = np.full(shape, pad_id, np.int64)
    attention_mask, loss_mask = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    turn_index = np.full(shape, -1, np.int64)
    position_ids = np.zeros((3, *shape), np.int64)
    old_logprobs, spread = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    unique: dict[View, int] = {}
    for number, row in enumerate(rows):
        size = len(row.token_ids)
        input_ids[number, :size] = row.token_ids
        attention_mask[number, :size] = 1
        loss_mask[number, :size] = row.loss_mask
        turn_index[number, :size] = row.turn_index
        if row.logprobs is not None:
            old_logprobs[number, :size] = row.logprobs
        if advantages is not None:
            spread[number, :size] = _fitting(row, advantages[number])
        position_ids[:, number, :size] = _positions(row, family, image_token_id)
        for view in row.views:
            unique.setdefault(view, len(unique))
    known = all(row.logprobs is not None for row in rows)
    patches, grids = collate_images(unique, family, source)
    image_index = tuple(tuple(unique[view] for view in row.views) for row in rows)
    return Batch(
        input_ids=torch.from_numpy(input_ids),
        attention_mask=torch.from_numpy(attention_mask),
        position_ids=torch.from_numpy(position_ids),
        loss_mask=torch.from_numpy(loss_mask),
        turn_index=torch.from_numpy(turn_index),
        old_logprobs=torch.from_numpy(old_logprobs) if known else None,
        advantages=torch.from_numpy(spread * loss_mask),
        views=tuple(unique),
        patches=patches,
        grids=grids,
        image_index=image_index,
        num_tokens=tuple(sum(row.loss_mask) for row in rows),
        trajectory_ids=tuple(row.trajectory_id for row in rows),
        packed=None if groups is None else pack(rows, groups, image_index, family.holders(image_token_id)),
    )


def empty_batch(family: Family, pad_id: int = 0) -> Batch:
    """A row of one padding token: nothing sampled, nothing shown, yet every module of the policy runs."""
    padding = Row("", (pad_id,), (0,), (-1,), (0.0,), ())
    batch = collate([padding], None, family, None, image_token_id=pad_id - 1, pad_id=pad_id)
    return replace(batch, attention_mask=torch.zeros_like(batch.attention_mask))


def _fitting(row: Row, advantages: Sequence[float]) -> Sequence[float]:
    if len(advantages) != len(row.token_ids):
        raise DataError(
            f"trajectory {row.trajectory_id}: {len(advantages)} advantages for a row of {len(row.token_ids)} tokens"
        )
    return advantages


def _positions(row: Row, family: Family, image_token_id: int) -> NDArray[np.int64]:
    try:
        runs = [run for view in row.views for run in family.runs(view)]
        return positions(row.token_ids, family.placeholders(image_token_id), runs, family.merge_size)[0]
    except (ConfigError, DataError) as error:
        raise DataError(f"trajectory {row.trajectory_id}: {error}") from error


def collate_images(views: Collection[View], family: Family, source: PatchSource | None) -> tuple[Tensor, Tensor]:
    """Patches and grids [N, 3] of views, one after the other. As bytes, and of stills without the axis of time, they
    are an eighth of the tower's float32 input; beside a clip all patches are as wide as its own."""
    if not views or source is None:
        return torch.zeros(0, 3 * family.patch_size**2, dtype=torch.uint8), torch.zeros(0, 3, dtype=torch.int64)
    patches = [source(view) for view in views]
    if any(view.clip is not None for view in views):
        patches = [widened(each, family) for each in patches]
    return torch.cat(patches), torch.tensor([family.view_grid(view) for view in views])


def blank_image(family: Family) -> tuple[Tensor, Tensor]:
    """Patches and grid of a black image of one token, where a tower needs something to run on."""
    merge = family.merge_size
    patches = torch.zeros(merge**2, 3 * family.patch_size**2, dtype=torch.uint8)
    return patches, torch.tensor([[1, merge, merge]])
