"""Several engines behind one: each seat by its own."""

from __future__ import annotations

from mmturn.rollout.seating import SeatEngines
from mmturn.testing.contracts import check_engine
from mmturn.testing.fakes import PlanEngine
from mmturn.types import Request, Sampling


def request(name: str, seat: str) -> Request:
    return Request(name, "t", 0, (1,), (), Sampling(8), 0, seat=seat)


def test_each_seat_is_played_by_its_engine() -> None:
    own, other = PlanEngine({"t": ["mine"]}, batch=3), PlanEngine({"t": ["theirs"]}, batch=2)
    other.version = 1
    engines = SeatEngines(own, {"o": other, "p": other})
    assert (engines.name, engines.version, engines.room) == ("plan", 3, 2)
    asked = [request("a", "x"), request("b", "o"), request("c", "p"), request("d", "o")]
    answers = check_engine(engines, asked)
    assert [(c.text, c.policy_version) for c in answers] == [("mine", 3), *[("theirs", 1)] * 3]
    assert len(own.seen) == 2 and len(other.seen) == 6, "asked twice by the check"
    assert engines.idle and engines.collect() == []
