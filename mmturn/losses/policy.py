"""Policy losses per token: ratios of probabilities, and the surrogates that weigh advantages with them.

A method is one choice of each: ``clip_surrogate(ratios(new, old, mask), advantages, mask)`` is PPO's and GRPO's,
with ``unit="sequence"`` GSPO's; ``cispo_surrogate`` is CISPO's; ``pg_surrogate`` needs no ratio.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mmturn.losses.sampled import at_sampled, difference, row_mean, turn_sums

RatioUnit = Literal["token", "sequence", "turn"]
"""What a ratio is taken over: each token, all sampled tokens of a row, or those of each turn of a row."""

MAX_LOG_RATIO = 20.0
"""Log-ratios are cut here before ``exp``: float32 stays finite, and no useful ratio is that large."""
MAX_MEAN_LOG_RATIO = 10.0
"""The same for means over sequences and turns, above only."""


@dataclass(frozen=True, slots=True)
class PolicyLoss:
    """What a policy loss gives back, before aggregation."""

    per_token: Tensor
    """[B, T] float32 or wider, 0 where the mask is 0."""
    sums: dict[str, Tensor]
    """Detached sums over the sampled tokens; divide by the number of sampled tokens of the whole batch to log them."""


def log_ratio(logprobs: Tensor, old_logprobs: Tensor, mask: Tensor) -> Tensor:
    """``logprobs - old_logprobs`` [B, T], cut to +-20; 0 where the mask is 0, whatever stands there."""
    return difference(logprobs, old_logprobs, mask).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)


def ratios(
    logprobs: Tensor,
    old_logprobs: Tensor,
    mask: Tensor,
    unit: RatioUnit = "token",
    turn_index: Tensor | None = None,
) -> Tensor:
    """The ratio of new to old probability that each token is weighed with, [B, T]; 1 where the mask is 0.

    - token: ``exp(new - old)``
    - sequence: the geometric mean s of the token ratios of a row. A sequence is a row: of a trajectory that is spread
      over several rows, each has its own s.
    - turn: the same over each turn of a row, by ``turn_index`` [B, T] (needed there only; not read where the mask
      is 0).

    Means have the form ``log s = stop(log s) + new - stop(new)``: each token has the value s and the gradient
    ``s * grad(new)``. Averaged over the tokens of the unit (``seq_mean_token_mean``, ``turn_mean``), this is the
    gradient of s. Old log-probs get no gradient.

    Source: Group Sequence Policy Optimization (2507.18071), the form per token its GSPO-token; means over turns are
    ours. Differs: token log-ratios are cut at +-20, means above 10 (as in verl). Raises ValueError for an unknown unit
    or a missing turn_index.
    """
    if unit == "token":
        return log_ratio(logprobs, old_logprobs, mask).exp()
    gap = difference(logprobs.detach(), old_logprobs, mask)
    if unit == "sequence":
        mean = at_sampled(row_mean(gap, mask).expand_as(gap), mask)
    elif unit == "turn":
        if turn_index is None:
            raise ValueError("a ratio per turn needs turn_index")
        sums, turn = turn_sums(gap, mask, turn_index)
        tokens, _ = turn_sums(mask, mask, turn_index)
        mean = at_sampled((sums / tokens.clamp(min=1)).gather(1, turn), mask)
    else:
        raise ValueError(f"the unit of a ratio must be token, sequence or turn, got {unit!r}")
    new = at_sampled(logprobs, mask)
    # new - stop(new) is exactly 0, so that adding the mean to it loses no digits
    return (new - new.detach() + mean).clamp(max=MAX_MEAN_LOG_RATIO).exp()


def clip_ratio(ratio: Tensor, clip_low: float, clip_high: float) -> Tensor:
    """``ratio`` within ``[1 - clip_low, 1 + clip_high]``; since ratios are positive, clip_low >= 1 sets no bound."""
    return ratio.clamp(1.0 - clip_low, 1.0 + clip_high)


def clip_surrogate(
    ratio: Tensor,
    advantages: Tensor,
    mask: Tensor,
    clip_low: float = 0.2,
    clip_high: float = 0.28,
    dual_clip: float | None = 3.0,
) -> PolicyLoss:
    """``max(-A r, -A clip(r, 1 - clip_low, 1 + clip_high))`` of ratios of any unit.

    All tensors [B, T]; ``mask`` is 1 on sampled tokens, and the others are never read. Where ``A < 0`` the loss is
    capped at ``-A dual_clip`` (None: no cap). Advantages get no gradient.

    Source: PPO (1707.06347) eq. 7; clip-higher: DAPO (2503.14476); dual clip: 1912.09729 eq. 5; over sequences: GSPO
    (2507.18071), which has ranges of 3e-4 and 4e-4 and no dual clip. Raises ValueError for ranges that are no ranges.
    """
    if not 0 <= clip_low <= 1 or clip_high < 0 or (dual_clip is not None and dual_clip <= 1):
        raise ValueError(
            f"wanted 0 <= clip_low <= 1, clip_high >= 0, dual_clip > 1: {clip_low}, {clip_high}, {dual_clip}"
        )
    advantage, ratio = at_sampled(advantages.detach(), mask), at_sampled(ratio, mask)
    plain = -advantage * ratio
    clipped = -advantage * clip_ratio(ratio, clip_low, clip_high)
    loss = torch.maximum(plain, clipped)
    sums = {
        "policy/ratio": ratio.detach()[mask.bool()].sum(),
        "policy/clip_fraction_low": _count((clipped > plain) & (advantage < 0)),
        "policy/clip_fraction_high": _count((clipped > plain) & (advantage > 0)),
        "policy/clip_fraction_dual": torch.zeros((), device=loss.device),
    }
    if dual_clip is not None:
        cap = -advantage * dual_clip
        capped = (advantage < 0) & (loss > cap)
        loss = torch.where(capped, cap, loss)
        sums["policy/clip_fraction_dual"] = _count(capped)
    return PolicyLoss(at_sampled(loss, mask), sums)


def clipped_policy_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    clip_low: float = 0.2,
    clip_high: float = 0.28,
    dual_clip: float | None = 3.0,
) -> PolicyLoss:
    """The clipped surrogate of token ratios: PPO, GRPO and DAPO. All tensors [B, T]; see ``clip_surrogate``."""
    return clip_surrogate(ratios(logprobs, old_logprobs, mask), advantages, mask, clip_low, clip_high, dual_clip)


def cispo_surrogate(
    ratio: Tensor,
    logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    clip_low: float = 1.0,
    clip_high: float = 0.2,
) -> PolicyLoss:
    """``-stop(clip(r, 1 - clip_low, 1 + clip_high)) A logprobs``: clipping bounds a token's weight, never drops it.

    All tensors [B, T]; masked positions are never read, and only ``logprobs`` get a gradient. ``clip_low`` of 1 or
    more sets no lower bound. The clip fractions count ratios out of bounds, whatever the advantage.

    Source: MiniMax-M1 (2506.13585) eq. 4 and 5. Raises ValueError for negative ranges.
    """
    if clip_low < 0 or clip_high < 0:
        raise ValueError(f"wanted clip_low >= 0, clip_high >= 0: {clip_low}, {clip_high}")
    sampled = mask.bool()
    ratio = at_sampled(ratio.detach(), mask)
    weight = clip_ratio(ratio, clip_low, clip_high)
    loss = -weight * at_sampled(advantages.detach(), mask) * at_sampled(logprobs, mask)
    sums = {
        "policy/ratio": ratio[sampled].sum(),
        "policy/clip_fraction_low": _count((weight > ratio) & sampled),
        "policy/clip_fraction_high": _count((weight < ratio) & sampled),
    }
    return PolicyLoss(loss, sums)


def pg_surrogate(logprobs: Tensor, advantages: Tensor, mask: Tensor) -> PolicyLoss:
    """``-A logprobs``: the plain policy gradient, exact for tokens sampled by the current weights only.

    All tensors [B, T]; masked positions are never read, and advantages get no gradient. There is no ratio, and so
    there are no sums. Source: REINFORCE (Williams, 1992); ArCHer's actor loss (2402.19446).
    """
    return PolicyLoss(-at_sampled(advantages.detach(), mask) * at_sampled(logprobs, mask), {})


def _count(where: Tensor) -> Tensor:
    return where.sum().float()
