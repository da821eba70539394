"""Q of every token as output layers beside the policy's own: what a token is worth in the state before it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmturn.losses.critics import polyak_update
from mmturn.models.head import token_logits, token_scores
from mmturn.models.heads import OutputHeads
from mmturn.models.load import LoadedModel

Q = "q"
"""Name of the layer that action values fold into the policy with."""
_BEGINNING = 0.01
"""Standard deviation of the first values: two layers that begin alike would stay alike."""


class ActionLayer(nn.Linear):
    """One Q: a linear map of hidden states."""

    def forward(self, hidden: Tensor, token_ids: Tensor, banned: Tensor) -> tuple[Tensor, Tensor]:
        """Q of each token [n], and its log-softmax among the Q of all that are not banned [n]; float32, a tile of the
        vocabulary at a time."""
        logprobs, _ = token_scores(hidden, self.weight, token_ids, 1.0, banned)
        return token_logits(hidden, self.weight, token_ids), logprobs


class ActionHeads(OutputHeads):
    """One Q or two, and slow copies of them where they are wanted.

    In use, the mean of the Q, times ``beta``, is added to the policy's own output layer. V is the same for all tokens
    of a state, so that beta (Q - V) added to logits gives the probabilities that beta Q alone gives.
    Source: ILQL (2206.11871), as in LMRL-Gym (2311.18232). Differs: linear, where theirs have a hidden layer, and their
    mean, where theirs is the smaller of two, so that policy and Q are one plain output layer.
    """

    def __init__(self, layers: list[ActionLayer], beta: float, polyak: float | None = None) -> None:
        """``polyak``: the share of the way that ``follow`` moves the slow copies; None: there are none."""
        super().__init__(layers, {Q: beta}, beside=True)
        self.slow = None if polyak is None else SlowLayers([layer.weight.detach() for layer in layers])
        self.polyak = polyak

    @classmethod
    def of(cls, loaded: LoadedModel, count: int, *, beta: float, polyak: float | None, seed: int) -> ActionHeads:
        """For a loaded policy; ``seed`` decides the first values, which are near 0."""
        own, dice, layers = loaded.base.lm_head, torch.Generator().manual_seed(seed), []
        for _ in range(count):
            layer = ActionLayer(own.in_features, own.out_features, bias=False, device="meta")
            first = torch.randn(own.weight.shape, generator=dice) * (_BEGINNING / own.in_features**0.5)
            layer.weight = nn.Parameter(first.to(own.weight))
            layers.append(layer)
        return cls(layers, beta, polyak)

    def forward(self, hidden: Tensor, token_ids: Tensor, banned: Tensor) -> tuple[Tensor, Tensor]:
        """Q of the tokens, and their log-softmax among the Q of all: float32 [n, J] each, of J layers."""
        values, logprobs = zip(*(layer(hidden, token_ids, banned) for layer in self.layers), strict=True)
        return torch.stack(values, dim=-1), torch.stack(logprobs, dim=-1)

    def targets(self, hidden: Tensor, token_ids: Tensor) -> Tensor | None:
        """Q of the tokens by the slow copies, [n, J], without gradient; None where there are none."""
        if self.slow is None:
            return None
        with torch.no_grad():
            found = [token_logits(hidden, weight, token_ids) for weight in self.slow.buffers()]
            return torch.stack(found, dim=-1)

    def follow(self) -> None:
        """After a step: move the slow copies. The layers must be there in full."""
        if self.slow is not None and self.polyak is not None:
            polyak_update(self.slow, self.layers, self.polyak)

    def named(self, found: list[Tensor]) -> dict[str, Tensor]:
        """Their mean."""
        mean = torch.stack([weight.float() for weight in found]).mean(dim=0)
        return {Q: mean.to(found[0].dtype)}


class SlowLayers(nn.Module):
    """Copies in float32, whatever the policy is in: the steps that they take are far below bfloat16's resolution."""

    def __init__(self, weights: list[Tensor]) -> None:
        super().__init__()
        for number, weight in enumerate(weights):
            self.register_buffer(f"layer{number}", weight.to(torch.float32, copy=True))
