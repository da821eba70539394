"""States of the random generators, as JSON."""

from __future__ import annotations

import base64
import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from mmturn.types import Json


def random_states() -> dict[str, Json]:
    """States of Python's, NumPy's and torch's generators."""
    name, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    version, internal, gauss_next = random.getstate()
    states: dict[str, Json] = {
        "python": [version, list(internal), gauss_next],
        "numpy": [str(name), _text(np.asarray(keys).tobytes()), int(position), int(has_gauss), float(gauss)],
        "torch": _text(torch.get_rng_state().numpy().tobytes()),
    }
    if torch.cuda.is_available():
        states["cuda"] = _text(torch.cuda.get_rng_state().numpy().tobytes())
    return states


def restore_random_states(states: Mapping[str, Json]) -> None:
    """Set the generators to stored states."""
    version, internal, gauss_next = states["python"]
    random.setstate((version, tuple(internal), gauss_next))
    name, keys, position, has_gauss, gauss = states["numpy"]
    np.random.set_state((name, np.frombuffer(base64.b64decode(keys), dtype=np.uint32), position, has_gauss, gauss))
    torch.set_rng_state(_tensor(states["torch"]))
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(_tensor(states["cuda"]))


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _tensor(text: Any) -> torch.Tensor:
    return torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8)
