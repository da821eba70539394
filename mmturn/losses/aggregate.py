"""Losses per token -> one number, the same however the batch is cut into micro-batches and ranks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

Aggregation = Literal["token_mean", "seq_mean_token_mean", "seq_mean_token_sum", "constant_length"]
"""What a token weighs: the same everywhere; 1 / length of its trajectory; the same, per trajectory; the same, per
trajectory of a constant length."""


@dataclass(frozen=True, slots=True)
class Denominators:
    """Counts over the whole batch of an update: all micro-batches, all ranks. Add parts up with ``+``."""

    tokens: int
    """Sampled tokens."""
    sequences: int
    """Trajectories; whether those without a sampled token count is the caller's choice."""

    def __add__(self, other: Denominators) -> Denominators:
        """Counts of two parts that share no trajectory."""
        return Denominators(self.tokens + other.tokens, self.sequences + other.sequences)


def count(mask: Tensor) -> Denominators:
    """Counts of a batch in which each row [T] of ``mask`` [B, T] is a trajectory; rows without a sampled token do
    not count as sequences."""
    per_row = mask.bool().sum(dim=1)
    return Denominators(int(per_row.sum()), int((per_row > 0).sum()))


def aggregate(
    per_token: Tensor,
    mask: Tensor,
    mode: Aggregation,
    denominators: Denominators,
    length: float | None = None,
    trajectory_tokens: Tensor | None = None,
) -> Tensor:
    """The share of one micro-batch in the loss; the shares of all micro-batches and ranks sum to the loss.

    ``per_token``, ``mask``: [B, T]. ``length``: the constant of ``constant_length`` (needed there only).
    ``trajectory_tokens`` [B]: sampled tokens of the trajectory that each row belongs to, for trajectories spread
    over several rows in ``seq_mean_token_mean``; None means that each row is a whole trajectory. Empty denominators
    count as 1, so that a batch without sampled tokens gives 0 with a gradient path.

    - token_mean: sum / tokens (DAPO, 2503.14476)
    - seq_mean_token_mean: sum over rows of (row sum / trajectory_tokens) / sequences (GRPO, 2402.03300)
    - seq_mean_token_sum: sum / sequences
    - constant_length: sum / (length * sequences) (Dr. GRPO, 2503.20783)

    An engine that averages gradients over N ranks (DeepSpeed, DDP) needs the share times N. Raises ValueError.
    Differs from verl, which divides ``constant_length`` by the length alone.
    """
    sampled = mask.bool()
    row_sums = per_token.float().masked_fill(~sampled, 0.0).sum(dim=1)
    tokens, sequences = max(denominators.tokens, 1), max(denominators.sequences, 1)
    if mode == "token_mean":
        return row_sums.sum() / tokens
    if mode == "seq_mean_token_sum":
        return row_sums.sum() / sequences
    if mode == "seq_mean_token_mean":
        own = sampled.sum(dim=1) if trajectory_tokens is None else trajectory_tokens
        return (row_sums / own.clamp(min=1)).sum() / sequences
    if mode == "constant_length":
        if length is None or not length > 0:
            raise ValueError(f"constant_length needs a positive length, got {length}")
        return row_sums.sum() / (length * sequences)
    raise ValueError(f"unknown aggregation {mode!r}")
