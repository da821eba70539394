"""Scripted solutions of GUI tasks as a policy: a teacher for cold starts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from threading import Lock

from mmturn.envs.gui.experts import ScriptedEnv, play
from mmturn.errors import DataError
from mmturn.grammars.gui.dialect import can_express
from mmturn.gui_actions import finish, finish_status
from mmturn.interfaces import ActionGrammar
from mmturn.types import Action, Request, Task, View


class PlayedScript:
    """Answers with what solved a task before: each task is played once by its scripted solution, in a world of its own,
    and what was done there is said turn by turn, one action each.

    Worlds show the same again for the same task and seed, so that the driver's own episode goes the same way; where it
    does not, its reward tells. Raises KeyError for a task it was not given, DataError for one without a solution, or
    whose solution does not solve it.
    """

    def __init__(
        self, tasks: Iterable[Task], grammar: ActionGrammar, env: ScriptedEnv, seed: Callable[[Task], int]
    ) -> None:
        """``env``: where solutions are found, no other's; ``seed``: the environment's, of the episodes to come."""
        self.tasks: Mapping[str, Task] = {task.id: task for task in tasks}
        self.grammar, self._env, self._seed = grammar, env, seed
        self._played: dict[str, list[Action]] = {}
        self._lock = Lock()

    def __call__(self, request: Request) -> str:
        """The completion of a request. Raises IndexError where the episode goes on after the solution's end."""
        task = self.tasks[request.task_id]
        action = self._actions(task)[request.turn]
        if action.view is not None:  # a solution points at the newest screen, however many are still shown
            action = replace(action, view=len(request.views) - 1)
        return self.grammar.format(self._sayable(action, task, request.views), request.views)

    def _sayable(self, action: Action, task: Task, views: Sequence[View]) -> Action:
        """The action, or one that comes to the same in a dialect that has no form for it."""
        if can_express(self.grammar, action, views):
            return action
        if action.kind == "answer" and task.answer is None:
            return finish("", finish_status(action) or "success")  # the end without words
        if action.name == "type" and "element" in action.arguments and "clear" not in action.arguments:
            return replace(action, arguments={**action.arguments, "clear": True})  # of a field that is empty
        return action

    def _actions(self, task: Task) -> list[Action]:
        with self._lock:
            if task.id not in self._played:
                turns: list[Action] = []
                try:
                    score, _ = play(self._env, task, self._seed(task), turns.extend)
                finally:
                    self._env.close()
                if score < 1:
                    raise DataError(f"task {task.id}: its scripted solution scores {score:g}")
                self._played[task.id] = turns
            return self._played[task.id]
