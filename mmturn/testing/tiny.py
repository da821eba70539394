"""Tiny random models of the supported families, for tests: real architecture, real special tokens, real chat template.

The chat templates are the families' own, as the installed trl package carries them. The tokenizers are byte-level
BPE of under a thousand tokens with the pre-tokenizer and the added tokens of the real ones.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

from mmturn.errors import ConfigError

TinyKind = Literal["qwen2_5_vl", "qwen3_vl"]

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
"""Added tokens that are special, in the order of the real tokenizers."""

PLAIN_TOKENS = (
    "<tool_call>",
    "</tool_call>",
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "<|fim_pad|>",
    "<|repo_name|>",
    "<|file_sep|>",
)
"""Added tokens that are not special, in both families."""

QWEN3_TOKENS = ("<tool_response>", "</tool_response>", "<think>", "</think>")
"""Added tokens that are not special, in Qwen3-VL alone."""

_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_CORPUS = (
    "system\nYou are a helpful assistant.",
    "user\nWhat is the number next to the red circle? Where is the blue star, left or right of the green box?",
    'assistant\n<think>It is small. Look closer.</think><tool_call>{"name": "crop", "arguments": {"bbox_2d": [1, 2]}}',
    "<tool_response></tool_response><answer>yes</answer> tools: crop, zoom, rotate. Error: no such tool.",
)


@lru_cache(maxsize=2)
def _tokenizer_json(kind: TinyKind) -> str:
    """The backend tokenizer, serialised."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=480, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False
    )
    tokenizer.train_from_iterator(_CORPUS * 4, trainer)
    plain = PLAIN_TOKENS + (QWEN3_TOKENS if kind == "qwen3_vl" else ())
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in SPECIAL_TOKENS])
    tokenizer.add_tokens([AddedToken(name, special=False, normalized=False) for name in plain])
    return tokenizer.to_str()


def chat_template(kind: str) -> str:
    """A family's own chat template, from the files of the installed trl package. Raises ConfigError without it."""
    spec = importlib.util.find_spec("trl")
    folders = [Path(place) for place in (spec.submodule_search_locations or ())] if spec is not None else []
    for folder in folders:
        path = folder / "chat_templates" / f"{kind}.jinja"
        if path.is_file():
            return path.read_text(encoding="utf-8")
    raise ConfigError(f"no chat template {kind!r} in the trl package: install trl>=1.10 to build tiny models")


def tiny_tokenizer(kind: TinyKind) -> PreTrainedTokenizerFast:
    """A small byte-level BPE tokenizer with the family's added tokens and chat template."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_tokenizer_json(kind)),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=list(SPECIAL_TOKENS[1:]),
        clean_up_tokenization_spaces=False,
        model_max_length=4096,
    )
    tokenizer.chat_template = chat_template(kind)
    return tokenizer


def _text_config(tokenizer: PreTrainedTokenizerFast, **more: Any) -> dict[str, Any]:
    # the real models' embeddings are longer than their tokenizers too
    padded = -(-len(tokenizer) // 64) * 64 + 64
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 6, 6]}
    return {
        "vocab_size": padded,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 8192,
        "rope_parameters": {**rope, **more.pop("rope", {})},
        "initializer_range": 0.1,
        "bos_token_id": None,
        "eos_token_id": tokenizer.convert_tokens_to_ids("<|im_end|>"),
        "pad_token_id": tokenizer.convert_tokens_to_ids("<|endoftext|>"),
        **more,
    }


def _vision_config(**more: Any) -> dict[str, Any]:
    return {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "out_hidden_size": 64,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "initializer_range": 0.1,
        **more,
    }


def tiny_config(kind: TinyKind, tokenizer: PreTrainedTokenizerFast) -> Qwen2_5_VLConfig | Qwen3VLConfig:
    """Architecture of the tiny model: 3 text layers of width 64, 2 vision layers; Qwen3-VL with one deepstack level."""
    ident = tokenizer.convert_tokens_to_ids
    tokens = {
        "image_token_id": ident("<|image_pad|>"),
        "video_token_id": ident("<|video_pad|>"),
        "vision_start_token_id": ident("<|vision_start|>"),
        "vision_end_token_id": ident("<|vision_end|>"),
    }
    if kind == "qwen2_5_vl":
        vision = _vision_config(patch_size=14, window_size=56, fullatt_block_indexes=[1])
        text = _text_config(tokenizer)
        return Qwen2_5_VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=False, **tokens)
    if kind == "qwen3_vl":
        vision = _vision_config(patch_size=16, deepstack_visual_indexes=[0], num_position_embeddings=64)
        text = _text_config(tokenizer, head_dim=32, rope={"mrope_interleaved": True})
        return Qwen3VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=True, **tokens)
    raise ConfigError(f"no tiny model of kind {kind!r}; there are: qwen2_5_vl, qwen3_vl")


def _preprocessor(kind: TinyKind) -> dict[str, Any]:
    """``preprocessor_config.json`` as the family's real folders have it."""
    if kind == "qwen2_5_vl":
        return {
            "min_pixels": 3136,
            "max_pixels": 12845056,
            "patch_size": 14,
            "temporal_patch_size": 2,
            "merge_size": 2,
            "image_mean": [0.48145466, 0.4578275, 0.40821073],
            "image_std": [0.26862954, 0.26130258, 0.27577711],
            "image_processor_type": "Qwen2VLImageProcessor",
            "processor_class": "Qwen2_5_VLProcessor",
        }
    return {
        "size": {"longest_edge": 16777216, "shortest_edge": 65536},
        "patch_size": 16,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "processor_class": "Qwen3VLProcessor",
        "image_processor_type": "Qwen2VLImageProcessorFast",
    }


def tiny_model(kind: TinyKind, folder: Path, *, seed: int = 0) -> Path:
    """Write a tiny random model with tokenizer and processor settings to ``folder`` and return it.

    A folder that already holds one is returned as it is, so that one folder can serve a whole test session. The
    folder appears complete or not at all. Random numbers drawn elsewhere are not disturbed.
    """
    folder = Path(folder)
    if (folder / "config.json").is_file():
        return folder
    tokenizer = tiny_tokenizer(kind)
    config = tiny_config(kind, tokenizer)
    build = Qwen2_5_VLForConditionalGeneration if kind == "qwen2_5_vl" else Qwen3VLForConditionalGeneration
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build(config).float().eval()
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    part.chmod(0o755)
    model.save_pretrained(part)
    tokenizer.save_pretrained(part)
    (part / "preprocessor_config.json").write_text(json.dumps(_preprocessor(kind), indent=2) + "\n", encoding="utf-8")
    if folder.exists():
        shutil.copytree(part, folder, dirs_exist_ok=True)
        shutil.rmtree(part)
    else:
        part.rename(folder)
    return folder
