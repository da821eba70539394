"""Supervised learning on stored rows: every sampled token, end tokens included, is made likelier."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mmturn.errors import DataError
from mmturn.losses.aggregate import Denominators, aggregate
from mmturn.models.features import FeatureCache
from mmturn.training.epochs import ExampleSource, Lesson, content_of, learn
from mmturn.training.feed import Feed
from mmturn.training.images import images_of
from mmturn.training.microbatches import MicroBatch
from mmturn.training.price import Price
from mmturn.training.run import RunSetup
from mmturn.training.settings import SftConfig
from mmturn.training.updater import Loss
from mmturn.types import Row

if TYPE_CHECKING:
    from mmturn.models.policy import TokenScores

LINE = (("sft/loss", "loss"), ("sft/perplexity", "perplexity"), ("eval/accuracy", "eval"), ("sft/lr", "lr"))


@dataclass(frozen=True)
class SftParts:
    """Everything that a run of supervised learning is put together from."""

    setup: RunSetup
    config: SftConfig
    rows: Sequence[Row]
    """What to learn, the same in every process; rows without a sampled token are left out."""
    feed: Feed
    features: FeatureCache
    """Of the policy's present weights."""
    price: Price | None = None
    """What the model's work costs; None leaves FLOPs out of the log."""
    publish: Callable[[int], None] | None = None
    """Tells the engine that evaluates that the weights have changed."""
    on_update: Callable[[int, Mapping[str, float]], None] | None = None
    """Called after each update with its metrics, in every process."""


def train(parts: SftParts) -> Path:
    """Run all updates; the last checkpoint. Raises DataError when there is nothing to learn."""
    setup, feed = parts.setup, parts.feed

    def pack(rows: Sequence[Row]) -> list[MicroBatch]:
        return [MicroBatch(batch) for _, batch in feed.batches(rows, setup.training)]

    def objective(rows: Sequence[Row], pieces: Sequence[MicroBatch]) -> TokenObjective:
        counts = setup.updater.processes.sums({"tokens": sum(sum(row.loss_mask) for row in rows), "rows": len(rows)})
        return TokenObjective(Denominators(int(counts["tokens"]), int(counts["rows"])))

    lesson = Lesson(
        kind="sft", line=LINE, setup=setup, feed=feed, images=images_of(setup, feed, parts.features),
        source=RowSource(parts.rows, setup.training.seed, parts.config.shuffle),
        per_update=parts.config.rows_per_update, epochs=parts.config.epochs, prepare=feed.prepare,
        rows=lambda row: (row,), pack=pack, objective=objective, filler=feed.filler(), derived=perplexity,
        price=parts.price, publish=parts.publish, on_update=parts.on_update,
    )  # fmt: skip
    return learn(lesson)


def perplexity(metrics: Mapping[str, float]) -> dict[str, float]:
    """Of the mean loss per token."""
    return {"perplexity": math.exp(min(metrics["loss"], 50))} if "loss" in metrics else {}


@dataclass(frozen=True, slots=True)
class TokenObjective:
    """Mean negative log-likelihood of the sampled tokens of all micro-batches and processes."""

    denominators: Denominators

    def __call__(self, scores: TokenScores, piece: MicroBatch) -> Loss:
        mask = piece.batch.loss_mask
        value = aggregate(-scores.logprobs, mask, "token_mean", self.denominators)
        entropy = scores.entropy.detach().sum()
        return Loss(value, {"entropy": (entropy, mask.sum())})


class RowSource(ExampleSource[Row]):
    """Rows in an order that the seed and the epoch decide. Raises DataError when no row has a sampled token."""

    def __init__(self, rows: Sequence[Row], seed: int, shuffle: bool = True) -> None:
        sampled = [row for row in rows if any(row.loss_mask)]
        if not sampled:
            raise DataError("nothing to learn: no row has a sampled token")
        super().__init__(sampled, seed, shuffle, "rows", content_of)
