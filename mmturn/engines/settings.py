"""Settings of the engines."""

from __future__ import annotations

from dataclasses import dataclass

from mmturn.errors import ConfigError


@dataclass(frozen=True)
class HFConfig:
    """Memory and batching of the transformers engine."""

    max_batch: int = 128
    """Slots: rows that decode together."""
    prefill_tokens: int = 16384
    """Padded tokens per prefill call."""
    cache_bytes: int = 1 << 32
    """Memory for keys and values: at most half of it for the rows that decode (one always can), the rest for
    contexts kept across turns. What does not fit waits, or is run again."""
    feature_bytes: int = 1 << 28
    """Memory for encoded images."""

    def __post_init__(self) -> None:
        for name, least in (("max_batch", 1), ("prefill_tokens", 1), ("cache_bytes", 0), ("feature_bytes", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"engine.{name} must be at least {least}, got {getattr(self, name)}")
