"""Log-probabilities and entropy of sampled tokens, in float32, without a float32 copy of all logits.

With a vocabulary of 150,000 a float32 log-softmax of every sampled token would take more memory than the model; here
rows of logits are widened a chunk at a time, forwards and backwards.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_CHUNK_ELEMENTS = 1 << 26


def selected_scores(
    logits: Tensor, token_ids: Tensor, temperature: float, banned: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Log-probability of each token and entropy of its distribution, as it was sampled.

    The distribution is log_softmax(logits / temperature) in float32 with banned ids at minus infinity, exactly as
    the sampler draws from it.

    Args:
        logits: [n, V] in any precision.
        token_ids: [n]. A banned id has log-probability minus infinity.
        temperature: above 0.
        banned: [m] ids that cannot be sampled.
    Returns: float32 [n] and [n]; both carry gradients to ``logits``.
    """
    empty = torch.empty(0, dtype=torch.long, device=logits.device)
    scores: tuple[Tensor, Tensor] = _SelectedScores.apply(
        logits, token_ids, temperature, empty if banned is None else banned
    )
    return scores


def _log_softmax(logits: Tensor, temperature: float, banned: Tensor) -> Tensor:
    scaled = logits.float() / temperature
    if banned.numel():
        scaled = scaled.index_fill(1, banned, float("-inf"))
    return scaled.log_softmax(-1)


def _times_log(probs: Tensor, logprobs: Tensor) -> Tensor:
    """p log p with 0 where p is 0."""
    return probs * logprobs.masked_fill(probs == 0, 0.0)


class _SelectedScores(torch.autograd.Function):
    """Keeps the logits as they are and computes their softmax twice instead of keeping it."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, token_ids: Tensor, temperature: float, banned: Tensor
    ) -> tuple[Tensor, Tensor]:
        chosen = torch.empty(logits.shape[0], dtype=torch.float32, device=logits.device)
        entropy = torch.empty_like(chosen)
        for rows in _chunks(logits):
            logprobs = _log_softmax(logits[rows], temperature, banned)
            chosen[rows] = logprobs.gather(1, token_ids[rows, None]).squeeze(1)
            entropy[rows] = -_times_log(logprobs.exp(), logprobs).sum(-1)
        ctx.save_for_backward(logits, token_ids, banned, entropy)
        ctx.temperature = temperature
        return chosen, entropy

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        chosen_grad, entropy_grad = grads
        logits, token_ids, banned, entropy = ctx.saved_tensors
        out = torch.empty_like(logits)
        for rows in _chunks(logits):
            logprobs = _log_softmax(logits[rows], ctx.temperature, banned)
            probs = logprobs.exp()
            # d log p_t / d z = onehot_t - p;  d H / d z = -p (log p + H)
            grad = -probs * chosen_grad[rows, None]
            grad.scatter_add_(1, token_ids[rows, None], chosen_grad[rows, None])
            grad -= (_times_log(probs, logprobs) + probs * entropy[rows, None]) * entropy_grad[rows, None]
            if banned.numel():
                grad.index_fill_(1, banned, 0.0)
            out[rows] = (grad / ctx.temperature).to(out.dtype)
        return out, None, None, None


def _chunks(logits: Tensor) -> list[slice]:
    size = max(_CHUNK_ELEMENTS // max(logits.shape[1], 1), 1)
    return [slice(start, start + size) for start in range(0, logits.shape[0], size)]
