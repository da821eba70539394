"""Several engines behind one, by seat and by turn."""

from __future__ import annotations

import pytest

from mmturn.rollout.routing import by_seat, by_turn, falls_to_other
from mmturn.rollout.seeds import seed_of
from mmturn.testing.contracts import check_engine
from mmturn.testing.fakes import PlanEngine
from mmturn.types import Request, Sampling


def request(name: str, seat: str = "policy", seed: int = 0) -> Request:
    return Request(name, "t", 0, (1,), (), Sampling(8), seed, seat=seat)


def test_each_seat_is_played_by_its_engine() -> None:
    own, other = PlanEngine({"t": ["mine"]}, batch=3), PlanEngine({"t": ["theirs"]}, batch=2)
    other.version = 1
    engines = by_seat(own, {"o": other, "p": other})
    assert (engines.name, engines.version, engines.room) == ("plan", 3, 2)
    asked = [request("a", "x"), request("b", "o"), request("c", "p"), request("d", "o")]
    answers = check_engine(engines, asked)
    assert [(c.text, c.policy_version) for c in answers] == [("mine", 3), *[("theirs", 1)] * 3]
    assert len(own.seen) == 2 and len(other.seen) == 6, "asked twice by the check"
    assert engines.idle and engines.collect() == []


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_a_share_of_the_turns_falls_to_the_other_engine_by_their_seeds(share: float) -> None:
    own, other = PlanEngine({"t": ["present"]}, batch=3), PlanEngine({"t": ["stale"]}, batch=3)
    other.version = 1
    seeds = [seed_of("sampling", index) for index in range(400)]
    asked = [request(str(index), seed=seed) for index, seed in enumerate(seeds)]
    answers = check_engine(by_turn(own, other, share), asked)
    stale = [falls_to_other(seed, share) for seed in seeds]
    assert [c.text == "stale" for c in answers] == stale and sum(stale) == pytest.approx(400 * share, abs=30)
    assert all(c.policy_version == (1 if old else 3) for c, old in zip(answers, stale, strict=True))


def test_rules_nest() -> None:
    present, stale, rival = (PlanEngine({"t": [word]}, batch=3) for word in ("present", "stale", "rival"))
    engines = by_seat(by_turn(present, stale, 1.0), {"o": rival})
    answers = check_engine(engines, [request("a"), request("b", "o")])
    assert [c.text for c in answers] == ["stale", "rival"] and not present.seen
