"""Critics that learn what tokens are worth from stored trajectories, without any rollout.

Source: ILQL (2206.11871) and Monte-Carlo returns as in LMRL-Gym (2311.18232); the losses are in ``losses.critics``,
what differs in use in ``models.action_values``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mmturn.credit.graded import graded_of, token_rewards
from mmturn.credit.returns import returns_to_go
from mmturn.errors import DataError
from mmturn.losses.aggregate import Denominators, aggregate
from mmturn.losses.critics import ilql_loss, mc_loss, next_sampled
from mmturn.models.action_values import ActionHeads
from mmturn.models.features import FeatureCache
from mmturn.models.load import LoadedModel
from mmturn.models.value_head import ValueHead
from mmturn.training.epochs import ExampleSource, Lesson, content_of, learn
from mmturn.training.feed import Feed
from mmturn.training.images import images_of
from mmturn.training.microbatches import MicroBatch
from mmturn.training.offline_settings import OfflineConfig
from mmturn.training.price import Price
from mmturn.training.run import RunSetup
from mmturn.training.settings import TrainingConfig
from mmturn.training.updater import Loss
from mmturn.types import Row, Trajectory

if TYPE_CHECKING:
    from mmturn.models.policy import PolicyModule, TokenScores

LINE = (
    ("offline/loss", "loss"),
    ("offline/q", "q"),
    ("eval/accuracy", "eval"),
    ("offline/critic_lr", "lr"),
)


@dataclass(frozen=True, slots=True)
class Lived:
    """A stored trajectory of n sampled tokens, as critics see it."""

    rows: tuple[Row, ...]
    """They have a group to themselves, so that they share a micro-batch: what a row ends in may be worth what the next
    begins with."""
    order: tuple[tuple[int, int], ...]
    """[n] row and column of each sampled token, turn by turn."""
    rewards: tuple[float, ...]
    """[n] a turn's reward on its last token, the outcome on the last of all."""
    truncated: bool
    """Whether a limit ended it, so that more might have come."""

    @property
    def content(self) -> tuple[object, ...]:
        """What tells it from others."""
        return self.rewards, self.truncated, [content_of(row) for row in self.rows]

    def prepare(self, feed: Feed) -> None:
        """Ask for all that it shows. Raises DataError naming the trajectory."""
        for row in self.rows:
            feed.prepare(row)


@dataclass(frozen=True)
class OfflineParts:
    """Everything that a run of offline learning is put together from."""

    setup: RunSetup
    """Its policy has the critic of ``give_critic``."""
    config: OfflineConfig
    lived: Sequence[Lived]
    """What to learn from, the same in every process."""
    feed: Feed
    features: FeatureCache
    """Of the policy's present weights."""
    price: Price | None = None
    """What the model's work costs; None leaves FLOPs out of the log."""
    on_update: Callable[[int, Mapping[str, float]], None] | None = None
    """Called after each update with its metrics, in every process."""


def give_critic(policy: PolicyModule, loaded: LoadedModel, config: OfflineConfig, seed: int) -> None:
    """Set Q, and for ILQL V, beside a policy, and freeze what is not to learn. Before the updater is made."""
    twice = config.loss == "ilql"
    policy.actions = ActionHeads.of(
        loaded, 2 if twice else 1, beta=config.beta, polyak=config.polyak if twice else None, seed=seed
    )
    policy.critic = ValueHead.of(loaded) if twice else None
    if config.trunk == "frozen":
        policy.model.requires_grad_(False)


def lived_of(trajectory: Trajectory, rows: Sequence[Row], name: str) -> Lived:
    """A graded trajectory with its training rows; ``name`` tells it from all others. Raises DataError naming it where
    it failed, has no reward or no sampled token."""
    rewards = token_rewards(graded_of(trajectory))
    found = [(turn, r, c) for r, row in enumerate(rows) for c, turn in enumerate(row.turn_index) if row.loss_mask[c]]
    if not found or len(found) != len(rewards):
        raise DataError(
            f"trajectory {trajectory.id}: {len(found)} sampled tokens in its rows, {len(rewards)} in its turns"
        )
    return Lived(
        rows=tuple(replace(row, logprobs=None, group=name) for row in rows),  # the sampler's log-probs are read nowhere
        order=tuple((row, column) for _, row, column in sorted(found)),
        rewards=tuple(rewards),
        truncated=trajectory.stop.status == "truncated",
    )


def train(parts: OfflineParts) -> Path:
    """Run all updates; the last checkpoint. Raises DataError when there is nothing to learn from."""
    setup, config, feed = parts.setup, parts.config, parts.feed

    def objective(own: Sequence[Lived], _: Sequence[MicroBatch]) -> CriticObjective:
        tokens = setup.updater.processes.sums({"tokens": sum(len(lived.rewards) for lived in own)})
        return CriticObjective(config, Denominators(int(tokens["tokens"]), 0))

    lesson = Lesson(
        kind="offline", line=LINE, setup=setup, feed=feed, images=images_of(setup, feed, parts.features),
        source=ExampleSource(
            parts.lived, setup.training.seed, config.shuffle, "trajectories", lambda lived: lived.content
        ),
        per_update=config.trajectories_per_update, epochs=config.epochs, prepare=lambda lived: lived.prepare(feed),
        rows=lambda lived: lived.rows, pack=lambda own: micro_batches(own, config.gamma, feed, setup.training),
        objective=objective, filler=filler_of(feed), derived=lambda metrics: {}, critic_lr=config.lr,
        price=parts.price, on_update=parts.on_update,
    )  # fmt: skip
    return learn(lesson)


