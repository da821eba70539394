"""Losses per token -> one number, the same however the batch is cut into micro-batches and ranks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mmturn.losses.sampled import at_sampled, turn_sums

Aggregation = Literal[
    "token_mean", "seq_mean_token_mean", "seq_mean_token_sum", "constant_length", "turn_mean", "turn_mean_global"
]
"""What a token weighs: the same everywhere; 1 / length of its trajectory; the same, per trajectory; the same, per
trajectory of a constant length; 1 / (length of its turn * turns of its trajectory); 1 / length of its turn."""


@dataclass(frozen=True, slots=True)
class Denominators:
    """Counts over the whole batch of an update: all micro-batches, all ranks. Add parts up with ``+``."""

    tokens: int
    """Sampled tokens."""
    sequences: int
    """Trajectories; whether those without a sampled token count is the caller's choice."""
    turns: int = 0
    """Turns with a sampled token, of all trajectories; needed by ``turn_mean_global`` only."""

    def __add__(self, other: Denominators) -> Denominators:
        """Counts of two parts that share no trajectory."""
        return Denominators(self.tokens + other.tokens, self.sequences + other.sequences, self.turns + other.turns)


def count(mask: Tensor, turn_index: Tensor | None = None) -> Denominators:
    """Counts of a batch in which each row [T] of ``mask`` [B, T] is a trajectory; rows without a sampled token do
    not count as sequences. Turns are counted where ``turn_index`` [B, T] is given."""
    per_row = mask.bool().sum(dim=1)
    turns = 0 if turn_index is None else int(turn_counts(mask, turn_index)[1].sum())
    return Denominators(int(per_row.sum()), int((per_row > 0).sum()), turns)


def turn_counts(mask: Tensor, turn_index: Tensor) -> tuple[Tensor, Tensor]:
    """``turn_tokens`` [B, T], the sampled tokens of each sampled token's turn in its row, 0 where the mask is 0; and
    ``turns`` [B], the turns of each row that have a sampled token."""
    tokens, turn = turn_sums(mask, mask, turn_index)
    return at_sampled(tokens.gather(1, turn), mask), (tokens > 0).sum(dim=1)


def aggregate(
    per_token: Tensor,
    mask: Tensor,
    mode: Aggregation,
    denominators: Denominators,
    length: float | None = None,
    trajectory_tokens: Tensor | None = None,
    turn_tokens: Tensor | None = None,
    trajectory_turns: Tensor | None = None,
) -> Tensor:
    """The share of one micro-batch in the loss; the shares of all micro-batches and ranks sum to the loss.

    ``per_token``, ``mask``: [B, T]. ``length``: the constant of ``constant_length`` (needed there only).
    ``trajectory_tokens`` [B]: sampled tokens of the trajectory that each row belongs to, for trajectories spread
    over several rows in ``seq_mean_token_mean``; None means that each row is a whole trajectory. ``turn_tokens``
    [B, T]: sampled tokens of each token's turn, in all its rows (needed by the turn modes); ``trajectory_turns`` [B]:
    turns of the trajectory that each row belongs to (needed by ``turn_mean``). Empty denominators count as 1, so that
    a batch without sampled tokens gives 0 with a gradient path.

    - token_mean: sum / tokens (DAPO, 2503.14476)
    - seq_mean_token_mean: sum over rows of (row sum / trajectory_tokens) / sequences (GRPO, 2402.03300)
    - seq_mean_token_sum: sum / sequences
    - constant_length: sum / (length * sequences) (Dr. GRPO, 2503.20783)
    - turn_mean: sum of loss / (turn_tokens * trajectory_turns), / sequences (M-GRPO of WebAgent-R1, 2505.16421)
    - turn_mean_global: sum of loss / turn_tokens, / turns

    An engine that averages gradients over N ranks (DeepSpeed, DDP) needs the share times N. Raises ValueError.
    Differs from verl, which divides ``constant_length`` by the length alone.
    """
    values = at_sampled(per_token, mask)
    tokens, sequences = max(denominators.tokens, 1), max(denominators.sequences, 1)
    if mode == "token_mean":
        return values.sum(dim=1).sum() / tokens
    if mode == "seq_mean_token_sum":
        return values.sum(dim=1).sum() / sequences
    if mode == "seq_mean_token_mean":
        own = mask.bool().sum(dim=1) if trajectory_tokens is None else trajectory_tokens
        return (values.sum(dim=1) / own.clamp(min=1)).sum() / sequences
    if mode == "constant_length":
        if length is None or not length > 0:
            raise ValueError(f"constant_length needs a positive length, got {length}")
        return values.sum(dim=1).sum() / (length * sequences)
    if mode == "turn_mean":
        if turn_tokens is None or trajectory_turns is None:
            raise ValueError("turn_mean needs turn_tokens and trajectory_turns")
        return (_turn_means(values, mask, turn_tokens) / trajectory_turns.clamp(min=1)).sum() / sequences
    if mode == "turn_mean_global":
        if turn_tokens is None or (denominators.tokens and not denominators.turns):
            raise ValueError("turn_mean_global needs turn_tokens, and turns in its denominators")
        return _turn_means(values, mask, turn_tokens).sum() / max(denominators.turns, 1)
    raise ValueError(f"unknown aggregation {mode!r}")


def _turn_means(values: Tensor, mask: Tensor, turn_tokens: Tensor) -> Tensor:
    """The means over each turn, summed over the turns of each row: [B]."""
    return (values / torch.where(mask.bool(), turn_tokens, 1)).sum(dim=1)
