"""What stands in for an environment that runs in a worker; grammars, driver and rewards see no difference."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mmturn.errors import EnvError, NotRunnable, ToolError
from mmturn.interfaces import Asks, Concludes, Environment, Seated, Step
from mmturn.media.store import ImageStore
from mmturn.rollout.hosts import ThreadHost
from mmturn.rollout.workers.link import Gone, Message
from mmturn.rollout.workers.pictures import taken_in
from mmturn.rollout.workers.pool import Worker, WorkerPool
from mmturn.store.codec import decode, encode
from mmturn.types import Action, Json, Observation, Task, ToolSpec, View

_MOST_WAITING = 512
_ERRORS: dict[str, Callable[[str], Exception]] = {
    "ToolError": ToolError, "TimeoutError": TimeoutError, "NotRunnable": NotRunnable,
}  # fmt: skip


class RemoteEnv:
    """Runs each episode in a worker of the pool. An episode whose worker hangs or dies fails; the next one gets another
    worker."""

    def __init__(self, pool: WorkerPool, store: ImageStore, tools: tuple[ToolSpec, ...]) -> None:
        """``store``: gets the pictures that the worker shows."""
        self.tools = tools
        self.served_by = ""
        """Name of the worker that runs the episode; empty before the first."""
        self._pool, self._store = pool, store
        self._held: tuple[Worker, int] | None = None
        self._shown: list[View] = []
        self._state: dict[str, Any] = {}
        self._roles: dict[str, str] = {}

    def reset(self, task: Task, seed: int) -> Observation:
        """Begin an episode, in the worker of the one before if that is well. Raises EnvError."""
        self._shown, self._state, self._roles = [], {}, {}
        if self._held is not None and not self._pool.is_well(self._held[0]):
            self.close()
        if self._held is None:
            self._held = self._pool.take()
        self.served_by = self._held[0].name
        answer = self._asked({"do": "reset", "task": encode(task, Task), "seed": seed})
        self._pool.served(self._held[0])
        self._note(answer, answer.head.get("seat"))
        return decode(answer.head["observation"], Observation)

    def step(self, actions: tuple[Action, ...]) -> Step:
        """Carry out actions there. Raises what the environment raises: ToolError, TimeoutError for a step that takes
        too long, EnvError for all that fails."""
        shown, self._shown = self._shown, []
        answer = self._asked({
            "do": "step", "actions": [encode(action, Action) for action in actions],
            "shown": [encode(view, View) for view in shown],
        })  # fmt: skip
        step: Step = decode(answer.head["step"], Step)
        self._note(answer, step.seat)
        return step

    def note_shown(self, views: Sequence[View]) -> None:
        """Told with the next step."""
        self._shown.extend(views)

    def close(self) -> None:
        """Forget the episode; the worker closes the environment."""
        held, self._held = self._held, None
        if held is not None:
            self._pool.release(*held)

    def _note(self, answer: Message, seat: str | None) -> None:
        """What the environment says beside its outcome: whose turn it is, what is asked."""
        self._state = answer.head
        if seat is not None and "role" in answer.head:
            self._roles[seat] = answer.head["role"]

    def _asked(self, head: dict[str, Json]) -> Message:
        """The worker's answer, its pictures taken in."""
        answer = self._called(head)
        taken_in(answer.head["pictures"], answer.blobs, self._store, self._fetch)
        return answer

    def _called(self, head: dict[str, Json]) -> Message:
        if self._held is None:
            raise EnvError("step before reset")
        (worker, number), limit_s = self._held, self._pool.step_limit_s
        try:
            answer = worker.link.call({**head, "env": number}, limit_s)
        except Gone as error:
            self._pool.lost(worker, str(error))
            raise EnvError(f"worker {worker.name} {error}") from error
        except TimeoutError as error:
            self._give_up(worker, limit_s)
            self.close()
            raise TimeoutError(f"no result within {limit_s:g} s") from error
        if "error" in answer.head:
            told = answer.head["error"]
            raise _ERRORS.get(told["kind"], EnvError)(told["words"])
        return answer

    def _fetch(self, ref: Json) -> bytes:
        return self._called({"do": "picture", "ref": ref}).blobs[0]

    def _give_up(self, worker: Worker, limit_s: float) -> None:
        """A step took too long: a worker that is well otherwise keeps its other episodes."""
        if not self._pool.is_well(worker):
            raise EnvError(f"worker {worker.name} hung, and was killed after {limit_s:g} s") from None
        self._pool.wear_out(worker, f"has a step that takes longer than {limit_s:g} s")


class _Seats(RemoteEnv):
    """Of an environment with several seats."""

    @property
    def first_seat(self) -> str:
        """Who takes the first turn."""
        return str(self._state.get("seat", ""))

    def role(self, seat: str) -> str:
        """Words for that seat's system message."""
        return self._roles.get(seat, "")


class _Questions(RemoteEnv):
    """Of an environment that asks several questions."""

    @property
    def asked(self) -> Task | None:
        """The question that is open."""
        return decode(self._state.get("asked"), Task | None)  # type: ignore[arg-type]


class _Conclusions(RemoteEnv):
    """Of an environment that judges an episode at its end."""

    def conclude(self) -> Mapping[str, Json]:
        """What it says of an episode that a limit ended. Raises as ``step`` does."""
        step: Step = decode(self._asked({"do": "conclude"}).head["step"], Step)
        return step.facts


def stand_in(env: Environment, pool: WorkerPool, store: ImageStore) -> Callable[[], RemoteEnv]:
    """Makes stand-ins for environments that are like ``env``."""
    seams = ((Seated, _Seats), (Asks, _Questions), (Concludes, _Conclusions))
    bases = tuple(base for seam, base in seams if isinstance(env, seam))
    kind: type[RemoteEnv] = type("RemoteEnv", bases or (RemoteEnv,), {})
    tools = env.tools
    return lambda: kind(pool, store, tools)


class WorkerHost(ThreadHost):
    """Waits for workers on as many threads as there are episodes that wait: a slow one holds nobody else up."""

    def __init__(self, pool: WorkerPool) -> None:
        config = pool.config
        # The stand-ins keep the limit of a step, and tell what of it the worker is to blame for.
        spare_s = config.start_timeout_s + 4 * config.health_timeout_s
        super().__init__(1, 2 * pool.step_limit_s + spare_s, most=_MOST_WAITING)
        self._pool = pool

    def close(self) -> None:
        """End the workers too."""
        super().close()
        self._pool.close()