def micro_batches(examples: Sequence[Lived], gamma: float, feed: Feed, training: TrainingConfig) -> list[MicroBatch]:
    """Trajectories as the settings cut them, each whole.

    Signals, for N trajectories of at most S sampled tokens in a batch of [B, T]: ``place`` int64 [N, S], where in the
    flattened batch each token is; ``mask`` [N, S] 1 where there is one; ``rewards`` and ``returns`` [N, S], the latter
    discounted by ``gamma``; ``last`` int64 [N], the row that a trajectory ends in; ``truncated`` bool [N].
    """
    owners = [(number, place) for number, lived in enumerate(examples) for place in range(len(lived.rows))]
    rows = [examples[number].rows[place] for number, place in owners]
    pieces: list[MicroBatch] = []
    for indices, batch in feed.batches(rows, training, whole=True):
        line = {owners[index]: at for at, index in enumerate(indices)}
        numbers = list(dict.fromkeys(number for number, _ in line))
        held = [examples[number] for number in numbers]
        signals = _signals(len(held), max(len(lived.rewards) for lived in held))
        for at, (number, lived) in enumerate(zip(numbers, held, strict=True)):
            size, width = len(lived.rewards), batch.loss_mask.shape[1]
            places = [line[number, row] * width + column for row, column in lived.order]
            signals["place"][at, :size] = torch.tensor(places)
            signals["mask"][at, :size] = 1
            signals["rewards"][at, :size] = torch.tensor(lived.rewards)
            signals["returns"][at, :size] = torch.tensor(returns_to_go(lived.rewards, gamma))
            signals["last"][at] = line[number, lived.order[-1][0]]
            signals["truncated"][at] = lived.truncated
        pieces.append(MicroBatch(batch, signals))
    return pieces


def filler_of(feed: Feed) -> MicroBatch:
    """A micro-batch of one trajectory without a token."""
    return feed.filler().having(**_signals(1, 1))


def _signals(count: int, size: int) -> dict[str, Tensor]:
    return {
        "place": torch.zeros(count, size, dtype=torch.long),
        "mask": torch.zeros(count, size, dtype=torch.long),
        "rewards": torch.zeros(count, size),
        "returns": torch.zeros(count, size),
        "last": torch.zeros(count, dtype=torch.long),
        "truncated": torch.zeros(count, dtype=torch.bool),
    }


@dataclass(frozen=True, slots=True)
class CriticObjective:
    """The loss of an update: a mean over the sampled tokens of all micro-batches and processes.

    After the last token of a trajectory that the policy ended nothing is worth anything; of one that a limit ended, V
    of its last state counts (``ilql``), or nothing that was not seen (``mc``). Metrics: mean ``q`` and ``value`` of the
    data's tokens, ``cql`` (the cross-entropy), and ``nll`` of the data under the policy that it stands beside.
    """

    config: OfflineConfig
    counts: Denominators

    def __call__(self, scores: TokenScores, piece: MicroBatch) -> Loss:
        config, signals = self.config, piece.signals
        assert scores.q is not None and scores.q_logprobs is not None
        mask, (q, q_logprobs) = signals["mask"], (stream(part, piece) for part in (scores.q, scores.q_logprobs))
        if config.loss == "mc":
            per_token = mc_loss(q[..., 0], q_logprobs[..., 0], signals["returns"], mask, config.cql_weight)
            seen = {}
        else:
            per_token, values = self._ilql(scores, piece, q, q_logprobs)
            seen = {"value": values}
        value = aggregate(per_token, mask, "token_mean", self.counts)
        if config.trunk == "learns":
            said = aggregate(-scores.logprobs, piece.batch.loss_mask, "token_mean", self.counts)
            value = value + config.bc_weight * said
        seen |= {"q": q.mean(dim=-1), "cql": -q_logprobs.mean(dim=-1), "nll": -stream(scores.logprobs, piece)}
        sums = {name: ((numbers.detach() * mask).sum(), mask.sum()) for name, numbers in seen.items()}
        return Loss(value, sums)

    def _ilql(self, scores: TokenScores, piece: MicroBatch, q: Tensor, q_logprobs: Tensor) -> tuple[Tensor, Tensor]:
        """Losses and V, [N, S] each."""
        config, signals = self.config, piece.signals
        assert scores.target_q is not None and scores.values is not None and scores.final_values is not None
        values = stream(scores.values, piece)
        final = torch.where(signals["truncated"], scores.final_values[signals["last"]], 0.0)
        follow = next_sampled(values, final, signals["mask"])
        losses = ilql_loss(
            q, stream(scores.target_q, piece), q_logprobs, values, follow, signals["rewards"], signals["mask"],
            gamma=config.gamma, tau=config.expectile, cql_weight=config.cql_weight,
        )  # fmt: skip
        return losses, values


def stream(numbers: Tensor, piece: MicroBatch) -> Tensor:
    """[B, T, ...] numbers of tokens -> [N, S, ...] those of each trajectory's sampled tokens, in their order."""
    return numbers.flatten(0, 1)[piece.signals["place"]]
