"""The last rounds, or as many as have a given number of images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mmturn.errors import ConfigError
from mmturn.interfaces import Context, Message, Room
from mmturn.rollout.context.conversation import conversation
from mmturn.types import Observation, Turn


@dataclass(frozen=True)
class WindowConfig:
    """Settings of the window context policy. At least one of the two is set."""

    turns: int = 0
    """Earlier turns that are kept, each with what came of it; 0: any number."""
    images: int = 0
    """Images that may be visible, the task's own included; the oldest turns leave until no more are. 0: any number."""

    def __post_init__(self) -> None:
        if min(self.turns, self.images) < 0 or not self.turns + self.images:
            found = f"turns {self.turns} and images {self.images}"
            raise ConfigError(f"context.turns or context.images must be above 0, and neither below it, got {found}")


class Window:
    """The opening, then the last rounds: what was said and the observation that answered it.

    The opening words the task and stays whole; the newest round stays even where it alone has too many images.
    """

    name = "window"
    instructions = ""
    Config = WindowConfig

    def __init__(self, config: WindowConfig) -> None:
        self.config = config

    def next(self, turns: Sequence[Turn], shown: Observation | None, room: Room) -> Context:
        """The opening and the last rounds."""
        opening, *said_and_shown = conversation(turns, shown)
        rounds = [said_and_shown[at : at + 2] for at in range(0, len(said_and_shown), 2)]
        if self.config.turns:
            rounds = rounds[-self.config.turns :]
        while self.config.images and len(rounds) > 1 and _images(opening, *rounds) > self.config.images:
            rounds = rounds[1:]
        return Context((opening, *(message for pair in rounds for message in pair)))


def _images(opening: Message, *rounds: Sequence[Message]) -> int:
    messages = (opening, *(message for pair in rounds for message in pair))
    return sum(len(message.views) for message in messages if isinstance(message, Observation))
