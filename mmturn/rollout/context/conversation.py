"""The whole of an episode as messages, and what policies do to single ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count

from mmturn.interfaces import Message, Said
from mmturn.types import Observation, Turn


def conversation(turns: Sequence[Turn], shown: Observation | None) -> tuple[Message, ...]:
    """Each turn's observation and what was said to it, then the newest observation (None: there is none)."""
    messages = [message for turn in turns for message in (turn.observation, Said(turn))]
    return (*messages, *(() if shown is None else (shown,)))


def without_images(observation: Observation, placeholder: str, keep: int = 0) -> Observation:
    """The observation with a text in place of its images, but for the last ``keep``."""
    left = len(observation.views) - keep
    parts = []
    for part in observation.parts:
        hidden = not isinstance(part, str) and left > 0
        left -= not isinstance(part, str)
        parts.append(placeholder if hidden else part)
    return Observation(tuple(parts), observation.is_error)


def with_observations(
    messages: Sequence[Message], change: Callable[[int, Observation], Observation]
) -> tuple[Message, ...]:
    """The messages with each observation changed; ``change`` is told how many observations come before it."""
    numbers = count()
    return tuple(m if isinstance(m, Said) else change(next(numbers), m) for m in messages)


def with_last_images(
    messages: Sequence[Message], images: int, text: str, keep_opening: bool = False
) -> tuple[Message, ...]:
    """The messages with a text in place of every image but the last ``images``; with ``keep_opening`` those of the
    first observation stay and do not count."""
    counts = [len(message.views) for message in messages if not isinstance(message, Said)]

    def change(number: int, observation: Observation) -> Observation:
        if number == 0 and keep_opening:
            return observation
        return without_images(observation, text, max(images - sum(counts[number + 1 :]), 0))

    return with_observations(messages, change)
