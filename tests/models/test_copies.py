"""A second policy that stays behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mmturn.models.copies import copy_of, take_weights
from mmturn.models.load import load_model
from mmturn.models.settings import LoraSettings


@pytest.mark.parametrize("how", [{}, {"freeze_vision": True}, {"lora": LoraSettings(rank=2)}])
def test_a_copy_has_trained_weights_of_its_own_and_follows_when_told(
    tiny_folders: dict[str, Path], how: dict[str, Any]
) -> None:
    loaded = load_model(tiny_folders["qwen3_vl"], **how)
    trained = {name for name, weight in loaded.model.named_parameters() if weight.requires_grad}
    copied = copy_of(loaded)
    assert copied.model is not loaded.model and copied.base is not loaded.base
    assert {n for n, w in loaded.model.named_parameters() if w.requires_grad} == trained, "the policy still learns"
    weights = dict(copied.model.named_parameters())
    own = {name for name, weight in loaded.model.named_parameters() if weights[name] is not weight}
    assert own == trained and not any(weight.requires_grad for weight in weights.values())
    before = {name: weight.clone() for name, weight in weights.items()}
    ids = torch.tensor([[11, 12, 13, 14]])

    def logits(model: Any) -> torch.Tensor:
        with torch.no_grad():
            return model(input_ids=ids, use_cache=False).logits

    first = logits(loaded.model)
    assert torch.equal(first, logits(copied.model))
    with torch.no_grad():
        for name, weight in loaded.model.named_parameters():
            if name in trained:
                weight.add_(0.05 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)))
    assert all(torch.equal(weights[name], weight) for name, weight in before.items())
    assert torch.equal(first, logits(copied.model)) and not torch.allclose(first, logits(loaded.model))
    take_weights(copied, loaded)
    assert torch.equal(logits(loaded.model), logits(copied.model))
