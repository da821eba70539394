"""Only the last images stay visible."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mmturn.errors import ConfigError
from mmturn.interfaces import Context, Room
from mmturn.rollout.context.conversation import conversation, with_last_images
from mmturn.types import Observation, Turn


@dataclass(frozen=True)
class KeepImagesConfig:
    """Settings of the keep_images context policy."""

    images: int = 3
    """Newest images (screenshots, crops) that stay visible."""
    text: str = "[earlier image omitted]"
    """What stands in place of each older one."""
    keep_opening: bool = False
    """Whether the task's own images stay, so that tools can go on working on them; then they do not count."""

    def __post_init__(self) -> None:
        if self.images < 1:
            raise ConfigError(f"context.images must be at least 1, got {self.images}")


class KeepImages:
    """All texts stay, and the last images; an older image becomes a placeholder where it stood."""

    name = "keep_images"
    instructions = ""
    Config = KeepImagesConfig

    def __init__(self, config: KeepImagesConfig | None = None) -> None:
        self.config = config or KeepImagesConfig()

    def next(self, turns: Sequence[Turn], shown: Observation | None, room: Room) -> Context:
        """The conversation with its old images replaced."""
        config, messages = self.config, conversation(turns, shown)
        return Context(with_last_images(messages, config.images, config.text, config.keep_opening))
