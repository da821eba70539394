"""The clipped policy loss, per token."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

MAX_LOG_RATIO = 20.0
"""Log-ratios are cut here before ``exp``: float32 stays finite, and no useful ratio is that large."""


@dataclass(frozen=True, slots=True)
class PolicyLoss:
    """What a policy loss gives back, before aggregation."""

    per_token: Tensor
    """[B, T] float32, 0 where the mask is 0."""
    sums: dict[str, Tensor]
    """Detached sums over the sampled tokens; divide by the number of sampled tokens of the whole batch to log them."""


def log_ratio(logprobs: Tensor, old_logprobs: Tensor, mask: Tensor) -> Tensor:
    """``logprobs - old_logprobs`` [B, T] in float32, cut to +-20; 0 where the mask is 0, whatever stands there."""
    sampled = mask.bool()
    difference = logprobs.float().masked_fill(~sampled, 0.0) - old_logprobs.float().masked_fill(~sampled, 0.0)
    return difference.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)


def clipped_policy_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    clip_low: float = 0.2,
    clip_high: float = 0.28,
    dual_clip: float | None = 3.0,
) -> PolicyLoss:
    """PPO's surrogate ``max(-A r, -A clip(r, 1 - clip_low, 1 + clip_high))`` with ``r = exp(new - old)``.

    All tensors [B, T]; ``mask`` is 1 on sampled tokens, and the others are never read. Where ``A < 0`` the loss is
    capped at ``-A dual_clip`` (None: no cap). Advantages and old log-probs get no gradient.

    Source: PPO (1707.06347) eq. 7; clip-higher: DAPO (2503.14476); dual clip: 1912.09729 eq. 5.
    Differs: log-ratios are cut at +-20. Raises ValueError for ranges that are no ranges.
    """
    if not 0 <= clip_low <= 1 or clip_high < 0 or (dual_clip is not None and dual_clip <= 1):
        raise ValueError(
            f"wanted 0 <= clip_low <= 1, clip_high >= 0, dual_clip > 1: {clip_low}, {clip_high}, {dual_clip}"
        )
    sampled = mask.bool()
    advantage = advantages.detach().float().masked_fill(~sampled, 0.0)
    ratio = log_ratio(logprobs, old_logprobs.detach(), mask).exp()
    plain = -advantage * ratio
    clipped = -advantage * ratio.clamp(1.0 - clip_low, 1.0 + clip_high)
    loss = torch.maximum(plain, clipped)
    sums = {
        "policy/ratio": ratio.detach()[sampled].sum(),
        "policy/clip_fraction_low": _count((clipped > plain) & (advantage < 0)),
        "policy/clip_fraction_high": _count((clipped > plain) & (advantage > 0)),
        "policy/clip_fraction_dual": torch.zeros((), device=loss.device),
    }
    if dual_clip is not None:
        cap = -advantage * dual_clip
        capped = (advantage < 0) & (loss > cap)
        loss = torch.where(capped, cap, loss)
        sums["policy/clip_fraction_dual"] = _count(capped)
    return PolicyLoss(loss.masked_fill(~sampled, 0.0), sums)


def _count(where: Tensor) -> Tensor:
    return where.sum().float()
