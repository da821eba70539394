"""Token-by-token decoding of a batch whose rows leave as they end."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mmturn.engines.kv import Kept, Layers, batch_cache, keep_rows, row_layers
from mmturn.engines.sampling import RowSampler, draw, warp
from mmturn.models.load import LoadedModel
from mmturn.models.step import forward_step
from mmturn.types import Request


@dataclass
class DecodeRow:
    """One request on its way through a batch."""

    request: Request
    position: int
    """Rotary position of the first new token."""
    layers: Layers
    """Keys and values of the context."""
    logits: Tensor
    """[V] after the last context token."""
    parent: Kept | None
    """The kept context that this one grew from, if no other request grew from it."""
    sampler: RowSampler
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    done: bool = False


def decode(
    loaded: LoadedModel,
    rows: list[DecodeRow],
    banned: Tensor,
    end_ids: Collection[int],
    leave: Callable[[DecodeRow, Layers], None],
) -> int:
    """Sample until every row has ended; returns the number of token steps run.

    ``leave`` gets each row once, with the keys and values of its context and of all sampled tokens but the
    last. Rows that have ended stay in the batch, ignored, until half of it has ended.
    """
    device = loaded.device
    room = max(row.request.sampling.max_new_tokens for row in rows)
    length = max(len(row.request.token_ids) for row in rows)
    cache = batch_cache([row.layers for row in rows], loaded.kv_shape, room, device)
    first = [length - len(row.request.token_ids) for row in rows]
    mask = (torch.arange(length + room)[None] >= torch.tensor(first)[:, None]).long().to(device)
    live, logits, steps = list(enumerate(rows)), torch.stack([row.logits for row in rows]), 0

    def let_go(numbers: list[int]) -> None:
        for number in numbers:
            index, row = live[number]
            end = length + len(row.token_ids) - 1
            leave(row, row_layers(cache, number, first[index], end))

    for step in range(room):
        token_ids = _sample([row for _, row in live], logits, step, banned, end_ids, loaded.pad_id)
        ended = [number for number, (_, row) in enumerate(live) if row.done]
        if len(ended) == len(live):
            break
        if len(ended) >= (len(live) + 1) // 2:
            let_go(ended)
            still = [number for number, (_, row) in enumerate(live) if not row.done]
            keep = torch.tensor(still, device=device)
            keep_rows(cache, keep)
            mask, token_ids, live = mask[keep], token_ids[keep], [live[number] for number in still]
        pos = torch.tensor([row.position + step for _, row in live], device=device)[None, :, None].expand(3, -1, 1)
        logits = forward_step(loaded, token_ids[:, None], pos, mask[:, : length + step + 1], cache, [])
        steps += len(live)
    let_go(list(range(len(live))))
    return steps


def _sample(
    live: list[DecodeRow], logits: Tensor, step: int, banned: Tensor, end_ids: Collection[int], pad_id: int
) -> Tensor:
    """[R] next token of each row; rows that have ended get the pad token."""
    device = logits.device
    samplings = [row.request.sampling for row in live]
    temperature = torch.tensor([s.temperature for s in samplings], device=device)
    top_p = torch.tensor([s.top_p for s in samplings], device=device)
    numbers = [0.0 if row.done else row.sampler.numbers[step] for row in live]
    logprobs = warp(logits, temperature, banned)
    token_ids = draw(logprobs, torch.tensor(numbers, dtype=torch.float64, device=device), temperature, top_p)
    if any(row.sampler.forced for row in live):
        taken = [row.sampler.take(step, drawn) for row, drawn in zip(live, token_ids.tolist(), strict=True)]
        token_ids = torch.tensor(taken, device=device)
    chosen = logprobs.gather(1, token_ids[:, None]).squeeze(1).tolist()
    for row, token_id, logprob in zip(live, token_ids.tolist(), chosen, strict=True):
        if not row.done:
            row.token_ids.append(token_id)
            row.logprobs.append(logprob)
            row.done = token_id in end_ids or len(row.token_ids) == row.request.sampling.max_new_tokens
    return token_ids.masked_fill(torch.tensor([row.done for row in live], device=device), pad_id)
