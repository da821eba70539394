"""Contexts into slots: what is known is copied, what is new is run, equal contexts once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers.cache_utils import Cache

from mmturn.engines.kv import Kept, common
from mmturn.engines.rows import Row
from mmturn.engines.slots import Slots
from mmturn.models.load import LoadedModel
from mmturn.models.step import ViewFeatures, forward_step
from mmturn.types import View

WORTH_TOKENS = 16
"""A beginning that contexts share is run first, for all of them, if it is longer than this."""


_PADDING = 64


@dataclass(frozen=True, slots=True)
class Fill:
    """Rows of one context, and from where its beginning is known."""

    rows: list[Row]
    known: int
    """Leading tokens whose keys and values need not be run."""
    source: object
    """Kept context or row in a slot; None if nothing is known."""

    @property
    def new(self) -> int:
        """Tokens to run: at least the last, whose logits are wanted."""
        return self.rows[0].context - self.known

    @property
    def views(self) -> tuple[View, ...]:
        """Views among the new tokens."""
        row = self.rows[0]
        return tuple(
            view for view, (start, _) in zip(row.request.views, row.places, strict=True) if start >= self.known
        )  # fmt: skip


def fill_of(rows: list[Row], shared: int, source: object) -> Fill:
    """``shared`` is how many tokens the context has in common with its source."""
    row = rows[0]
    known = min(shared, row.context - 1)
    for start, end in row.places:
        if start < known < end:
            known = start  # features are placed whole
    return Fill(rows, known, source if known else None)


def apart(groups: Sequence[Fill]) -> tuple[list[Fill], list[Fill]]:
    """Those to run now, and those that wait for them since they share more than is known.

    In the order of their keys, no context shares more with an earlier one than with the one before it.
    """
    now: list[Fill] = []
    later: list[Fill] = []
    for fill in sorted(groups, key=lambda fill: fill.rows[0].key):
        shared = common(fill.rows[0].key, now[-1].rows[0].key) if now else 0
        (later if shared > fill.known + WORTH_TOKENS else now).append(fill)
    return now, later


def chunks(groups: Sequence[Fill], prefill_tokens: int) -> list[list[Fill]]:
    """Contexts with about as many new tokens that fit into one call, padding included; at least one in each."""
    made: list[list[Fill]] = []
    width = new = real = 0
    for fill in sorted(groups, key=lambda fill: (fill.known > 0, fill.new)):
        width, new, real = max(width, fill.rows[0].context), max(new, fill.new), real + fill.new
        count = len(made[-1]) + 1 if made else 0
        if not count or count * width > prefill_tokens or count * new - real > max(real // 4, _PADDING):
            made.append([])
            width, new, real = fill.rows[0].context, fill.new, fill.new
        made[-1].append(fill)
    return made


class Stretch(NamedTuple):
    """Tokens to run behind what a slot holds."""

    token_ids: Sequence[int]
    where: NDArray[np.int64]
    """[3, tokens] rotary positions."""
    known: int
    """Columns that the slot holds before them."""


def run(loaded: LoadedModel, slots: Slots, chunk: Sequence[Fill], first: int, features: list[ViewFeatures]) -> Tensor:
    """One forward over the new tokens of a chunk, into the slots from ``first`` on, a slot for each context.

    Returns: logits [contexts, V] after each context.
    """
    stretches = []
    for number, fill in enumerate(chunk):
        row, known = fill.rows[0], fill.known
        if isinstance(fill.source, Kept):
            slots.write(first + number, fill.source.content[:, :, :, :known])
        elif isinstance(fill.source, Row):
            slots.copy(fill.source.slot, first + number, known)
        stretches.append(Stretch(row.request.token_ids[known:], row.where[:, known:], known))
    ends = torch.tensor([fill.new - 1 for fill in chunk], device=loaded.device)
    return forward_step(loaded, *inputs(loaded, slots, first, stretches), features, columns=ends)


def inputs(
    loaded: LoadedModel, slots: Slots, first: int, stretches: Sequence[Stretch]
) -> tuple[Tensor, Tensor, Tensor | None, Cache]:
    """Ids, rotary positions, mask and cache of a forward over stretches, one for each slot from ``first`` on.

    Padding stands behind the new tokens; what it writes goes to the last column, which belongs to no row.
    """
    device = loaded.device
    width = max(len(stretch.token_ids) for stretch in stretches)
    ids = torch.full((len(stretches), width), loaded.pad_id, dtype=torch.long)
    pos = torch.zeros(3, len(stretches), width, dtype=torch.long)
    for number, stretch in enumerate(stretches):
        new = len(stretch.token_ids)
        ids[number, :new] = torch.tensor(stretch.token_ids)
        pos[:, number, :new] = torch.from_numpy(stretch.where)
    known = torch.tensor([stretch.known for stretch in stretches], device=device)[:, None]
    end = known + torch.tensor([len(stretch.token_ids) for stretch in stretches], device=device)[:, None]
    step = known + torch.arange(width, device=device)[None]
    columns = torch.where(step < end, step, slots.columns - 1)
    window = max(stretch.known + len(stretch.token_ids) for stretch in stretches)
    mask = None
    if any(stretch.known for stretch in stretches):
        seen = torch.arange(window, device=device) <= torch.minimum(step, end - 1)[:, :, None]
        mask = additive(seen[:, None], slots.data.dtype)
    return ids.to(device), pos.to(device), mask, slots.cache(first, columns, window)


def additive(seen: Tensor, dtype: torch.dtype) -> Tensor:
    """Mask to add to attention scores: 0 where seen, -inf elsewhere. It is made once for all layers."""
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, float("-inf"))
