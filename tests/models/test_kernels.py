"""Lean modules give what transformers' own give, forwards and backwards."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig

from mmturn.families.forward import normalise, patchify
from mmturn.models import kernels
from mmturn.models.kernels import PackedLinears, PatchProjection, quicken
from mmturn.models.load import ARCHITECTURES, LoadedModel, load_model
from mmturn.testing.conversations import NoisePixels, noise_view

SHAPES = [(4, 3), (1, 2), (1, 2), (4, 3), (9, 2)]


def plain_model(folder: Path, attention: str = "sdpa") -> nn.Module:
    """The model as transformers loads it."""
    architecture = ARCHITECTURES[AutoConfig.from_pretrained(folder).model_type]
    model: nn.Module = architecture.from_pretrained(folder, attn_implementation=attention, dtype=torch.float32).eval()
    return model


def outcome(model: nn.Module, loaded: LoadedModel) -> dict[str, Tensor]:
    """Features of some images, logits of a text with them, and all gradients."""
    family = loaded.family
    views = [noise_view(family, columns, rows, seed) for seed, (columns, rows) in enumerate(SHAPES)]
    patches = torch.cat([patchify(NoisePixels().pixels(view), family) for view in views])
    ids = [5, 6]
    for view in views:
        ids += [loaded.image_token_id] * family.image_tokens(view.size) + [7, 8]
    kinds = torch.tensor([ids]) == loaded.image_token_id
    logits = model(
        input_ids=torch.tensor([ids]), pixel_values=normalise(patches, family), mm_token_type_ids=kinds.int(),
        image_grid_thw=torch.tensor([family.grid(view.size) for view in views]), use_cache=False,
    ).logits  # fmt: skip
    model.model.rope_deltas = None
    (logits * torch.randn(logits.shape, generator=torch.Generator().manual_seed(0))).sum().backward()
    grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {"logits": logits.detach(), **grads}


def test_results_and_gradients_equal_those_of_transformers(loaded: LoadedModel) -> None:
    lean = plain_model(loaded.folder)
    quicken(lean)
    found, expected = outcome(lean, loaded), outcome(plain_model(loaded.folder), loaded)
    assert found.keys() == expected.keys() and len(found) > 30
    for name, value in expected.items():
        error = (found[name] - value).norm() / value.norm().clamp(min=1e-12)
        assert error < 2e-5, (name, float(error))


def test_every_kind_of_module_is_replaced_and_keeps_its_names(loaded: LoadedModel) -> None:
    lean, plain = load_model(loaded.folder).base, plain_model(loaded.folder)
    names = {type(module).__name__ for module in lean.modules() if type(module).__name__.startswith("Lean")}
    assert len(names) == 3 and any(isinstance(module, PatchProjection) for module in lean.modules())
    assert list(lean.state_dict()) == list(plain.state_dict())


def test_other_precisions_and_attentions_go_their_own_way(loaded: LoadedModel) -> None:
    lean, plain = plain_model(loaded.folder, "eager"), plain_model(loaded.folder, "eager")
    quicken(lean)
    assert torch.allclose(outcome(lean, loaded)["logits"], outcome(plain, loaded)["logits"], atol=1e-4)
    lean, plain = (plain_model(loaded.folder).bfloat16() for _ in range(2))
    quicken(lean)
    torch.testing.assert_close(outcome(lean, loaded)["logits"], outcome(plain, loaded)["logits"], rtol=0, atol=0.05)


@pytest.mark.parametrize("kernel", [(2, 4, 4), (2, 3, 3)])
def test_a_patch_projection_is_the_convolution(kernel: tuple[int, int, int]) -> None:
    layer = nn.Conv3d(3, 8, kernel, stride=kernel)
    inputs = torch.randn(5, 3, 2, 4, 4)
    expected = layer(inputs)
    layer.__class__ = PatchProjection
    torch.testing.assert_close(layer(inputs), expected)


@pytest.mark.parametrize("rows", [1, 4, 40])
def test_packed_layers_are_the_layers(rows: int) -> None:
    linear, biased, plain = PackedLinears(), nn.Linear(24, 7), nn.Linear(24, 40, bias=False)
    x = torch.randn(rows, 1, 24)
    with torch.no_grad():
        for layer in (biased, plain):
            torch.testing.assert_close(linear(layer, x), layer(x))
            layer.weight.mul_(2)
            # a copy: after the weights have changed it has to be forgotten
            assert torch.allclose(linear(layer, x), layer(x)) == (not kernels._CAN_PACK)
            linear.clear()
            torch.testing.assert_close(linear(layer, x), layer(x))
        half = nn.Linear(24, 7).bfloat16()
        assert torch.equal(linear(half, x.bfloat16()), half(x.bfloat16()))
