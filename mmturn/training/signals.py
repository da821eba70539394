"""What a forward pass under the present weights says of trajectories, before any step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from mmturn.credit.graded import Signals
from mmturn.training.feed import Feed
from mmturn.training.images import Images
from mmturn.training.reference import Reference
from mmturn.training.scan import Scan, Scanned, ScannedRow, TurnStates, latest
from mmturn.training.settings import TrainingConfig
from mmturn.training.updater import Updater
from mmturn.types import Trajectory

Judge = Callable[[Mapping[str, TurnStates]], Mapping[str, Sequence[tuple[float, ...]]]]
"""States of trajectories -> by trajectory and turn of a trained seat, ``Signals.utterances``."""


@dataclass(frozen=True, slots=True)
class SignalPass:
    """Scores trajectories as updates do: packed, each image once."""

    updater: Updater
    training: TrainingConfig
    feed: Feed
    images: Images
    reference: Reference | None = None
    """Needed for ``drift``."""
    judge: Judge | None = None
    """A critic over utterances; needed where those are asked for."""

    def __call__(self, trajectories: Sequence[Trajectory], needs: frozenset[str]) -> dict[str, Signals]:
        """Signals by trajectory: the fields of ``graded.Signals`` that ``needs`` names, with values that after the last
        token. One whose rows cannot be made has none: it is named where its rows are asked for again, to be trained on.
        All processes must call it."""
        compared = self.reference if "drift" in needs else None
        scan, wanted = Scan(self.updater, self.training, self.feed, self.images, compared), "utterances" in needs
        scanned = scan(trajectories, with_states=wanted)
        judged = self._judged(scanned) if wanted else None
        found = {}
        for trajectory in trajectories:
            rows = scanned.rows.get(trajectory.id)
            if rows is None:
                continue
            made = {name: _by_turn(name, rows, trajectory.num_turns) for name in needs & _READ.keys()}
            final = _final_value(trajectory, rows) if "values" in needs else 0.0
            said = None if judged is None else judged.get(trajectory.id, {})
            utterances = None if said is None else tuple(said.get(k, ()) for k in range(trajectory.num_turns))
            found[trajectory.id] = Signals(
                made.get("values"), final, made.get("entropies"), made.get("drift"), utterances=utterances
            )
        return found

    def _judged(self, scanned: Scanned) -> dict[str, dict[int, tuple[float, ...]]]:
        """What the critic over utterances says, by trajectory and turn."""
        assert self.judge is not None, "utterances are asked for where a critic judges them"
        states = scanned.states()
        judged = self.judge(states)
        return {name: dict(zip(own.turns, judged[name], strict=True)) for name, own in states.items()}


def _final_value(trajectory: Trajectory, rows: Sequence[ScannedRow]) -> float:
    """Behind the last token; 0 where the policy ended it. A limit is not an ending: what might have come counts."""
    if trajectory.stop.status != "truncated" or not rows:
        return 0.0
    end = latest(rows)
    assert end.scores.final_values is not None
    return float(end.scores.final_values[end.number])


def _by_turn(name: str, rows: Sequence[ScannedRow], num_turns: int) -> tuple[tuple[float, ...], ...]:
    """[K][n_k] the numbers of sampled tokens, each turn's from the row of its seat."""
    made: list[list[float]] = [[] for _ in range(num_turns)]
    for scanned in rows:
        turns = [turn for turn in scanned.row.turn_index if turn >= 0]
        for turn, value in zip(turns, _READ[name](scanned), strict=True):
            made[turn].append(value)
    return tuple(map(tuple, made))


_READ: Mapping[str, Callable[[ScannedRow], list[float]]] = {
    "entropies": lambda row: row.sampled("entropy"),
    "values": lambda row: row.sampled("values"),
    "drift": ScannedRow.drift,
}
"""Field of ``graded.Signals`` -> how it is read off a row."""
