"""From logits to a token, one random number a step, so that a sample depends on its own seed alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mmturn.types import Sampling

_BLOCK = 1024


class RowSampler:
    """Draws for one request: step t of a completion uses the t-th number of the request's own stream."""

    def __init__(self, seed: int, max_new_tokens: int, forced: Mapping[int, int] | None = None) -> None:
        self.numbers = np.random.Generator(np.random.Philox(key=seed)).random(max_new_tokens)
        self.forced = dict(forced or {})
        """Step -> id that is taken in place of the drawn one."""

    def take(self, step: int, drawn: int) -> int:
        """The token of a step, given what was drawn for it."""
        return self.forced.get(step, drawn)


@dataclass(frozen=True, slots=True)
class Warp:
    """Temperatures and nuclei of a batch's rows, on its device; what no row needs is left out."""

    temperature: Tensor | None
    """[R, 1]; None where every row has 1. A greedy row has 1: its log-probs are those at temperature 1."""
    greedy: Tensor | None
    """[R] bool."""
    top_p: Tensor | None
    """[R, 1] float64."""

    @classmethod
    def of(cls, samplings: Sequence[Sampling], device: torch.device) -> Warp:
        """Of the rows' settings."""
        scales = [s.temperature if s.temperature > 0 else 1.0 for s in samplings]
        greedy = [s.temperature <= 0 for s in samplings]
        top_p = [s.top_p for s in samplings]
        return cls(
            torch.tensor(scales, device=device)[:, None] if set(scales) != {1.0} else None,
            torch.tensor(greedy, device=device) if any(greedy) else None,
            torch.tensor(top_p, dtype=torch.float64, device=device)[:, None] if min(top_p) < 1 else None,
        )


@dataclass(frozen=True, slots=True)
class Scores:
    """Warped logits and what is needed to draw from them and to tell log-probs."""

    logits: Tensor
    """[R, V] float32."""
    weights: Tensor
    """[R, V] float32, exp(logits - their largest)."""
    blocks: Tensor
    """[R, ceil(V / 1024)] float64, cumulative weights at the end of each block."""
    log_total: Tensor
    """[R] float64, logarithm of the summed exponentials."""

    def logprobs(self, token_ids: Tensor) -> Tensor:
        """[R] float64 of one token per row."""
        return self.logits.gather(1, token_ids[:, None]).squeeze(1).double() - self.log_total


def warp(logits: Tensor, how: Warp, banned: Tensor) -> Scores:
    """The distribution that is sampled from and trained on.

    Args:
        logits: [R, V], overwritten.
        banned: [n] ids that cannot be sampled.
    """
    scaled = logits.float()
    if how.temperature is not None:
        scaled = scaled.div_(how.temperature)
    if banned.numel():
        scaled = scaled.index_fill_(1, banned, float("-inf"))
    largest = scaled.amax(-1, keepdim=True)
    weights = (scaled - largest).exp_()
    blocks = _blocks(weights)
    return Scores(scaled, weights, blocks, blocks[:, -1].log() + largest.squeeze(1))


def draw(scores: Scores, uniform: Tensor, how: Warp) -> Tensor:
    """Next tokens by inverting the cumulative distribution: over blocks, then within the block that was found.

    Both sums are in float64, so that a token's share of the unit interval is its probability up to the rounding of the
    float32 exponentials.

    Args:
        scores: of ``warp``.
        uniform: [R] float64 in [0, 1).
    Returns: [R] token ids, never one of probability 0. A row whose logits are not finite gets any token, and its
        log-prob is not finite either.
    """
    weights, blocks = scores.weights, scores.blocks
    if how.top_p is not None:
        weights = _nucleus(weights, how.top_p)
        blocks = _blocks(weights)
    target = uniform[:, None] * blocks[:, -1:]
    block = _first_above(blocks, target)
    before = torch.where(block > 0, blocks.gather(1, (block - 1).clamp_(min=0)), 0.0)
    columns = block * _BLOCK + torch.arange(_BLOCK, device=weights.device)
    inside = weights.gather(1, columns.clamp(max=weights.shape[1] - 1)).double()
    inside = inside.masked_fill_(columns >= weights.shape[1], 0.0).cumsum(-1)
    sampled = (block * _BLOCK + _first_above(inside, target - before)).clamp_(max=weights.shape[1] - 1).squeeze(1)
    return sampled if how.greedy is None else torch.where(how.greedy, scores.logits.argmax(-1), sampled)


def _blocks(weights: Tensor) -> Tensor:
    """Cumulative weights at the end of each block, [R, ceil(V / 1024)] float64."""
    whole = weights.shape[1] // _BLOCK * _BLOCK
    sums = weights[:, :whole].unflatten(1, (-1, _BLOCK)).sum(-1) if whole else weights[:, :0]
    if whole < weights.shape[1]:
        sums = torch.cat((sums, weights[:, whole:].sum(-1, keepdim=True)), 1)
    return sums.double().cumsum(-1)


def _first_above(cumulative: Tensor, target: Tensor) -> Tensor:
    """[R, 1] the first place above the target, or where the total is reached: rounding may carry a number just below
    1 past it, and there is nothing that can be drawn behind it."""
    last = torch.searchsorted(cumulative, cumulative[:, -1:].contiguous())
    return torch.searchsorted(cumulative, target, right=True).minimum(last).clamp_(max=cumulative.shape[1] - 1)


def _nucleus(weights: Tensor, top_p: Tensor) -> Tensor:
    """Weights of the smallest sets of tokens that hold ``top_p`` of the total, 0 elsewhere."""
    ordered, order = weights.double().sort(-1, descending=True)
    total = ordered.cumsum(-1)
    kept = ordered.masked_fill((total - ordered) / total[:, -1:] >= top_p, 0.0)
    return torch.zeros_like(weights).scatter(-1, order, kept.float())
