"""Old observations, or their images alone, give way to a short text; all that the policy said stays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mmturn.errors import ConfigError
from mmturn.interfaces import Context, Room
from mmturn.rollout.context.conversation import conversation, with_observations, without_images
from mmturn.types import Observation, Turn


@dataclass(frozen=True)
class PlaceholderConfig:
    """Settings of the placeholder context policy."""

    keep: int = 1
    """Newest observations that stay as they are."""
    text: str = "[earlier observation omitted]"
    """What stands in place of each older one, and of each image of the opening."""
    keep_opening: bool = False
    """Whether the task's own images stay, so that tools can go on working on them."""
    opening: Literal["words", "task"] = "words"
    """words: all words of the opening stay. task: its last ones alone, the task's; a page in words before them goes."""

    def __post_init__(self) -> None:
        if self.keep < 1:
            raise ConfigError(f"context.keep must be at least 1, got {self.keep}")
        if self.opening not in ("words", "task"):
            raise ConfigError(f"context.opening must be words or task, got {self.opening!r}")
        if self.opening == "task" and self.keep_opening:
            raise ConfigError("context.opening: task and context.keep_opening: true contradict each other")


class Placeholder:
    """Observations but for the newest become a placeholder. The words of the opening stay, or those of the task alone.

    Source: WebAgent-R1 (arXiv 2505.16421), dynamic context compression. Differs: how many stay is a setting, and the
    task's words are part of the first observation here.
    """

    name = "placeholder"
    instructions = ""
    Config = PlaceholderConfig

    def __init__(self, config: PlaceholderConfig | None = None) -> None:
        self.config = config or PlaceholderConfig()

    def next(self, turns: Sequence[Turn], shown: Observation | None, room: Room) -> Context:
        """The conversation with its old observations replaced."""
        config, messages = self.config, conversation(turns, shown)
        old = len(messages) - len(turns) - config.keep

        def change(number: int, observation: Observation) -> Observation:
            if number >= old or (number == 0 and config.keep_opening):
                return observation
            return self._opening(observation) if number == 0 else Observation((config.text,))

        return Context(with_observations(messages, change))

    def _opening(self, observation: Observation) -> Observation:
        """The opening without what it showed."""
        if self.config.opening == "words":
            return without_images(observation, self.config.text)
        words = [place for place, part in enumerate(observation.parts) if isinstance(part, str) and part.strip()]
        task = words[-1] if words else 0
        before = (f"{self.config.text}\n",) if task else ()
        return Observation((*before, *observation.parts[task:]), observation.is_error)
