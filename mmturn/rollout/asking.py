"""From the context that a policy names to what the next completion is asked with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mmturn.errors import EnvError
from mmturn.interfaces import Context, Message, Said
from mmturn.types import Observation, View, joined

if TYPE_CHECKING:
    from mmturn.rendering.renderer import Renderer
    from mmturn.rollout.episode import Seat


@dataclass(frozen=True, slots=True)
class Asked:
    """A context as it is rendered, with what the turn will say of it."""

    messages: tuple[Message, ...]
    """All of the context's, from its beginning."""
    observation: Observation
    """What is new of it."""
    unseen: Observation | None
    purpose: str
    fresh: bool
    """Whether it starts anew; otherwise it continues the context before."""
    token_ids: tuple[int, ...]
    """What the context grows by."""
    provenance: str
    views: tuple[View, ...]
    """The views behind the placeholders of ``token_ids``."""


class Asking:
    """A seat that is about to be asked for its next completion; implements ``interfaces.Room``."""

    def __init__(self, seat: Seat, shown: Observation | None, renderer: Renderer, tokens: int) -> None:
        """``shown``: the newest observation; ``tokens``: most that the context may have."""
        self._seat, self._shown, self._renderer, self.tokens = seat, shown, renderer, tokens

    def size(self, context: Context) -> int:
        """Tokens of a context."""
        asked = self.asked(context)
        return len(asked.token_ids) + (0 if asked.fresh else len(self._seat.context))

    def asked(self, context: Context) -> Asked:
        """The context rendered. Raises EnvError for one that no completion can follow."""
        messages, words = context.whole, (Observation((context.words,)),) if context.words else ()
        if not messages or not isinstance(messages[-1], Observation):
            raise EnvError("a context must end with an observation, or with words of the context policy")
        shown = () if self._shown is None or context.discards else (self._shown,)
        observation = joined((*shown, *words))
        fresh = not self._continues(messages, observation)
        if fresh:
            delta, views = self._renderer.fresh(self._seat.system, messages)
        else:
            delta, views = self._renderer.reply(observation), observation.views
        unseen = self._shown if context.discards else None
        return Asked(
            messages, observation, unseen, context.purpose, fresh, delta.token_ids, delta.provenance, views
        )  # fmt: skip

    def _continues(self, messages: tuple[Message, ...], observation: Observation) -> bool:
        """Whether ``messages`` are the context before, what was said to it, and ``observation``."""
        before, turns = self._seat.asked, self._seat.turns
        if before is None or not turns or self._renderer.family.strips_thinking:
            return False
        return messages == (*before.messages, Said(turns[-1]), observation)
