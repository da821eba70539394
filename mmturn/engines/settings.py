"""Settings of the engines."""

from __future__ import annotations

from dataclasses import dataclass

from mmturn.errors import ConfigError


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

    def __post_init__(self) -> None:
        for name, least in (("max_batch", 1), ("prefill_tokens", 1), ("cache_bytes", 0), ("feature_bytes", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"engine.{name} must be at least {least}, got {getattr(self, name)}")
