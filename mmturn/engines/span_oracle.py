"""A script that knows the gold stretches of videos: a teacher for cold starts, and a policy to compare with."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction

import numpy as np

from mmturn.engines.oracle import answer_thought, look_thought
from mmturn.geometry import Span
from mmturn.interfaces import ActionGrammar
from mmturn.media.video.clock import Clock
from mmturn.media.video.footage import Footage, Unit
from mmturn.media.video.times import format_time
from mmturn.types import Action, Json, Request, Task


class SpanScript:
    """Looks at each gold stretch in turn, then answers with the gold answer.

    What it asks for is ``scale`` times as long as the gold stretch (log-uniform), but at least ``least_s`` seconds and
    ``least_frames`` frames, its middle moved by ``offset`` and a normal ``jitter`` in lengths of itself, and lies
    within the video; the draws come from the request's seed. Raises KeyError for a task it was not given.
    """

    def __init__(
        self,
        tasks: Iterable[Task],
        grammar: ActionGrammar,
        footage: Callable[[Task], Footage],
        *,
        tool: str,
        unit: Unit,
        scale: tuple[float, float] = (1.5, 2.5),
        jitter: float = 0.1,
        offset: float = 0.0,
        least_s: float = 0.0,
        least_frames: int = 1,
        look: bool = True,
        answer: bool = True,
        anywhere: bool = False,
    ) -> None:
        """``tool`` takes ``start`` and ``end`` in ``unit``; ``look=False`` answers at once; ``answer=False`` leaves the
        answer to a model (see MixedEngine); ``anywhere=True`` keeps the length and draws the place at random."""
        self.tasks: Mapping[str, Task] = {task.id: task for task in tasks}
        self.grammar, self.footage, self.tool, self.unit = grammar, footage, tool, unit
        self.scale, self.jitter, self.offset = scale, jitter, offset
        self.least_s, self.least_frames = least_s, least_frames
        self.look, self.answer, self.anywhere = look, answer, anywhere

    def __call__(self, request: Request) -> str | None:
        """The completion of a request, or None where the model is to answer."""
        task = self.tasks[request.task_id]
        if self.look and request.turn < len(task.spans):
            footage = self.footage(task)
            asked = self._stretch(task.spans[request.turn], footage.clock, np.random.default_rng(request.seed))
            start, end = named(asked, footage, self.unit)
            action = Action("tool", self.tool, {"start": start, "end": end})
            return self.grammar.format(action, request.views, thought=look_thought(task, request.turn))
        if not self.answer:
            return None
        action = Action("answer", "answer", {"text": task.answer or ""})
        return self.grammar.format(action, request.views, thought=answer_thought(task) if self.look else "")

    def _stretch(self, gold: Span, clock: Clock, rng: np.random.Generator) -> Span:
        """Seconds within the video."""
        whole = float(clock.duration_s)
        low, high = (math.log(factor) for factor in self.scale)
        least = max(self.least_frames * whole / len(clock), self.least_s)
        length = min(max(gold.duration_s * math.exp(rng.uniform(low, high)), least), whole)
        middle = (gold.start_s + gold.end_s) / 2 + length * rng.normal(self.offset, self.jitter)
        if self.anywhere:
            middle = rng.uniform(0.0, whole)
        start = min(max(middle - length / 2, 0.0), whole - length)
        return Span(start, start + length)


def named(span: Span, footage: Footage, unit: Unit) -> tuple[Json, Json]:
    """Both ends of a stretch as a policy names them, so that nothing of it is lost to rounding where the video allows.

    ``second``: whole ones, as labels of frames show them, but for stretches of less than two.
    ``frame`` and ``pool``: the last candidate that is not later than the start, the first that is not earlier than the
    end.
    """
    clock = footage.clock
    if unit == "second":
        whole_s = float(clock.duration_s)
        if span.duration_s >= 2 and whole_s >= 2:
            return math.floor(span.start_s), min(math.ceil(span.end_s), math.floor(whole_s))
        return math.floor(100 * span.start_s) / 100, min(math.ceil(100 * span.end_s) / 100, whole_s)
    if unit == "time":
        last = math.floor(clock.duration_s)
        start_s = math.floor(span.start_s)
        end_s = min(max(math.ceil(span.end_s), start_s + 1), max(last, 1))
        return format_time(Fraction(min(start_s, end_s - 1))), format_time(Fraction(end_s))
    if unit == "frame":
        first = clock.shown_at(min(span.start_s, float(clock.seconds(len(clock) - 1))))
        return first, max(min(clock.span(0, span.end_s).stop, len(clock) - 1), first)
    seconds = np.array([float(clock.seconds(number)) for number in footage.pool])
    first = max(int(np.searchsorted(seconds, span.start_s, side="right")) - 1, 0)
    last = min(int(np.searchsorted(seconds, span.end_s, side="left")), len(seconds) - 1)
    return first, max(last, first)
