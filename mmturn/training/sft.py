"""Supervised learning on stored rows: every sampled token, end tokens included, is made likelier."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mmturn.errors import CheckpointError, DataError
from mmturn.losses.aggregate import Denominators, aggregate
from mmturn.models.features import FeatureCache
from mmturn.training.cost import update_cost, with_shares
from mmturn.training.feed import Feed
from mmturn.training.images import images_of
from mmturn.training.microbatches import MicroBatch
from mmturn.training.outages import Outages
from mmturn.training.price import Price
from mmturn.training.run import Run, RunSetup
from mmturn.training.schedules import learning_rate
from mmturn.training.settings import SftConfig
from mmturn.training.updater import Loss
from mmturn.types import Json, Row

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
    setup, config, processes = parts.setup, parts.config, parts.setup.updater.processes
    source = RowSource(parts.rows, setup.training.seed, config.shuffle)
    total = setup.training.updates
    if config.epochs:
        total = min(total, math.ceil(config.epochs * len(source) / config.rows_per_update))
    filler, images = parts.feed.filler(), images_of(setup, parts.feed, parts.features)
    with Run("sft", setup, source, LINE, total=total) as run:
        outages = Outages(run.say)
        for update in run.updates():
            with run.clock("pack"):
                rows, problems = prepared(processes.share(source.next(config.rows_per_update)), parts.feed)
                problems = [problem for part in processes.gather(problems) for problem in part]
                counts = processes.sums({"tokens": sum(sum(row.loss_mask) for row in rows), "rows": len(rows)})
                pieces = row_batches(rows, parts)
            for problem in problems[:3]:
                run.say(f"dropped: {problem}")
            outage = outages.note(update, config.rows_per_update, problems, "rows")
            objective = TokenObjective(Denominators(int(counts["tokens"]), int(counts["rows"])))
            lr = learning_rate(setup.training, update, total)
            values = {"sft/lr": lr, "sft/epoch": source.epochs, "sft/dropped": float(len(problems))}
            with run.clock("update"):
                metrics = {} if outage else setup.updater.update(pieces, objective, filler=filler, lr=lr, images=images)
            if parts.publish is not None:
                parts.publish(update)
            values |= {f"sft/{key}": value for key, value in metrics.items()}
            counters = {**setup.updater.take_counters(), **images.take_counters()}
            cost = update_cost(counters, [] if outage else rows, parts.feed.image_token_id, parts.price)
            values |= with_shares(cost.over(processes), run.clock.seconds)
            if "loss" in metrics:
                values["sft/perplexity"] = math.exp(min(metrics["loss"], 50))
            values = run.finish(update, values)
            if parts.on_update is not None:
                parts.on_update(update, values)
    latest = run.checkpoints.latest()
    assert latest is not None, "the last update is always saved"
    return latest


def prepared(rows: Sequence[Row], feed: Feed) -> tuple[list[Row], list[str]]:
    """The rows whose views can be shown; and, by name, those that have to be dropped: an image is gone."""
    ready: list[Row] = []
    problems: list[str] = []
    for row in rows:
        try:
            feed.prepare(row)
        except DataError as error:
            problems.append(str(error))
        else:
            ready.append(row)
    return ready, problems


def row_batches(rows: Sequence[Row], parts: SftParts) -> list[MicroBatch]:
    """Micro-batches of this process's rows."""
    return [MicroBatch(batch) for _, batch in parts.feed.batches(rows, parts.setup.training)]


@dataclass(frozen=True, slots=True)
class TokenObjective:
    """Mean negative log-likelihood of the sampled tokens of all micro-batches and processes."""

    denominators: Denominators

    def __call__(self, scores: TokenScores, piece: MicroBatch) -> Loss:
        mask = piece.batch.loss_mask
        value = aggregate(-scores.logprobs, mask, "token_mean", self.denominators)
        entropy = scores.entropy.detach().sum()
        return Loss(value, {"entropy": (entropy, mask.sum())})


class RowSource:
    """Rows in an order that the seed and the epoch decide. Raises DataError when no row has a sampled token."""

    def __init__(self, rows: Sequence[Row], seed: int, shuffle: bool = True) -> None:
        self._rows = [row for row in rows if any(row.loss_mask)]
        if not self._rows:
            raise DataError("nothing to learn: no row has a sampled token")
        self._seed, self._shuffle, self._taken = seed, shuffle, 0
        self._epoch, self._order = -1, np.arange(0)

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def epochs(self) -> float:
        """Passes over the rows so far."""
        return self._taken / len(self._rows)

    def next(self, count: int) -> list[Row]:
        """The next rows; an epoch ends within."""
        return [self._row(self._advance()) for _ in range(count)]

    def state(self) -> dict[str, Json]:
        """Position."""
        return {"taken": self._taken, "rows": len(self._rows), "hash": self._hash()}

    def load_state(self, state: Mapping[str, Json]) -> None:
        """Go to a stored position. Raises CheckpointError when it belongs to other rows."""
        if (state["rows"], state["hash"]) != (len(self._rows), self._hash()):
            raise CheckpointError(
                f"the checkpoint belongs to other data: it was trained on {state['rows']} rows, here are "
                f"{len(self._rows)}" + (" of other content" if state["rows"] == len(self._rows) else "")
            )
        self._taken = int(state["taken"])

    def _advance(self) -> int:
        self._taken += 1
        return self._taken - 1

    def _row(self, number: int) -> Row:
        epoch, place = divmod(number, len(self._rows))
        if epoch != self._epoch:
            self._epoch, self._order = epoch, np.arange(len(self._rows))
            if self._shuffle:
                self._order = np.random.default_rng([self._seed, epoch]).permutation(len(self._rows))
        return self._rows[int(self._order[place])]

    def _hash(self) -> str:
        """Of what the rows say, not of their pictures' pixels (those are named by hash)."""
        digest = hashlib.sha256()
        for row in self._rows:
            digest.update(repr((row.token_ids, row.loss_mask, [view.source.sha256 for view in row.views])).encode())
        return digest.hexdigest()
