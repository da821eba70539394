"""Trajectories -> what a page shows of them, as JSON values."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, islice
from typing import Any, Literal, TypeGuard

from mmturn.errors import DataError
from mmturn.geometry import Box
from mmturn.grading.answers import match
from mmturn.rewards.env_score import told_score
from mmturn.types import Action, Observation, Task, Trajectory, Turn, View
from mmturn.viewer.pictures import Pictures
from mmturn.viewer.timeline import timeline, times_of_views

Decode = Callable[[Sequence[int]], list[str]]
"""Token ids -> one text per id."""
Data = dict[str, Any]

LABEL = "label"
"""Key in ``Trajectory.meta`` that the page shows as a tag, e.g. ``before``."""

_LEVELS = ("level", "category")


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a page."""

    title: str
    trajectories: Sequence[Trajectory]
    note: str = ""
    """A line below the title."""
    side_by_side: Literal["group", "task"] = "group"
    """What is shown in one row: the siblings of one visit, or every trajectory of one task (before and after)."""


def labelled(trajectory: Trajectory, label: str) -> Trajectory:
    """The trajectory with a tag for the page."""
    return replace(trajectory, meta={**trajectory.meta, LABEL: label})


def is_right(trajectory: Trajectory) -> bool | None:
    """Whether the answer is right, or, without a gold answer, the world says that the task is solved; None where
    neither tells, and after a failure."""
    if trajectory.stop.status == "failed":
        return None
    if trajectory.task.answer is None:
        score = told_score(trajectory)
        return None if score is None else score >= 1.0
    return match(trajectory.answer, trajectory.task)


def pair_up(
    before: Iterable[Trajectory],
    after: Iterable[Trajectory],
    limit: int | None = None,
    labels: tuple[str, str] = ("before", "after"),
) -> list[Trajectory]:
    """The first trajectory of each task on either side, tagged, pair by pair, at most ``limit`` pairs.

    Tasks that became right come most often, but those that stayed and those that became wrong are mixed in.
    """
    old: dict[str, Trajectory] = {}
    for trajectory in before:
        old.setdefault(trajectory.task.id, trajectory)
    new: dict[str, Trajectory] = {}
    for trajectory in after:
        new.setdefault(trajectory.task.id, trajectory)
    kinds: dict[tuple[bool, bool], list[str]] = {
        key: [] for key in ((False, True), (True, True), (False, False), (True, False))
    }
    for task_id in old:
        if task_id in new:
            kinds[bool(is_right(old[task_id])), bool(is_right(new[task_id]))].append(task_id)
    names: list[str] = []
    while any(kinds.values()):
        # Most of what is shown is what changed for the better, but never that alone.
        for key, share in (((False, True), 3), ((True, True), 1), ((False, False), 1), ((True, False), 1)):
            names += kinds[key][:share]
            del kinds[key][:share]
    sides = ((old, labels[0]), (new, labels[1]))
    return [labelled(side[name], label) for name in names[:limit] for side, label in sides]


def page_content(sections: Sequence[Section], pictures: Pictures, decode: Decode | None = None) -> Data:
    """Sections, groups, tasks and trajectories of a page. Raises DataError when ``decode`` loses tokens."""
    tasks: dict[str, int] = {}
    task_data: list[Data] = []
    section_data = []
    for section in sections:
        groups: dict[str, list[Data]] = {}
        for trajectory in section.trajectories:
            task = _task(trajectory.task)
            # Two files may use one id for different tasks; what is shown decides.
            key = repr(task)
            if key not in tasks:
                tasks[key] = len(task_data)
                task_data.append(task)
            data = {"task": tasks[key], **_trajectory(trajectory, pictures, decode)}
            name = trajectory.group if section.side_by_side == "group" else trajectory.task.id
            groups.setdefault(name, []).append(data)
        rows = [{"name": name, "task": items[0]["task"], "items": items} for name, items in groups.items()]
        section_data.append({"title": section.title, "note": section.note, "groups": rows})
    return {"sections": section_data, "tasks": task_data, "tokens": decode is not None}


