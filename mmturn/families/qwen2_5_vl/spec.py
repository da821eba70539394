"""Qwen2.5-VL: absolute pixels of the shown image, patches of 14 px, CLIP's mean and standard deviation."""

from __future__ import annotations

from mmturn.families.spec import ChatTemplate, Family, VideoTokens
from mmturn.types import PixelBudget

FAMILY = Family(
    name="qwen2_5_vl",
    model_type="qwen2_5_vl",
    patch_size=14,
    merge_size=2,
    temporal_patch_size=2,
    mean=(0.48145466, 0.4578275, 0.40821073),
    std=(0.26862954, 0.26130258, 0.27577711),
    frame="view_px",
    default_budget=PixelBudget(4 * 28**2, 16384 * 28**2),
    template=ChatTemplate(default_system="You are a helpful assistant."),
    banned_tokens=("<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"),
    video=VideoTokens(ticks_per_s=2, budget="frame"),
)
"""Source: Qwen2.5-VL technical report (arXiv 2502.13923), section 2; released preprocessor_config.json."""
