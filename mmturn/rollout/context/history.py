"""Long episodes on screens: the newest turns as they were, the older ones in a few words."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from mmturn.errors import ConfigError
from mmturn.interfaces import Context, Message, Room, Said
from mmturn.rollout.context.conversation import conversation, with_last_images
from mmturn.types import Action, Json, Observation, Turn

Thoughts = Literal["keep", "drop"]
Tell = Literal["nothing", "written", "actions"]


@dataclass(frozen=True)
class HistoryConfig:
    """Settings of the history context policy."""

    turns: int = -1
    """Newest turns that stay as a conversation; -1: all, 0: none, so that the last screen alone is seen."""
    images: int = 5
    """Newest images that stay visible; 0: all of the turns that stay."""
    text: str = "[earlier image omitted]"
    """What stands in place of each older one."""
    thoughts: Thoughts = "keep"
    """drop: of an earlier completion only its last block of action stays, where it has one; see ``opening_tag``."""
    tell: Tell = "nothing"
    """What is told of the turns that do not stay: nothing; what was written as the action, between the tags; the
    actions themselves, as name(arguments)."""
    opening_tag: str = "Action:"
    """Begins the block of action of a completion; it stays with ``thoughts: drop`` and is not told."""
    closing_tag: str = ""
    """Ends it, likewise; empty: it goes on to the end."""
    heading: str = "Previous actions:"
    """Stands over what is told, behind the task."""
    line: str = "Step {step}: {words}"
    """One turn in words; ``step`` counts from 1."""
    none: str = ""
    """Stands below the heading while there is nothing to tell; empty: then there is no heading either."""

    def __post_init__(self) -> None:
        if self.turns < -1 or self.images < 0:
            found = f"{self.turns} and {self.images}"
            raise ConfigError(f"context.turns must be -1 or more and context.images 0 or more, got {found}")
        for name, kinds in (("thoughts", get_args(Thoughts)), ("tell", get_args(Tell))):
            if getattr(self, name) not in kinds:
                raise ConfigError(f"context.{name} must be one of {', '.join(kinds)}, got {getattr(self, name)!r}")
        if not self.opening_tag:
            raise ConfigError("context.opening_tag must not be empty: it is where the action of a completion begins")
        if self.tell != "nothing" and "{words}" not in self.line:
            raise ConfigError(f"context.line must hold {{words}}, got {self.line!r}")


class History:
    """The task, older turns in words, the newest turns with their thoughts or without, the last images.

    Where all turns stay with their thoughts, a context continues the one before as long as no image leaves; else it
    begins anew, and its completion is trained in a row of its own.
    Source: UI-TARS (arXiv 2501.12326), all thoughts and actions and the last 5 screenshots; DART (2509.23866), the
    last 35 turns of text; the agent of Qwen3-VL for OSWorld, 4 turns with images and "Previous actions" before them.
    Differs: where an image leaves a text stands, where UI-TARS's agent takes the whole message away, so that users and
    assistant go on taking turns.
    """

    name = "history"
    instructions = ""
    Config = HistoryConfig

    def __init__(self, config: HistoryConfig | None = None) -> None:
        self.config = config or HistoryConfig()

    def next(self, turns: Sequence[Turn], shown: Observation | None, room: Room) -> Context:
        """Task, words, newest turns."""
        config = self.config
        gone = 0 if config.turns < 0 else max(len(turns) - config.turns, 0)
        messages = [self._shortened(message) for message in conversation(turns[gone:], shown)]
        told = self._told(turns[:gone])
        if gone:
            messages = [turns[0].observation, *told, *messages]
        elif told:
            messages = [messages[0], *told, *messages[1:]]
        return Context(with_last_images(messages, config.images, config.text) if config.images else tuple(messages))

    def _shortened(self, message: Message) -> Message:
        """Without its thought, where thoughts are dropped and there is an action to keep."""
        if self.config.thoughts == "keep" or not isinstance(message, Said) or self._written(message.turn) is None:
            return message
        return Said(message.turn, (self.config.opening_tag, self.config.closing_tag))

    def _told(self, turns: Sequence[Turn]) -> list[Message]:
        config = self.config
        if config.tell == "nothing" or not (turns or config.none):
            return []
        lines = [
            config.line.replace("{step}", str(number)).replace("{words}", self._words(turn))
            for number, turn in enumerate(turns, start=1)
        ]
        return [Observation(("\n\n" + "\n".join([config.heading, *(lines or [config.none])]) + "\n",))]

    def _words(self, turn: Turn) -> str:
        written = self._written(turn) if self.config.tell == "written" else None
        return written or "; ".join(_call(action) for action in turn.actions) or "no action that could be read"

    def _written(self, turn: Turn) -> str | None:
        """The last block of action of a completion, without its tags; None: there is none."""
        opening, closing = self.config.opening_tag, self.config.closing_tag
        end = turn.text.rfind(closing)
        start = turn.text.rfind(opening, 0, end) if end >= 0 else -1
        return turn.text[start + len(opening) : end].strip() if start >= 0 else None


def _call(action: Action) -> str:
    named = (f"{key}={json.dumps(_plain(value), ensure_ascii=False)}" for key, value in action.arguments.items())
    return f"{action.name}({', '.join(named)})"


def _plain(value: Json) -> Json:
    """The same with places to two decimals, and whole numbers without any."""
    if isinstance(value, float):
        short = round(value, 2)
        return int(short) if short.is_integer() else short
    return [_plain(one) for one in value] if isinstance(value, (list, tuple)) else value
