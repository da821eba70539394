"""What a context policy lets the policy see, turn by turn, in a small world of words and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmturn.interfaces import ContextPolicy
from mmturn.rollout import Driver, InlineHost, RolloutConfig, episodes
from mmturn.testing.fakes import END, CharRenderer, PictureGrammar, PictureWorld, PlanEngine
from mmturn.testing.probes import instance
from mmturn.types import Request, Task, Trajectory

LOOKS = tuple(f"<memory>m{turn}</memory>look:{turn}" for turn in range(7))
"""What is said in each turn unless told otherwise: a memory, then a look."""


def roll(
    policy: ContextPolicy, said: Sequence[str] = (*LOOKS, "=42"), **settings: Any
) -> tuple[Trajectory, list[Request], PictureWorld]:
    """An episode of the true driver in which ``said`` is said, one text for each turn; what was asked for each, and
    the world as it was left. ``settings`` are those of ``RolloutConfig``."""
    engine, world = PlanEngine({"task": said}), PictureWorld()
    config = RolloutConfig(**{"max_turns": len(said), "max_context": 4000, **settings})
    renderer: Any = CharRenderer()
    driver = Driver(engine, renderer, PictureGrammar(), lambda: world, InlineHost(), config, context=policy)
    (trajectory,) = driver.run(episodes([(Task("task", "?"), 0)], 1, run_seed=0))
    return trajectory, engine.seen, world


def readable(request: Request) -> str:
    """A context as text: a square for each image, a bar behind each completion."""
    return "".join("|" if token == END else chr(token) for token in request.token_ids)


def contexts_of(policy: ContextPolicy, said: Sequence[str] = (*LOOKS, "=42"), **settings: Any) -> list[str]:
    """The context of each turn, as ``readable`` text."""
    return [readable(request) for request in roll(policy, said, **settings)[1]]


def check_context(policy: Any) -> list[str]:
    """A context policy (or its class): contexts that a completion can follow, the same again from the same record,
    every sampled token in one row alone, every view on record. Returns the contexts of an episode, as text."""
    made: ContextPolicy = instance(policy)
    assert isinstance(made, ContextPolicy), f"{policy!r} is no ContextPolicy: it needs name, instructions and next"
    for said in ((*LOOKS, "=42"), ("hm", "look:refuse", "look", "=42", "look", "hm"), ("=42",)):
        trajectory, asked, world = roll(made, said)
        assert trajectory.stop.status != "failed", f"{made.name}: {trajectory.error}"
        again = roll(made, said)[1]
        same = [r.token_ids for r in again] == [r.token_ids for r in asked]
        assert same, f"{made.name}: other contexts the next time"
        context: list[int] = []
        for turn, request in zip(trajectory.turns, asked, strict=False):
            context = [] if turn.fresh_context else context
            context += turn.token_ids or ()
            own = tuple(context[: len(context) - len(turn.said or ())])
            assert own == request.token_ids, f"{made.name}: turn {turn.index} is not recorded as it was asked for"
        shown = tuple(world.pictures[: len(trajectory.views)])
        assert trajectory.views == shown, f"{made.name}: views of the world are missing on record"
    return contexts_of(made)
