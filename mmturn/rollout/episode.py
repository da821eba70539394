"""One episode under way: what the driver has to remember between events."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mmturn.interfaces import Environment
from mmturn.rollout.asking import Asked
from mmturn.rollout.groups import Episode
from mmturn.types import GOLD_ERRORS, POLICY, Action, Completion, Json, StopReason, Task, Trajectory, Turn, View


@dataclass
class Seat:
    """What one seat has been shown and has said; its turns are only appended to."""

    name: str
    system: str = ""
    """Its system message."""
    turns: list[Turn] = field(default_factory=list)
    """Those that it took."""
    context: list[int] = field(default_factory=list)
    """Token ids of its present context."""
    context_views: list[View] = field(default_factory=list)
    """Views behind the placeholders of its present context."""
    asked: Asked | None = None
    """What its next completion answers."""


@dataclass
class Running:
    """Mutable state of one episode; its turns are only appended to."""

    episode: Episode
    env: Environment
    seat: Seat = field(default_factory=lambda: Seat(POLICY))
    """Whose turn it is."""
    asked: Task | None = None
    """The question that is open, where the environment asks several; None: the task's."""
    turns: list[Turn] = field(default_factory=list)
    """Of all seats."""
    views: list[View] = field(default_factory=list)
    """Every view shown so far; Action.view indexes it."""
    sampled: int = 0
    """Tokens sampled so far."""
    completion: Completion | None = None
    actions: tuple[Action, ...] = ()
    facts: dict[str, Json] = field(default_factory=dict)
    opened: Mapping[str, Json] = field(default_factory=dict)
    """What the environment recorded of its reset; it goes to the first turn that is recorded."""
    gold_errors: dict[str, str] = field(default_factory=dict)
    """Index of a turn -> why the gold answer was not scored there."""
    started_s: float = field(default_factory=time.monotonic)
    step_started_s: float = 0.0
    worked_s: float = 0.0
    """How long the environment has worked since the last turn was recorded, its reset included."""

    def __post_init__(self) -> None:
        self._seats = {self.seat.name: self.seat}

    @property
    def task(self) -> Task:
        """What the policy is asked now."""
        return self.asked or self.episode.task

    def sit(self, name: str) -> None:
        """It is this seat's turn, from now on."""
        self.seat = self._seats.setdefault(name, Seat(name))

    def note_gold(self, error: str) -> None:
        """The gold answer cannot be scored before the completion of the turn to come."""
        self.gold_errors[str(len(self.turns))] = error

    def ask(self, asked: Asked) -> None:
        """The seat's context before its next completion, from now on."""
        seat = self.seat
        if asked.fresh:
            seat.context, seat.context_views = [], []
        seat.context += asked.token_ids
        seat.context_views += asked.views
        if asked.unseen is not None:
            self.views += asked.unseen.views
        self.views += asked.observation.views
        seat.asked = asked

    def record(
        self,
        said: tuple[int, ...],
        closing: tuple[int, ...],
        error: str | None,
        facts: Mapping[str, Json],
        trained: bool,
    ) -> Turn:
        """Append the turn that the pending completion made, and extend the seat's context by it.

        ``said``: its ids, or those of its text where the engine reports none; ``closing``: template ids that end a cut
        completion. Without ``trained`` it is context alone, so that ids of the text will do.
        """
        completion, seat, asked = self.completion, self.seat, self.seat.asked
        assert completion is not None and asked is not None, "a turn is recorded after its completion"
        seat.context += (*said, *closing)
        self.sampled += len(said)
        ids, mark = (completion.token_ids, "s") if trained else (said, "p")
        if completion.probe_error is not None:
            self.note_gold(completion.probe_error)
        turn = Turn(
            index=len(self.turns),
            observation=asked.observation,
            text=completion.text,
            token_ids=None if ids is None else (*asked.token_ids, *ids, *closing),
            provenance="" if ids is None else asked.provenance + mark * len(ids) + "t" * len(closing),
            logprobs=completion.logprobs if trained else None,
            gold_logprobs=completion.probe_logprobs,
            fresh_context=asked.fresh,
            context_views=asked.views if asked.fresh else None,
            actions=self.actions,
            error=error,
            finish=completion.finish,
            seat=seat.name,
            policy_version=completion.policy_version,
            facts=facts,
            seconds={
                **completion.seconds,
                "env": round(time.monotonic() - self.step_started_s, 6),
                "work": round(self.worked_s, 6),
            },
            purpose=asked.purpose,
            unseen=asked.unseen,
        )
        self.turns.append(turn)
        seat.turns.append(turn)
        self.worked_s = 0.0
        self.completion, self.actions = None, ()
        return turn

    def finish(self, stop: StopReason, meta: Mapping[str, Any], answer: str | None, error: str | None) -> Trajectory:
        """The finished record."""
        episode = self.episode
        unscored = {GOLD_ERRORS: dict(self.gold_errors)} if self.gold_errors else {}
        return Trajectory(
            id=episode.id,
            task=episode.task,
            group=episode.group,
            index=episode.index,
            seed=episode.seed,
            turns=tuple(self.turns),
            stop=stop,
            answer=answer,
            error=error,
            facts=dict(self.facts),
            meta={**meta, "env_seed": episode.env_seed, **unscored},
        )
