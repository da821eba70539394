"""A policy from the heads of a run, mixed anew: no weight is trained, no model is loaded."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from mmturn.errors import CheckpointError, ConfigError
from mmturn.models.mixture import OUTPUT_LAYER, read_mixture
from mmturn.training.checkpoints import HEADS_NAME, POLICY_NAME, Checkpoints, read_state
from mmturn.training.run import CHECKPOINTS_NAME


def mix_heads(run: Path, weights: Mapping[str, float], out: Path) -> Path:
    """Write the policy of a run (its newest checkpoint) or of a checkpoint to ``out``, with its heads mixed by
    ``weights``: a plain model like any other.

    Raises ConfigError for weights that make no mix and where ``out`` is there already, CheckpointError for a run
    without heads.
    """
    if out.exists():
        raise ConfigError(f"{out} is there already: name another folder")
    checkpoint = checkpoint_of(run)
    layer = read_mixture(checkpoint / HEADS_NAME).folded(weights)
    unfinished = out.with_name(f".{out.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    shutil.copytree(checkpoint / POLICY_NAME, unfinished)
    _replace_output_layer(unfinished, layer)
    return unfinished.rename(out)


def checkpoint_of(run: Path) -> Path:
    """The checkpoint that a run's folder (its newest one) or a checkpoint's own stands for, after checking that it is
    whole. Raises CheckpointError."""
    found = run if (run / "state.json").is_file() else Checkpoints(run / CHECKPOINTS_NAME).latest()
    if found is None:
        raise CheckpointError(f"{run}: is no run and no checkpoint: there is no {CHECKPOINTS_NAME} in it")
    read_state(found)
    return found


def weights_of(texts: Sequence[str]) -> dict[str, float]:
    """``answer=0.7`` -> head and weight. Raises ConfigError."""
    weights: dict[str, float] = {}
    for text in texts:
        name, _, number = text.rpartition("=")
        try:
            weights[name] = float(number)
        except ValueError:
            name = ""
        if not name:
            raise ConfigError(f"a weight is written HEAD=NUMBER, e.g. answer=0.7, got {text!r}")
    return weights


def _replace_output_layer(folder: Path, layer: Tensor) -> None:
    """Write a policy's output layer anew, in the file of its weights that holds it."""
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as found:
            if OUTPUT_LAYER not in found.keys():  # noqa: SIM118 (it is no mapping)
                continue
            tensors = {name: found.get_tensor(name) for name in found.keys()}  # noqa: SIM118
            header = found.metadata()
        save_file({**tensors, OUTPUT_LAYER: layer.to(tensors[OUTPUT_LAYER].dtype)}, file, header)
        return
    raise CheckpointError(f"{folder}: its weights hold no {OUTPUT_LAYER}")
