"""The questions of a session: what is asked of one video while it plays, and when.

A session is a task whose ``meta["questions"]`` lists them; any other task on a video is a session of one. Each is an
object with the keys of a task row (``id``, ``question``, ``answer``, ``choices``, ``answer_type``, ``spans``, ``meta``)
and ``asked_at_s``, seconds from the first frame, there or in ``meta``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mmturn.errors import DataError
from mmturn.tasks.rows import row_of, task_of
from mmturn.types import Json, Task

QUESTIONS, ASKED_AT_S = "questions", "asked_at_s"


@dataclass(frozen=True)
class Asked:
    """A question of a session."""

    task: Task
    """The question as a task of its own, on the session's video."""
    at_s: float | None
    """When it is asked; None: nothing says so."""

    def when(self, duration_s: float, after_s: float = 0.0) -> float:
        """When it is asked: as it says, else ``after_s`` after its last gold stretch, else as the video ends."""
        if self.at_s is not None:
            return self.at_s
        ends = [span.end_s for span in self.task.spans]
        return min(max(ends) + after_s, duration_s) if ends else duration_s


def questions_of(task: Task) -> list[Asked]:
    """The questions of a task, in the order in which they are listed. Raises DataError that names the task, the number
    of the question and what is wrong with it."""
    listed = task.meta.get(QUESTIONS)
    if listed is None:
        return [_asked(task, f"task {task.id}")]
    if not isinstance(listed, list) or not listed:
        raise DataError(f"task {task.id}: {QUESTIONS} must be a list of questions, at least one, got {listed!r:.80}")
    found = [_nested(task, number, row) for number, row in enumerate(listed)]
    ids = [asked.task.id for asked in found]
    twice = next((name for name in ids if ids.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"task {task.id}: two questions have the id {twice!r}; ids must be unique")
    return found


def session(name: str, questions: Sequence[Asked], **meta: Json) -> Task:
    """Questions on one video as one task, with further ``meta``; its own words and answer are the first question's.

    Raises DataError for questions on several videos, or on none.
    """
    videos = {asked.task.video for asked in questions}
    if len(videos) != 1 or None in videos:
        raise DataError(f"session {name}: its questions must be on one video, got {sorted(map(str, videos))!r:.200}")
    first = questions[0].task
    return replace(first, id=name, meta={**meta, QUESTIONS: [_listed(asked) for asked in questions]})


def _listed(asked: Asked) -> dict[str, Json]:
    """A question as an entry of the list."""
    row = row_of(asked.task, Path(asked.task.video or "").parent)
    row.pop("video", None)
    row.pop("images", None)
    if asked.at_s is not None:
        row[ASKED_AT_S] = asked.at_s
        row["meta"] = {key: value for key, value in asked.task.meta.items() if key != ASKED_AT_S}
    return row


def _nested(task: Task, number: int, row: Json) -> Asked:
    where = f"task {task.id}: question {number}"
    if not isinstance(row, Mapping):
        raise DataError(f"{where}: must be an object with question, answer and {ASKED_AT_S}, got {row!r:.80}")
    if row.get("video", task.video) != task.video or "image" in row or "images" in row:
        raise DataError(f"{where}: is asked of the session's video, and names no other video or image")
    try:
        made = task_of({**row, "video": task.video}, Path(), f"{task.id}-{number}", check_images=False)
        made = replace(made, video=task.video)
    except DataError as error:
        raise DataError(f"{where}: {error}") from error
    return _asked(made, where)


def _asked(task: Task, where: str) -> Asked:
    if task.video is None:
        raise DataError(f"{where}: has no video")
    value = task.meta.get(ASKED_AT_S)
    if value is None:
        return Asked(task, None)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise DataError(f"{where}: {ASKED_AT_S} must be seconds from the first frame, 0 or more, got {value!r:.80}")
    return Asked(task, float(value))
