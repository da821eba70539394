"""The images of an optimizer step: each is encoded once for all rows that show it, and learned from once.

The language model learns on features that stand for themselves. What their gradients ask of the vision tower is worked
off afterwards, a few images at a time, so that the tower's activations are never held for all of them at once.
Source: the gradient cache of L. Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup",
arXiv 2101.06983, section 3.2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mmturn.batching.collate import Batch, blank_image, collate_images
from mmturn.media.views import shows_all
from mmturn.models.features import FeatureCache
from mmturn.models.step import ViewFeatures
from mmturn.training.processes import Processes
from mmturn.types import View

if TYPE_CHECKING:
    from mmturn.batching.patches import PatchSource
    from mmturn.models.policy import PolicyModule
    from mmturn.training.feed import Feed
    from mmturn.training.run import RunSetup


@dataclass(frozen=True, slots=True)
class ImagePiece:
    """Images that go through the tower together, and the gradients that reached their features."""

    patches: Tensor
    grids: Tensor
    grads: tuple[tuple[Tensor | None, ...], ...]
    """Per image: of its pooled features and of each deepstack level."""

    def surrogate(self, features: Sequence[ViewFeatures]) -> Tensor:
        """Scalar whose gradient to the tower is that of the loss: the features times their gradients. An image that
        nothing was learned from, or that fills up, counts 0 and still touches every weight."""
        total = torch.stack([part.float().sum() for view in features for part in parts_of(view)]).sum() * 0.0
        for view, grads in zip(features, self.grads, strict=False):
            for part, grad in zip(parts_of(view), grads, strict=True):
                if grad is not None:
                    total = total + (part.float() * grad.float()).sum()
        return total


class Images:
    """Features of the views that micro-batches show. All processes must call ``begin`` and ``learned`` together."""

    def __init__(
        self,
        policy: PolicyModule | Any,
        source: PatchSource,
        cache: FeatureCache,
        processes: Processes,
        *,
        max_patches: int = 2048,
    ) -> None:
        """``cache``: features of the tower's present weights, an engine's too; ``max_patches``: in one call of it."""
        self.policy, self.source, self.cache, self.processes = policy, source, cache, processes
        self.max_patches, self.trainable = max_patches, not policy.vision_frozen
        self._shown: dict[View, ViewFeatures] = {}
        self._chunks: list[list[View]] = []
        self._seen: set[View] = set()
        self.encoded = 0
        """Images that went through the tower, for features or for gradients, since ``take_counters``."""
        self.unique = 0
        """How many of them had to: each image once per step that learns from it; once at all where the tower is
        frozen, and not where its features were known."""

    def begin(self, batches: Sequence[Batch], *, learn: bool = False) -> None:
        """Have the features of all views of some batches ready; with ``learn`` such that gradients reach them."""
        views = list(dict.fromkeys(view for batch in batches for view in batch.views))
        known = {view: found for view in views if (found := self.cache.get(view)) is not None}
        new = set(views) - known.keys()
        missing = self._cut([view for view in views if view in new])
        for index in range(self.processes.maximum(len(missing))):
            patches, grids = self._pixels(missing[index] if index < len(missing) else ())
            with torch.no_grad():
                features = self.policy.encode(patches, grids)
            if index < len(missing):
                known.update(zip(missing[index], features, strict=True))
                self.encoded += len(missing[index])
                for view in missing[index]:
                    self.cache.put(view, known[view])
        self.cache.trim(views)
        if not self.trainable:
            self.unique += len(new - self._seen)
            self._seen |= new
        learn = learn and self.trainable
        self.unique += len(views) if learn else 0
        self._shown = {view: _leaf(known[view]) if learn else known[view] for view in views}
        self._chunks = self._cut(views) if learn else []

    def of(self, batch: Batch) -> list[ViewFeatures]:
        """Features of ``batch.views``; one and the same for all batches between two calls of ``begin``."""
        return [self._shown[view] for view in batch.views]

    @property
    def rounds(self) -> int:
        """How many pieces ``learned`` will give in each process; at least one where the tower is trained."""
        return max(1, self.processes.maximum(len(self._chunks))) if self.trainable else 0

    def learned(self, index: int) -> ImagePiece:
        """The gradients that reached some of the views, with their pixels; a blank image when there are no more."""
        chunk = self._chunks[index] if index < len(self._chunks) else []
        self.encoded += len(chunk)
        grads = tuple(tuple(part.grad for part in parts_of(self._shown[view])) for view in chunk)
        patches, grids = self._pixels(chunk)
        return ImagePiece(patches, grids, grads)

    @property
    def blank(self) -> ImagePiece:
        """A blank image from which nothing is learned, though every weight of the tower is touched."""
        return ImagePiece(*self._pixels(()), ())

    def stepped(self) -> None:
        """The weights have changed: what the tower made before is stale, unless it is frozen."""
        self._shown, self._chunks = {}, []
        self._seen = set(filter(shows_all, self._seen))  # parts are forgotten too, see FeatureCache.forget_parts
        if self.trainable:
            self.cache.clear()

    def take_counters(self) -> dict[str, float]:
        """What went through the tower since the last call."""
        taken = {"images_learned": float(self.encoded), "learned_unique": float(self.unique)}
        self.encoded = self.unique = 0
        return taken

    def _cut(self, views: Sequence[View]) -> list[list[View]]:
        chunks: list[list[View]] = []
        room = 0
        for view in views:
            patches = math.prod(self.policy.family.view_grid(view))
            if not chunks or patches > room:
                chunks.append([])
                room = self.max_patches
            chunks[-1].append(view)
            room -= patches
        return chunks

    def _pixels(self, views: Sequence[View]) -> tuple[Tensor, Tensor]:
        family = self.policy.family
        patches, grids = collate_images(views, family, self.source) if views else blank_image(family)
        device = self.processes.device
        return patches.to(device, non_blocking=True), grids.to(device, non_blocking=True)


def parts_of(features: ViewFeatures) -> tuple[Tensor, ...]:
    """Its tensors: pooled, then each deepstack level."""
    return (features.pooled, *features.deepstack)


def _leaf(features: ViewFeatures) -> ViewFeatures:
    """The same numbers, where gradients end."""
    pooled, *deepstack = (part.detach().requires_grad_() for part in parts_of(features))
    return ViewFeatures(pooled, tuple(deepstack))


def images_of(setup: RunSetup, feed: Feed, cache: FeatureCache) -> Images:
    """The images of a run."""
    updater = setup.updater
    return Images(updater.policy, feed.source, cache, updater.processes, max_patches=setup.training.image_patches)
