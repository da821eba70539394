"""A frame at another size."""

from __future__ import annotations

import numpy as np
from PIL import Image

from mmturn.media.video.orientation import Frame


def fitted(frame: Frame, size: tuple[int, int]) -> Frame:
    """A frame [H, W, 3] at ``size`` (width, height), by the antialiased bicubic filter that makes views of images.

    So a frame resized here equals a view of the whole frame at that size, to the bit.
    """
    height, width = frame.shape[:2]
    if (width, height) == size:
        return np.ascontiguousarray(frame)
    box = (0.0, 0.0, float(width), float(height))
    return np.array(Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC, box=box))
