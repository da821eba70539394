"""A renderer for random trajectories."""

from __future__ import annotations

import pytest

from mmturn.registry import FAMILIES
from mmturn.rendering.renderer import Renderer
from mmturn.testing.tiny import tiny_tokenizer


@pytest.fixture(scope="session", params=["qwen2_5_vl", "qwen3_vl"])
def renderer(request: pytest.FixtureRequest) -> Renderer:
    return Renderer(FAMILIES.resolve(request.param), tiny_tokenizer(request.param))
