"""How long an answer takes: a queue of one, in the time of the stream."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from mmturn.envs.stream.settings import DelayConfig
from mmturn.types import MEASURED, Json

SIMULATED = "delay"
"""The fact that holds an answer's times, where they are simulated; measured ones are ``types.MEASURED``."""


class Counter:
    """Questions are answered one after another: one that arrives while another is under way waits.

    An answer's times are seconds of the stream since its question arrived. ``waited_s``: until the one before was done;
    ``ready_s``: until the memory was searched; ``started_s``: until its first word, which a clock on the wall cannot
    tell here (None: see ``evaluation.streams``); ``ended_s``: until its last word.
    """

    def __init__(self, config: DelayConfig, now: Callable[[], float] = time.monotonic) -> None:
        self.config, self._now = config, now
        self._free_s = 0.0
        self._asked_s, self._arrived, self._ready, self._frames = 0.0, 0.0, 0.0, 0

    def arrive(self, asked_at_s: float) -> None:
        """A question arrives at a moment of the stream."""
        self._asked_s, self._frames = asked_at_s, 0
        self._arrived = self._ready = self._now()

    def searched(self, frames: int) -> None:
        """What was remembered is at hand: so many frames are shown with the question."""
        self._ready, self._frames = self._now(), frames

    def looked(self, frames: int) -> None:
        """So many frames more are shown before the answer."""
        self._frames += frames

    def answered(self, text: str) -> Mapping[str, Json]:
        """The answer is there: the fact that says when."""
        config, waited = self.config, max(0.0, self._free_s - self._asked_s)
        if config.clock == "wall":
            name, ready, started = MEASURED, self._ready - self._arrived, None
            ended = self._now() - self._arrived
        else:
            name, ready = SIMULATED, 0.0
            started = waited + config.answer_s + config.frame_s * self._frames
            ended = started - waited + config.character_s * len(text)
        self._free_s = self._asked_s + waited + ended
        times = {"waited_s": waited, "ready_s": waited + ready, "started_s": started, "ended_s": waited + ended}
        return {name: {key: None if value is None else round(value, 6) for key, value in times.items()}}
