"""Scripts that know the gold boxes: a teacher for cold starts, and the policies a table compares with."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np

from mmturn.geometry import Box
from mmturn.interfaces import ActionGrammar
from mmturn.types import Action, Request, Task, View


class LookScript:
    """Looks at each gold region in turn, then answers with the gold answer.

    The crop is a square about the gold region, ``scale`` times its longer side (log-uniform), its centre moved
    by ``offset`` and a normal ``jitter`` in sides of the crop; the draws come from the request's seed.
    Raises KeyError for a task it was not given.
    """

    def __init__(
        self,
        tasks: Iterable[Task],
        grammar: ActionGrammar,
        *,
        tool: str = "crop",
        scale: tuple[float, float] = (1.5, 2.5),
        jitter: float = 0.1,
        offset: tuple[float, float] = (0.0, 0.0),
        look: bool = True,
        answer: bool = True,
        anywhere: bool = False,
        beside: float = 0.0,
    ) -> None:
        """``look=False`` answers at once; ``answer=False`` leaves the answer to a model (see MixedEngine);
        ``anywhere=True`` keeps the crop's size and draws its place at random; ``beside`` moves the same crop by so many
        of its sides, in a direction drawn at random."""
        self.tasks: Mapping[str, Task] = {task.id: task for task in tasks}
        self.grammar, self.tool, self.scale, self.jitter, self.offset = grammar, tool, scale, jitter, offset
        self.look, self.answer, self.anywhere, self.beside = look, answer, anywhere, beside

    def __call__(self, request: Request) -> str | None:
        """The completion of a request, or None where the model is to answer."""
        task = self.tasks[request.task_id]
        if self.look and request.turn < len(task.boxes):
            view = request.views[0]
            box = self._box(task.boxes[request.turn], view, np.random.default_rng(request.seed))
            action = Action("tool", self.tool, {"bbox_2d": list(box.as_tuple())}, view=0)
            return self.grammar.format(action, [view], thought=look_thought(task, request.turn))
        if not self.answer:
            return None
        action = Action("answer", "answer", {"text": task.answer or ""})
        return self.grammar.format(action, request.views, thought=answer_thought(task) if self.look else "")

    def _box(self, gold: Box, view: View, rng: np.random.Generator) -> Box:
        """Whole pixels of the view, inside it."""
        shown = view.transform.inverse().box(gold)
        low, high = (math.log(factor) for factor in self.scale)
        side = max(shown.width, shown.height) * math.exp(rng.uniform(low, high))
        bounds = Box(0, 0, view.size.width, view.size.height)
        if self.anywhere:
            x, y = rng.uniform(0, bounds.width), rng.uniform(0, bounds.height)
        else:
            x, y = np.array([shown.center.x, shown.center.y]) + side * rng.normal(self.offset, self.jitter)
        if self.beside:
            angle = rng.uniform(0, 2 * math.pi)
            x, y = x + self.beside * side * math.cos(angle), y + self.beside * side * math.sin(angle)
        box = Box(x - side / 2, y - side / 2, x + side / 2, y + side / 2).shift_into(bounds)
        x0, y0 = round(box.x0), round(box.y0)
        return Box(x0, y0, max(round(box.x1), x0 + 1), max(round(box.y1), y0 + 1)).intersect(bounds)


def look_thought(task: Task, turn: int) -> str:
    """What a look is for: the target's words, after what earlier looks read (from ``meta``, if it tells)."""
    targets, reads = task.meta.get("targets", []), task.meta.get("reads", [])
    if turn >= len(targets):
        return ""
    return "; ".join([*map(str, reads[:turn]), str(targets[turn])])


def answer_thought(task: Task) -> str:
    """What was found: the detail that was read, or the relation seen."""
    reads = task.meta.get("reads", [])
    if len(reads) == 1:
        return str(reads[0])
    return str(task.meta.get("relation") or task.answer or "")
