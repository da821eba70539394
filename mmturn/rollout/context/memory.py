"""The policy keeps a memory, and sees nothing else of what was before the last observation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mmturn.errors import ConfigError
from mmturn.interfaces import Context, Room, Said
from mmturn.types import Observation, Turn


@dataclass(frozen=True)
class MemoryConfig:
    """Settings of the memory context policy."""

    opening_tag: str = "<memory>"
    """Begins the memory block of a completion."""
    closing_tag: str = "</memory>"
    """Ends it."""
    instructions: str = (
        "# Memory\nIn each turn, before you act, write between {opening_tag} and {closing_tag} everything that you "
        "will need. In the next turn you see only the task, your last memory and the last result; all else is gone."
    )
    """Stands at the end of the system message, with the tags filled in; empty: the policy has learned it."""

    def __post_init__(self) -> None:
        if not self.opening_tag or not self.closing_tag:
            raise ConfigError("context.opening_tag and context.closing_tag must not be empty")


class Memory:
    """The opening, the last memory block that was written, and the newest observation, in each turn.

    A turn without a closed block leaves the memory as it was; before the first there is none.
    Source: MEM1 (arXiv 2506.15841), whose consolidated state is such a block. Differs: each turn is a row of its own
    with the positions that the policy had, where MEM1 trains one sequence with a mask; a call is not kept beside its
    result, so that what was asked is remembered where the policy writes it down.
    """

    name = "memory"
    Config = MemoryConfig

    def __init__(self, config: MemoryConfig | None = None) -> None:
        self.config = config or MemoryConfig()

    @property
    def instructions(self) -> str:
        """What to write in each turn."""
        opening, closing = self._tags
        return self.config.instructions.replace("{opening_tag}", opening).replace("{closing_tag}", closing)

    def next(self, turns: Sequence[Turn], shown: Observation | None, room: Room) -> Context:
        """Task, memory, newest observation."""
        newest = () if shown is None else (shown,)
        if not turns:
            return Context(newest)
        memory = next((Said(turn, self._tags) for turn in reversed(turns) if self._has_memory(turn)), None)
        return Context((turns[0].observation, *(() if memory is None else (memory,)), *newest))

    @property
    def _tags(self) -> tuple[str, str]:
        return self.config.opening_tag, self.config.closing_tag

    def _has_memory(self, turn: Turn) -> bool:
        opening, closing = self._tags
        return turn.text.rfind(opening, 0, max(turn.text.rfind(closing), 0)) >= 0
