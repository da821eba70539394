"""Loading a policy: safetensors alone, offline, no code of the checkpoint's own, every key accounted for."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3VLForConditionalGeneration,
)
from transformers.utils import logging as hf_logging

from mmturn.errors import CheckpointError, ConfigError
from mmturn.families import family_of
from mmturn.families.shape import read_config
from mmturn.families.spec import Family
from mmturn.models import tree_attention
from mmturn.models.files import check_weight_files, model_folder
from mmturn.models.head import ScoringHead
from mmturn.models.kernels import quicken
from mmturn.models.settings import LoraSettings, ModelConfig
from mmturn.rendering.tokenizer import load_tokenizer

ARCHITECTURES: dict[str, type[PreTrainedModel]] = {
    "qwen2_5_vl": Qwen2_5_VLForConditionalGeneration,
    "qwen3_vl": Qwen3VLForConditionalGeneration,
}
"""``model_type`` of config.json -> transformers class."""

_NAMED = 3
_LONG_BYTES = 1 << 30


@dataclass(frozen=True)
class LoadedModel:
    """A policy with what belongs to it."""

    model: nn.Module
    """The transformers model, or PEFT's wrapper around it."""
    family: Family
    tokenizer: PreTrainedTokenizerFast
    folder: Path
    inherited_generation: dict[str, Any]
    """What generation_config.json asks for. It is ignored: sampling is what the request says. For printing."""

    @property
    def base(self) -> Any:
        """The transformers model itself; adapters act within it."""
        return base_model(self.model)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    @property
    def pad_id(self) -> int:
        """Id that fills rows up; it is never seen by a real token."""
        for ident in (self.tokenizer.pad_token_id, self.base.config.text_config.pad_token_id):
            if isinstance(ident, int):
                return ident
        return 0

    @property
    def image_token_id(self) -> int:
        """The placeholder."""
        return int(self.base.config.image_token_id)

    @property
    def kv_shape(self) -> list[tuple[int, int, torch.dtype]]:
        """Per text layer: (key-value heads, head size, dtype) of its cache."""
        text = self.base.config.text_config
        heads = text.num_key_value_heads or text.num_attention_heads
        size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        dtype = self.base.model.language_model.embed_tokens.weight.dtype
        return [(heads, size, dtype)] * text.num_hidden_layers


def base_model(model: nn.Module) -> Any:
    """The transformers model within PEFT's wrapper, or the model itself."""
    unwrap = getattr(model, "get_base_model", None)
    return model if unwrap is None else unwrap()


def load_model(
    path: Path | str,
    *,
    dtype: str = "float32",
    attention: str = "sdpa",
    device: str | torch.device = "cpu",
    freeze_vision: bool = False,
    activation_checkpointing: bool = False,
    lora: LoraSettings | None = None,
    family: str | None = None,
    download: bool = False,
) -> LoadedModel:
    """Load a policy from a folder as ``save_pretrained`` writes it, or from a model's name on the Hub.

    Only safetensors are read; nothing is fetched unless ``download``; code in the folder is never run. The model
    comes in evaluation mode. See ``ModelConfig`` for the arguments.
    Raises CheckpointError naming the file and the reason: another architecture, missing, unexpected or misshapen
    weights, a damaged file, pickled weights alone. Raises ConfigError for settings that cannot be.
    """
    folder = model_folder(path, download=download)
    config = _config(folder)
    spec = family_of(folder, family)
    tokenizer = load_tokenizer(folder)
    check_weight_files(folder)
    model = _read_weights(folder, ARCHITECTURES[config["model_type"]], _dtype(dtype), attention)
    if len(tokenizer) > model.get_input_embeddings().weight.shape[0]:
        rows = model.get_input_embeddings().weight.shape[0]
        raise CheckpointError(f"{folder}: the tokenizer has {len(tokenizer)} tokens, the model embeds only {rows}")
    spec = _with_placeholders(spec, tokenizer, model.config, folder)
    model.generation_config = GenerationConfig()
    ScoringHead.of(model.lm_head)
    quicken(model)
    if attention == "sdpa":
        model.set_attn_implementation({"text_config": tree_attention.NAME})
    if freeze_vision:
        model.model.visual.requires_grad_(False)
    if activation_checkpointing:
        _checkpoint_activations(model)
    policy: nn.Module = model if lora is None else _with_adapters(model, lora)
    policy.to(device)
    return LoadedModel(policy.eval(), spec, tokenizer, folder, _inherited_generation(folder))


