"""Log-probabilities and entropy of sampled tokens straight from hidden states: no logits are kept.

With a vocabulary of 150,000 the logits of a batch take more memory than the model. Here they exist one tile of rows and
vocabulary at a time, forwards and again backwards; maximum and sums are carried from tile to tile.
Source: the running maximum of M. Milakov, N. Gimelshein, "Online normalizer calculation for softmax", arXiv 1805.02867,
algorithm 3; the entropy's sum is carried the same way.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

_ROWS = 4096
_TILE_ELEMENTS = {"cpu": 1 << 23, "cuda": 1 << 26}
_NEVER = -1e30
"""Logit of a banned id: its probability is exactly 0, and unlike minus infinity 0 times it is 0."""


class ScoringHead(nn.Linear):
    """The language model's output layer, which can also score tokens without making their logits.

    A module of its own, so that ZeRO-3 gathers its weight for both. ``of`` turns a model's head into one in place.
    """

    @staticmethod
    def of(head: nn.Linear) -> None:
        """Make a linear layer without bias a scoring head; weights and names stay."""
        if type(head) is not nn.Linear or head.bias is not None:
            raise TypeError(f"the output layer must be a plain linear layer without bias, got {head}")
        head.__class__ = ScoringHead

    def forward(
        self,
        hidden: Tensor,
        token_ids: Tensor | None = None,
        temperature: float = 1.0,
        banned: Tensor | None = None,
    ) -> Any:
        """Logits [..., V] of hidden states [..., H]; with ``token_ids``, what ``token_scores`` returns."""
        if token_ids is None:
            return super().forward(hidden)
        return token_scores(hidden, self.weight, token_ids, temperature, banned)


def token_scores(
    hidden: Tensor, weight: Tensor, token_ids: Tensor, temperature: float, banned: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Log-probability of each token and entropy of its distribution, as it was sampled.

    The distribution is log_softmax(hidden @ weight.T / temperature) in float32 with banned ids at minus infinity,
    exactly as the sampler draws from it.

    Args:
        hidden: [n, H] in any precision.
        weight: [V, H] in the same.
        token_ids: [n]. A banned id has log-probability minus infinity.
        temperature: above 0.
        banned: [m] ids that cannot be sampled.
    Returns: float32 [n] and [n]; both carry gradients to ``hidden`` and ``weight``.
    """
    none = torch.empty(0, dtype=torch.long, device=hidden.device)
    scores: tuple[Tensor, Tensor] = _TokenScores.apply(
        hidden, weight, token_ids, temperature, none if banned is None else banned
    )
    return scores


def token_logits(hidden: Tensor, weight: Tensor, token_ids: Tensor) -> Tensor:
    """The logit of each token alone, float32 [n]: ``hidden`` [n, H], ``weight`` [V, H], ``token_ids`` [n]."""
    # each token of the vocabulary once, so that gradients of half precision are summed in float32
    unique, place = token_ids.unique(return_inverse=True)
    return torch.linalg.vecdot(hidden.float(), weight[unique].float()[place])


