"""Single steps on a screen as a policy that knows them: a teacher for cold starts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from mmturn.errors import DataError
from mmturn.geometry import Point
from mmturn.grading.targets import TARGET
from mmturn.grammars.gui.dialect import can_express
from mmturn.gui_actions import act, finish
from mmturn.interfaces import ActionGrammar
from mmturn.rewards.clicks import PLACED, gold_action
from mmturn.types import Action, Request, Task, View


class StepScript:
    """Does what ``meta["action"]`` of a task names, in the middle of ``meta["target"]`` where it is at a place, and
    clicks there where none is named; says that there is nothing to point at where the target is a refusal.

    Raises KeyError for a task it was not given, DataError for one that names neither, a swipe without its path, or an
    action that the grammar has no form for.
    """

    def __init__(self, tasks: Iterable[Task], grammar: ActionGrammar) -> None:
        self.tasks: Mapping[str, Task] = {task.id: task for task in tasks}
        self.grammar = grammar

    def __call__(self, request: Request) -> str:
        """The completion of a request."""
        task, views = self.tasks[request.task_id], request.views
        return self.grammar.format(self._action(task, views), views)

    def _action(self, task: Task, views: Sequence[View]) -> Action:
        gold, target = gold_action(task), task.meta.get(TARGET, {})
        if gold is None and not target:
            raise DataError(f"task {task.id}: neither meta.action nor meta.{TARGET} says what is right")
        if gold is None and target["kind"] == "refusal":
            said = finish("none")
            return said if can_express(self.grammar, said, views) else finish("", "infeasible")
        if gold is not None and gold.name not in PLACED:
            return gold
        index = len(views) - 1
        if gold is not None and gold.name == "drag":
            if "path" not in task.meta["action"]:
                raise DataError(f"task {task.id}: meta.action is a drag without its path, which cannot be shown")
            return replace(
                gold, arguments={**gold.arguments, "path": _on(views[index], gold.arguments["path"])}, view=index
            )
        numbers = target["numbers"]
        middle = [sum(numbers[0::2]) / len(numbers[0::2]), sum(numbers[1::2]) / len(numbers[1::2])]
        (point,) = _on(views[index], [middle])
        return act(
            "click" if gold is None else gold.name,
            index,
            **{**({} if gold is None else gold.arguments), "point": point},
        )


def _on(view: View, points: Iterable[Sequence[float]]) -> list[list[float]]:
    """Pixels of the screenshot as pixels of a view of it."""
    there = [view.transform.inverse().point(Point(*point)) for point in points]
    return [[point.x, point.y] for point in there]
