"""One episode under way: what the driver has to remember between events."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mmturn.interfaces import Environment
from mmturn.rollout.asking import Asked
from mmturn.rollout.groups import Episode
from mmturn.types import GOLD_ERRORS, Action, Completion, Json, StopReason, Trajectory, Turn, View


@dataclass
class Running:
    """Mutable state of one episode; its turns are only appended to."""

    episode: Episode
    env: Environment
    system: str = ""
    """The system message."""
    turns: list[Turn] = field(default_factory=list)
    context: list[int] = field(default_factory=list)
    """Token ids of the current context."""
    context_views: list[View] = field(default_factory=list)
    """Views behind the placeholders of the current context."""
    views: list[View] = field(default_factory=list)
    """Every view shown so far; Action.view indexes it."""
    sampled: int = 0
    """Tokens sampled so far."""
    asked: Asked | None = None
    """What the next completion answers."""
    completion: Completion | None = None
    actions: tuple[Action, ...] = ()
    facts: dict[str, Json] = field(default_factory=dict)
    gold_errors: dict[str, str] = field(default_factory=dict)
    """Index of a turn -> why the gold answer was not scored there."""
    started_s: float = field(default_factory=time.monotonic)
    step_started_s: float = 0.0
    worked_s: float = 0.0
    """How long the environment has worked since the last turn was recorded, its reset included."""

    def note_gold(self, error: str) -> None:
        """The gold answer cannot be scored before the completion of the turn to come."""
        self.gold_errors[str(len(self.turns))] = error

    def ask(self, asked: Asked) -> None:
        """The context of the next completion, from now on."""
        if asked.fresh:
            self.context, self.context_views = [], []
        self.context += asked.token_ids
        self.context_views += asked.views
        if asked.unseen is not None:
            self.views += asked.unseen.views
        self.views += asked.observation.views
        self.asked = asked

    def record(self, closing: tuple[int, ...], error: str | None, facts: Mapping[str, Json]) -> Turn:
        """Append the turn that the pending completion made; ``closing`` are template ids that end a cut completion."""
        completion, asked = self.completion, self.asked
        assert completion is not None and asked is not None, "a turn is recorded after its completion"
        ids = completion.token_ids
        if completion.probe_error is not None:
            self.note_gold(completion.probe_error)
        turn = Turn(
            index=len(self.turns),
            observation=asked.observation,
            text=completion.text,
            token_ids=None if ids is None else (*asked.token_ids, *ids, *closing),
            provenance="" if ids is None else asked.provenance + "s" * len(ids) + "t" * len(closing),
            logprobs=completion.logprobs,
            gold_logprobs=completion.probe_logprobs,
            fresh_context=asked.fresh,
            context_views=asked.views if asked.fresh else None,
            actions=self.actions,
            error=error,
            finish=completion.finish,
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
