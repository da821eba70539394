"""Heads of a critic over utterances: what a turn may expect to earn, before and after it is said."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn


class TwinHead(nn.Module):
    """Two maps from hidden states to a number, each H -> H -> 1 with a ReLU between, in float32. They differ from the
    start, and say 0 until they learn."""

    def __init__(self, hidden_size: int, dice: torch.Generator) -> None:
        """``dice``: draws the inner weights, uniformly, as wide as those of ``nn.Linear``."""
        super().__init__()
        bound = 1 / math.sqrt(hidden_size)
        inner = torch.empty(2, hidden_size, hidden_size).uniform_(-bound, bound, generator=dice)
        self.inner = nn.Parameter(inner)
        self.inner_bias = nn.Parameter(torch.zeros(2, 1, hidden_size))
        self.outer = nn.Parameter(torch.zeros(2, hidden_size, 1))
        self.outer_bias = nn.Parameter(torch.zeros(2, 1, 1))

    def forward(self, hidden: Tensor) -> Tensor:
        """float32 [n, 2] of hidden states [n, H]."""
        inner = torch.relu(hidden.float() @ self.inner + self.inner_bias)
        return (inner @ self.outer + self.outer_bias)[..., 0].T


class UtteranceHeads(nn.Module):
    """Two Q, of a turn's state and what was said in it, and two V, of the state alone.

    Source: ArCHer (2402.19446), double critics over utterances. Differs: its critic is a language model of its own.
    """

    def __init__(self, hidden_size: int, seed: int) -> None:
        super().__init__()
        dice = torch.Generator().manual_seed(seed)
        self.q, self.v = TwinHead(hidden_size, dice), TwinHead(hidden_size, dice)

    def slow_copy(self) -> UtteranceHeads:
        """A copy that no gradient reaches."""
        return copy.deepcopy(self).requires_grad_(False)
