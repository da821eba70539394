"""Old observations, or their images alone, give way to a short text; all that the policy said stays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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

    def __post_init__(self) -> None:
        if self.keep < 1:
            raise ConfigError(f"context.keep must be at least 1, got {self.keep}")


class Placeholder:
    """Observations but for the newest become a placeholder. The text of the opening stays, since it words the task.

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
            return without_images(observation, config.text) if number == 0 else Observation((config.text,))

        return Context(with_observations(messages, change))
