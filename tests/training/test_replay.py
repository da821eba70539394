"""What is kept of earlier updates, and what is drawn of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

from mmturn.training.processes import Processes
from mmturn.training.replay import Key, Replay, keyed
from mmturn.types import Observation, StopReason, Task, Trajectory, Turn

ALONE = Processes(0, 1, torch.device("cpu"))


@dataclass(frozen=True, slots=True)
class Beside(Processes):
    """A process that stands in for two: the other one has nothing, and hears all of this one."""

    other: tuple[Any, ...] = ()

    def gather(self, value: Any) -> list[Any]:
        return [value, list(self.other)]


def keys(update: int, count: int = 3) -> dict[Key, str]:
    return {(update, f"g{n}", 0): f"{update}.{n}" for n in range(count)}


def test_the_oldest_go_first() -> None:
    kept: Replay[str] = Replay(4, 0, ALONE)
    kept.add(keys(1))
    kept.add(keys(2))
    assert list(kept.own.values()) == ["1.2", "2.0", "2.1", "2.2"] and list(kept.keys) == list(kept.own)
    nothing: Replay[str] = Replay(0, 0, ALONE)
    nothing.add(keys(1))
    assert nothing.keys == () and nothing.own == {}


def test_the_size_is_that_of_all_processes() -> None:
    kept: Replay[str] = Replay(4, 0, Beside(0, 2, torch.device("cpu"), other=((1, "h", 0), (1, "h", 1))))
    kept.add(keys(1))
    assert kept.keys == ((1, "g1", 0), (1, "g2", 0), (1, "h", 0), (1, "h", 1))
    assert list(kept.own.values()) == ["1.1", "1.2"]


def test_draws_follow_from_seed_update_and_step() -> None:
    kept: Replay[str] = Replay(20, 3, ALONE)
    for update in range(1, 5):
        kept.add(keys(update, 5))
    fresh = list(keys(5))
    draws = [kept.draw(fresh, 5, step, 6) for step in range(60)]
    assert all(len(set(draw)) == 6 for draw in draws) and draws[0] == kept.draw(fresh[::-1], 5, 0, 6)
    assert {key for draw in draws for key in draw} == {*kept.keys, *fresh}, "each comes, its own too"
    assert draws[0] != draws[1] and draws[0] != kept.draw(fresh, 6, 0, 6)
    other: Replay[str] = Replay(20, 4, ALONE)
    other.restore((key, kept.own[key]) for key in kept.keys)
    assert other.keys == kept.keys and other.draw(fresh, 5, 0, 6) != draws[0]
    assert kept.draw(fresh, 5, 0, 100) == sorted([*kept.keys, *fresh]), "no more than there are"
    assert Replay(5, 0, ALONE).draw([], 1, 0, 3) == []


def test_restored_is_what_it_was() -> None:
    kept: Replay[str] = Replay(7, 0, ALONE)
    stored: dict[Key, str] = {}
    for update in range(1, 5):
        kept.add(keys(update))
        stored |= keys(update)
    found: Replay[str] = Replay(7, 0, ALONE)
    found.restore(stored.items())
    assert found.keys == kept.keys and found.own == kept.own


def trajectory(**changes: Any) -> Trajectory:
    turns = (Turn(0, Observation(("?",)), "x", (1, 2), "ts"),)
    made = Trajectory("a", Task("t", "?"), "g", 2, 0, turns, StopReason.ANSWERED, meta={"update": 7})
    return replace(made, **changes)


@pytest.mark.parametrize(
    ("changes", "update", "key"),
    [
        ({}, 3, (3, "g", 2)),
        ({}, None, (7, "g", 2)),
        ({"stop": StopReason.TURN_LIMIT}, 3, (3, "g", 2)),
        ({"stop": StopReason.ENV_FAILED}, 3, None),
        ({"turns": ()}, 3, None),
        ({"turns": (Turn(0, Observation(("?",)), "x", (1, 2), "tp"),)}, 3, None),
    ],
)
def test_what_says_something(changes: dict[str, Any], update: int | None, key: Key | None) -> None:
    assert [found for found, _ in keyed([trajectory(**changes)], update)] == ([] if key is None else [key])
