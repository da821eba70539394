"""Pairs and labels -> what goes through the model: rows with exact masks, a pair whole in one micro-batch."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from mmturn.credit.pairs import Label, Pair, at_turns, best_against_worst, good_against_bad, labels
from mmturn.errors import DataError
from mmturn.losses.preference import widest_pair
from mmturn.training.epochs import content_of
from mmturn.training.feed import Feed
from mmturn.training.images import Images
from mmturn.training.microbatches import MicroBatch
from mmturn.training.reference import Reference
from mmturn.training.settings import PreferenceConfig, TrainingConfig
from mmturn.types import Row, Trajectory

SCORED_GROUPS = 16
"""Groups that the reference scores at a time: the features of their images are held together."""


@dataclass(frozen=True, slots=True)
class Known:
    """What the reference says of trajectories, by their places."""

    logprobs: Mapping[int, Sequence[Tensor]] = field(default_factory=dict)
    """Per row float32 [T], 0 where nothing was sampled."""
    problems: Mapping[int, str] = field(default_factory=dict)
    """Why a trajectory could not be scored: an image is gone."""


@dataclass(frozen=True, slots=True)
class Example:
    """A pair or a labelled trajectory, as the loss sees it."""

    objective: str
    desirable: bool
    """Of a labelled trajectory; true for pairs."""
    rows: tuple[Row, ...]
    """Those with a token to learn from. They have a group to themselves, so that they are packed as one tree."""
    sides: tuple[int, ...]
    """Per row: 0 for the chosen or labelled trajectory, 1 for the rejected one."""
    reference: tuple[Tensor, ...] = ()
    """Per row, [T] log-probs of the reference; empty where no loss reads them."""
    problem: str = ""
    """Why it cannot be used."""

    @property
    def content(self) -> tuple[object, ...]:
        """What tells it from others."""
        return self.objective, self.desirable, self.sides, [content_of(row) for row in self.rows]

    def prepare(self, feed: Feed) -> None:
        """Ask for all that it shows. Raises DataError naming the side that is lost: the other is of no use alone."""
        if self.problem:
            raise DataError(self.problem)
        for row in self.rows:
            feed.prepare(row)


def compared(trajectories: Sequence[Trajectory], config: PreferenceConfig) -> list[Pair] | list[Label]:
    """What the settings compare, objective by objective; for ``widest``, all pairs that may be chosen."""
    names, good, bad = config.objectives, config.good_from, config.bad_to
    if config.loss == "m_kto":
        return [label for name in names for label in labels(trajectories, good, bad, name)]
    pairs: list[Pair] = []
    for name in names:
        if config.pairs == "best_worst":
            pairs += best_against_worst(trajectories, name, config.min_gap)
        elif config.pairs == "turns":
            pairs += at_turns(trajectories, name, config.min_gap, config.per_group)
        else:
            most = config.per_group if config.pairs == "thresholds" else 0
            pairs += good_against_bad(trajectories, good, bad, name, most)
    return pairs


def widest(pairs: Sequence[Pair], rows: Sequence[Sequence[Row]], known: Known, against: bool) -> list[Pair]:
    """Of the pairs of each group and objective the one with the largest gap in likelihood, a mean over the sampled
    tokens of a trajectory. Trajectories that could not be scored take no part.

    Source: RoseRAG (2502.10993); see ``losses.preference.widest_pair``.
    """
    groups: dict[tuple[str, str], list[Pair]] = {}
    for pair in pairs:
        if pair.chosen in known.logprobs and pair.rejected in known.logprobs:
            groups.setdefault((pair.objective, rows[pair.chosen][0].group), []).append(pair)
    found: list[Pair] = []
    for candidates in groups.values():
        good, bad = (list(dict.fromkeys(pair.members[side] for pair in candidates)) for side in (0, 1))
        of_good, of_bad = ([_mean(rows[i], known.logprobs[i]) for i in side] for side in (good, bad))
        first, second = widest_pair(of_good, of_bad, against)
        found.append(replace(candidates[0], chosen=good[first], rejected=bad[second]))
    return found


def examples_of(
    found: Sequence[Pair | Label], rows: Sequence[Sequence[Row]], known: Known
) -> tuple[list[Example], list[str]]:
    """Examples of pairs and labels; and, by name, those that can never be used: one side has no sampled token.

    ``rows``: of every trajectory.
    """
    examples: list[Example] = []
    problems: list[str] = []
    for number, comparison in enumerate(found):
        try:
            examples.append(_example(comparison, f"{comparison.objective} {number}", rows, known))
        except DataError as error:
            problems.append(str(error))
    return examples, problems


def micro_batches(
    examples: Sequence[Example],
    weights: Sequence[float],
    feed: Feed,
    training: TrainingConfig,
    heads: Sequence[str] = (),
) -> list[MicroBatch]:
    """Examples as the settings cut them, each whole, with ``weights``: what each example's loss counts. ``heads``:
    objectives that have an output layer of their own, which scores their rows.

    Signals, for the N examples of a micro-batch: ``slot`` int64 [B], 2 n for a row of the first side of example n and
    2 n + 1 for one of the second; ``reference`` [B, T]; ``weight`` and ``desirable`` [N].
    """
    owners = [(number, place) for number, example in enumerate(examples) for place in range(len(example.rows))]
    rows = [examples[number].rows[place] for number, place in owners]
    pieces: list[MicroBatch] = []
    for indices, batch in feed.batches(rows, training, whole=True):
        held = list(dict.fromkeys(owners[index][0] for index in indices))
        slots: list[int] = []
        reference = torch.zeros(batch.loss_mask.shape)
        for line, (number, place) in enumerate(owners[index] for index in indices):
            slots.append(2 * held.index(number) + examples[number].sides[place])
            if examples[number].reference:
                values = examples[number].reference[place]
                reference[line, : len(values)] = values
        signals = {
            "slot": torch.tensor(slots),
            "reference": reference,
            "weight": torch.tensor([weights[number] for number in held]),
            "desirable": torch.tensor([examples[number].desirable for number in held]),
        }
        if heads:
            own = [heads.index(examples[owners[index][0]].objective) for index in indices]
            batch = replace(batch, head=torch.tensor(own))
        pieces.append(MicroBatch(batch, signals))
    return pieces


def filler_of(feed: Feed, heads: Sequence[str] = ()) -> MicroBatch:
    """A micro-batch of one example that counts nothing."""
    piece = feed.filler()
    if heads:
        piece = replace(piece, batch=replace(piece.batch, head=torch.zeros(1, dtype=torch.long)))
    return piece.having(
        slot=torch.zeros(1, dtype=torch.long),
        reference=torch.zeros(piece.batch.loss_mask.shape),
        weight=torch.zeros(1),
        desirable=torch.ones(1, dtype=torch.bool),
    )


def scored(
    wanted: Collection[int], rows: Sequence[Sequence[Row]], feed: Feed, training: TrainingConfig, reference: Reference,
    images: Images,
) -> Known:  # fmt: skip
    """Log-probs of the ``wanted`` trajectories, a group's in one tree. All processes must call it with the same ones;
    each scores its share, and all learn all."""
    processes = reference.processes
    groups: dict[str, list[int]] = {}
    for index in sorted(wanted):
        if rows[index]:
            groups.setdefault(rows[index][0].group, []).append(index)
    own = processes.share(list(groups.values()))
    logprobs: dict[int, list[Tensor]] = {}
    problems: dict[int, str] = {}
    for start in range(0, processes.maximum(len(own)), SCORED_GROUPS):
        ready: list[tuple[int, Row]] = []
        for index in (index for group in own[start : start + SCORED_GROUPS] for index in group):
            try:
                for row in rows[index]:
                    feed.prepare(row)
            except DataError as error:
                problems[index] = str(error)
            else:
                ready += [(index, row) for row in rows[index]]
        batches = feed.batches([row for _, row in ready], training)
        pieces = [MicroBatch(batch) for _, batch in batches]
        values: dict[int, Tensor] = {}
        for (indices, _), part in zip(batches, reference.logprobs(pieces, feed.filler(), images), strict=True):
            values |= dict(zip(indices, part.float().cpu(), strict=True))
        for number, (index, row) in enumerate(ready):
            logprobs.setdefault(index, []).append(values[number][: len(row.token_ids)].clone())
    scores, reasons = zip(*processes.gather((logprobs, problems)), strict=True)
    return Known(dict(ChainMap(*scores)), dict(ChainMap(*reasons)))


def _example(comparison: Pair | Label, name: str, rows: Sequence[Sequence[Row]], known: Known) -> Example:
    first = comparison.turn if isinstance(comparison, Pair) else 0
    kept: list[tuple[int, int, int, Row]] = []
    for side, index in enumerate(comparison.members):
        own = [(side, index, place, _learned_from(row, first, name)) for place, row in enumerate(rows[index])]
        own = [entry for entry in own if any(entry[3].loss_mask)]
        if not own:
            trajectory = rows[index][0].trajectory_id if rows[index] else "?"
            raise DataError(f"trajectory {trajectory}: has no sampled token to compare by")
        kept += own
    problems = [known.problems[index] for index in comparison.members if index in known.problems]
    complete = all(index in known.logprobs for index in comparison.members)
    return Example(
        objective=comparison.objective,
        desirable=not isinstance(comparison, Label) or comparison.desirable,
        rows=tuple(row for *_, row in kept),
        sides=tuple(side for side, *_ in kept),
        reference=tuple(known.logprobs[index][place] for _, index, place, _ in kept) if complete else (),
        problem=problems[0] if problems else "",
    )


def _learned_from(row: Row, turn: int, group: str) -> Row:
    """A row in which the tokens of earlier turns are context."""
    mask = tuple(int(bool(own) and index >= turn) for own, index in zip(row.loss_mask, row.turn_index, strict=True))
    return replace(row, loss_mask=mask, logprobs=None, group=group)  # the sampler's log-probs are read nowhere


def _mean(rows: Sequence[Row], logprobs: Sequence[Tensor]) -> float:
    """Mean log-prob over the sampled tokens of all rows."""
    count = sum(sum(row.loss_mask) for row in rows)
    return sum(float(part.double().sum()) for part in logprobs) / max(count, 1)
