"""What ZeRO-3's sharded parameters need: gathering them for rollouts and for saving."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from mmturn.training.processes import Processes


@contextmanager
def quiet() -> Iterator[None]:
    """Keep DeepSpeed's progress talk off the terminal; errors still come as exceptions."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)


@contextmanager
def gathered(engine: Any) -> Iterator[None]:
    """All parameters of a ZeRO-3 engine in full, its hooks off, so that modules run without communication.

    Without taking the hooks off, each module would give its parameters back after its first forward pass.
    """
    import deepspeed

    offload = engine.optimizer.parameter_offload
    with deepspeed.zero.GatheredParameters(list(engine.module.parameters())):
        for parameter in engine.module.parameters():
            parameter.ds_active_sub_modules.clear()
        for hook in (*offload.forward_hooks, *offload.backward_hooks):
            hook.remove()
        offload.forward_hooks, offload.backward_hooks = [], []
        try:
            yield
        finally:
            coordinator = offload.get_param_coordinator()
            if not coordinator.is_invalid_trace():
                coordinator._invalidate_trace()
            offload._register_deepspeed_module(offload.module)


def optimized(optimizer: Any, group: int, sharded: bool) -> list[Tensor]:
    """The tensors under which an optimizer of DeepSpeed's keeps the state of one of its parameter groups."""
    if not sharded:
        return list(optimizer.param_groups[group]["params"])
    owners = optimizer.sub_group_to_group_id
    return [flat for index, flat in enumerate(optimizer.fp32_partitioned_groups_flat) if owners[index] == group]


def full_weights(model: nn.Module, sharded: bool, processes: Processes) -> dict[str, Tensor] | None:
    """Name -> weight on CPU of a transformers model, LoRA merged, as its own names; None in other processes.

    All processes must call it when the parameters are sharded.
    """
    copies: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():  # a tied weight comes once, by its first name
        with whole([parameter], sharded):
            if processes.is_main:
                copies[name] = parameter.detach().to("cpu", copy=True)
    if not processes.is_main:
        return None
    for name, buffer in _persistent_buffers(model):
        copies[name] = buffer.detach().to("cpu", copy=True)
    return _merge_lora(model, copies)


def _persistent_buffers(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for prefix, module in model.named_modules():
        for name, buffer in module.named_buffers(recurse=False):
            if name not in module._non_persistent_buffers_set:
                yield f"{prefix}.{name}" if prefix else name, buffer


@contextmanager
def whole(parameters: Sequence[nn.Parameter], sharded: bool) -> Iterator[None]:
    """Some parameters in full, to be read; all processes must call it when they are sharded."""
    if not sharded:
        yield
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters(list(parameters)):
        yield


def _merge_lora(model: nn.Module, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of the base model with the adapters' low-rank updates added; unchanged without adapters."""
    if not hasattr(model, "peft_config"):
        return weights
    prefix = "base_model.model."
    plain: dict[str, Tensor] = {}
    for name, weight in weights.items():
        if ".lora_" in name:
            continue
        plain[name.removeprefix(prefix).replace(".base_layer.", ".")] = weight
    for name, module in model.named_modules():
        scaling = getattr(module, "scaling", None)
        if not scaling or not hasattr(module, "lora_A"):
            continue
        target = name.removeprefix(prefix) + ".weight"
        for adapter in module.active_adapters:
            down, up = weights[f"{name}.lora_A.{adapter}.weight"], weights[f"{name}.lora_B.{adapter}.weight"]
            update = up.float() @ down.float() * scaling[adapter]
            plain[target] = (plain[target].float() + update).to(plain[target].dtype)
    return plain
