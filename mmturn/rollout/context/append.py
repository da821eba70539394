"""Everything stays."""

from __future__ import annotations

from collections.abc import Sequence

from mmturn.interfaces import Context, Room
from mmturn.rollout.context.conversation import conversation
from mmturn.types import Observation, Turn


class AppendOnly:
    """All that was shown and said, in order: one context for each trajectory, and one training row."""

    name = "append"
    instructions = ""

    def next(self, turns: Sequence[Turn], shown: Observation | None, room: Room) -> Context:
        """The context before, what was said, and what came of it."""
        return Context(conversation(turns, shown))
