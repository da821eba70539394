"""Parameters and FLOPs by config.json alone, against real models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen3VLForConditionalGeneration

from mmturn.errors import CheckpointError
from mmturn.families.shape import Shape, causal_pairs, shape_of
from mmturn.testing.tiny import tiny_model

CLASSES: dict[str, Any] = {
    "qwen2_5_vl": Qwen2_5_VLForConditionalGeneration,
    "qwen3_vl": Qwen3VLForConditionalGeneration,
}


@pytest.fixture(scope="module", params=[*CLASSES, "nano"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, repo: Path) -> Path:
    if request.param == "nano":
        return repo / "checkpoints" / "nano"
    return tiny_model(request.param, tmp_path_factory.mktemp("shape") / request.param)


def opened(folder: Path) -> tuple[Any, Shape]:
    """The plain transformers model, its attention as matrix products, which are what the counter sees."""
    shape = shape_of(folder)
    return CLASSES[shape.model_type].from_pretrained(folder, attn_implementation="eager").eval(), shape


def test_parameters_are_those_of_the_model(folder: Path) -> None:
    model, shape = opened(folder)
    table, head = model.get_input_embeddings().weight, model.lm_head.weight
    language = sum(p.numel() for p in model.model.language_model.parameters()) - table.numel()
    assert shape.parameters() == {
        "language": language,
        "embeddings": table.numel(),
        "head": 0 if head is table else head.numel(),
        "vision": sum(p.numel() for p in model.model.visual.parameters()),
    }
    assert sum(shape.parameters().values()) == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("grids", [[(4, 4)], [(6, 10), (8, 4)]])
def test_flops_of_the_tower(folder: Path, grids: list[tuple[int, int]]) -> None:
    model, shape = opened(folder)
    pixels = torch.randn(sum(rows * columns for rows, columns in grids), shape.vision.pixels)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.model.visual(pixels, torch.tensor([(1, *grid) for grid in grids]))
    assert shape.vision.flops(grids) == pytest.approx(counter.get_total_flops(), rel=0.03)


@pytest.mark.parametrize("tokens", [20, 150])
def test_flops_of_the_language_model_and_the_head(folder: Path, tokens: int) -> None:
    model, shape = opened(folder)
    ids = torch.zeros(2, tokens, dtype=torch.long)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        hidden = model.model.language_model(input_ids=ids, use_cache=False).last_hidden_state
    # the counter takes masked products as done
    expected = shape.language_flops(2 * tokens, 2 * tokens**2)
    assert expected == pytest.approx(counter.get_total_flops(), rel=0.03)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.lm_head(hidden[:, :7])
    assert shape.head_flops(14) == counter.get_total_flops()


def test_causal_pairs() -> None:
    assert causal_pairs(3) == 1 + 2 + 3
    assert causal_pairs(2, 10) == 11 + 12


def test_keys_and_values(repo: Path) -> None:
    shape = shape_of(repo / "checkpoints" / "nano")
    assert shape.kv_bytes_per_token() == 4 * 2 * 2 * 48 * 4
    assert shape.kv_bytes_per_token(2) == 4 * 2 * 2 * 48 * 2


def test_adapters(folder: Path) -> None:
    from mmturn.models.load import load_model
    from mmturn.models.settings import LoraSettings

    settings = LoraSettings(rank=3)
    adapted = load_model(folder, lora=settings).model
    trainable = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    assert shape_of(folder).adapter_parameters(settings.rank, settings.layers) == trainable


def test_a_flat_config_of_the_first_released_models(tmp_path: Path, repo: Path) -> None:
    vision = {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 2048}
    config = {
        "model_type": "qwen2_5_vl", "hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36,
        "num_attention_heads": 16, "num_key_value_heads": 2, "vocab_size": 151936, "tie_word_embeddings": True,
        "vision_config": vision,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert sum(shape_of(tmp_path).parameters().values()) == 3_754_622_976  # Qwen2.5-VL-3B


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"model_type": "llama"}, "'llama'"),
        ({"vision_config": None}, "vision_config must be a mapping"),
        ({"text_config": {}}, "text_config.hidden_size must be a whole number"),
    ],
)
def test_what_cannot_be_is_named(tmp_path: Path, repo: Path, change: dict[str, Any], part: str) -> None:
    config = json.loads((repo / "checkpoints" / "nano" / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps({**config, **change}), encoding="utf-8")
    with pytest.raises(CheckpointError, match=part):
        shape_of(tmp_path)


def test_a_folder_without_a_config(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not found"):
        shape_of(tmp_path)
