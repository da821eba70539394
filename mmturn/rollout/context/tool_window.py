"""A window over tool results that slides by several at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mmturn.credit.segments import window_segments
from mmturn.errors import ConfigError
from mmturn.interfaces import Context, Room
from mmturn.rollout.context.conversation import conversation, with_observations
from mmturn.types import Observation, Turn


@dataclass(frozen=True)
class ToolWindowConfig:
    """Settings of the tool_window context policy."""

    window: int = 3
    """Tool results that fill the window. The result of a turn is the observation that answers it, an error too."""
    slide: int = 2
    """Oldest results that leave a full window, at most ``window``; with as many, the newest leaves too."""
    text: str = "[earlier tool result omitted]"
    """What stands in place of each result that has left."""

    def __post_init__(self) -> None:
        if not 1 <= self.slide <= self.window:
            found = f"slide {self.slide} and window {self.window}"
            raise ConfigError(f"context.slide must be from 1 to context.window, got {found}")


class ToolWindow:
    """Tool results leave when ``window`` of them are live, ``slide`` at a time; the opening and all that was said stay.

    Between two slides the context only grows, so that a trajectory of K turns has about K / ``slide`` rows. The turns
    that each row trains are those of ``credit.segments.window_segments``.
    Source: DeepMiner (arXiv 2510.08276), sliding window over tool responses; the figure's window 3 and slide 2.
    """

    name = "tool_window"
    instructions = ""
    Config = ToolWindowConfig

    def __init__(self, config: ToolWindowConfig | None = None) -> None:
        self.config = config or ToolWindowConfig()

    def next(self, turns: Sequence[Turn], shown: Observation | None, room: Room) -> Context:
        """The conversation with the results that have left replaced."""
        config = self.config
        omitted = window_segments(len(turns) + 1, config.window, config.slide)[-1].omitted

        def change(number: int, observation: Observation) -> Observation:
            return Observation((config.text,)) if 1 <= number <= omitted else observation

        return Context(with_observations(conversation(turns, shown), change))
