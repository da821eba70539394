"""The shipped small policy: Qwen3-VL's architecture with patches of 8 px and pixels of the shown image."""

from __future__ import annotations

from mmturn.families.spec import Family
from mmturn.types import PixelBudget

FAMILY = Family(
    name="nano",
    model_type="qwen3_vl",
    patch_size=8,
    merge_size=2,
    temporal_patch_size=2,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    frame="view_px",
    default_budget=PixelBudget(4 * 16**2, 64 * 16**2),
    instructions="brief",
)
"""Its token names and message layout are Qwen's; its template writes no system message of its own."""
