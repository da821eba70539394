"""Passes over stored examples: the loop that supervised, preference and offline learning share."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np

from mmturn.errors import CheckpointError, DataError
from mmturn.training.cost import update_cost, with_shares
from mmturn.training.feed import Feed
from mmturn.training.images import Images
from mmturn.training.microbatches import MicroBatch
from mmturn.training.outages import Outages
from mmturn.training.price import Price
from mmturn.training.run import Run, RunSetup
from mmturn.training.schedules import learning_rate, schedule_factor
from mmturn.training.updater import LossFn
from mmturn.types import Json, Row

E = TypeVar("E")
"""What one term of the loss is made of: a row, or the rows of a pair."""


class ExampleSource(Generic[E]):
    """Examples in an order that the seed and the epoch decide. ``noun``: what there is none of, or too many, in errors;
    ``content``: what of an example tells it from others, for runs that are resumed. Raises DataError for none."""

    def __init__(
        self, examples: Sequence[E], seed: int, shuffle: bool, noun: str, content: Callable[[E], object]
    ) -> None:
        if not examples:
            raise DataError(f"nothing to learn: no {noun} to learn from")
        self._examples, self._seed, self._shuffle, self.noun = list(examples), seed, shuffle, noun
        self._content, self._taken = content, 0
        self._epoch, self._order = -1, np.arange(0)

    def __len__(self) -> int:
        return len(self._examples)

    @property
    def epochs(self) -> float:
        """Passes over the examples so far."""
        return self._taken / len(self._examples)

    def next(self, count: int) -> list[E]:
        """The next examples; an epoch ends within."""
        return [self._example(self._advance()) for _ in range(count)]

    def state(self) -> dict[str, Json]:
        """Position."""
        return {"taken": self._taken, self.noun: len(self._examples), "hash": self._hash()}

    def load_state(self, state: Mapping[str, Json]) -> None:
        """Go to a stored position. Raises CheckpointError when it belongs to other examples."""
        count = state.get(self.noun)
        if (count, state["hash"]) != (len(self._examples), self._hash()):
            raise CheckpointError(
                f"the checkpoint belongs to other data: it was trained on {count} {self.noun}, here are "
                f"{len(self._examples)}" + (" of other content" if count == len(self._examples) else "")
            )
        self._taken = int(state["taken"])

    def _advance(self) -> int:
        self._taken += 1
        return self._taken - 1

    def _example(self, number: int) -> E:
        epoch, place = divmod(number, len(self._examples))
        if epoch != self._epoch:
            self._epoch, self._order = epoch, np.arange(len(self._examples))
            if self._shuffle:
                self._order = np.random.default_rng([self._seed, epoch]).permutation(len(self._examples))
        return self._examples[int(self._order[place])]

    def _hash(self) -> str:
        digest = hashlib.sha256()
        for example in self._examples:
            digest.update(repr(self._content(example)).encode())
        return digest.hexdigest()


def content_of(row: Row) -> tuple[object, ...]:
    """What a row says, without its pictures' pixels (those are named by hash)."""
    return row.token_ids, row.loss_mask, [ref.sha256 for view in row.views for ref in view.sources]


