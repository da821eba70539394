from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmturn.credit.seats import SeatBaselines, seat_advantages
from tests.vectors import VECTORS

PLAYS = st.lists(st.tuples(*[st.integers(-8, 8).map(lambda n: n / 4)] * 2), min_size=1, max_size=8)


def flat(rows: Any) -> list[float]:
    return [value for row in rows for value in row]


def test_vector() -> None:
    vector = VECTORS["rae"]
    returns, decay, initial = vector["inputs"]["returns_per_game_role"], *vector["params"].values()
    wanted = vector["expected"]
    before, final = seat_advantages(returns, decay, initial)
    after, same_final = seat_advantages(returns, decay, initial, update_first=True)
    near_before = pytest.approx(flat(wanted["adv_baseline_before_update"]), abs=1e-6)
    assert flat(before) == near_before and final == pytest.approx(wanted["final_baseline"], abs=1e-6) == same_final
    assert flat(after) == pytest.approx(flat(wanted["adv_baseline_after_update"]), abs=1e-6) != near_before
    for other in (seat_advantages([[1, -0.9], *returns[1:]], decay), seat_advantages(returns, 0.9)):
        assert flat(other[0]) != near_before
    assert flat(seat_advantages(returns, decay, 0.1)[0]) != near_before


@given(PLAYS, st.integers(0, 10).map(lambda n: n / 10))
def test_updating_first_scales_by_the_decay(plays: list[tuple[float, float]], decay: float) -> None:
    before, _ = seat_advantages(plays, decay)
    after, _ = seat_advantages(plays, decay, update_first=True)
    assert flat(after) == pytest.approx([decay * a for a in flat(before)], abs=1e-9)


@given(PLAYS)
def test_seats_and_games_do_not_share(plays: list[tuple[float, float]]) -> None:
    both, final = seat_advantages(plays)
    for seat in (0, 1):
        alone, left = seat_advantages([[play[seat]] for play in plays])
        assert [row[0] for row in alone] == [row[seat] for row in both] and left == (final[seat],)
    baselines = SeatBaselines()
    for n, play in enumerate(plays):
        assert baselines.advantage("poker", "0", play[0]) == both[n][0]
        baselines.advantage("chess", "0", 100.0)


def test_state_is_taken_up_again() -> None:
    first, second = SeatBaselines(0.5), SeatBaselines(0.5)
    first.advantage("poker", "a", 1.0)
    second.advantage("chess", "b", 9.0)
    state = json.loads(json.dumps(first.state()))
    assert state == {"poker": {"a": 0.5}}
    second.load_state(state)
    assert second.state() == state and second.advantage("poker", "a", 1.0) == first.advantage("poker", "a", 1.0) == 0.5
    assert second.advantage("chess", "b", 9.0) == 9.0
    assert state == {"poker": {"a": 0.5}}  # nobody's state is another's


def test_refusals() -> None:
    assert seat_advantages([]) == ([], ())
    baselines = SeatBaselines()
    with pytest.raises(ValueError, match="seat 'a' in game 'go' is not finite"):
        baselines.advantage("go", "a", float("nan"))
    with pytest.raises(ValueError, match="baseline of seat 'a' in game 'go'"):
        baselines.load_state({"go": {"a": float("inf")}})
    assert baselines.state() == {}
    with pytest.raises(ValueError, match="play 1 has 1 seats, the first has 2"):
        seat_advantages([[1.0, -1.0], [1.0]])
    with pytest.raises(ValueError, match="decay must lie"):
        SeatBaselines(decay=1.5)
