"""Reading tensors at sampled tokens only: what stands elsewhere, NaN included, reaches neither values nor gradients."""

from __future__ import annotations

import torch
from torch import Tensor


def wide(values: Tensor) -> Tensor:
    """``values`` in float32; float64 stays."""
    return values if values.dtype == torch.float64 else values.float()


def at_sampled(values: Tensor, mask: Tensor) -> Tensor:
    """``values`` in float32 (float64 stays), 0 where the mask is 0, whatever stands there."""
    return wide(values).masked_fill(~mask.bool(), 0.0)


def difference(logprobs: Tensor, others: Tensor, mask: Tensor) -> Tensor:
    """``logprobs - others`` [B, T]; 0 where the mask is 0. The others get no gradient."""
    return at_sampled(logprobs, mask) - at_sampled(others.detach(), mask)


def row_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the sampled tokens of each row, [B, 1]; 0 where a row has none."""
    return at_sampled(values, mask).sum(dim=1, keepdim=True) / mask.bool().sum(dim=1, keepdim=True).clamp(min=1)


def turn_sums(values: Tensor, mask: Tensor, turn_index: Tensor) -> tuple[Tensor, Tensor]:
    """Sums over the sampled tokens of each turn of each row.

    ``values``, ``mask``, ``turn_index``: [B, T]. Returns the sums, [B, 1 + highest turn], and the place of each token
    [B, T] in them: its turn, and 0 where the mask is 0. Raises ValueError for a sampled token without a turn.
    """
    sampled = mask.bool()
    turn = turn_index.masked_fill(~sampled, 0)
    if bool((turn < 0).any()):
        raise ValueError("a sampled token belongs to no turn: its turn_index is negative")
    read = at_sampled(values, mask)
    return read.new_zeros(len(read), int(turn.max()) + 1).scatter_add(1, turn, read), turn
