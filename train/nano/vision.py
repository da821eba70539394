"""The vision tower on a batch of equal pictures at once; the same numbers as the model's own loop over pictures."""

from __future__ import annotations

import torch
from torch.nn import functional as F
from transformers.models.qwen3_vl.modeling_qwen3_vl import rotate_half
from transformers.vision_utils import get_vision_interpolation_indices_and_weights, get_vision_position_ids

from train.nano.model import MERGE, PATCH


def patches(pictures: torch.Tensor) -> torch.Tensor:
    """uint8 [B, H, W, 3] -> float [B, N, 384] in the processor's order: merge groups of 2x2 patches."""
    batch, height, width, _ = pictures.shape
    pixels = pictures.float().div_(127.5).sub_(1.0).permute(0, 3, 1, 2)
    rows, columns = height // (PATCH * MERGE), width // (PATCH * MERGE)
    pixels = pixels.reshape(batch, 3, rows, MERGE, PATCH, columns, MERGE, PATCH)
    pixels = pixels.permute(0, 2, 5, 3, 6, 1, 4, 7)
    pixels = pixels.unsqueeze(6).expand(-1, -1, -1, -1, -1, -1, 2, -1, -1)
    return pixels.reshape(batch, rows * columns * MERGE**2, -1)


def _attend(attention, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    batch, length, _ = x.shape
    query, key, value = attention.qkv(x).reshape(batch, length, 3, attention.num_heads, -1).unbind(2)
    cos, sin = cos[:, None].to(query.dtype), sin[:, None].to(query.dtype)
    query, key = (part * cos + rotate_half(part) * sin for part in (query, key))
    # written out: on the CPU this is faster than the fused kernel at 64 to 256 patches
    scores = query.transpose(1, 2) @ key.permute(0, 2, 3, 1) * attention.scaling
    out = scores.softmax(-1, dtype=scores.dtype) @ value.transpose(1, 2)
    return attention.proj(out.transpose(1, 2).reshape(batch, length, -1))


def encode_fast(visual, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """`encode` with bfloat16 products and float32 results: about twice as fast where the CPU has them."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        pooled, deep = encode(visual, pictures)
    return pooled.float(), deep.float()


def encode(visual, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """uint8 [B, H, W, 3] of one size -> merged tokens [B, T, D] and deep-stack tokens [B, T, D]."""
    batch, height, width, _ = pictures.shape
    grid = torch.tensor([[1, height // PATCH, width // PATCH]])
    indices, weights = get_vision_interpolation_indices_and_weights(
        grid,
        num_grid_per_side=visual.num_grid_per_side,
        mode=visual.interpolation_mode,
        align_corners=visual.interpolation_align_corners,
        spatial_merge_size=MERGE,
        kwargs={},
    )
    flat = patches(pictures)
    x = F.linear(flat, visual.patch_embed.proj.weight.flatten(1), visual.patch_embed.proj.bias)
    x = x + (visual.pos_embed(indices) * weights[:, :, None]).sum(1)
    cos, sin = visual.rotary_pos_emb(x, get_vision_position_ids(grid, MERGE, kwargs={}))
    x = x.to(torch.get_autocast_dtype("cpu")) if torch.is_autocast_enabled("cpu") else x
    deep = None
    for number, block in enumerate(visual.blocks):
        x = x + _attend(block.attn, block.norm1(x), cos, sin)
        x = x + block.mlp(block.norm2(x))
        if number in visual.deepstack_visual_indexes:
            deep = visual.deepstack_merger_list[0](x.reshape(-1, x.shape[-1])).view(
                batch, -1, visual.config.out_hidden_size
            )
    pooled = visual.merger(x.reshape(-1, x.shape[-1])).view(batch, -1, visual.config.out_hidden_size)
    return pooled, deep
