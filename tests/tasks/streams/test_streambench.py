"""StreamBench's layout, and files of rows, as sessions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mmturn.errors import DataError
from mmturn.tasks.streams.questions import questions_of
from mmturn.tasks.streams.streambench import read_streambench
from tests.media.video.clips import write_clip


def breakpoint(at_s: Any, words: str = "What?", kind: str = "SF") -> dict[str, Any]:
    return {"time": at_s, "question": words, "answer": "A red kite.", "class": kind}


@pytest.fixture
def released(tmp_path: Path) -> Path:
    """The folder as it is handed out: two entries on one video, times out of order, a name in two classes."""
    for folder in ("Ego/all_videos", "Movie", "WebVideo"):
        (tmp_path / folder).mkdir(parents=True)
    write_clip(tmp_path / "Ego/all_videos/a.mp4", 20, rate=5)
    for folder in ("Movie", "WebVideo"):
        write_clip(tmp_path / folder / "m.mp4", 20, rate=5)
    (tmp_path / "Movie/._m.mp4").write_bytes(b"a resource fork")
    cooking = {"class_1": "Ego", "class_2": "Cooking", "video_path": "a.mp4"}
    entries = [
        {"info": cooking,
         "breakpoint": [breakpoint(3, "Third?", "LM"), breakpoint(1.0, "First?")]},
        {"info": {"class_1": "Movie", "video_path": "m.mp4", "video_name": "M"}, "breakpoint": [breakpoint(2)]},
        {"info": {"class_1": "WebVideo", "video_path": "m.mp4"}, "breakpoint": [breakpoint(2)]},
        {"info": cooking, "breakpoint": [breakpoint(2, "Second?")]},
        {"info": {"class_1": "Ego", "video_path": "gone.mp4"}, "breakpoint": [breakpoint(2)]},
        {"info": {"class_1": "Ego", "video_path": "a.mp4"}, "breakpoint": [breakpoint("soon")]},
        {"info": {"class_1": "Ego", "video_path": "a.mp4"}, "breakpoint": [breakpoint(-1)]},
        {"info": {"class_1": "Ego", "video_path": "a.mp4"}},
    ]  # fmt: skip
    (tmp_path / "streaming_bench_v0.3.json").write_text(json.dumps(entries), encoding="utf-8")
    return tmp_path


def test_the_released_layout(released: Path) -> None:
    sessions, problems = read_streambench(released)
    assert [len(questions_of(one)) for one in sessions] == [3, 1, 1]
    first = questions_of(sessions[0])
    assert [asked.task.question for asked in first] == ["First?", "Second?", "Third?"]
    assert first[2].task.meta == {"class_1": "Ego", "class_2": "Cooking", "kind": "LM", "asked_at_s": 3.0}
    assert first[0].at_s == 1.0 and first[0].task.answer == "A red kite."
    assert sessions[1].video == str(released / "Movie/m.mp4")
    assert sessions[2].video == str(released / "WebVideo/m.mp4")
    ids = [asked.task.id for one in sessions for asked in questions_of(one)]
    assert len(set(ids)) == len(ids)
    reasons = [str(problem) for problem in problems]
    assert [any(word in reason for reason in reasons) for word in ("gone.mp4", "soon", "0 or more", "breakpoint")] == [
        True
    ] * 4
    assert all(f"json:{number}" in "".join(reasons) for number in (5, 6, 7, 8))


def test_a_file_of_rows(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mp4", 500, rate=5)
    write_clip(tmp_path / "b.mp4", 100, rate=5)
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    rows: list[dict[str, Any]] = [
        {"id": "x", "video": "a.mp4", "question": "X?", "answer": "1", "spans": [[2, 4]]},
        {"id": "y", "video": "b.mp4", "question": "Y?", "answer": "1", "meta": {"asked_at_s": 7.5, "kind": "SM"}},
        {"id": "z", "video": "a.mp4", "question": "Z?", "answer": "1", "spans": [[20, 30]], "asked_at_s": 1},
        {"id": "w", "video": "bad.mp4", "question": "W?", "answer": "1"},
        {"id": "v", "video": "a.mp4", "question": "V?", "answer": "1", "asked_at_s": "later"},
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    sessions, problems = read_streambench(path, seed=1)
    assert [[asked.task.id for asked in questions_of(one)] for one in sessions] == [["z", "x"], ["y"]]
    ((_, searched), (given,)) = [questions_of(one) for one in sessions]
    assert searched.task.meta["kind"] == "OS" and searched.at_s is not None and 35 <= searched.at_s <= 100
    assert given.at_s == 7.5
    assert read_streambench(path, seed=1)[0] == sessions != read_streambench(path, seed=2)[0]
    assert {name in str(problems) for name in ("bad.mp4", "asked_at_s")} == {True} and len(problems) == 2


def test_nothing_good_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no questions here"):
        read_streambench(tmp_path)
    (tmp_path / "streaming_bench_v0.3.json").write_text("[]", encoding="utf-8")
    with pytest.raises(DataError, match="no good question"):
        read_streambench(tmp_path)
