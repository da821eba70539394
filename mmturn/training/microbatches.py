"""Cutting rows into micro-batches, and what goes with each through the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from mmturn.batching.collate import Batch


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Rows that go through the model together, with the signals that their loss needs."""

    batch: Batch
    signals: Mapping[str, Tensor] = field(default_factory=dict)
    """Further tensors by name: ``old`` and ``reference`` log-probs [B, T], ``trajectory_tokens`` [B]."""

    def to(self, device: torch.device) -> MicroBatch:
        """The same on a device."""
        return MicroBatch(self.batch.to(device), {name: tensor.to(device) for name, tensor in self.signals.items()})

    def having(self, **signals: Tensor) -> MicroBatch:
        """The same with further signals."""
        return replace(self, signals={**self.signals, **signals})


def cut(lengths: Sequence[int], max_rows: int, max_tokens: int = 0) -> list[list[int]]:
    """Indices of rows by micro-batch: rows of like length together, so that little is padding.

    ``max_tokens``: most tokens of a micro-batch, padding included; 0 sets no limit. A longer row goes alone.
    The cut depends on the lengths alone.
    """
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    pieces: list[list[int]] = []
    for index in order:
        current = pieces[-1] if pieces else []
        longest = lengths[current[0]] if current else 0
        full = len(current) >= max_rows or (max_tokens and (len(current) + 1) * longest > max_tokens)
        if not current or full:
            pieces.append([index])
        else:
            current.append(index)
    return pieces
