"""How a game ended for each of its seats."""

from __future__ import annotations

from mmturn.types import StopReason, Trajectory


def board_result(trajectory: Trajectory) -> list[float]:
    """Each seat's result, at its last turn: 1.0 won, -1.0 lost, 0.0 a draw, or a game that a limit cut short.

    Read off the fact ``result``, seat -> number, that the last move left. A seat whose move is invalid and that gets no
    other (``rollout.bad_action: end``) has lost, and the others have won. Sums to 0 over the seats that had a turn, if
    both had. Source: SPIRAL (2506.24119), zero-sum games.
    """
    turns = trajectory.turns
    earned = [0.0] * len(turns)
    if not turns:
        return earned
    result = turns[-1].facts.get("result", {})
    last = {turn.seat: turn.index for turn in turns}
    if trajectory.stop is StopReason.INVALID:
        result = {seat: -1.0 if seat == turns[-1].seat else 1.0 for seat in last}
    for seat, index in last.items():
        earned[index] = float(result.get(seat, 0.0))
    return earned