def _task(task: Task) -> Data:
    level = next((task.meta[key] for key in _LEVELS if task.meta.get(key) is not None), None)
    return {
        "id": task.id,
        "question": task.question,
        "choices": list(task.choices),
        "answer": task.answer,
        "level": None if level is None else str(level),
        "meta": {str(key): value for key, value in task.meta.items()},
    }


def _trajectory(trajectory: Trajectory, pictures: Pictures, decode: Decode | None) -> Data:
    views, times = trajectory.views, times_of_views(trajectory)
    drawn = zip(views, _marks(trajectory, views), strict=True)
    reward = trajectory.reward
    tools = {action.name for turn in trajectory.turns for action in turn.actions if action.kind == "tool"}
    return {
        "id": trajectory.id,
        "index": trajectory.index,
        "seed": str(trajectory.seed),  # 64 bits do not fit a number of JavaScript
        "stop": trajectory.stop.value,
        "status": trajectory.stop.status,
        "right": is_right(trajectory),
        "label": None if trajectory.meta.get(LABEL) is None else str(trajectory.meta[LABEL]),
        "answer": trajectory.answer,
        "error": trajectory.error,
        "reward": None if reward is None else {"total": reward.total, "components": dict(reward.components)},
        "tools": sorted(tools),
        "timeline": timeline(trajectory),
        "length": sum(turn.provenance.count("s") for turn in trajectory.turns),
        "meta": {str(key): value for key, value in trajectory.meta.items() if key != LABEL},
        "turns": [
            {
                **_turn(turn, trajectory, k, decode),
                "unseen": None if turn.unseen is None else _shown(turn.unseen, pictures, drawn),
                **_shown(turn.observation, pictures, drawn, times[k]),
            }
            for k, turn in enumerate(trajectory.turns)
        ],
    }


def _turn(turn: Turn, trajectory: Trajectory, k: int, decode: Decode | None) -> Data:
    rewards = () if trajectory.reward is None else trajectory.reward.turns
    advantages = trajectory.advantages or ()
    return {
        "text": turn.text,
        "error": turn.error,
        "finish": turn.finish,
        "purpose": turn.purpose,
        "anew": _anew(turn) if turn.fresh_context and any(t.seat == turn.seat for t in trajectory.turns[:k]) else None,
        "version": turn.policy_version,
        "seat": turn.seat,
        "reward": rewards[k] if k < len(rewards) else None,
        "advantage": advantages[k] if k < len(advantages) else None,
        "actions": [
            {"kind": a.kind, "name": a.name, "arguments": dict(a.arguments), "view": a.view} for a in turn.actions
        ],
        "tokens": None if turn.token_ids is None else _tokens(turn, trajectory.id, decode),
    }


def _shown(
    observation: Observation,
    pictures: Pictures,
    drawn: Iterator[tuple[View, list[Data]]],
    seconds: Sequence[float | None] = (),
) -> Data:
    """Text and views of an observation, of a clip each frame; ``drawn``: the views that come next, with what to draw on
    each; ``seconds``: when each frame is in a video."""
    views: list[Data] = []
    for view, marks in islice(drawn, len(observation.views)):
        views += [{**_view(frame, marks, pictures), "second": None} for frame in view.frames]
    for shown, second in zip(views, seconds, strict=False):
        shown["second"] = second
    return {"shown": observation.text, "refused": observation.is_error, "views": views}


def _anew(turn: Turn) -> Data:
    """How much a turn sees whose context starts anew; None for what is not known."""
    images = None if turn.context_views is None else len(turn.context_views)
    tokens = None if not turn.said else next(k for k, kind in enumerate(turn.provenance) if kind in "sp")
    return {"tokens": tokens, "images": images}


