"""Inside a worker: environments by number, and the answers to what their stand-ins ask."""

from __future__ import annotations

import importlib
import logging
import threading
from collections.abc import Callable
from typing import Any

from mmturn.errors import DataError, EnvError
from mmturn.interfaces import Asks, Concludes, Environment, Seated, Step
from mmturn.media.store import ImageStore
from mmturn.rollout.workers.link import Message, Start
from mmturn.rollout.workers.pictures import packed
from mmturn.store.codec import decode, encode
from mmturn.types import Action, ImageRef, Json, Observation, Task, View

log = logging.getLogger(__name__)

HELD_BYTES = 1 << 28
"""Bytes of derived pictures that a worker keeps, for tools that look at them again; the trainer has them too."""
_PASSED = ("ToolError", "TimeoutError", "EnvError", "NotRunnable")
"""Errors that mean something to the driver; others are failures of the environment, told with their name."""


class Service:
    """Answers ``reset``, ``step``, ``conclude``, ``close`` and ``picture``. Calls for one environment come one
    after the other, those for different ones on threads of their own."""

    def __init__(self, start: Start) -> None:
        module, _, name = start.make.partition(":")
        self._make_env: Callable[[Json, ImageStore], Environment] = getattr(importlib.import_module(module), name)
        self._settings = start.settings
        self.store = ImageStore(decoded_bytes=1 << 27, view_bytes=0, held_bytes=HELD_BYTES)
        self._lock = threading.Lock()
        self._spare = [self._make()]  # what is wrong with the settings is told at the start
        self._envs: dict[int, Environment] = {}

    def answer(self, head: dict[str, Any]) -> Message:
        """The answer; what goes wrong is an answer too."""
        try:
            match head["do"]:
                case "reset":
                    return self._reset(head)
                case "step":
                    return self._step(head)
                case "conclude":
                    return self._conclude(head)
                case "picture":
                    return Message({}, [self.store.bytes(decode(head["ref"], ImageRef))])
                case "close":
                    self._close(head["env"])
                    return Message({})
                case other:
                    raise EnvError(f"a worker cannot {other}")
        except BaseException as error:  # also sys.exit: whoever waits has to be told
            return Message({"error": _told(error)})

    def close(self) -> None:
        """Close every environment."""
        for number in list(self._envs):
            try:
                self._close(number)
            except Exception:
                log.exception("an environment could not be closed")

    def _reset(self, head: dict[str, Any]) -> Message:
        env = self._env(head["env"])
        shown = env.reset(decode(head["task"], Task), head["seed"])
        if not isinstance(shown, Observation):
            raise EnvError(f"reset must return an Observation and step a Step, got {shown!r:.100}")
        answer: dict[str, Json] = {"observation": _encoded(shown, Observation, "an opening")}
        if isinstance(env, Seated):
            answer |= {"seat": env.first_seat, "role": env.role(env.first_seat)}
        return self._with_views(env, answer, shown)

    def _step(self, head: dict[str, Any]) -> Message:
        env = self._env(head["env"])
        if head["shown"]:
            env.note_shown(tuple(decode(view, View) for view in head["shown"]))
        step = env.step(tuple(decode(action, Action) for action in head["actions"]))
        if not isinstance(step, Step):
            raise EnvError(f"reset must return an Observation and step a Step, got {step!r:.100}")
        answer: dict[str, Json] = {"step": _encoded(step, Step, "a step")}
        if step.seat is not None and isinstance(env, Seated):
            answer["role"] = env.role(step.seat)
        return self._with_views(env, answer, step.observation)

    def _conclude(self, head: dict[str, Any]) -> Message:
        env = self._env(head["env"])
        if not isinstance(env, Concludes):
            raise EnvError("this environment has nothing to conclude")
        told = Step(None, terminated=True, facts=env.conclude())
        return Message({"step": _encoded(told, Step, "a conclusion"), "pictures": []})

    def _with_views(self, env: Environment, answer: dict[str, Json], shown: Observation | None) -> Message:
        if isinstance(env, Asks):
            answer["asked"] = encode(env.asked, Task | None)  # type: ignore[arg-type]
        answer["pictures"], blobs = packed(() if shown is None else shown.views, self.store)
        return Message(answer, blobs)

    def _make(self) -> Environment:
        return self._make_env(self._settings, self.store)

    def _env(self, number: int) -> Environment:
        with self._lock:
            if number not in self._envs:
                self._envs[number] = self._spare.pop() if self._spare else self._make()
            return self._envs[number]

    def _close(self, number: int) -> None:
        with self._lock:
            env = self._envs.pop(number, None)
        if env is not None:
            env.close()


def _encoded(value: Any, kind: Any, what: str) -> Json:
    try:
        return encode(value, kind)
    except DataError as error:
        raise EnvError(f"{what} holds what cannot be stored: {error}") from None


def _told(error: BaseException) -> dict[str, Json]:
    name = type(error).__name__
    if name in _PASSED:
        return {"kind": name, "words": str(error)}
    return {"kind": "EnvError", "words": f"{name}: {error}"}
