"""Weights for tokens that another engine sampled than the one that trains, and how far the two lie apart.

The sampler's log-probs differ from the trainer's at the same weights: other kernels, other precision, weights that are
a few updates old. The weights correct for it. They are detached, and multiply the loss per token after its clipping::

    weight = truncated(rollout_ratio(old, rollout, mask), cap=2.0)
    per_token = clipped_policy_loss(new, old, advantages, mask).per_token * weight

Source: truncated importance sampling as in verl (rollout_corr_helper.py) and DART (2509.23866) eq. 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mmturn.losses.kl import kl
from mmturn.losses.policy import MAX_LOG_RATIO, log_ratio
from mmturn.losses.sampled import at_sampled, difference, row_mean

RatioLevel = Literal["token", "sequence", "geometric"]
"""token: each token's own ratio; sequence: the product over a row; geometric: its geometric mean over a row."""


def sequence_ratio(old_logprobs: Tensor, rollout_logprobs: Tensor, mask: Tensor, geometric: bool = False) -> Tensor:
    """Product of the ratios old / rollout over the sampled tokens of each row, or their geometric mean: [B], detached.

    Inputs [B, T]. A row without a sampled token has the ratio 1. A sequence is a row: of a trajectory that is spread
    over several rows, each has its own ratio. Differs: log-ratios of rows are cut at +-20.
    """
    gap = difference(old_logprobs.detach(), rollout_logprobs, mask)
    log = row_mean(gap, mask)[:, 0] if geometric else gap.sum(dim=1)
    return log.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()


def rollout_ratio(old_logprobs: Tensor, rollout_logprobs: Tensor, mask: Tensor, level: RatioLevel = "token") -> Tensor:
    """``exp(old - rollout)`` of each token or of its row, [B, T], detached; 0 where the mask is 0.

    ``old_logprobs``: the trainer's, at the weights that sampled; ``rollout_logprobs``: the sampler's. Raises
    ValueError for an unknown level.
    """
    if level == "token":
        ratio = log_ratio(old_logprobs.detach(), rollout_logprobs, mask).exp()
    elif level in ("sequence", "geometric"):
        row = sequence_ratio(old_logprobs, rollout_logprobs, mask, geometric=level == "geometric")
        ratio = row[:, None].expand_as(mask)
    else:
        raise ValueError(f"the level of a correction must be token, sequence or geometric, got {level!r}")
    return at_sampled(ratio, mask)


def truncated(ratio: Tensor, cap: float) -> Tensor:
    """``min(ratio, cap)``: truncated importance sampling. Raises ValueError for a cap that is not above 0."""
    if not cap > 0:
        raise ValueError(f"a ratio is truncated above 0, got {cap}")
    return ratio.clamp(max=cap)


def masked(ratio: Tensor, cap: float, floor: float = 0.0) -> Tensor:
    """``ratio`` where it lies in ``[floor, cap]``, and 0 elsewhere. Raises ValueError for an empty range."""
    if not 0 <= floor < cap:
        raise ValueError(f"wanted 0 <= floor < cap, got {floor} and {cap}")
    return torch.where((ratio >= floor) & (ratio <= cap), ratio, 0.0)


def weight_total(weights: Tensor, mask: Tensor, level: RatioLevel = "token") -> tuple[Tensor, Tensor]:
    """Sum and number of the weights of a part of a batch; add them up over all parts.

    Each token counts at the level ``token``; at the others, each row with a sampled token does, since its tokens
    share one weight.
    """
    if level == "token":
        return at_sampled(weights, mask).sum(), mask.bool().sum()
    return row_mean(weights, mask).sum(), mask.bool().any(dim=1).sum()


def batch_normalised(weights: Tensor, total: Tensor, number: Tensor) -> Tensor:
    """Weights over their mean in the whole batch, whose sum and number are given; unchanged where that mean is 0."""
    return torch.where(total > 0, weights * (number / total), weights)


@dataclass(frozen=True, slots=True)
class Mismatch:
    """How far the sampler's log-probs lie from the trainer's, as sums over sampled tokens: scalars that add up.

    ``+`` joins micro-batches. Over ranks, sum every field but ``max_log_ratio``, of which the maximum is taken.
    """

    tokens: Tensor
    """Sampled tokens."""
    gap: Tensor
    """Sum of |old - rollout|."""
    k1: Tensor
    """Sum of rollout - old: over the tokens, an estimate of KL(rollout || old)."""
    k3: Tensor
    """Sum of ratio - 1 - log(ratio), ratio = old / rollout: another estimate, never negative."""
    weight: Tensor
    """Sum of the weights."""
    weight_squared: Tensor
    """Sum of their squares."""
    max_log_ratio: Tensor
    """Largest old - rollout; minus infinity without a token."""

    def __add__(self, other: Mismatch) -> Mismatch:
        """Of two parts of a batch."""
        return Mismatch(
            self.tokens + other.tokens,
            self.gap + other.gap,
            self.k1 + other.k1,
            self.k3 + other.k3,
            self.weight + other.weight,
            self.weight_squared + other.weight_squared,
            torch.maximum(self.max_log_ratio, other.max_log_ratio),
        )

    def metrics(self) -> dict[str, float]:
        """The sums of a whole batch as metrics; none without a token.

        ``gap``, ``k1``, ``k3``: means over tokens. ``ess``: effective sample size of the weights in tokens,
        (sum w)^2 / sum w^2, 0 where all weights are; ``ess_share``: the same per token.
        """
        tokens, squares = float(self.tokens), float(self.weight_squared)
        if not tokens:
            return {}
        ess = float(self.weight) ** 2 / squares if squares else 0.0
        return {
            "mismatch/gap": float(self.gap) / tokens,
            "mismatch/k1": float(self.k1) / tokens,
            "mismatch/k3": float(self.k3) / tokens,
            "mismatch/max_ratio": float(self.max_log_ratio.exp()),
            "mismatch/ess": ess,
            "mismatch/ess_share": ess / tokens,
        }


def mismatch(old_logprobs: Tensor, rollout_logprobs: Tensor, mask: Tensor, weights: Tensor | None = None) -> Mismatch:
    """The gap between two engines on a part of a batch, [B, T] each, with the weights that correct for it.

    ``weights`` None: the token ratios themselves. Differs: log-ratios are cut at +-20.
    """
    old, rollout = old_logprobs.detach(), rollout_logprobs.detach()
    gap = log_ratio(old, rollout, mask)
    weight = at_sampled(gap.exp() if weights is None else weights.detach(), mask)
    return Mismatch(
        mask.bool().sum(),
        gap.abs().sum(),
        kl(rollout, old, mask, "k1", clamp_difference=MAX_LOG_RATIO).sum(),
        kl(rollout, old, mask, "k3", clamp_difference=MAX_LOG_RATIO).sum(),
        weight.sum(),
        weight.square().sum(),
        gap.masked_fill(~mask.bool(), -torch.inf).max(),
    )
