"""Named output layers and what each counts: they fold into one, by any weights, at any time.

The layers are linear without bias, so that a mix of their logits is the logits of a mix of their weights.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mmturn.errors import CheckpointError, ConfigError

FORMAT = "mmturn/heads"
VERSION = "1"
OUTPUT_LAYER = "lm_head.weight"
"""Name of the output layer among the weights of a model."""
_LAYER, _OWN = "layer.", "own"


@dataclass(frozen=True)
class Mixture:
    """Output layers beside a policy's own, all [V, H]."""

    layers: Mapping[str, Tensor]
    weights: Mapping[str, float]
    """Layer -> what it counts."""
    own: Tensor | None = None
    """The policy's own layer where the others are added to it; None: they stand in its place, with weights that are
    made to sum to 1."""

    def folded(self, weights: Mapping[str, float] | None = None) -> Tensor:
        """The one layer [V, H] that they come to, summed in float32.

        ``weights``: others than the usual ones; a layer that they do not name counts nothing. Raises ConfigError for
        names that are not there and weights that make no mix.
        """
        chosen = dict(self.weights if weights is None else weights)
        self._check(chosen)
        total = 1.0 if self.own is not None else sum(chosen.values())
        first = next(iter(self.layers.values()))
        out = (
            torch.zeros_like(first, dtype=torch.float32) if self.own is None else self.own.to(torch.float32, copy=True)
        )
        for name in sorted(chosen):  # the same sum to the bit, however the weights are written
            out.add_(self.layers[name].float(), alpha=chosen[name] / total)
        return out.to(first.dtype)

    def _check(self, weights: Mapping[str, float]) -> None:
        unknown = [name for name in weights if name not in self.layers]
        if unknown:
            raise ConfigError(f"there is no head named {', '.join(unknown)} (there are: {', '.join(self.layers)})")
        if not weights or not all(map(math.isfinite, weights.values())):
            raise ConfigError(f"weights of heads must be numbers, at least one, got {weights}")
        if self.own is None and (min(weights.values()) < 0 or not sum(weights.values()) > 0):
            raise ConfigError(f"weights of heads must be 0 or more, one of them above 0, got {weights}")


def save_mixture(file: Path, mixture: Mixture) -> None:
    """Write a mixture as safetensors; version and weights stand in the file's metadata."""
    tensors = {f"{_LAYER}{name}": layer.contiguous() for name, layer in mixture.layers.items()}
    if mixture.own is not None:
        tensors[_OWN] = mixture.own.contiguous()
    save_file(tensors, file, {"format": FORMAT, "version": VERSION, "weights": json.dumps(dict(mixture.weights))})


def read_mixture(file: Path) -> Mixture:
    """What ``save_mixture`` wrote. Raises CheckpointError naming the file."""
    if not file.is_file():
        raise CheckpointError(f"{file}: not there; only runs with several heads keep them (docs/preference.md)")
    try:
        with safe_open(file, "pt") as found:
            header = found.metadata() or {}
            tensors = {name: found.get_tensor(name) for name in found.keys()}  # noqa: SIM118 (it is no mapping)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file}: is damaged: {error}") from error
    if header.get("format") != FORMAT:
        raise CheckpointError(f"{file}: holds no heads of mmturn")
    if header.get("version") != VERSION:
        raise CheckpointError(f"{file}: version {header.get('version')}, this mmturn reads {VERSION}: update mmturn")
    layers = {name.removeprefix(_LAYER): layer for name, layer in tensors.items() if name != _OWN}
    weights = {name: float(weight) for name, weight in json.loads(header["weights"]).items()}
    return Mixture(layers, weights, tensors.get(_OWN))
