"""An engine that asks a function instead of a model: for oracles, baselines and tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from mmturn.interfaces import Engine
from mmturn.types import Completion, Request

if TYPE_CHECKING:
    from mmturn.rendering.renderer import Renderer

Script = Callable[[Request], str]
"""The text that answers a request; ``request.task_id`` and ``request.turn`` say which."""


class ScriptedEngine:
    """Answers each request with ``script(request)``, encoded as the policy itself would have written it.

    Its tokens are marked as sampled, so that oracle trajectories can be used for supervised learning; it
    reports no log-probs, so that policy-gradient training refuses them. An exception of the script fails
    its own trajectory alone.
    """

    name = "scripted"
    version = 0

    def __init__(self, script: Script, renderer: Renderer, *, max_batch: int = 256) -> None:
        self.script, self.renderer, self.max_batch = script, renderer, max_batch
        self._waiting: list[Request] = []

    def submit(self, request: Request) -> None:
        """Queue a request."""
        self._waiting.append(request)

    def collect(self, max_steps: int | None = None) -> list[Completion]:
        """Answers to all that wait."""
        waiting, self._waiting = self._waiting, []
        return [self._answer(request) for request in waiting]

    @property
    def room(self) -> int:
        """How many more requests the next batch can take."""
        return max(self.max_batch - len(self._waiting), 0)

    @property
    def idle(self) -> bool:
        """True when no request waits."""
        return not self._waiting

    def close(self) -> None:
        """Nothing to free."""

    def _answer(self, request: Request) -> Completion:
        try:
            text = self.script(request)
        except Exception as error:
            return Completion(request.id, "", finish="error", error=f"script: {type(error).__name__}: {error}")
        ids = (*self.renderer.encode_completion(text), self.renderer.end_id)
        limit = request.sampling.max_new_tokens
        if len(ids) <= limit:
            return Completion(request.id, text, ids)
        return Completion(request.id, self.renderer.decode(ids[:limit]), ids[:limit], finish="length")


class MixedEngine:
    """Lets a script decide some turns and a model the rest: what would the policy answer if it looked here?

    A script that returns None leaves the turn to ``model``.
    """

    name = "mixed"

    def __init__(self, script: Callable[[Request], str | None], model: Engine, renderer: Renderer) -> None:
        self.script, self.model = script, model
        self._texts: dict[str, str | Exception] = {}
        self._scripted = ScriptedEngine(self._told, renderer)

    @property
    def version(self) -> int:
        """Policy version of the model."""
        return self.model.version

    def submit(self, request: Request) -> None:
        """Queue a request with whoever decides it."""
        text: str | Exception | None
        try:
            text = self.script(request)
        except Exception as error:  # raised again where it fails this request alone
            text = error
        if text is None:
            self.model.submit(request)
        else:
            self._texts[request.id] = text
            self._scripted.submit(request)

    def collect(self, max_steps: int | None = None) -> list[Completion]:
        """The scripted answers first, the model's when there are none."""
        return self._scripted.collect() or self.model.collect(max_steps)

    @property
    def room(self) -> int:
        """How many more requests the model's next batch can take."""
        return self.model.room

    @property
    def idle(self) -> bool:
        """True when no request waits."""
        return self._scripted.idle and self.model.idle

    def close(self) -> None:
        """Free the model's caches."""
        self.model.close()

    def _told(self, request: Request) -> str:
        text = self._texts.pop(request.id)
        if isinstance(text, Exception):
            raise text
        return text
