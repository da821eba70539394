"""A policy as a plain ``save_pretrained`` folder."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from torch import Tensor

from mmturn.models.mixture import OUTPUT_LAYER

_ASSETS = (
    "tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt", "chat_template*",
    "preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json",
)  # fmt: skip


def save_policy(folder: Path, model: Any, weights: Mapping[str, Tensor], assets: Path | None) -> None:
    """Write config, generation config and weights of a transformers ``model`` into ``folder``, as safetensors.

    ``weights``: by the model's own names, LoRA merged in (``Updater.weights``). Where they hold an output layer beside
    the embedding table, though the model ties the two, the config that is written does not. ``assets``: folder of the
    model it came from, whose tokenizer, processor and chat template go along, byte for byte.
    """
    folder.mkdir(parents=True, exist_ok=True)
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    untied = _untied(base.config) if OUTPUT_LAYER in weights else nullcontext()
    with untied, _no_progress_bar():
        base.save_pretrained(folder, state_dict=dict(weights))
    if assets is None:
        return
    for pattern in _ASSETS:
        for file in assets.glob(pattern):
            if file.is_file() and not (folder / file.name).exists():
                shutil.copyfile(file, folder / file.name)


@contextmanager
def _untied(config: Any) -> Iterator[None]:
    """Within, a config says that embedding table and output layer are two."""
    said = [part for part in (config, config.text_config) if getattr(part, "tie_word_embeddings", False)]
    for part in said:
        part.tie_word_embeddings = False
    try:
        yield
    finally:
        for part in said:
            part.tie_word_embeddings = True


@contextmanager
def _no_progress_bar() -> Iterator[None]:
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def architecture_of(model: Any) -> dict[str, Any]:
    """What two checkpoints must share to be exchangeable: model type and number of weights, LoRA's included."""
    sizes = [getattr(p, "ds_numel", None) or math.prod(p.shape) for p in model.parameters()]
    return {"model_type": str(model.config.model_type), "weights": int(sum(sizes))}
