"""Expert walks through generated houses as a policy: a teacher for cold starts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mmturn.errors import ConfigError
from mmturn.grammars.gui.dialect import Dialect
from mmturn.interfaces import ActionGrammar
from mmturn.tasks.navigation import expert_actions, make_house
from mmturn.types import Request, Task

A_TURN = 3
"""Actions of a turn (ActiveVLN: at most three)."""


class WalkScript:
    """Walks the shortest way to the goal, three actions a turn. Raises KeyError for a task it was not given."""

    def __init__(self, tasks: Iterable[Task], grammar: ActionGrammar) -> None:
        """Raises ConfigError for a grammar that has no turns of several actions."""
        if not isinstance(grammar, Dialect):
            raise ConfigError(f"the oracle walks in turns of several actions, and {grammar.name} has none: active_vln")
        self.tasks: Mapping[str, Task] = {task.id: task for task in tasks}
        self.grammar = grammar

    def __call__(self, request: Request) -> str:
        """The completion of a request."""
        actions = expert_actions(make_house(self.tasks[request.task_id].meta["house"]))
        first = A_TURN * request.turn
        return self.grammar.format_turn(actions[first : first + A_TURN], request.views)