@dataclass(frozen=True)
class Lesson(Generic[E]):
    """What is particular to one way of learning from stored examples, and everything that its run is put together
    from. All processes hold the same examples, and call ``pack`` and ``objective`` together."""

    kind: str
    """Of the run, and what its metrics begin with: ``sft``, ``preference``, ``offline``."""
    line: tuple[tuple[str, str], ...]
    """(key, short name) pairs of the terminal's line."""
    setup: RunSetup
    feed: Feed
    images: Images
    source: ExampleSource[E]
    per_update: int
    """Examples in one optimizer step, over all processes."""
    epochs: float
    """Passes over the examples; 0 runs all of ``training.updates``. The smaller of the two ends the run."""
    prepare: Callable[[E], None]
    """Raises DataError naming what is wrong with an example that cannot be used (any more)."""
    rows: Callable[[E], Sequence[Row]]
    pack: Callable[[Sequence[E]], list[MicroBatch]]
    """This process's micro-batches of an update."""
    objective: Callable[[Sequence[E], Sequence[MicroBatch]], LossFn]
    """The loss of an update: of this process's examples and their micro-batches."""
    filler: MicroBatch
    """A micro-batch with nothing to learn, with every signal that the loss reads."""
    derived: Callable[[Mapping[str, float]], Mapping[str, float]]
    """Further metrics, from those of the optimizer step."""
    critic_lr: float | None = None
    """Peak learning rate of the policy's critic; None: it has none."""
    price: Price | None = None
    """What the model's work costs; None leaves FLOPs out of the log."""
    publish: Callable[[int], None] | None = None
    """Tells the engine that evaluates that the weights have changed."""
    on_update: Callable[[int, Mapping[str, float]], None] | None = None
    """Called after each update with its metrics, in every process."""

    @property
    def total(self) -> int:
        """Updates of the whole run."""
        updates = self.setup.training.updates
        if not self.epochs:
            return updates
        return min(updates, math.ceil(self.epochs * len(self.source) / self.per_update))


def learn(lesson: Lesson[E]) -> Path:
    """Run all updates; the last checkpoint."""
    setup, source, processes = lesson.setup, lesson.source, lesson.setup.updater.processes
    with Run(lesson.kind, setup, source, lesson.line, total=lesson.total) as run:
        outages = Outages(run.say)
        for update in run.updates():
            with run.clock("pack"):
                examples, problems = usable(processes.share(source.next(lesson.per_update)), lesson.prepare)
                problems = [problem for part in processes.gather(problems) for problem in part]
                pieces = lesson.pack(examples)
            for problem in problems[:3]:
                run.say(f"dropped: {problem}")
            outage = outages.note(update, lesson.per_update, problems, source.noun)
            values = {"lr": learning_rate(setup.training, update, lesson.total), "epoch": source.epochs}
            values["dropped"] = float(len(problems))
            if lesson.critic_lr is not None:
                values["critic_lr"] = lesson.critic_lr * schedule_factor(setup.training, update, lesson.total)
            with run.clock("update"):
                metrics = {} if outage else _step(lesson, examples, pieces, values)
            if lesson.publish is not None:
                lesson.publish(update)
            values |= {**metrics, **lesson.derived(metrics)}
            rows = [] if outage else [row for example in examples for row in lesson.rows(example)]
            counters = {**setup.updater.take_counters(), **lesson.images.take_counters()}
            cost = update_cost(counters, rows, lesson.feed.holders, lesson.price)
            named = {f"{lesson.kind}/{key}": value for key, value in values.items()}
            done = run.finish(update, named | with_shares(cost.over(processes), run.clock.seconds))
            if lesson.on_update is not None:
                lesson.on_update(update, done)
    latest = run.checkpoints.latest()
    assert latest is not None, "the last update is always saved"
    return latest


def usable(examples: Sequence[E], prepare: Callable[[E], None]) -> tuple[list[E], list[str]]:
    """The examples that can be prepared; and, by name, those that have to be dropped: an image is gone."""
    ready: list[E] = []
    problems: list[str] = []
    for example in examples:
        try:
            prepare(example)
        except DataError as error:
            problems.append(str(error))
        else:
            ready.append(example)
    return ready, problems


def _step(
    lesson: Lesson[E], examples: Sequence[E], pieces: Sequence[MicroBatch], rates: Mapping[str, float]
) -> dict[str, float]:
    metrics = lesson.setup.updater.update(
        pieces, lesson.objective(examples, pieces), filler=lesson.filler, lr=rates["lr"],
        critic_lr=rates.get("critic_lr", 0.0), images=lesson.images,
    )  # fmt: skip
    if lesson.setup.training.deterministic:
        # a view's features depend in their last bits on the batch they were encoded in: a run that has to repeat
        # exactly encodes anew in each update, as a resumed one does
        lesson.images.cache.clear()
    return metrics
