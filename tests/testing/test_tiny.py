"""Tiny models are what they say: the families' architectures, tokens and templates, quick to make and repeatable."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoProcessor

from mmturn.errors import ConfigError
from mmturn.families import family_of
from mmturn.testing.tiny import SPECIAL_TOKENS, chat_template, tiny_model, tiny_tokenizer


@pytest.mark.parametrize("kind", ["qwen2_5_vl", "qwen3_vl"])
def test_a_tiny_model_is_a_whole_folder_of_its_family(kind: str, tmp_path: Path) -> None:
    state = torch.get_rng_state()
    folder = tiny_model(kind, tmp_path / "deep" / kind)  # type: ignore[arg-type]
    assert torch.equal(torch.get_rng_state(), state)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == [kind]
    assert family_of(folder).name == kind
    processor = AutoProcessor.from_pretrained(folder)
    family = family_of(folder)
    assert processor.image_processor.patch_size == family.patch_size
    assert tuple(processor.image_processor.image_mean) == family.mean
    model = AutoModelForImageTextToText.from_pretrained(folder)
    for name in ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id"):
        token = "<|" + name.removesuffix("_token_id").replace("image", "image_pad").replace("video", "video_pad") + "|>"
        assert getattr(model.config, name) == processor.tokenizer.convert_tokens_to_ids(token)
    weights = load_file(folder / "model.safetensors")
    made = folder.stat().st_mtime_ns
    assert tiny_model(kind, folder) == folder and folder.stat().st_mtime_ns == made  # type: ignore[arg-type]
    again = load_file(tiny_model(kind, tmp_path / "again") / "model.safetensors")  # type: ignore[arg-type]
    other = load_file(tiny_model(kind, tmp_path / "other", seed=1) / "model.safetensors")  # type: ignore[arg-type]
    assert all(torch.equal(value, again[key]) for key, value in weights.items())
    assert any(not torch.equal(value, other[key]) for key, value in weights.items())


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    assert (tiny_model("qwen3_vl", tmp_path / "m") / "config.json").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


@pytest.mark.parametrize("kind", ["qwen2_5_vl", "qwen3_vl"])
def test_tokens_are_special_as_in_the_real_tokenizers(kind: str) -> None:
    tokenizer = tiny_tokenizer(kind)  # type: ignore[arg-type]
    assert set(SPECIAL_TOKENS) <= set(tokenizer.all_special_tokens)
    assert len(tokenizer.encode("<tool_call>")) == 1 and "<tool_call>" not in tokenizer.all_special_tokens
    assert (len(tokenizer.encode("<think>")) == 1) == (kind == "qwen3_vl")
    assert tokenizer.decode(tokenizer.encode("é 12 \n日本")) == "é 12 \n日本"
    assert len(tokenizer.encode("123")) == 3


def test_unknown_kinds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no chat template 'llava_vl' in the trl package"):
        chat_template("llava_vl")
    with pytest.raises(ConfigError):
        tiny_model("llava_vl", tmp_path / "m")  # type: ignore[arg-type]
