"""The optimizer steps of one update of reinforcement learning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import torch

from mmturn.errors import ConfigError
from mmturn.losses.aggregate import Denominators
from mmturn.media import ImageStore
from mmturn.training.balance import Balance, work_of
from mmturn.training.cost import update_cost
from mmturn.training.critic import JointObjective, ValueObjective, explained_variance, lessons
from mmturn.training.critic_settings import CriticConfig
from mmturn.training.feed import Feed
from mmturn.training.images import Images
from mmturn.training.material import Sample, denominators_of, minibatches, presence
from mmturn.training.means import Means
from mmturn.training.microbatches import MicroBatch
from mmturn.training.objective import PolicyObjective, with_sample_size
from mmturn.training.price import Price
from mmturn.training.reference import Reference
from mmturn.training.schedules import schedule_factor
from mmturn.training.settings import RlConfig, TrainingConfig
from mmturn.training.updater import Updater


class Learner:
    """Learns from one round of rollouts after the other. Raises ConfigError for a KL term without its reference, and
    for a ``critic`` that the policy does not have.

    ``store``: takes in the images of groups that other processes hand over; None: no group changes its process.
    """

    def __init__(
        self,
        updater: Updater,
        training: TrainingConfig,
        config: RlConfig,
        feed: Feed,
        images: Images,
        reference: Reference | None = None,
        price: Price | None = None,
        store: ImageStore | None = None,
        critic: CriticConfig | None = None,
    ) -> None:
        if config.kl_coef and reference is None:
            raise ConfigError("rl.kl_coef is above 0: a reference policy is needed")
        if critic is not None and updater.policy.critic is None:
            raise ConfigError("a critic is to learn: the policy needs a value head")
        self.critic = critic
        self.updater, self.training, self.config, self.feed, self.images, self.reference = (
            updater, training, config, feed, images, reference,
        )  # fmt: skip
        self.price = price
        self.balance = None if store is None else Balance(updater.processes, store, self._work)
        self.filler = self._with_signals([feed.filler()])[0]

    def learn(self, samples: Sequence[Sample], update: int) -> dict[str, float]:
        """All epochs and minibatches over this process's samples; ``policy/*`` and ``critic/*`` metrics, averaged over
        the steps, and ``stage/*`` and ``cost/*`` (see ``training.cost``).

        All processes must call it. A step over no sampled token at all is left out.
        """
        alone = self.critic is not None and self.critic.pretrains(update)
        lr, critic_lr = self._rates(update, alone)
        head = self.updater.policy.critic
        if self.critic is not None and head is not None:
            head.detach = self.critic.detach or alone
        parts = minibatches(samples, self.config.minibatches)
        if self.balance is not None:
            parts = [self.balance(part) for part in parts]
            samples = [sample for part in parts for sample in part]
        totals = [self._global(denominators_of(part)) for part in parts]
        pieces = [self._signalled(self._pieces(part, alone)) for part in parts]
        seen: dict[str, list[float]] = {"policy/lr": [lr or 0.0]}
        fresh, steps = True, 0
        for _ in range(self.config.epochs_per_batch):
            for part, total in zip(pieces, totals, strict=True):
                if not total.tokens:
                    continue
                objective = self._objective(total, fresh, alone)
                metrics = self.updater.update(
                    part, objective, filler=self.filler, lr=lr, critic_lr=critic_lr, images=self.images
                )
                for key, value in with_sample_size(metrics).items():
                    seen.setdefault(key if "/" in key else f"policy/{key}", []).append(value)
                fresh, steps = False, steps + 1
        processes = self.updater.processes
        return {
            **{key: sum(values) / len(values) for key, values in seen.items()},
            "policy/steps": float(steps),
            **self._value_metrics([piece for part in pieces for piece in part], critic_lr),
            **processes.sums({"cost/rows": len(samples)}),
            **self._cost(samples).over(processes),
        }

    def _objective(self, total: Denominators, fresh: bool, alone: bool) -> PolicyObjective | JointObjective:
        policy = PolicyObjective(self.config, total, fresh)
        return policy if self.critic is None else JointObjective(policy, ValueObjective(self.critic, total), alone)

    def _rates(self, update: int, alone: bool) -> tuple[float | None, float]:
        """Learning rates of policy and critic; None: the policy stays as it is."""
        factor = schedule_factor(self.training, update)
        return None if alone else self.training.lr * factor, 0.0 if self.critic is None else self.critic.lr * factor

    def _value_metrics(self, pieces: Sequence[MicroBatch], lr: float) -> dict[str, float]:
        if self.critic is None:
            return {}
        return {"critic/lr": lr, **explained_variance(pieces, self.critic.anchor, self.updater.processes)}

    def _cost(self, samples: Sequence[Sample]) -> Means:
        rows = [sample.row for sample in samples if self._computed(sample)]
        counters = {**self.updater.take_counters(), **self.images.take_counters()}
        return update_cost(counters, rows, self.feed.holders, self.price, self.config.epochs_per_batch)

    def _work(self, samples: Sequence[Sample]) -> float:
        return work_of([s for s in samples if self._computed(s)], self.feed.holders, self.price)

    def _computed(self, sample: Sample) -> bool:
        other_terms = self.config.kl_coef > 0 or self.config.entropy_coef > 0 or self.critic is not None
        return sample.has_signal or other_terms or not self.config.skip_zero_advantage

    def _pieces(self, samples: Sequence[Sample], alone: bool) -> list[MicroBatch]:
        """Micro-batches of the samples that are computed, with what a critic learns from them."""
        chosen = [sample for sample in samples if self._computed(sample)]
        rows, advantages = [s.row for s in chosen], [s.advantages for s in chosen]
        pieces = []
        for indices, batch in self.feed.batches(rows, self.training, advantages):
            counts = {
                name: torch.tensor([getattr(chosen[index], name) for index in indices])
                for name in ("trajectory_tokens", "trajectory_turns")
            }
            counts["present"] = presence([chosen[index] for index in indices], batch.loss_mask.shape[1])
            if self.critic is not None:
                returns = alone or self.critic.targets == "returns"
                counts |= lessons([chosen[index] for index in indices], batch.loss_mask.shape[1], returns)
            pieces.append(MicroBatch(batch, counts))
        return pieces

    def _signalled(self, pieces: list[MicroBatch]) -> list[MicroBatch]:
        """The same with the log-probs that the loss compares with, computed before the first step."""
        if self.config.old_logprobs == "recompute":
            scores = self.updater.score(pieces, filler=self.filler, images=self.images)
            pieces = [piece.having(old=score.logprobs) for piece, score in zip(pieces, scores, strict=True)]
        if self.reference is not None and self.config.kl_coef:
            known = self.reference.logprobs(pieces, self.filler, self.images)
            pieces = [piece.having(reference=values) for piece, values in zip(pieces, known, strict=True)]
        return pieces

    def _with_signals(self, fillers: list[MicroBatch]) -> list[MicroBatch]:
        """Fillers with every signal that the loss may read."""
        zeros = [torch.zeros_like(piece.batch.advantages) for piece in fillers]
        ones = [torch.ones(piece.batch.input_ids.shape[0], dtype=torch.long) for piece in fillers]
        return [
            piece.having(
                old=zero,
                reference=zero,
                present=zero,
                old_values=zero,
                targets=zero,
                trajectory_tokens=one,
                trajectory_turns=one,
            )
            for piece, zero, one in zip(fillers, zeros, ones, strict=True)
        ]

    def _global(self, own: Denominators) -> Denominators:
        """Counts over all processes."""
        total = self.updater.processes.sums(asdict(own))
        return Denominators(**{name: int(value) for name, value in total.items()})
