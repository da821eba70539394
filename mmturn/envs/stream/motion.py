"""How much a picture moved: Lucas-Kanade optical flow, by numpy alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Pixels = NDArray[np.uint8]

WINDOW_PX = 5
"""Side of the square in which flow is taken as constant."""
_DAMPING = 3e-3
"""Added to the structure tensor of grey values 0..1: the noise of a codec is no motion."""


def grey(frame: Pixels) -> Floats:
    """[H, W] brightness, 0 to 1, of an RGB frame [H, W, 3]."""
    weights = np.array([0.299, 0.587, 0.114]) / 255
    return np.asarray(frame @ weights, dtype=np.float64)


def motion(before: Floats, after: Floats) -> float:
    """Mean length of the flow between two grey pictures [H, W], in pixels; 0 for equal ones.

    Source: StreamChat (arXiv 2501.13468), selective frame stacking: Lucas-Kanade, window 5, a frame is kept whose mean
    motion is above a threshold. Differs: gradients are the mean of both pictures', so that what appears on a plain
    background counts; the paper does not say by what it normalises, so lengths are in pixels of a small picture.
    """
    dy: Floats = (np.gradient(before, axis=0) + np.gradient(after, axis=0)) / 2
    dx: Floats = (np.gradient(before, axis=1) + np.gradient(after, axis=1)) / 2
    dt: Floats = after - before
    xx, yy, xy = _summed(dx * dx) + _DAMPING, _summed(dy * dy) + _DAMPING, _summed(dx * dy)
    xt, yt = _summed(dx * dt), _summed(dy * dt)
    determinant = xx * yy - xy * xy  # positive: Cauchy-Schwarz, and the damping
    u, v = (xy * yt - yy * xt) / determinant, (xy * xt - xx * yt) / determinant
    return float(np.hypot(u, v).mean())


def _summed(values: Floats) -> Floats:
    """Sums over the windows that lie inside, [H - 4, W - 4]."""
    total: Floats = np.zeros((values.shape[0] + 1, values.shape[1] + 1))
    total[1:, 1:] = values.cumsum(0).cumsum(1)
    n = WINDOW_PX
    return total[n:, n:] - total[:-n, n:] - total[n:, :-n] + total[:-n, :-n]
