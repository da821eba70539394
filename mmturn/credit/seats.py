"""SPIRAL: a return minus the running mean of the returns that its game and seat brought before.

Source of all: SPIRAL (2506.24119), role-conditioned advantage estimation; train_spiral.py and spiral/utils.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from mmturn.credit.tokens import discount


class SeatBaselines:
    """Running baselines, one per game and seat; seats never share one.

    ``decay``: weight of the old baseline in ``b = decay b + (1 - decay) R``. ``initial``: the baseline of a seat not
    seen before. ``update_first``: False as in the repository (subtract the old baseline), True for a form in which
    the return moves its own baseline first; its advantages are ``decay`` times the others. Raises ValueError.
    """

    def __init__(self, decay: float = 0.95, initial: float = 0.0, update_first: bool = False) -> None:
        self.decay, self.initial, self.update_first = discount("decay", decay), initial, update_first
        self._baselines: dict[str, dict[str, float]] = {}

    def advantage(self, game: str, seat: str, value: float) -> float:
        """Advantage of a return, for all turns of that seat, and the baseline moved on. Raises ValueError."""
        if not math.isfinite(value):
            raise ValueError(f"return of seat {seat!r} in game {game!r} is not finite: {value}")
        seats = self._baselines.setdefault(game, {})
        before = seats.get(seat, self.initial)
        after = self.decay * before + (1.0 - self.decay) * value
        seats[seat] = after
        return value - (after if self.update_first else before)

    def state(self) -> dict[str, dict[str, float]]:
        """Baselines by game and seat, for a checkpoint."""
        return {game: dict(seats) for game, seats in self._baselines.items()}

    def load_state(self, state: Mapping[str, Mapping[str, float]]) -> None:
        """Take the baselines of ``state``, and forget all others. Raises ValueError where one is not finite."""
        for game, seats in state.items():
            for seat, baseline in seats.items():
                if not math.isfinite(baseline):
                    raise ValueError(f"baseline of seat {seat!r} in game {game!r} is not finite: {baseline}")
        self._baselines = {game: dict(seats) for game, seats in state.items()}


def seat_advantages(
    returns: Sequence[Sequence[float]], decay: float = 0.95, initial: float = 0.0, update_first: bool = False
) -> tuple[list[tuple[float, ...]], tuple[float, ...]]:
    """Advantages of one game played again and again, and the baselines that are left.

    ``returns`` [N][S] of N plays and S seats, in the order played -> [N][S], [S]. Raises ValueError.
    """
    for n, play in enumerate(returns):
        if len(play) != len(returns[0]):
            raise ValueError(f"play {n} has {len(play)} seats, the first has {len(returns[0])}")
    baselines = SeatBaselines(decay, initial, update_first)
    advantages = [
        tuple(baselines.advantage("game", str(seat), value) for seat, value in enumerate(play)) for play in returns
    ]
    final = baselines.state().get("game", {})
    return advantages, tuple(final.values())
