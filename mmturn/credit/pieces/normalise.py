"""Normalise: what the trajectories of a batch [N] are worth -> advantages. They are applied one after the other."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Literal

from mmturn.credit import whiten as whitening
from mmturn.credit.graded import Graded, Worth, by_group, cut, flat, per_token, per_turn, unit_of, values_of
from mmturn.credit.outcome import Single, Std, rloo
from mmturn.credit.seats import SeatBaselines
from mmturn.credit.signals import needs
from mmturn.errors import ConfigError
from mmturn.types import Json


def group(
    batch: Sequence[Graded],
    worths: Sequence[Worth],
    *,
    std: Std = "unbiased",
    eps: float = 1e-6,
    single: Single = "zero",
    over: Literal["trajectory", "turn"] = "trajectory",
) -> list[Worth]:
    """Within each group: ``(x - mean) / (std + eps)`` over trajectories, or over all turns or tokens of the group where
    the worths are per turn or token. ``std: none`` centres (Dr. GRPO). ``over: turn`` counts a trajectory's worth once
    for each of its turns, so that long ones weigh more in mean and deviation: step-wise GRPO of DART (2509.23866). See
    ``outcome.grpo``."""
    if over == "turn":
        worths = [per_turn(g, w) if unit_of(w) == "trajectory" else w for g, w in zip(batch, worths, strict=True)]
    return _normalised(batch, worths, [g.group for g in batch], std, eps, single)


def leave_one_out(batch: Sequence[Graded], worths: Sequence[Worth]) -> list[Worth]:
    """Less the mean of the other trajectories of the group: RLOO. See ``outcome.rloo``; for worths per turn, the credit
    ``returns_less_others``."""
    if any(unit_of(worth) != "trajectory" for worth in worths):
        raise ConfigError("leave_one_out takes one number per trajectory; for turns, use credit returns_less_others")
    of = {g.id: float(worth) for g, worth in zip(batch, worths, strict=True)}  # type: ignore[arg-type]
    return list(by_group(batch, lambda members: rloo([of[g.id] for g in members])))


def whiten(batch: Sequence[Graded], worths: Sequence[Worth], *, eps: float = 1e-8) -> list[Worth]:
    """Over all sampled tokens of the batch: ``(x - mean) / sqrt(var + eps)``. See ``whiten.whiten``."""
    rows = [flat(per_token(g, worth)) for g, worth in zip(batch, worths, strict=True)]
    made = whitening.whiten(rows, [[1] * len(row) for row in rows], eps)
    return [cut(row, g.tokens) for g, row in zip(batch, made, strict=True)]


def by_role(
    batch: Sequence[Graded], worths: Sequence[Worth], *, std: Std = "unbiased", eps: float = 1e-8
) -> list[Worth]:
    """Within each seat, over all its turns of the batch, or over their tokens where the worths are per token: PAG's
    RoleAdvNorm. See ``whiten.normalise_by``."""
    pairs = list(zip(batch, worths, strict=True))
    if any(unit_of(worth) == "token" for worth in worths):
        seats = [seat for g in batch for seat, count in zip(g.seats, g.tokens, strict=True) for _ in range(count)]
        made = whitening.normalise_by(seats, [x for g, worth in pairs for x in flat(per_token(g, worth))], std, eps)
        return [cut(row, g.tokens) for g, row in zip(batch, cut(made, [sum(g.tokens) for g in batch]), strict=True)]
    keys = [seat for g in batch for seat in g.seats]
    made = whitening.normalise_by(keys, flat([per_turn(g, worth) for g, worth in pairs]), std, eps)
    return list(cut(made, [g.num_turns for g in batch]))


def by_task(
    batch: Sequence[Graded],
    worths: Sequence[Worth],
    *,
    std: Std = "population",
    eps: float = 0.0,
    kind: str = "level",
) -> list[Worth]:
    """Within each kind of task, over all its sampled tokens: AgentRL's task advantage normalisation. ``kind``: which
    entry of a task's ``meta`` tells its kind; tasks without it are of one kind. See ``whiten.normalise_by``."""
    tokens = [per_token(g, worth) for g, worth in zip(batch, worths, strict=True)]
    return _normalised(batch, tokens, [str(g.meta.get(kind, "")) for g in batch], std, eps, "zero")


@needs("values")
def less_values(batch: Sequence[Graded], worths: Sequence[Worth]) -> list[Worth]:
    """Less the critic's value at each sampled token: makes advantages of credit that is a return (ReVeal's ``tapo``,
    ``returns``, ``token_returns``), as ``gae`` does by itself."""
    return [tuple(map(_differences, per_token(g, w), values_of(g))) for g, w in zip(batch, worths, strict=True)]


class SeatBaseline:
    """Each turn what its seat earned in all (the sum over its own turns; the credit is ``own_turn``), less the running
    mean of what that seat earned before in that game: SPIRAL. ``game``: which entry of a task's ``meta`` names it. See
    ``seats.SeatBaselines``. The means are part of a checkpoint."""

    def __init__(self, *, decay: float = 0.95, update_first: bool = False, game: str = "game") -> None:
        self._baselines, self._game = SeatBaselines(decay, 0.0, update_first), game

    def __call__(self, batch: Sequence[Graded], worths: Sequence[Worth]) -> list[Worth]:
        result: list[Worth] = []
        for g, worth in zip(batch, worths, strict=True):
            turns = per_turn(g, worth)
            game, less = str(g.meta.get(self._game, "")), {}
            for seat in sorted(set(g.seats)):
                earned = sum(turn for turn, whose in zip(turns, g.seats, strict=True) if whose == seat)
                less[seat] = self._baselines.advantage(game, seat, earned)
            result.append(tuple(less[seat] for seat in g.seats))
        return result

    def state(self) -> dict[str, Json]:
        """Baselines by game and seat."""
        return dict(self._baselines.state())

    def load_state(self, state: Mapping[str, Json]) -> None:
        """Take stored ones."""
        self._baselines.load_state(state)


def _differences(worths: Sequence[float], values: Sequence[float]) -> tuple[float, ...]:
    return tuple(worth - value for worth, value in zip(worths, values, strict=True))


def _normalised(
    batch: Sequence[Graded],
    worths: Sequence[Worth],
    keys: Sequence[Hashable],
    std: Std,
    eps: float,
    single: Single,
) -> list[Worth]:
    """Within equal keys, each in the unit it has; all worths of a batch have the same unit."""
    units = {unit_of(worth) for g, worth in zip(batch, worths, strict=True) if g.num_turns}
    if units <= {"trajectory"}:
        numbers = [float(worth) if not isinstance(worth, tuple) else 0.0 for worth in worths]
        return list(whitening.normalise_by(keys, numbers, std, eps, single))
    token = units == {"token"}
    rows = [flat(per_token(g, worth)) if token else per_turn(g, worth) for g, worth in zip(batch, worths, strict=True)]
    spread = [key for key, row in zip(keys, rows, strict=True) for _ in row]
    made = cut(whitening.normalise_by(spread, flat(rows), std, eps, single), list(map(len, rows)))
    return [cut(row, g.tokens) if token else row for g, row in zip(batch, made, strict=True)]
