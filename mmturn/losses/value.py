"""The loss of a value head, per token, and how well its values explain the returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from mmturn.losses.sampled import at_sampled

At = Literal["all", "first", "last"]
"""All sampled tokens, or the first or last of each turn."""

SAME_RETURNS = 1e-12
"""Returns whose variance is at most this share of their mean square are all the same, up to rounding."""


@dataclass(frozen=True, slots=True)
class ValueLoss:
    """What a value loss gives back, before aggregation."""

    per_token: Tensor
    """[B, T] float32 or wider, 0 where the mask is 0."""
    sums: dict[str, Tensor]
    """Detached sums over the sampled tokens; divide by the number of sampled tokens of the whole batch to log them."""


def clipped_value_loss(
    values: Tensor, old_values: Tensor, returns: Tensor, mask: Tensor, clip: float = 0.5
) -> ValueLoss:
    """``0.5 max((v - R)^2, (clip(v, v_old - clip, v_old + clip) - R)^2)`` at each sampled token.

    All tensors [B, T]; masked positions are never read. An infinite ``clip`` gives the plain squared error. Old values
    and returns get no gradient.

    Source: PPO as in its code (openai/baselines), and in verl with clip 0.5. Raises ValueError for a clip below 0.
    """
    if not clip >= 0:
        raise ValueError(f"wanted clip >= 0, got {clip}")
    new, old = at_sampled(values, mask), at_sampled(old_values.detach(), mask)
    target = at_sampled(returns.detach(), mask)
    plain = (new - target).square()
    clipped = (new.clamp(old - clip, old + clip) - target).square()
    sums = {
        "value/mean": new.detach().sum(),
        "value/clip_fraction": (clipped > plain).sum().float(),
    }
    return ValueLoss(at_sampled(0.5 * torch.maximum(plain, clipped), mask), sums)


def anchors(mask: Tensor, turn_index: Tensor, at: At = "all") -> Tensor:
    """1 on the tokens that values are learned at: all sampled ones, or the first or last of each turn of each row.

    ``mask``, ``turn_index`` [B, T] (read where the mask is 1) -> [B, T], like the mask. A turn's sampled tokens follow
    one another, whatever unsampled ones lie between.
    Source: value losses at the first or last response token of a turn are VAGEN's (no_concat_gae.py).
    """
    if at == "all":
        return mask
    turns = turn_index.masked_fill(~mask.bool(), -1)
    found = _begun(turns) if at == "first" else _begun(turns.flip(1)).flip(1)
    return found.to(mask.dtype)


def _begun(turns: Tensor) -> Tensor:
    """[B, T] where another turn begins than that of the sampled token before; ``turns`` is -1 where none is sampled."""
    places = torch.arange(turns.shape[1], device=turns.device).where(turns >= 0, -1).cummax(dim=1).values
    before = nn.functional.pad(places[:, :-1], (1, 0), value=-1)
    return (turns >= 0) & ((before < 0) | (turns != turns.gather(1, before.clamp(min=0))))


@dataclass(frozen=True, slots=True)
class ReturnFit:
    """Moments of the returns and of the errors of the values: float64 sums over sampled tokens. ``+`` joins parts."""

    tokens: Tensor
    """Sampled tokens."""
    returns: Tensor
    """Sum of R."""
    returns_squared: Tensor
    """Sum of R^2."""
    errors: Tensor
    """Sum of R - v."""
    errors_squared: Tensor
    """Sum of (R - v)^2."""

    def __add__(self, other: ReturnFit) -> ReturnFit:
        """Of two parts of a batch."""
        return ReturnFit(
            self.tokens + other.tokens,
            self.returns + other.returns,
            self.returns_squared + other.returns_squared,
            self.errors + other.errors,
            self.errors_squared + other.errors_squared,
        )

    def explained_variance(self) -> float | None:
        """``1 - Var(R - v) / Var(R)`` of a whole batch: 1 is perfect, 0 no better than a constant. None where the
        returns do not vary."""
        tokens = max(int(self.tokens), 1)
        mean_square = float(self.returns_squared) / tokens
        variance = mean_square - (float(self.returns) / tokens) ** 2
        if variance <= SAME_RETURNS * mean_square:
            return None
        return 1.0 - (float(self.errors_squared) / tokens - (float(self.errors) / tokens) ** 2) / variance


def return_fit(values: Tensor, returns: Tensor, mask: Tensor) -> ReturnFit:
    """How the values of a part of a batch fit its returns; [B, T] each, detached."""
    target = at_sampled(returns.detach().double(), mask)
    error = target - at_sampled(values.detach().double(), mask)
    return ReturnFit(mask.bool().sum(), target.sum(), target.square().sum(), error.sum(), error.square().sum())