def _with_placeholders(spec: Family, tokenizer: PreTrainedTokenizerFast, config: Any, folder: Path) -> Family:
    """The family with the id of its video placeholder, or without video tokens where the tokenizer has none. Raises
    CheckpointError where the model and its tokenizer disagree on a placeholder."""
    known = tokenizer.get_vocab()
    if spec.video is not None and spec.video.token not in known:
        spec = replace(spec, video=None)
    tokens = {"image_token_id": spec.image_token}
    if spec.video is not None:
        tokens["video_token_id"] = spec.video.token
        spec = replace(spec, video=replace(spec.video, token_id=int(config.video_token_id)))
    for key, token in tokens.items():
        if known.get(token) != getattr(config, key):
            raise CheckpointError(
                f"{folder}: config.json's {key} is {getattr(config, key)}, the tokenizer has {token} at "
                f"{known.get(token)}"
            )
    return spec


def load_configured(config: ModelConfig, *, activation_checkpointing: bool = False) -> LoadedModel:
    """``load_model`` by settings; device auto takes a GPU where there is one."""
    device = config.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return load_model(
        config.path,
        dtype=config.dtype,
        attention=config.attention,
        device=device,
        freeze_vision=config.freeze_vision,
        activation_checkpointing=activation_checkpointing,
        lora=config.lora,
        family=config.family,
        download=config.download,
    )


def _config(folder: Path) -> dict[str, Any]:
    """config.json of a supported architecture."""
    config = read_config(folder)
    named = config.get("architectures") or []
    wanted = ARCHITECTURES[config["model_type"]].__name__
    if named and wanted not in named:
        raise CheckpointError(f"{folder / 'config.json'}: architectures is {named}; {wanted} is needed")
    return config


def _dtype(name: str) -> torch.dtype | str:
    if name == "auto":
        return name
    dtype = getattr(torch, name, None)
    if dtype not in (torch.float32, torch.bfloat16, torch.float16):
        raise ConfigError(f"dtype must be float32, bfloat16, float16 or auto, got {name!r}")
    return dtype


def _read_weights(
    folder: Path, architecture: type[PreTrainedModel], dtype: torch.dtype | str, attention: str
) -> PreTrainedModel:
    try:
        with _progress_if_long(folder):
            model, report = architecture.from_pretrained(
                folder,
                dtype=dtype,
                attn_implementation=attention,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are reported below, by name, instead of as the library's error
            )
    except ImportError as error:
        raise ConfigError(f"attention {attention!r} is not available here: {error}") from error
    except Exception as error:  # a damaged config or file makes the libraries raise many kinds
        raise CheckpointError(f"{folder}: cannot be loaded: {type(error).__name__}: {error}") from error
    problems = [
        f"{_some(report[kind])} {text}"
        for kind, text in (
            ("mismatched_keys", "of another shape than config.json says"),
            ("missing_keys", "missing from the weights"),
            ("unexpected_keys", "in the weights but not in the model"),
        )
        if report[kind]
    ]
    if report.get("error_msgs"):
        problems.append(_some(report["error_msgs"]))
    if problems:
        raise CheckpointError(f"{folder}: the weights are not those of {architecture.__name__}: {'; '.join(problems)}")
    return model


@contextmanager
def _progress_if_long(folder: Path) -> Iterator[None]:
    """The library's progress bar stays for weights that take a while."""
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    if size >= _LONG_BYTES or not hf_logging.is_progress_bar_enabled():
        yield
        return
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        hf_logging.enable_progress_bar()


def _some(keys: Any) -> str:
    """The first few keys, with shapes where they are given, and how many more there are."""
    names = []
    for key in sorted(keys, key=str):
        if isinstance(key, tuple) and len(key) == 3:
            names.append(f"{key[0]} ({list(key[1])} in the file, {list(key[2])} in the model)")
        else:
            names.append(str(key))
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _inherited_generation(folder: Path) -> dict[str, Any]:
    """Contents of generation_config.json, {} where there is none or it cannot be read: nothing depends on it."""
    try:
        settings = json.loads((folder / "generation_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(settings, dict):
        return {}
    return {key: value for key, value in settings.items() if key not in ("_from_model_config", "transformers_version")}


def _checkpoint_activations(model: PreTrainedModel) -> None:
    """Recompute the language model's activations in the backward pass; the method's name changed within
    transformers 5. The tower's are not: the trainer holds them for a few images at a time."""
    options, text = {"use_reentrant": False}, model.model.language_model
    if hasattr(text, "activation_checkpointing_enable"):
        text.activation_checkpointing_enable(options)
    else:
        text.gradient_checkpointing_enable(options)


def _with_adapters(model: PreTrainedModel, lora: LoraSettings) -> nn.Module:
    from peft import LoraConfig, get_peft_model

    layers = "|".join(re.escape(name) for name in lora.layers)
    pattern = rf"model\.language_model\..*\.({layers})"
    if not any(re.fullmatch(pattern, name) for name, _ in model.named_modules()):
        raise ConfigError(f"lora.layers: the language model has no layer named {', '.join(lora.layers)}")
    settings = LoraConfig(r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=pattern)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT asks transformers by names that it has since changed
        adapted: nn.Module = get_peft_model(model, settings)
    return adapted
