"""The policy writes a summary when its context is full, and goes on from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mmturn.errors import ConfigError
from mmturn.interfaces import Context, Message, Room
from mmturn.rollout.context.conversation import conversation
from mmturn.types import Observation, Turn

SUMMARY = "summary"
"""``Turn.purpose`` of a turn that is a summary."""


@dataclass(frozen=True)
class SummaryConfig:
    """Settings of the summary context policy."""

    limit_tokens: int = 0
    """A context that would have more is summarised; 0: as many as leave room for a summary in rollout.max_context."""
    max_summaries: int = 7
    """Summaries in one trajectory; after the last, the context grows up to rollout.max_context."""
    instruction: str = (
        "Your context is full and will be cleared, except for the task. Do not act now. Write a summary of what you "
        "have done and found so far, with everything that you need to finish the task."
    )
    """Asks for the summary."""
    resume: str = "Go on with the task from your summary."
    """Asks for the next action after it."""

    def __post_init__(self) -> None:
        if self.limit_tokens < 0 or self.max_summaries < 1:
            found = f"{self.limit_tokens} and {self.max_summaries}"
            raise ConfigError(f"context.limit_tokens must be 0 or more and max_summaries at least 1, got {found}")
        if not self.instruction or not self.resume:
            raise ConfigError("context.instruction and context.resume must not be empty")


class Summary:
    """Grows until an observation would pass the limit; then what came before it is summarised.

    The summary is sampled and is a turn of its own, trained like any other. The action whose result did not fit and
    that result are left out of the context that is summarised, and stay out: the next context is the opening and the
    summary. A limit that cannot be met any more truncates the trajectory.
    Source: SUPO (arXiv 2510.06727), algorithm 2 as a replication quotes it; 7 summaries are its CodeGym setting.
    Differs: the action that is left out was sampled and carried out, so that it is trained, in the row before; a
    sentence of the user's stands between summary and next action, as chat templates want it.
    """

    name = "summary"
    instructions = ""
    Config = SummaryConfig

    def __init__(self, config: SummaryConfig | None = None) -> None:
        self.config = config or SummaryConfig()

    def next(self, turns: Sequence[Turn], shown: Observation | None, room: Room) -> Context:
        """The context since the last summary, the one to summarise, or the one right after a summary."""
        config = self.config
        summaries = [k for k, turn in enumerate(turns) if turn.purpose == SUMMARY]
        messages = _since(summaries[-1] if summaries else 0, conversation(turns, shown))
        if shown is None:
            return Context(messages, config.resume)
        grown = Context(messages)
        if not turns or len(summaries) >= config.max_summaries or self._fits(grown, room):
            return grown
        return Context(messages[:-2], config.instruction, SUMMARY, discards=True)

    def _fits(self, context: Context, room: Room) -> bool:
        """Whether the context is within the limit and leaves room for being summarised."""
        limit = self.config.limit_tokens
        if limit and room.size(context) > limit:
            return False
        return room.size(Context(context.messages, self.config.instruction)) <= room.tokens


def _since(summary: int, messages: Sequence[Message]) -> tuple[Message, ...]:
    """The opening, then what was said in turn ``summary`` and all after it; everything for turn 0."""
    return (messages[0], *messages[2 * summary + 1 :])
