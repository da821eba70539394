"""Tiny models, written once per test session."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmturn.testing.tiny import tiny_model


@pytest.fixture(scope="session")
def qwen3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Qwen3-VL: tied embeddings, deepstack."""
    return tiny_model("qwen3_vl", tmp_path_factory.mktemp("models") / "qwen3_vl")


@pytest.fixture(scope="session")
def qwen2_5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Qwen2.5-VL."""
    return tiny_model("qwen2_5_vl", tmp_path_factory.mktemp("models") / "qwen2_5_vl")
