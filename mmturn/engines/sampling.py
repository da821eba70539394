"""From logits to a token, one random number a step, so that a sample depends on its own seed alone."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor


class RowSampler:
    """Draws for one request: step t of a completion uses the t-th number of the request's own stream."""

    def __init__(self, seed: int, max_new_tokens: int, forced: Mapping[int, int] | None = None) -> None:
        self.numbers = np.random.Generator(np.random.Philox(key=seed)).random(max_new_tokens)
        self.forced = dict(forced or {})
        """Step -> id that is taken in place of the drawn one."""

    def take(self, step: int, drawn: int) -> int:
        """The token of a step, given what was drawn for it."""
        return self.forced.get(step, drawn)


def warp(logits: Tensor, temperature: Tensor, banned: Tensor) -> Tensor:
    """Log-probabilities that are sampled from and trained on.

    Args:
        logits: [R, V].
        temperature: [R]; 0 means greedy, whose log-probs are those at temperature 1.
        banned: [n] ids that cannot be sampled.
    Returns: [R, V] float32.
    """
    scale = torch.where(temperature > 0, temperature, torch.ones_like(temperature))
    scaled = logits.float() / scale[:, None]
    if banned.numel():
        scaled = scaled.index_fill(1, banned, float("-inf"))
    return scaled.log_softmax(-1)


def draw(logprobs: Tensor, uniform: Tensor, temperature: Tensor, top_p: Tensor) -> Tensor:
    """Next tokens by inverting the cumulative distribution in float64.

    Args:
        logprobs: [R, V] from ``warp``.
        uniform: [R] float64 in [0, 1).
        temperature: [R]; rows at 0 take the most likely token.
        top_p: [R]; rows below 1 keep the smallest set of tokens that holds this much probability.
    Returns: [R] token ids, never one of probability 0.
    """
    probs = logprobs.double().exp()
    if bool((top_p < 1).any()):
        probs = _nucleus(probs, top_p)
    cumulative = probs.cumsum(-1)
    target = uniform[:, None] * cumulative[:, -1:]
    sampled = torch.searchsorted(cumulative, target, right=True).clamp_(max=probs.shape[1] - 1)
    # Rounding may carry a number just below 1 past the last token that can be drawn.
    possible = probs.gather(1, sampled).squeeze(1) > 0
    return torch.where((temperature > 0) & possible, sampled.squeeze(1), logprobs.argmax(-1))


def _nucleus(probs: Tensor, top_p: Tensor) -> Tensor:
    ordered, order = probs.sort(-1, descending=True)
    before = ordered.cumsum(-1) - ordered
    kept = ordered.masked_fill(before >= top_p[:, None].double(), 0.0)
    return torch.zeros_like(probs).scatter(-1, order, kept)
