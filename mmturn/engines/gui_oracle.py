"""Scripted solutions of GUI tasks as a policy: a teacher for cold starts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from threading import Lock

from mmturn.envs.gui.browser.env import BrowserEnv
from mmturn.envs.gui.browser.experts import play
from mmturn.interfaces import ActionGrammar
from mmturn.types import Action, Request, Task


class PlayedScript:
    """Answers with what solved a task before: each task is played once by its scripted solution, on a page of its own,
    and what was done there is said turn by turn, one action each.

    Worlds show the same again for the same task and seed, so that the driver's own episode goes the same way; where it
    does not, its reward tells. Raises KeyError for a task it was not given, DataError for one without a solution.
    """

    def __init__(
        self, tasks: Iterable[Task], grammar: ActionGrammar, env: BrowserEnv, seed: Callable[[Task], int]
    ) -> None:
        """``env``: where solutions are found, no other's; ``seed``: the environment's, of the episodes to come."""
        self.tasks: Mapping[str, Task] = {task.id: task for task in tasks}
        self.grammar, self._env, self._seed = grammar, env, seed
        self._played: dict[str, list[Action]] = {}
        self._lock = Lock()

    def __call__(self, request: Request) -> str:
        """The completion of a request. Raises IndexError where the episode goes on after the solution's end."""
        action = self._actions(self.tasks[request.task_id])[request.turn]
        if action.view is not None:  # a solution points at the newest screen, however many are still shown
            action = replace(action, view=len(request.views) - 1)
        return self.grammar.format(action, request.views)

    def _actions(self, task: Task) -> list[Action]:
        with self._lock:
            if task.id not in self._played:
                turns: list[Action] = []
                play(self._env, task, self._seed(task), turns.extend)
                self._env.close()
                self._played[task.id] = turns
            return self._played[task.id]
