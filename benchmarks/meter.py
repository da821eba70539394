"""What a process really ran, the same way on both sides: rows through weights, images, seconds, memory.

Rows are counted where a weight is multiplied, whichever module or function does it: at the first layer's query
projection for tokens, at the head for scored positions. Counting costs time, so it is done in a step of its own.
"""

from __future__ import annotations

import ctypes
import gc
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.overrides import TorchFunctionMode

PRODUCTS = {
    "linear", "mm", "matmul", "addmm", "bmm", "__matmul__", "__rmatmul__", "addmm_", "baddbmm",
}  # fmt: skip


def _in_backward() -> bool:
    return torch._C._current_graph_task_id() != -1


class Phase:
    """Which part of a step runs: ``rollout``, or else ``update``."""

    def __init__(self) -> None:
        self.name = "update"

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        before, self.name = self.name, name
        try:
            yield
        finally:
            self.name = before


class RowCounter(TorchFunctionMode):
    """Counts rows through named weights, by phase: ``rows/<phase>/<name>``.

    Products with a part of a weight (a tile of the vocabulary) count in proportion. Backward passes, with what they
    run again for activation checkpointing, are not counted. Tokens that come one by one with a cache are counted as
    ``<name>_single`` too.
    """

    def __init__(self, phase: Phase, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.phase, self.rows = phase, Counter[str]()
        self._names = {weight.untyped_storage().data_ptr(): (name, weight.numel()) for name, weight in weights.items()}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if getattr(func, "__name__", "") in PRODUCTS and not _in_backward():
            self._note(args)
        return func(*args, **(kwargs or {}))

    def _note(self, args: tuple[Any, ...]) -> None:
        tensors = [part for part in args if isinstance(part, Tensor) and part.ndim >= 2]
        for place, tensor in enumerate(tensors):
            found = self._names.get(tensor.untyped_storage().data_ptr())
            if found is None:
                continue
            name, size = found
            other = next((t for at, t in enumerate(tensors) if at != place and t.shape[-1] in tensor.shape), None)
            if other is None:
                return
            rows = other.numel() // other.shape[-1] * tensor.numel() / size
            self.rows[f"{self.phase.name}/{name}"] += rows
            if other.ndim == 3 and other.shape[1] == 1:
                self.rows[f"{self.phase.name}/{name}_single"] += rows
            return


class Meter:
    """Seconds by stage, images through the tower and the optimizer's seconds, for one transformers model."""

    def __init__(self, base: Any, phase: Phase) -> None:
        self.base, self.phase = base, phase
        self.seconds: Counter[str] = Counter()
        self.images: Counter[str] = Counter()
        self._started: dict[str, float] = {}
        self._hooks: list[Any] = []
        self._watch(base.model.visual, "vision")
        self._watch(base.model.language_model, "language")
        self._hooks.append(base.model.visual.register_forward_pre_hook(self._count_images, with_kwargs=True))
        self.optimizer: Any = None
        self._hooks.append(register_optimizer_step_pre_hook(self._optimizing))
        self._hooks.append(register_optimizer_step_post_hook(lambda *_: self._stop("optimizer")))

    def rows(self) -> RowCounter:
        """A counter of the rows through this model's weights, to be entered."""
        layers = self.base.model.language_model.layers
        head = self.base.get_output_embeddings().weight
        return RowCounter(self.phase, {"tokens": layers[0].self_attn.q_proj.weight, "head": head})

    def take(self) -> dict[str, dict[str, float]]:
        """Seconds and images since the last call."""
        taken = {"seconds": dict(self.seconds), "images": {k: float(v) for k, v in self.images.items()}}
        self.seconds, self.images = Counter(), Counter()
        return taken

    def close(self) -> None:
        """Remove the hooks."""
        for hook in self._hooks:
            hook.remove()

    def _watch(self, module: nn.Module, name: str) -> None:
        """Seconds within a module; a call of the language model on one token per row is decoding."""
        self._hooks.append(module.register_forward_pre_hook(lambda *_: self._start(name)))

        def after(_: nn.Module, args: Any, kwargs: Any, out: Any) -> None:
            shown = kwargs.get("inputs_embeds")
            single = name == "language" and isinstance(shown, Tensor) and shown.shape[1] == 1
            self._stop(name, "decode" if single else None)

        self._hooks.append(module.register_forward_hook(after, with_kwargs=True))

    def _start(self, name: str) -> None:
        if not _in_backward():
            self._started[name] = time.perf_counter()

    def _stop(self, name: str, told: str | None = None) -> None:
        started = self._started.pop(name, None)
        if started is not None:
            where = "" if name == "optimizer" else f"{self.phase.name}/"
            self.seconds[f"{where}{told or name}"] += time.perf_counter() - started

    def _optimizing(self, optimizer: Any, *_: Any) -> None:
        self.optimizer = optimizer
        self._start("optimizer")

    def _count_images(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        grid = kwargs.get("grid_thw", args[1] if len(args) > 1 else None)
        if isinstance(grid, Tensor):
            self.images[self.phase.name] += grid.shape[0]


class PeakMemory:
    """Largest resident set of this process while it is entered, read from /proc every few milliseconds.

    ``start``: resident bytes before, when everything is loaded and garbage is gone; ``peaks``: by phase.
    """

    def __init__(self, phase: Phase, every_s: float = 0.004) -> None:
        self.phase, self.every_s = phase, every_s
        self.start, self.peaks = 0, Counter[str]()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> PeakMemory:
        settle()
        self.start = resident_bytes()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def report(self, parameters: int, training: Mapping[str, int]) -> dict[str, float]:
        """Bytes by what they are; ``excess`` is the peak above what was held after loading, less gradients and
        optimizer state, which come after it."""
        peak = max(self.peaks.values(), default=self.start)
        return {
            "start": self.start, "peak": peak, "parameters": parameters, **training,
            **{f"peak_{name}": value for name, value in self.peaks.items()},
            "excess": peak - self.start - sum(training.values()),
        }  # fmt: skip

    def _watch(self) -> None:
        while not self._stop.wait(self.every_s):
            name = self.phase.name
            self.peaks[name] = max(self.peaks[name], resident_bytes())


def resident_bytes() -> int:
    """Resident set of this process."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def settle() -> None:
    """Give back what is free, so that a reading says what is held."""
    gc.collect()
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except OSError:  # another libc has no such call
        return


def touch(model: nn.Module) -> int:
    """Make every weight resident (they may be mapped from a file); their bytes."""
    total = 0
    seen: set[int] = set()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.data = parameter.data.clone()
        for parameter in model.parameters():
            if parameter.data_ptr() not in seen:
                seen.add(parameter.data_ptr())
                total += parameter.numel() * parameter.element_size()
    return total


def training_bytes(model: nn.Module, optimizer: Any) -> dict[str, int]:
    """Bytes of gradients, of as many as there are trainable weights, and of the optimizer's state."""
    gradients = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    state = sum(
        value.numel() * value.element_size()
        for entry in optimizer.state.values()
        for value in entry.values()
        if isinstance(value, Tensor)
    )
    return {"gradients": gradients, "optimizer": state}
