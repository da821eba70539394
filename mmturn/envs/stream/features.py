"""What a frame looks like, as a few numbers that need no model."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Floats = NDArray[np.float64]
Pixels = NDArray[np.uint8]
_SIDE = 8
_BINS = 4


def thumbnail(frame: Pixels) -> Floats:
    """[192] the frame at 8 x 8, colours 0 to 1."""
    small = Image.fromarray(frame).resize((_SIDE, _SIDE), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float64).ravel() / 255


def colours(frame: Pixels) -> Floats:
    """[64] roots of the shares of 4 x 4 x 4 colours: distances are Hellinger's, wherever things are."""
    bins = (frame.reshape(-1, 3) // (256 // _BINS)).astype(np.int64)
    places = bins @ np.array([_BINS * _BINS, _BINS, 1])
    counts = np.bincount(places, minlength=_BINS**3)
    return np.sqrt(counts / max(counts.sum(), 1))


FEATURES: Mapping[str, Callable[[Pixels], Floats]] = {"thumbnail": thumbnail, "colours": colours}
"""By the name in ``env.memory.feature``."""
