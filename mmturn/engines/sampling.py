"""From logits to a token, one random number a step, so that a sample depends on its own seed alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mmturn.types import Sampling

_BLOCK = 1024
_TILE = 1 << 18


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
    largest: Tensor
    """[R, 1] float32, of the logits."""
    blocks: Tensor
    """[R, ceil(V / 1024)] float64, cumulative weights exp(logits - largest) at the end of each block."""

    def logprobs(self, token_ids: Tensor) -> Tensor:
        """[R] float64 of one token per row."""
        own = self.logits.gather(1, token_ids[:, None]) - self.largest
        return (own.double() - self.blocks[:, -1:].log()).squeeze(1)


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
    # A few rows at a time: what is exponentiated stays in the processor's cache and takes no memory of its own.
    rows = max(_TILE // scaled.shape[1], 1) if scaled.device.type == "cpu" else len(scaled)
    largest, sums = [], []
    for part in scaled.split(rows):
        largest.append(part.amax(-1, keepdim=True))
        sums.append(_sums((part - largest[-1]).exp_()))
    return Scores(scaled, torch.cat(largest), torch.cat(sums).double().cumsum(-1))


def draw(scores: Scores, uniform: Tensor, how: Warp) -> Tensor:
    """Next tokens by inverting the cumulative distribution: over blocks, then within the block that was found.

    Both are summed up in float64, so that a token's share of the unit interval is its probability up to the rounding
    of float32 exponentials.

    Args:
        scores: of ``warp``.
        uniform: [R] float64 in [0, 1).
    Returns: [R] token ids, never one of probability 0. A row whose logits are not finite gets any token, and its
        log-prob is not finite either.
    """
    logits, largest, blocks = scores.logits, scores.largest, scores.blocks
    if how.top_p is not None:
        logits = _nucleus(logits, how.top_p)
        blocks = _sums((logits - largest).exp_()).double().cumsum(-1)
    size = logits.shape[1]
    target = uniform[:, None] * blocks[:, -1:]
    block = _first_above(blocks, target)
    before = torch.where(block > 0, blocks.gather(1, (block - 1).clamp_(min=0)), 0.0)
    columns = block * _BLOCK + torch.arange(min(_BLOCK, size), device=logits.device)
    inside = (logits.gather(1, columns.clamp(max=size - 1)) - largest).exp_().double()
    inside = inside.masked_fill_(columns >= size, 0.0).cumsum(-1)
    sampled = (block * _BLOCK + _first_above(inside, target - before)).clamp_(max=size - 1).squeeze(1)
    return sampled if how.greedy is None else torch.where(how.greedy, scores.logits.argmax(-1), sampled)


def _sums(weights: Tensor) -> Tensor:
    """[R, ceil(V / 1024)] sums of blocks."""
    whole = weights.shape[1] // _BLOCK * _BLOCK
    sums = weights[:, :whole].unflatten(1, (-1, _BLOCK)).sum(-1) if whole else weights[:, :0]
    if whole < weights.shape[1]:
        sums = torch.cat((sums, weights[:, whole:].sum(-1, keepdim=True)), 1)
    return sums


def _first_above(cumulative: Tensor, target: Tensor) -> Tensor:
    """[R, 1] the first place above the target, or where the total is reached: rounding may carry a number just below
    1 past it, and there is nothing that can be drawn behind it."""
    last = torch.searchsorted(cumulative, cumulative[:, -1:].contiguous())
    return torch.searchsorted(cumulative, target, right=True).minimum(last).clamp_(max=cumulative.shape[1] - 1)


def _nucleus(logits: Tensor, top_p: Tensor) -> Tensor:
    """Logits of the smallest sets of tokens that hold ``top_p`` of the probability, -inf elsewhere."""
    ordered, order = logits.sort(-1, descending=True)
    probs = ordered.double().softmax(-1)
    left = ordered.masked_fill(probs.cumsum(-1) - probs >= top_p, float("-inf"))
    return torch.empty_like(logits).scatter_(-1, order, left)
