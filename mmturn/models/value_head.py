"""A value head: what the policy may expect to earn from here, read off its hidden states."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmturn.models.load import LoadedModel


class ValueHead(nn.Module):
    """A linear map to one number, computed in float32. It starts at zero, so that the first values are 0.

    With a bfloat16 policy DeepSpeed holds its weights in bfloat16 too, beside float32 ones in the optimizer.
    """

    def __init__(self, hidden_size: int, *, detach: bool = False) -> None:
        """``detach``: no gradient goes on to the hidden states; it may be changed between steps."""
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(hidden_size))
        self.bias = nn.Parameter(torch.zeros(1))
        self.detach = detach

    @classmethod
    def of(cls, loaded: LoadedModel) -> ValueHead:
        """For the hidden states of a loaded model, where it is."""
        return cls(loaded.base.config.text_config.hidden_size).to(loaded.device)

    def forward(self, hidden: Tensor) -> Tensor:
        """float32 [n] of hidden states [n, H] in any precision."""
        if self.detach:
            hidden = hidden.detach()
        return hidden.float() @ self.weight.float() + self.bias.float()
