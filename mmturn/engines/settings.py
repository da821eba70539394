"""Settings of the engines."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class HFConfig:
    """Memory and batching of the transformers engine."""

    max_batch: int = 128
    """Rows that decode together."""
    prefill_tokens: int = 16384
    """Padded tokens per prefill call."""
    cache_bytes: int = 1 << 30
    """Memory for keys and values kept across turns."""
    feature_bytes: int = 1 << 28
    """Memory for encoded images."""
