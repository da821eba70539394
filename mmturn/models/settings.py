"""Settings of the policy model. Torch-free."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from mmturn.errors import ConfigError


@dataclass(frozen=True, slots=True)
class LoraSettings:
    """Low-rank adapters on the language model (PEFT); the vision tower gets none."""

    rank: int = 16
    """Rank of the adapters."""
    alpha: float = 32.0
    """Scale: an adapter's output is multiplied by alpha / rank."""
    dropout: float = 0.0
    """Dropout before the adapters. Above 0 the trainer's log-probs differ from the sampler's."""
    layers: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    """Names of the linear layers that get adapters."""

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ConfigError(f"lora.rank must be at least 1, got {self.rank}")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"lora.dropout must be from 0 to below 1, got {self.dropout}")
        if not self.layers:
            raise ConfigError("lora.layers must name at least one layer")


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Which model, and how it is held."""

    path: str = "checkpoints/nano"
    """Folder with config.json, safetensors and tokenizer, or the name of a model on the Hub."""
    family: str | None = None
    """Name of the model family; None reads it from config.json."""
    download: bool = False
    """Fetch a model named on the Hub; otherwise only a folder or an earlier download is used."""
    dtype: Literal["float32", "bfloat16", "float16", "auto"] = "float32"
    """Precision of the weights; auto takes that of the checkpoint."""
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    """Implementation of attention."""
    device: str = "auto"
    """cpu, cuda, cuda:1, ...; auto takes a GPU where there is one."""
    freeze_vision: bool = False
    """Train the language model alone; images are then encoded without gradients."""
    lora: LoraSettings | None = None
    """Train low-rank adapters instead of all weights."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"auto|cpu|cuda(:[0-9]+)?", self.device):
            raise ConfigError(f"model.device must be auto, cpu, cuda or cuda:N, got {self.device!r}")
