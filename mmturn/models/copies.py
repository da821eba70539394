"""A second policy that stays behind the one that is trained."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch

from mmturn.models.load import LoadedModel


def copy_of(loaded: LoadedModel) -> LoadedModel:
    """The same policy with trained weights of its own, which nothing trains; frozen weights are shared.

    Make it before DeepSpeed has taken the policy over: what it hangs on a model cannot be copied.
    """
    shared = {id(weight): weight for weight in loaded.model.parameters() if not weight.requires_grad}
    model = copy.deepcopy(loaded.model, shared)
    return replace(loaded, model=model.requires_grad_(False).eval())


@torch.no_grad()
def take_weights(copied: LoadedModel, loaded: LoadedModel) -> None:
    """Bring a copy to the present weights of the policy that it was made of, whose weights must be whole."""
    for mine, theirs in zip(copied.model.parameters(), loaded.model.parameters(), strict=True):
        if mine is not theirs:
            mine.copy_(theirs)
