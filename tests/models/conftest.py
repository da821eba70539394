"""Tiny models of both architectures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mmturn.families.forward import patches
from mmturn.models.load import LoadedModel, load_model
from mmturn.rendering.renderer import Renderer
from mmturn.testing.conversations import NoisePixels
from mmturn.testing.tiny import tiny_model
from mmturn.types import Row

KINDS = ("qwen2_5_vl", "qwen3_vl")


@pytest.fixture(scope="session")
def tiny_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("tiny")
    return {kind: tiny_model(kind, root / kind) for kind in KINDS}


@pytest.fixture(scope="session", params=KINDS)
def loaded(request: pytest.FixtureRequest, tiny_folders: dict[str, Path]) -> LoadedModel:
    """Shared: a test that changes a model loads its own."""
    return load_model(tiny_folders[request.param])


@pytest.fixture(scope="session")
def renderer(loaded: LoadedModel) -> Renderer:
    return Renderer(loaded.family, loaded.tokenizer)


@pytest.fixture
def noise() -> NoisePixels:
    return NoisePixels()


@pytest.fixture(scope="session")
def reference() -> Callable[[LoadedModel, Row], Tensor]:
    """Logits [T, V] of one row by the model's own whole path: pixels in, its own positions, no cache, no padding."""

    @torch.no_grad()
    def logits(loaded: LoadedModel, row: Row) -> Tensor:
        family, base, source = loaded.family, loaded.base, NoisePixels()
        ids = torch.tensor([row.token_ids])
        images = {}
        if row.views:
            images = {
                "pixel_values": torch.cat([patches(source.pixels(view), family) for view in row.views]),
                "image_grid_thw": torch.tensor([family.grid(view.size) for view in row.views]),
            }
        base.model.rope_deltas = None
        kinds = (ids == loaded.image_token_id).int()
        out = base(input_ids=ids, mm_token_type_ids=kinds, use_cache=False, **images)
        base.model.rope_deltas = None
        return out.logits[0]

    return logits
