"""The small policy's architecture, processor and folder: Qwen3-VL at about 3.5 M parameters.

8 px patches merged 2x2, so one merged token covers 16x16 px of the shown image.
"""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import torch
from transformers import GenerationConfig, Qwen3VLConfig, Qwen3VLForConditionalGeneration, Qwen3VLProcessor
from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor
from transformers.models.qwen3_vl.video_processing_qwen3_vl import Qwen3VLVideoProcessor

from train.nano.tokenizer import save_tokenizer

PATCH = 8
MERGE = 2
CELL = PATCH * MERGE
OVERVIEW = 128
CROP_PIXELS = 4096
MIN_PIXELS = 1024
MAX_PIXELS = OVERVIEW * OVERVIEW
EMBEDDING_STD = 0.05


def build_config(tokenizer) -> Qwen3VLConfig:
    """Sizes of the small policy; token ids are read from `tokenizer`."""
    ident = tokenizer.convert_tokens_to_ids
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 192,
        "intermediate_size": 512,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 48,
        "max_position_embeddings": 4096,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10000.0,
            "mrope_section": [8, 8, 8],
            "mrope_interleaved": True,
        },
        "tie_word_embeddings": True,
        "pad_token_id": ident("<|endoftext|>"),
        "bos_token_id": None,
        "eos_token_id": ident("<|im_end|>"),
        "initializer_range": 0.03,
    }
    vision = {
        "depth": 4,
        "hidden_size": 128,
        "intermediate_size": 512,
        "num_heads": 4,
        "patch_size": PATCH,
        "spatial_merge_size": MERGE,
        "temporal_patch_size": 2,
        "out_hidden_size": 192,
        "num_position_embeddings": (OVERVIEW // PATCH) ** 2,
        "deepstack_visual_indexes": [1],
        "initializer_range": 0.03,
    }
    return Qwen3VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=ident("<|image_pad|>"),
        video_token_id=ident("<|video_pad|>"),
        vision_start_token_id=ident("<|vision_start|>"),
        vision_end_token_id=ident("<|vision_end|>"),
        tie_word_embeddings=True,
        mmturn_family="nano",
    )


@torch.no_grad()
def shape_embeddings(model: Qwen3VLForConditionalGeneration, tokenizer) -> None:
    """Draw word embeddings afresh; integers start as waves of their value, so that near numbers are near."""
    table = model.model.language_model.embed_tokens.weight
    generator = torch.Generator().manual_seed(1)
    table.copy_(torch.randn(table.shape, generator=generator) * EMBEDDING_STD)
    half = table.shape[1] // 2
    ids = torch.tensor([tokenizer.encode(str(n))[0] for n in range(1000)])
    value = torch.arange(1000.0)[:, None]
    period = torch.logspace(math.log10(6.0), math.log10(2000.0), half // 2)[None]
    waves = torch.cat([torch.sin(2 * math.pi * value / period), torch.cos(2 * math.pi * value / period)], 1)
    table[ids, :half] = waves * EMBEDDING_STD * math.sqrt(2)
    table[ids, half:] *= 0.5


def build_model(tokenizer, seed: int = 0) -> Qwen3VLForConditionalGeneration:
    """A random small policy, float32 on the CPU, the same for the same seed."""
    torch.manual_seed(seed)
    model = Qwen3VLForConditionalGeneration(build_config(tokenizer))
    shape_embeddings(model, tokenizer)
    ident = tokenizer.convert_tokens_to_ids
    model.generation_config = GenerationConfig(
        eos_token_id=ident("<|im_end|>"), pad_token_id=ident("<|endoftext|>"), max_new_tokens=64, do_sample=False
    )
    return model.float()


def build_processor(tokenizer) -> Qwen3VLProcessor:
    """Image, video and text processing with the family's size rule at the small policy's scale."""
    sizes = {
        "patch_size": PATCH,
        "merge_size": MERGE,
        "temporal_patch_size": 2,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
        "size": {"shortest_edge": MIN_PIXELS, "longest_edge": MAX_PIXELS},
    }
    image = Qwen2VLImageProcessor(**sizes)
    video = Qwen3VLVideoProcessor(**{**sizes, "size": {"shortest_edge": MIN_PIXELS, "longest_edge": 8 * MAX_PIXELS}})
    return Qwen3VLProcessor(image, tokenizer, video, chat_template=tokenizer.chat_template)


def save_checkpoint(model, processor, out: Path, notes: dict | None = None) -> None:
    """Write the folder beside `out` and rename it, so that a reader never sees half of it."""
    out = Path(out)
    fresh = out.with_name(out.name + ".part")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    model.save_pretrained(fresh, safe_serialization=True)
    processor.save_pretrained(fresh)
    # the family's size rule as other readers of Qwen checkpoints look for it
    extra = {
        "image_processor_type": "Qwen2VLImageProcessorFast",
        "patch_size": PATCH,
        "merge_size": MERGE,
        "temporal_patch_size": 2,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
        "min_pixels": MIN_PIXELS,
        "max_pixels": MAX_PIXELS,
        "size": {"shortest_edge": MIN_PIXELS, "longest_edge": MAX_PIXELS},
    }
    (fresh / "preprocessor_config.json").write_text(json.dumps(extra, indent=2) + "\n")
    if notes:
        (fresh / "training.json").write_text(json.dumps(notes, indent=2) + "\n")
    old = out.with_name(out.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        out.rename(old)
    fresh.rename(out)
    shutil.rmtree(old, ignore_errors=True)


def create(out: Path, seed: int = 0):
    """Tokenizer, processor and random weights in one folder; returns (model, processor)."""
    tokenizer = save_tokenizer(Path(out))
    model, processor = build_model(tokenizer, seed), build_processor(tokenizer)
    save_checkpoint(model, processor, Path(out))
    return model, processor


def load(folder: Path):
    """(model, processor) of a saved folder, float32."""
    model = Qwen3VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    return model, Qwen3VLProcessor.from_pretrained(folder)
