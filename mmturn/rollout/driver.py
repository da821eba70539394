"""The one multi-turn loop: observation -> render -> engine -> parse -> environment -> turn.

An event loop without a barrier per turn: environments run on a host beside the engine, and each
finished step queues its trajectory's next request while others are still stepping.

The rules of a rollout, each with a test of its number in tests/rollout/test_semantics.py (12: test_seats.py,
13: test_stream.py):
 1. A completion cut by length is closed with the template's end token (mask 0) and parsed like any other.
 2. A completion that does not parse is a bad action: error text, resend, or end, by one setting.
 3. A tool that refuses is treated exactly like a completion that does not parse.
 4. The turn limit truncates after the last turn's actions have been carried out.
 5. The token and context limits truncate before a completion is asked for that could not fit.
 6. An environment's own limit (images) truncates with its own reason.
 7. A crash of an environment, a grammar, a context policy or an engine fails that trajectory alone; its group goes on.
 8. A step that outlasts the time limit truncates that trajectory alone.
 9. An answer ends the trajectory; nothing after it is sampled.
10. A context policy names the context of each turn; rule 5 judges that context, and actions address what it shows.
11. What a context policy asks for itself (a summary) is a turn: it counts for every limit, is not parsed, does nothing.
12. A world names the seat of the next turn, which sees what was shown to it and what it said; limits count all seats.
13. A world that asks several questions has each new one worded as an opening, and says which answer is the last.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from mmturn.errors import ConfigError, DataError, EnvError, ParseError, ToolError
from mmturn.interfaces import ActionGrammar, Asks, ContextPolicy, Engine, EnvHost, Environment, Seated, Step
from mmturn.rollout.addressing import Sight
from mmturn.rollout.asking import Asking
from mmturn.rollout.context.append import AppendOnly
from mmturn.rollout.episode import Running
from mmturn.rollout.gold import probe_for
from mmturn.rollout.groups import Episode
from mmturn.rollout.routing import by_seat
from mmturn.rollout.seeds import seed_of
from mmturn.rollout.settings import RolloutConfig
from mmturn.store.codec import encode
from mmturn.types import Action, Completion, Observation, Request, Sampling, StopReason, Task, Trajectory, View

if TYPE_CHECKING:
    from mmturn.rendering.renderer import Renderer

log = logging.getLogger(__name__)

_POLL_STEPS = 4


class Driver:
    """Runs episodes. ``prepare`` is called on the host with each new view, to decode and resize beside the engine.
    ``seats``: engines of the seats that ``engine`` does not play (a frozen opponent, a scripted user)."""

    def __init__(
        self,
        engine: Engine,
        renderer: Renderer,
        grammar: ActionGrammar,
        make_env: Callable[[], Environment],
        host: EnvHost,
        config: RolloutConfig,
        *,
        context: ContextPolicy | None = None,
        prepare: Callable[[View], Any] | None = None,
        seats: Mapping[str, Engine] | None = None,
        meta: Mapping[str, Any] | None = None,
    ) -> None:
        self.engine: Engine = by_seat(engine, seats) if seats else engine
        self.renderer, self.grammar, self.host = renderer, grammar, host
        self.make_env, self.config, self.prepare = make_env, config, prepare
        self.context = context or AppendOnly()
        self.meta = {
            "engine": engine.name,
            **({"seats": {seat: other.name for seat, other in seats.items()}} if seats else {}),
            "grammar": grammar.name,
            "context": self.context.name,
            "family": renderer.family.name,
            "temperature": config.temperature,
            "top_p": config.top_p,
            **(meta or {}),
        }
        self._running: dict[str, Running] = {}
        self._finished: list[Trajectory] = []
        self._spare_envs: list[Environment] = []

    def run(self, episodes: Iterable[Episode]) -> Iterator[Trajectory]:
        """Run all episodes; trajectories come out as they finish (with ``deterministic``, in a fixed order)."""
        waiting = deque(episodes)
        while self._running or waiting:
            while waiting and (not self.config.episodes or len(self._running) < self.config.episodes):
                self._start(waiting.popleft())
            self._gather_steps()
            for completion in self.engine.collect(self._patience()):
                self._alone(completion.request_id, partial(self._on_completion, completion))
            yield from self._take_finished()
        yield from self._take_finished()

    def close(self) -> None:
        """Close the environments that are kept for the next episodes, and the host."""
        for env in self._spare_envs:
            env.close()
        self._spare_envs.clear()
        self.host.close()

    def _take_finished(self) -> list[Trajectory]:
        finished, self._finished = self._finished, []
        return finished

    def _patience(self) -> int | None:
        """Token steps after which to look for environments that are done, if there is room for what they will ask."""
        return _POLL_STEPS if self.host.under_way and self.engine.room > 0 else None

    def _gather_steps(self) -> None:
        """Take finished environment steps, without waiting while the engine has rows to go on with. One that has none
        waits for the first and, for a moment, for company; with ``deterministic`` it waits for all, in a fixed order.
        """
        gathered: list[tuple[str, Any]] = []
        stands = self.engine.idle
        while self.host.under_way:
            if self.config.deterministic:
                gathered += self.host.collect(None)
                continue
            timeout = self.config.linger_s if stands and self.engine.room > 0 else 0.0
            results = self.host.collect(None if self.engine.idle else timeout)
            if not results:
                return
            self._on_steps(results)
        self._on_steps(sorted(gathered, key=lambda pair: pair[0]))

    def _on_steps(self, results: Iterable[tuple[str, Any]]) -> None:
        for key, result in results:
            self._alone(key, partial(self._on_step, key, result))

    def _alone(self, key: str, handle: Callable[[], None]) -> None:
        """Handle an event of one trajectory. Grammars and worlds are anybody's: what they break is theirs (rule 7)."""
        try:
            handle()
        except ConfigError:
            raise
        except Exception as error:
            log.exception("trajectory %s", key)
            if key in self._running:
                self._finish(self._running[key], StopReason.ENV_FAILED, error=f"{type(error).__name__}: {error}")

    def _start(self, episode: Episode) -> None:
        if episode.id in self._running:
            raise ValueError(f"episode {episode.id} is already running: ids must be unique within a run")
        env = self._spare_envs.pop() if self._spare_envs else self.make_env()
        self._running[episode.id] = running = Running(episode, env)
        self._submit(running, lambda: env.reset(episode.task, episode.env_seed))

    def _submit(self, running: Running, work: Callable[[], Any]) -> None:
        """Run environment work on the host, with its views made ready there too."""

        def with_views() -> Any:
            started = time.monotonic()
            try:
                result = work()
                shown = result.observation if isinstance(result, Step) else result
                if self.prepare is not None and isinstance(shown, Observation):
                    for view in shown.views:
                        self.prepare(view)
                return result
            finally:
                running.worked_s += time.monotonic() - started

        running.step_started_s = time.monotonic()
        self.host.submit(running.episode.id, with_views)

    def _on_step(self, key: str, result: Any) -> None:
        running = self._running[key]
        if isinstance(result, Step):
            result = _storable(result)
        if isinstance(result, ToolError) and running.completion is not None:
            self._record(running, str(result), {})
            self._bad_action(running, str(result))
        elif isinstance(result, TimeoutError):
            self._record(running, None, {})
            self._finish(running, StopReason.TIME_LIMIT, error=str(result))
        elif isinstance(result, Exception):
            kind = "" if isinstance(result, EnvError) else f"{type(result).__name__}: "
            self._record(running, None, {})
            self._finish(running, StopReason.ENV_FAILED, error=f"{kind}{result}")
        elif isinstance(result, Step) and running.completion is not None:
            self._on_outcome(running, result)
        elif isinstance(result, Observation) and running.completion is None:
            if isinstance(running.env, Seated):
                running.sit(running.env.first_seat)
            running.asked, running.opened = _asked(running), result.facts
            self._ask(running, self.grammar.opening(running.task, Observation(result.parts, result.is_error)))
        else:
            raise EnvError(f"reset must return an Observation and step a Step, got {result!r:.100}")

    def _on_outcome(self, running: Running, step: Step) -> None:
        self._record(running, None, step.facts)
        if step.limit is not None:
            self._finish(running, StopReason(step.limit))
        elif step.terminated or step.observation is None:
            self._finish(running, StopReason.ANSWERED, answer=step.answer)
        elif len(running.turns) >= self._most_turns(running):
            self._finish(running, StopReason.TURN_LIMIT)
        else:
            running.sit(step.seat or running.seat.name)
            self._ask(running, self._worded(running, step.observation))

    def _worded(self, running: Running, shown: Observation) -> Observation:
        """An outcome in the grammar's words: to a seat that has not spoken yet, and with a new question, an opening."""
        before, turn = running.asked, len(running.turns)
        running.asked = _asked(running)
        if not running.seat.turns or running.asked != before:
            return self.grammar.opening(running.task, shown)
        return self.grammar.reply(running.task, shown, turn, self._most_turns(running))

    def _most_turns(self, running: Running) -> int:
        return min(self.config.max_turns, running.episode.max_turns or self.config.max_turns)

    def _on_completion(self, completion: Completion) -> None:
        running = self._running[completion.request_id]
        if completion.finish == "error":
            self._finish(running, StopReason.ENGINE_FAILED, error=completion.error)
            return
        running.completion = completion
        running.step_started_s = time.monotonic()
        if running.seat.asked is not None and running.seat.asked.purpose != "act":
            self._on_own_turn(running)
            return
        try:
            running.actions = actions = self._parsed(running, completion.text)
        except (ParseError, ToolError) as error:
            self._record(running, str(error), {})
            self._bad_action(running, str(error))
            return
        self._submit(running, lambda: running.env.step(actions))

    def _parsed(self, running: Running, text: str) -> tuple[Action, ...]:
        """The actions of a completion, their views counted among all that were shown."""
        sight, tools = Sight(running.seat.context_views, running.views), running.env.tools
        actions = self.grammar.parse(text, sight.visible, sight.tools(tools), len(running.turns))
        return sight.placed(actions, tools)

    def _on_own_turn(self, running: Running) -> None:
        """Rule 11."""
        self._record(running, None, {})
        if len(running.turns) >= self.config.max_turns:
            self._finish(running, StopReason.TURN_LIMIT)
        else:
            self._ask(running, None)

    def _bad_action(self, running: Running, message: str) -> None:
        """Rules 2 and 3."""
        if self.config.bad_action == "end":
            self._finish(running, StopReason.INVALID)
        elif len(running.turns) >= self._most_turns(running):
            self._finish(running, StopReason.TURN_LIMIT)
        else:
            task, turn = running.task, len(running.turns)
            shown = self.grammar.bad_action(task, message, tuple(running.views), turn, self._most_turns(running))
            last = running.turns[-1].observation.views
            if self.config.bad_action == "resend" and not shown.views:
                shown = Observation((*shown.parts, *last), is_error=True)
            if shown.views:
                running.env.note_shown(shown.views)
            self._ask(running, shown)

    def _ask(self, running: Running, shown: Observation | None) -> None:
        """Queue the request for the completion of the next turn. ``shown``: the newest observation, if there is one."""
        task, turns, seat, config = running.episode.task, running.turns, running.seat, self.config
        if not seat.turns:
            seat.system = self._system(running)
        budget = min(config.max_new_tokens, config.max_tokens - running.sampled)
        if budget <= 0:
            self._finish(running, StopReason.TOKEN_LIMIT)
            return
        asking = Asking(seat, shown, self.renderer, config.max_context - budget)
        running.ask(asking.asked(self.context.next(tuple(seat.turns), shown, asking)))
        if len(seat.context) > asking.tokens:
            self._finish(running, StopReason.CONTEXT_LIMIT)
            return
        self.engine.submit(
            Request(
                id=running.episode.id,
                task_id=task.id,
                turn=len(turns),
                token_ids=tuple(seat.context),
                views=tuple(seat.context_views),
                sampling=Sampling(budget, config.temperature, config.top_p),
                seed=seed_of(running.episode.seed, len(turns)),
                probe=probe_for(running, self.renderer, self.grammar, config),
                seat=seat.name,
            )
        )

    def _system(self, running: Running) -> str:
        """The system message of the seat whose turn it is."""
        env, seat = running.env, running.seat.name
        role = env.role(seat) if isinstance(env, Seated) else ""
        words = (self.grammar.system(running.episode.task, env.tools), role, self.context.instructions)
        return "\n\n".join(filter(None, words))

    def _record(self, running: Running, error: str | None, facts: Mapping[str, Any]) -> None:
        """Append the turn of the pending completion, if there is one."""
        completion = running.completion
        if completion is None:
            return
        closing = self.renderer.closing(completion.finish)
        ids = completion.token_ids
        if ids is None:  # the context goes on as if the policy had written its text itself
            ended = (self.renderer.end_id,) if completion.finish == "stop" else ()
            ids = (*self.renderer.encode_completion(completion.text), *ended)
        trained = not self.config.trained_seats or running.seat.name in self.config.trained_seats
        running.record(ids, closing, error, {**running.opened, **facts}, trained)
        running.opened = {}

    def _finish(self, running: Running, stop: StopReason, answer: str | None = None, error: str | None = None) -> None:
        del self._running[running.episode.id]
        if error is not None:
            log.warning("trajectory %s: %s: %s", running.episode.id, stop.value, error)
        if stop is StopReason.ENV_FAILED:
            _discard(running.env)
        elif stop is not StopReason.TIME_LIMIT:  # after a time limit its thread may still be inside it
            self._spare_envs.append(running.env)
        self._finished.append(running.finish(stop, self.meta, answer, error))


def _asked(running: Running) -> Task | None:
    """The question that is open, where the environment asks several."""
    return running.env.asked if isinstance(running.env, Asks) else None


def _storable(step: Step) -> Step | EnvError:
    """The step, unless it says something that no store can hold: found here, that costs this trajectory alone."""
    try:
        encode(step, Step)
    except DataError as error:
        return EnvError(f"a step holds what cannot be stored: {error}")
    return step


def _discard(env: Environment) -> None:
    """Close a world that failed; that it may fail again must not stop the others."""
    try:
        env.close()
    except Exception:
        log.exception("an environment that had failed could not be closed")