def _tokens(turn: Turn, trajectory_id: str, decode: Decode | None) -> list[Data]:
    """Runs of tokens of one provenance; sampled ones singly, with their log-probs."""
    ids = turn.token_ids or ()
    texts: list[str] | None = None
    if decode is not None:
        texts = decode(ids)
        if len(texts) != len(ids):
            raise DataError(
                f"trajectory {trajectory_id!r} turn {turn.index}: decode gave {len(texts)} texts for {len(ids)} tokens"
            )
    logprobs = iter(turn.logprobs or ())
    runs: list[Data] = []
    start = 0
    for kind, members in groupby(turn.provenance):
        count = len(list(members))
        run: Data = {"kind": kind, "count": count}
        if kind in "sp":
            run["texts"] = texts[start : start + count] if texts else [str(i) for i in ids[start : start + count]]
            if turn.logprobs is not None:
                run["logprobs"] = [_rounded(next(logprobs, math.nan)) for _ in range(count)]
        elif kind != "i" and texts:
            run["text"] = "".join(texts[start : start + count])
        runs.append(run)
        start += count
    return runs


def _rounded(value: float) -> float | None:
    return round(value, 4) if math.isfinite(value) else None


def _view(view: View, marks: list[Data], pictures: Pictures) -> Data:
    region = view.region
    return {
        "picture": pictures.number(view),
        "width": view.size.width,
        "height": view.size.height,
        "source": [view.source.size.width, view.source.size.height],
        "region": [round(x, 1) for x in region.as_tuple()],
        "marks": marks,
    }


def _marks(trajectory: Trajectory, views: Sequence[View]) -> list[list[Data]]:
    """What to draw on each view, in its pixels: gold boxes, regions asked for, regions carried out."""
    marks: list[list[Data]] = [[] for _ in views]
    for view, drawn in zip(views, marks, strict=True):
        if view.source == views[0].source:
            drawn += [mark for box in trajectory.task.boxes for mark in _box_mark("gold", box, view, "gold")]
    for k, turn in enumerate(trajectory.turns):
        for action in turn.actions:
            at = 0 if action.view is None else action.view
            if not 0 <= at < len(views):
                continue
            for region in _regions(action):
                marks[at].append({"kind": "asked", "label": f"turn {k + 1}: {action.name}", "at": region})
        crop = turn.facts.get("crop")
        at = next((a.view for a in turn.actions if a.view is not None), 0)
        if _numbers(crop) and len(crop) == 4 and 0 <= at < len(views) and views[at].source == views[0].source:
            done = _box_mark("done", Box(*map(float, crop)), views[at], f"turn {k + 1}: shown")
            # Drawn where the tool showed something else than was asked for: padded, shifted, cut off.
            marks[at] += [mark for mark in done if not any(_same(mark, other) for other in marks[at])]
    return marks


def _same(mark: Data, other: Data, tolerance_px: float = 1.0) -> bool:
    pairs = zip(mark["at"], other["at"], strict=False)
    return other["kind"] == "asked" and len(other["at"]) == 4 and all(abs(a - b) <= tolerance_px for a, b in pairs)


def _box_mark(kind: str, box: Box, view: View, label: str) -> list[Data]:
    """A box in source pixels as a mark on a view; nothing where it lies outside or the view cannot be inverted."""
    if not box.is_finite or view.transform.determinant == 0:
        return []
    whole = Box(0, 0, view.size.width, view.size.height)
    seen = view.transform.inverse().box(box).intersect(whole)
    if seen.area <= 0:
        return []
    return [{"kind": kind, "label": label, "at": [round(x, 2) for x in seen.as_tuple()]}]


def _numbers(value: Any) -> TypeGuard[list[float]]:
    """Whether a value is a list of finite numbers."""
    return isinstance(value, (list, tuple)) and all(
        isinstance(x, (int, float)) and not isinstance(x, bool) and math.isfinite(x) for x in value
    )


def _regions(action: Action) -> list[list[float]]:
    """Boxes (four numbers) and points (two) among the arguments of an action."""
    return [
        [round(float(x), 2) for x in value]
        for value in action.arguments.values()
        if _numbers(value) and len(value) in (2, 4) and all(abs(x) < 1e6 for x in value)
    ]


def clean(value: Any) -> Any:
    """JSON values that browsers read: NaN and infinities become null, stray surrogates U+FFFD, other objects text."""
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, str):
        return _valid(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {_valid(str(key)): clean(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [clean(item) for item in value]
    return _valid(str(value))


def _valid(text: str) -> str:
    """Text without stray surrogates, on which browsers' own tools crash."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
