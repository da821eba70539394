"""The reference policy of a KL term or a preference: the policy as first loaded."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from mmturn.models.features import FeatureCache
from mmturn.training import zero3
from mmturn.training.images import Images
from mmturn.training.microbatches import MicroBatch
from mmturn.training.processes import Processes
from mmturn.training.settings import TrainingConfig
from mmturn.training.updater import is_bfloat16, score_all


class Reference:
    """Log-probs of the policy that training started from.

    With LoRA it is the base model with its adapters off, for free; otherwise a frozen copy, so make it before the
    updater and before a checkpoint is loaded. Under ZeRO-3 the copy is sharded too. ``copied=False`` asks the policy
    itself, which is true until it learns or a checkpoint is loaded.
    """

    def __init__(self, policy: nn.Module, config: TrainingConfig, processes: Processes, *, copied: bool = True) -> None:
        self.processes, self._copied = processes, copied
        self._images: Images | None = None
        self._adapted: Any = policy.model if hasattr(policy.model, "peft_config") else None
        if self._adapted is not None or not copied:
            self._policy: Any = policy
            return
        frozen: Any = copy.deepcopy(policy).requires_grad_(False).eval()
        frozen.critic = None  # it values nothing, and would be sharded for nothing
        self._policy = _sharded(frozen, processes) if config.zero_stage == 3 else frozen

    @torch.no_grad()
    def logprobs(self, pieces: Sequence[MicroBatch], filler: MicroBatch, images: Images | None = None) -> list[Tensor]:
        """[B, T] of each micro-batch; all processes must call it. ``images``: the policy's own."""
        own = None if images is None else self._images_of(images)
        with nullcontext() if self._adapted is None else self._adapted.disable_adapter():
            scores = score_all(self._policy, pieces, filler, self.processes, own)
        return [score.logprobs for score in scores]

    def _images_of(self, images: Images) -> Images:
        """The policy's features where its tower never changes; else this policy's own, which stay true."""
        if not (images.trainable and self._copied):
            return images
        if self._images is None:
            cache = FeatureCache(images.cache.max_bytes, images.cache.spill_bytes)
            policy = getattr(self._policy, "module", self._policy)
            self._images = Images(policy, images.source, cache, self.processes, max_patches=images.max_patches)
        return self._images


def _sharded(policy: nn.Module, processes: Processes) -> Any:
    """A frozen policy with its parameters spread over the processes."""
    import deepspeed

    settings = {
        "train_micro_batch_size_per_gpu": 1,
        "zero_optimization": {"stage": 3},
        "bf16": {"enabled": is_bfloat16(policy)},
        "steps_per_print": 10**9,
    }
    with zero3.quiet():
        engine = deepspeed.initialize(model=policy, config=settings, dist_init_required=False)[0]
    engine.eval()
    return engine
