"""One forward pass over trajectories under the present weights, and what it finds row by row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mmturn.errors import DataError
from mmturn.models.policy import TokenScores
from mmturn.training.feed import Feed
from mmturn.training.images import Images
from mmturn.training.microbatches import MicroBatch
from mmturn.training.reference import Reference
from mmturn.training.settings import TrainingConfig
from mmturn.training.updater import Updater
from mmturn.types import Row, Trajectory


@dataclass(frozen=True, slots=True)
class TurnStates:
    """Hidden states of a trajectory's turns, on CPU: those of trained seats, K of them."""

    turns: tuple[int, ...]
    """[K] their indices among all turns, in order."""
    starts: Tensor
    """float32 [K, H] where a turn is about to begin: it predicts its first sampled token."""
    ends: Tensor
    """float32 [K, H] at a turn's last sampled token."""
    last: Tensor
    """float32 [H] at the last token of the row that the last turn stands in."""


@dataclass(frozen=True, slots=True)
class ScannedRow:
    """A row, and the scores of the batch that it was in."""

    row: Row
    scores: TokenScores
    number: int
    """Which row of the batch it was."""
    first_turn: int
    """Turns of the rows before it in the batch."""
    reference: Tensor | None = None
    """[B, T] log-probs of the reference policy, of the same batch; None where there was none."""

    def sampled(self, name: str) -> list[float]:
        """The numbers of a field of ``TokenScores`` at the sampled tokens."""
        return self._sampled(getattr(self.scores, name))

    def drift(self) -> list[float]:
        """log p - log p_ref of the sampled tokens."""
        assert self.reference is not None, "crediting refuses to go without"
        return self._sampled(self.scores.logprobs - self.reference)

    def _sampled(self, batch: Tensor) -> list[float]:
        values = batch[self.number].cpu()
        return values[torch.tensor(self.row.loss_mask + (0,) * (len(values) - len(self.row.loss_mask))).bool()].tolist()

    @property
    def turns(self) -> list[int]:
        """Turns with sampled tokens, in order."""
        return turns_of(self.row)


@dataclass(frozen=True, slots=True)
class Scanned:
    """The rows of some trajectories."""

    rows: dict[str, list[ScannedRow]]
    """Trajectory -> its rows; one whose rows cannot be made is missing."""
    problems: dict[str, str]
    """Trajectory -> why they cannot: an image is gone, placeholders and images disagree."""

    def states(self) -> dict[str, TurnStates]:
        """By trajectory, where its rows were scanned ``with_states``; one without sampled tokens has none."""
        return {name: _states(rows) for name, rows in self.rows.items() if any(row.turns for row in rows)}


@dataclass(frozen=True, slots=True)
class Scan:
    """Scores trajectories as updates do: packed, each image once."""

    updater: Updater
    training: TrainingConfig
    feed: Feed
    images: Images
    reference: Reference | None = None
    """Scores the same rows."""

    def __call__(self, trajectories: Sequence[Trajectory], *, with_states: bool = False) -> Scanned:
        """All processes must call it, with any number of trajectories."""
        rows_of: dict[str, list[Row]] = {}
        problems: dict[str, str] = {}
        for trajectory in trajectories:
            try:
                rows_of[trajectory.id] = self.feed.ready_rows(trajectory)
            except DataError as error:
                problems[trajectory.id] = str(error)
        rows = [row for own in rows_of.values() for row in own]
        batches = self.feed.batches(rows, self.training)
        pieces = [MicroBatch(batch) for _, batch in batches]
        filler = MicroBatch(self.feed.filler().batch)
        scores = self.updater.score(pieces, filler=filler, images=self.images, with_states=with_states)
        known: Sequence[Tensor | None] = [None] * len(pieces)
        if self.reference is not None:
            known = self.reference.logprobs(pieces, filler, self.images)
        found: dict[int, ScannedRow] = {}
        for (indices, _), score, reference in zip(batches, scores, known, strict=True):
            turns = 0
            for number, index in enumerate(indices):
                found[index] = ScannedRow(rows[index], score, number, turns, reference)
                turns += len(turns_of(rows[index]))
        in_order = iter(range(len(rows)))
        return Scanned({name: [found[next(in_order)] for _ in own] for name, own in rows_of.items()}, problems)


def turns_of(row: Row) -> list[int]:
    """Turns with sampled tokens in a row, in order."""
    return list(dict.fromkeys(turn for turn in row.turn_index if turn >= 0))


def latest(rows: Sequence[ScannedRow]) -> ScannedRow:
    """The row of a trajectory that its last turn stands in."""
    return max(rows, key=lambda row: max(row.turns, default=-1))


def _states(rows: Sequence[ScannedRow]) -> TurnStates:
    """The turns of all rows in the order in which they were taken."""
    places = sorted((turn, number, k) for number, row in enumerate(rows) for k, turn in enumerate(row.turns))
    found: dict[str, Tensor] = {}
    for name in ("starts", "ends"):
        parts = [getattr(row.scores.states, name)[row.first_turn :][: len(row.turns)].cpu() for row in rows]
        found[name] = torch.stack([parts[number][k] for _, number, k in places])
    end = latest(rows)
    assert end.scores.states is not None
    last = end.scores.states.last[end.number].cpu()
    return TurnStates(tuple(turn for turn, _, _ in places), found["starts"], found["ends"], last)
