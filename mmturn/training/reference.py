"""The reference policy of a KL term: the policy as first loaded."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmturn.training import zero3
from mmturn.training.microbatches import MicroBatch
from mmturn.training.processes import Processes
from mmturn.training.settings import TrainingConfig
from mmturn.training.updater import is_bfloat16, score_all


class Reference:
    """Log-probs of the policy that training started from.

    With LoRA it is the base model with its adapters off, for free; otherwise a frozen copy, so make it before the
    updater and before a checkpoint is loaded. Under ZeRO-3 the copy is sharded too.
    """

    def __init__(self, policy: nn.Module, config: TrainingConfig, processes: Processes) -> None:
        self.processes = processes
        self._adapted: Any = policy.model if hasattr(policy.model, "peft_config") else None
        if self._adapted is not None:
            self._policy: Any = policy
            return
        frozen = copy.deepcopy(policy).requires_grad_(False).eval()
        self._policy = _sharded(frozen, processes) if config.zero_stage == 3 else frozen

    @torch.no_grad()
    def logprobs(self, pieces: Sequence[MicroBatch], filler: MicroBatch) -> list[Tensor]:
        """[B, T] of each micro-batch; all processes must call it."""
        if self._adapted is None:
            return [scores.logprobs for scores in score_all(self._policy, pieces, filler, self.processes)]
        with self._adapted.disable_adapter():
            return [scores.logprobs for scores in score_all(self._policy, pieces, filler, self.processes)]


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
