"""What a forward pass under the present weights says of trajectories, before any step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from mmturn.batching.collate import Batch
from mmturn.credit.graded import Signals
from mmturn.errors import DataError
from mmturn.training.feed import Feed
from mmturn.training.images import Images
from mmturn.training.microbatches import MicroBatch
from mmturn.training.reference import Reference
from mmturn.training.settings import TrainingConfig
from mmturn.training.updater import Updater
from mmturn.types import Row, Trajectory

if TYPE_CHECKING:
    from mmturn.models.policy import TokenScores

Found = dict[str, list[float]]
"""By signal, the values of a row's sampled tokens."""


@dataclass(frozen=True, slots=True)
class SignalPass:
    """Scores trajectories as updates do: packed, each image once."""

    updater: Updater
    training: TrainingConfig
    feed: Feed
    images: Images
    reference: Reference | None = None
    """Needed for ``drift``."""

    def __call__(self, trajectories: Sequence[Trajectory], needs: frozenset[str]) -> dict[str, Signals]:
        """Signals by trajectory: the fields of ``graded.Signals`` that ``needs`` names, with values that after the last
        token. One whose rows cannot be made has none. All processes must call it."""
        rows_of: dict[str, list[Row]] = {}
        for trajectory in trajectories:
            try:
                rows_of[trajectory.id] = self.feed.ready_rows(trajectory)
            except DataError:
                continue  # it is named where its rows are asked for again, to be trained on
        rows = [row for own in rows_of.values() for row in own]
        batches = self.feed.batches(rows, self.training)
        found: list[Found] = [{} for _ in rows]
        for (indices, batch), streams in zip(
            batches, self._streams([batch for _, batch in batches], needs), strict=True
        ):
            for number, index in enumerate(indices):
                sampled = batch.loss_mask[number].bool()
                for name, values in streams.items():
                    own = values[number].cpu()
                    found[index][name] = [float(own)] if name == _FINAL else own[sampled].tolist()
        return _joined(trajectories, rows_of, found, needs)

    def _streams(self, batches: Sequence[Batch], needs: frozenset[str]) -> list[dict[str, Tensor]]:
        """Of each batch, the signals [B, T] by name; with values, those after the last token [B] too."""
        pieces, filler = [MicroBatch(batch) for batch in batches], MicroBatch(self.feed.filler().batch)
        scores = self.updater.score(pieces, filler=filler, images=self.images)
        known: Sequence[Tensor | None] = [None] * len(pieces)
        if "drift" in needs:
            assert self.reference is not None, "crediting refuses to go without"
            known = self.reference.logprobs(pieces, filler, self.images)
        return [_named(score, reference, needs) for score, reference in zip(scores, known, strict=True)]


def _named(scores: TokenScores, reference: Tensor | None, needs: frozenset[str]) -> dict[str, Tensor]:
    """The signals that are needed, from the scores of the policy and the log-probs of the reference."""
    streams = {name: getattr(scores, field) for name, field in _FIELDS.items() if name in needs}
    if reference is not None:
        streams["drift"] = scores.logprobs - reference
    if "values" in needs:
        streams[_FINAL] = scores.final_values
    return streams


def _joined(
    trajectories: Sequence[Trajectory],
    rows_of: Mapping[str, Sequence[Row]],
    found: Sequence[Found],
    needs: frozenset[str],
) -> dict[str, Signals]:
    """The values of a trajectory's rows, each turn's from the row of its seat."""
    signals, start = {}, 0
    for trajectory in trajectories:
        own = rows_of.get(trajectory.id)
        if own is None:
            continue
        parts, start = found[start : start + len(own)], start + len(own)
        spoken = [[turn for turn in row.turn_index if turn >= 0] for row in own]
        made = {name: _by_turn(spoken, [part[name] for part in parts], trajectory.num_turns) for name in needs}
        # a limit is not an ending: what might still have come counts
        valued = "values" in needs and parts and trajectory.stop.status == "truncated"
        last = max(range(len(own)), key=lambda i: max(spoken[i], default=-1), default=0)
        final = parts[last][_FINAL][0] if valued else 0.0
        signals[trajectory.id] = Signals(made.get("values"), final, made.get("entropies"), made.get("drift"))
    return signals


def _by_turn(
    spoken: Sequence[Sequence[int]], rows: Sequence[Sequence[float]], num_turns: int
) -> tuple[tuple[float, ...], ...]:
    """[K][n_k] the numbers of sampled tokens; ``spoken``: which turn each token of each row belongs to."""
    made: list[list[float]] = [[] for _ in range(num_turns)]
    for turns, values in zip(spoken, rows, strict=True):
        for turn, value in zip(turns, values, strict=True):
            made[turn].append(value)
    return tuple(map(tuple, made))


_FINAL = "final"
_FIELDS = {"entropies": "entropy", "values": "values"}
"""Field of ``graded.Signals`` -> field of ``TokenScores``."""
