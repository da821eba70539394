"""Views -> patches, cut once each however often they are shown."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mmturn.families.forward import patchify
from mmturn.families.spec import Family
from mmturn.media.cache import ByteCache
from mmturn.media.views import shows_all, view_key
from mmturn.types import View

PatchSource = Callable[[View], Tensor]
"""A view -> its patches, uint8 [n, 3 * patch * patch], of a clip times the frames of a step
(``families.forward.patchify``). They are shared: not to be
written to. Raises DataError where the image is gone."""


class PixelSource(Protocol):
    """What shows the pixels of a view; ``media.ImageStore`` does."""

    def pixels(self, view: View) -> NDArray[np.uint8]:
        """uint8 [H, W, 3]; of a clip [T, H, W, 3]."""
        ...


class Patches:
    """A ``PatchSource``: decodes, resizes and cuts each view once, on whichever thread asks for it first, and keeps at
    most ``max_bytes`` of patches, the least recently used going first. Safe to use from several threads."""

    def __init__(self, source: PixelSource, family: Family, max_bytes: int = 1 << 28) -> None:
        self.source, self.family = source, family
        self._parts: set[str] = set()
        self._lock = threading.Lock()
        self._cut: ByteCache[Tensor] = ByteCache(max_bytes, lambda patches: patches.numel())

    def forget_parts(self) -> None:
        """Keep whole images alone: a part that a policy chose to look at hardly comes again."""
        with self._lock:
            parts, self._parts = self._parts, set()
        self._cut.drop(parts)

    def __call__(self, view: View) -> Tensor:
        if not shows_all(view):
            with self._lock:
                self._parts.add(view_key(view))
        return self._cut.get(view_key(view), lambda: patchify(self.source.pixels(view), self.family))