class _TokenScores(torch.autograd.Function):
    """Keeps hidden states, log-sum-exp and entropy, [n] each, and makes every tile of logits twice."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, token_ids: Tensor, temperature: float, banned: Tensor
    ) -> tuple[Tensor, Tensor]:
        n = hidden.shape[0]
        top = hidden.new_full((n,), float("-inf"), dtype=torch.float32)
        total, weighted, chosen = (torch.zeros_like(top) for _ in range(3))
        for words in _tiles(weight.shape[0], n, hidden.device):
            for rows in _rows(n):
                logits = _logits(hidden[rows], weight[words], temperature, banned, words)
                within = (token_ids[rows] - words.start).clamp(0, logits.shape[1] - 1)
                mine = (token_ids[rows] >= words.start) & (token_ids[rows] < words.stop)
                chosen[rows] = torch.where(mine, logits.gather(1, within[:, None]).squeeze(1), chosen[rows])
                higher = torch.maximum(top[rows], logits.amax(1))
                # relative to the present maximum: total = sum of e, weighted = sum of e log e
                lower, shift = total[rows] * (top[rows] - higher).exp(), (top[rows] - higher).clamp(min=_NEVER)
                shares = logits.sub_(higher[:, None]).exp()
                weighted[rows] = weighted[rows] * shift.exp() + lower * shift + torch.linalg.vecdot(shares, logits)
                total[rows] = lower + shares.sum(1)
                top[rows] = higher
        lse, entropy = top + total.log(), total.log() - weighted / total
        chosen = torch.where(chosen > _NEVER / 2, chosen - lse, float("-inf"))
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(hidden, weight, token_ids, banned, lse, entropy)
        ctx.temperature = temperature
        return chosen, entropy

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        hidden, weight, token_ids, banned, lse, entropy = ctx.saved_tensors
        n, to_weight = hidden.shape[0], ctx.needs_input_grad[1]
        hidden_grad = torch.zeros(hidden.shape, dtype=torch.float32, device=hidden.device)
        weight_grad = torch.zeros_like(weight) if to_weight else None
        for words in _tiles(weight.shape[0], n, hidden.device):
            part, total = weight[words], 0.0
            for rows in _rows(n):
                logprobs = _logits(hidden[rows], part, ctx.temperature, banned, words).sub_(lse[rows, None])
                grad = _logit_grad(logprobs, token_ids[rows] - words.start, grads, entropy, rows)
                grad = grad.div_(ctx.temperature).to(part.dtype)
                hidden_grad[rows] += grad @ part
                if to_weight:
                    total = total + (grad.T @ hidden[rows]).float()
            if weight_grad is not None:
                weight_grad[words] = total
        return hidden_grad.to(hidden.dtype), weight_grad, None, None, None


def _logit_grad(
    logprobs: Tensor, places: Tensor, grads: tuple[Tensor | None, ...], entropy: Tensor, rows: slice
) -> Tensor:
    """Gradient to a tile of scaled logits: d log p_t / d z = onehot_t - p;  d H / d z = -p (log p + H)."""
    probs = logprobs.exp()
    chosen_grad, entropy_grad = grads
    factor: Tensor | None = None
    if entropy_grad is not None:
        factor = logprobs.add_(entropy[rows, None]).mul_(entropy_grad[rows, None])
    if chosen_grad is not None:
        own = chosen_grad[rows, None]
        factor = own if factor is None else factor.add_(own)
    if factor is None:
        return torch.zeros_like(probs)
    grad = probs.mul_(factor).neg_()
    if chosen_grad is not None:
        mine = (places >= 0) & (places < grad.shape[1])
        at = places.clamp(0, grad.shape[1] - 1)
        grad.scatter_add_(1, at[:, None], torch.where(mine, chosen_grad[rows], 0.0)[:, None])
    return grad


def _logits(hidden: Tensor, weight: Tensor, temperature: float, banned: Tensor, words: slice) -> Tensor:
    """float32 [rows, tile] of its own, which may be overwritten."""
    logits = (hidden @ weight.T).float()
    if temperature != 1.0:
        logits = logits.div_(temperature)
    if banned.numel():
        within = banned[(banned >= words.start) & (banned < words.stop)] - words.start
        logits.index_fill_(1, within, _NEVER)
    return logits


def _rows(n: int) -> Iterator[slice]:
    return (slice(start, min(start + _ROWS, n)) for start in range(0, n, _ROWS))


def _tiles(vocabulary: int, n: int, device: torch.device) -> Iterator[slice]:
    """Stretches of the vocabulary that make a tile of bounded size with up to ``_ROWS`` rows."""
    size = max(_TILE_ELEMENTS.get(device.type, 1 << 26) // max(min(n, _ROWS), 1), 64)
    return (slice(start, min(start + size, vocabulary)) for start in range(0, vocabulary, size))
