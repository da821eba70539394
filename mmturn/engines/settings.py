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
    """Memory for encoded images, where the model is."""
    feature_spill_bytes: int = 1 << 30
    """Host memory for encoded images that do not fit there; 0: they are encoded again. Where the model is in host
    memory itself, the two add up."""

    def __post_init__(self) -> None:
        for name in ("max_batch", "prefill_tokens", "cache_bytes", "feature_bytes", "feature_spill_bytes"):
            least = int(name in ("max_batch", "prefill_tokens"))
            if getattr(self, name) < least:
                raise ConfigError(f"engine.{name} must be at least {least}, got {getattr(self, name)}")
