"""Renderers of the three families with their own tokenizers and templates."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmturn.families import family_of
from mmturn.rendering.renderer import Renderer
from mmturn.rendering.tokenizer import load_tokenizer
from mmturn.testing.tiny import tiny_model


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory, repo: Path) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("tiny")
    found = {kind: tiny_model(kind, root / kind) for kind in ("qwen2_5_vl", "qwen3_vl")}
    nano = [repo / "checkpoints" / name for name in ("nano", "nano-base")]
    return found | {"nano": next(folder for folder in nano if (folder / "tokenizer.json").is_file())}


@pytest.fixture(scope="session", params=["qwen2_5_vl", "qwen3_vl", "nano"])
def renderer(request: pytest.FixtureRequest, folders: dict[str, Path]) -> Renderer:
    folder = folders[request.param]
    return Renderer(family_of(folder, request.param), load_tokenizer(folder))
