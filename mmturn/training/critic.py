"""How a critic learns beside its policy: the value loss, where it counts, and how well values explain returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mmturn.losses.aggregate import Denominators, aggregate
from mmturn.losses.value import At, ReturnFit, anchors, clipped_value_loss, return_fit
from mmturn.training.critic_settings import CriticConfig
from mmturn.training.material import Sample
from mmturn.training.microbatches import MicroBatch
from mmturn.training.objective import PolicyObjective
from mmturn.training.processes import Processes
from mmturn.training.updater import Loss

if TYPE_CHECKING:
    from mmturn.models.policy import TokenScores


@dataclass(frozen=True, slots=True)
class ValueObjective:
    """The critic's loss: the mean over all tokens that it learns at, of all micro-batches and processes."""

    config: CriticConfig
    denominators: Denominators
    """The policy's, of the same optimizer step."""

    def __call__(self, scores: TokenScores, piece: MicroBatch) -> Loss:
        config, signals = self.config, piece.signals
        assert scores.values is not None
        mask = learned_at(piece, config.anchor)
        clip = config.value_clip or float("inf")
        found = clipped_value_loss(scores.values, signals["old_values"], signals["targets"], mask, clip)
        positions = self.denominators.tokens if config.anchor == "all" else self.denominators.turns
        value = aggregate(found.per_token, mask, "token_mean", Denominators(positions, 0))
        sums = {
            "critic/loss": found.per_token.detach().sum(),
            "critic/value_mean": found.sums["value/mean"],
            "critic/clip_fraction": found.sums["value/clip_fraction"],
        }
        return Loss(config.coef * value, {key: (total, mask.sum()) for key, total in sums.items()})


@dataclass(frozen=True, slots=True)
class JointObjective:
    """Policy and critic learn together, or the critic alone."""

    policy: PolicyObjective
    critic: ValueObjective
    critic_alone: bool = False

    def __call__(self, scores: TokenScores, piece: MicroBatch) -> Loss:
        policy, critic = self.policy(scores, piece), self.critic(scores, piece)
        # a zero gradient, and not none: ZeRO-3 would step with what the weights it does not reach had before
        own = policy.value * 0.0 if self.critic_alone else policy.value
        return Loss(own + critic.value, {**policy.sums, **critic.sums}, policy.maxima)


def learned_at(piece: MicroBatch, anchor: At) -> Tensor:
    """[B, T] 1 on the tokens of a micro-batch that a critic learns at."""
    return anchors(piece.batch.loss_mask, piece.batch.turn_index, anchor)


def lessons(samples: Sequence[Sample], length: int, returns: bool) -> dict[str, Tensor]:
    """Signals of a micro-batch of rows padded to ``length``, [B, T]: ``old_values``, and ``targets``, which are
    Monte-Carlo ``returns`` or advantage plus value. A row without a lesson teaches 0."""
    found = {name: torch.zeros(len(samples), length) for name in ("old_values", "targets")}
    for number, sample in enumerate(samples):
        if sample.lesson is not None:
            size = len(sample.row.token_ids)
            targets = sample.lesson.returns if returns else sample.lesson.targets
            found["old_values"][number, :size] = torch.tensor(sample.lesson.values)
            found["targets"][number, :size] = torch.tensor(targets)
    return found


def explained_variance(pieces: Sequence[MicroBatch], anchor: At, processes: Processes) -> dict[str, float]:
    """``critic/explained_variance`` of the values before the update, over all processes; nothing where the targets do
    not vary. All processes must call it."""
    names = [field.name for field in fields(ReturnFit)]
    total = ReturnFit(*(torch.zeros((), dtype=torch.float64) for _ in names))
    for piece in pieces:
        total = total + return_fit(piece.signals["old_values"], piece.signals["targets"], learned_at(piece, anchor))
    sums = processes.sums({name: float(value) for name, value in asdict(total).items()})
    found = ReturnFit(*(torch.tensor(sums[name], dtype=torch.float64) for name in names)).explained_variance()
    return {} if found is None else {"critic/explained_variance": found}
