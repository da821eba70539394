"""Output layers beside a policy's own, on one trunk. Engines and checkpoints never see them: they see the one layer
that all fold into (``Mixture``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mmturn.models.head import ScoringHead
from mmturn.models.load import LoadedModel
from mmturn.models.mixture import Mixture


class OutputHeads(nn.Module):
    """Linear layers over the vocabulary, without bias."""

    def __init__(self, layers: Sequence[nn.Linear], weights: Mapping[str, float], *, beside: bool) -> None:
        """``weights``: name of a layer in the mixture -> what it counts. ``beside``: they are added to the policy's own
        layer; otherwise they stand in its place."""
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.weights, self.beside = dict(weights), beside

    def mixture(self, own: Tensor, found: Sequence[Tensor] | None = None) -> Mixture:
        """The layers as they are. ``own``: the policy's own layer; ``found``: the weights of ``layers``, where they
        have been gathered elsewhere."""
        weights = [layer.weight.detach() for layer in self.layers] if found is None else list(found)
        return Mixture(self.named(weights), self.weights, own.detach() if self.beside else None)

    def named(self, found: list[Tensor]) -> dict[str, Tensor]:
        """The layers of the mixture, of the weights of ``layers``."""
        return dict(zip(self.weights, found, strict=True))


class ObjectiveHeads(OutputHeads):
    """An output layer for each objective; each begins as the policy's own, which learns no more.

    Source: MAH-DPO (2510.01167): a shared trunk, a head per objective, logits mixed at inference.
    Differs: the heads are mixed ahead, as weights, which gives the same logits.
    """

    @classmethod
    def of(cls, loaded: LoadedModel, weights: Mapping[str, float]) -> ObjectiveHeads:
        """For a loaded policy, whose own layer is frozen unless it is the embedding table too."""
        own = loaded.base.lm_head
        layers = []
        for _ in weights:
            layer = nn.Linear(own.in_features, own.out_features, bias=False, device="meta")
            layer.weight = nn.Parameter(own.weight.detach().clone())
            ScoringHead.of(layer)
            layers.append(layer)
        if own.weight is not loaded.base.get_input_embeddings().weight:
            own.weight.requires_grad_(False)
        return cls(layers, weights, beside=False)

    def forward(
        self, hidden: Tensor, token_ids: Tensor, which: Tensor, temperature: float, banned: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Log-probs and entropies, float32 [n] each, of hidden states [n, H]; ``which`` [n]: the head of each. Every
        head runs, on whatever number of states."""
        places = [torch.nonzero(which == number).squeeze(1) for number in range(len(self.layers))]
        found = [
            layer(hidden[at], token_ids[at], temperature, banned) for layer, at in zip(self.layers, places, strict=True)
        ]
        order = torch.cat(places).argsort()
        chosen, entropy = (torch.cat(parts)[order] for parts in zip(*found, strict=True))
        return chosen, entropy
