"""Qwen3-VL: thousandths of the image's sides, patches of 16 px, mean and standard deviation one half."""

from __future__ import annotations

from mmturn.families.spec import Family, VideoTokens
from mmturn.types import PixelBudget

FAMILY = Family(
    name="qwen3_vl",
    model_type="qwen3_vl",
    patch_size=16,
    merge_size=2,
    temporal_patch_size=2,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    frame="permille",
    default_budget=PixelBudget(64 * 32**2, 16384 * 32**2),
    banned_tokens=("<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"),
    video=VideoTokens(stamped=True, budget="clip"),
)
"""Source: QwenLM/Qwen3-VL, README (coordinates 0 to 1000, factor 32); released preprocessor_config.json."""
