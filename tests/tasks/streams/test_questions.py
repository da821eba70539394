"""What a session asks, and when."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mmturn.errors import DataError
from mmturn.geometry import Span
from mmturn.store.codec import decode, encode
from mmturn.tasks.rows import row_of, task_of
from mmturn.tasks.streams.questions import Asked, questions_of, session
from mmturn.types import Task

ONE = Task("one", "Which?", answer="B", choices=("x", "y"), answer_type="choice", video="clip.mp4", spans=(Span(2, 3),))
TWO = Task("two", "How many?", answer="7", answer_type="number", video="clip.mp4", meta={"kind": "SF", "asked_at_s": 9})


def test_a_session_gives_its_questions_back() -> None:
    made = session("s", [Asked(ONE, 4.5), Asked(TWO, None)], scene="garden")
    assert (made.id, made.question, made.answer, made.choices) == ("s", "Which?", "B", ("x", "y"))
    assert made.meta["scene"] == "garden"
    first, second = questions_of(made)
    assert first == Asked(replace(ONE, meta={"asked_at_s": 4.5}, video="clip.mp4"), 4.5)
    assert second.task.answer == "7" and second.at_s == 9 and second.task.meta["kind"] == "SF"
    assert decode(encode(made, Task), Task) == made, "it can be stored"
    again = task_of(
        row_of(replace(made, video=__file__), __import__("pathlib").Path("/")), __import__("pathlib").Path("/"), "s"
    )
    assert [asked.task.question for asked in questions_of(again)] == ["Which?", "How many?"]


def test_any_task_on_a_video_is_a_session_of_one() -> None:
    assert questions_of(TWO) == [Asked(TWO, 9.0)]
    with pytest.raises(DataError, match="task image: has no video"):
        questions_of(Task("image", "?", ("x.png",)))


def test_when() -> None:
    assert Asked(ONE, 1.0).when(10) == 1.0
    assert Asked(ONE, None).when(10) == 3.0 and Asked(ONE, None).when(10, after_s=4) == 7.0
    assert Asked(ONE, None).when(10, after_s=40) == 10
    assert Asked(TWO, None).when(10) == 10


def test_a_session_is_on_one_video() -> None:
    for other in (None, "other.mp4"):
        with pytest.raises(DataError, match="session s: its questions must be on one video"):
            session("s", [Asked(ONE, 1.0), Asked(replace(TWO, video=other), 2.0)])
