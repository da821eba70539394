"""StreamBench as it is handed out, or any file of questions on videos, as sessions: one for each video.

Source: StreamBench v0.3 (arXiv 2501.13468): ``streaming_bench_v0.3.json``, a list of ``{"info": {"class_1", "class_2",
"video_path"}, "breakpoint": [{"time", "question", "answer", "class"}]}``, with the videos in a folder for each class_1.
Several entries on one video become one session, and questions are put in the order of their times: the file has both.
Differs: answers are sentences that the authors have a language model judge; see ``evaluation.streams``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mmturn.errors import DataError
from mmturn.media.video import VideoStore
from mmturn.tasks.gathered import Gathered
from mmturn.tasks.rows import RowProblem, read_tasks
from mmturn.tasks.streams.questions import Asked, questions_of, session
from mmturn.tasks.streams.timing import KIND, timed
from mmturn.tasks.videos.table import VideoFiles, question_files, rows_of
from mmturn.types import Json, Task

GROUPS = (KIND, "timing", "class_1", "class_2")
"""Keys by which results are broken down."""
_FILES = ("streaming_bench*.json", "*.json", "*.jsonl")


def read_streambench(path: str | Path, seed: int = 0) -> tuple[list[Task], list[RowProblem]]:
    """Sessions of StreamBench's folder, or of a file of task rows on videos, and a problem for each bad row.

    Of rows, questions that do not say when they are asked are given a kind and a time by StreamBench's rules, drawn by
    ``seed`` (see ``timing.timed``). Raises DataError where nothing good is found.
    """
    path, found = Path(path), Gathered()
    questions = _released(path, found) if path.is_dir() else _rows(path, found)
    with VideoStore() as videos:
        for video, asked in _by_video(questions).items():
            with found.row(f"{path}: {video}"):
                reader = videos.open(video)
                told = reader.info.duration_s
                ordered = timed(asked, float(reader.clock().duration_s if told is None else told), seed)
                found.add(session(f"stream-{len(found.tasks)}-{Path(video).stem}", ordered))
    if not found.tasks:
        raise found.none(f"{path} holds no good question on a video")
    return found.tasks, found.problems


def _by_video(questions: Iterable[Asked]) -> dict[str, list[Asked]]:
    found: dict[str, list[Asked]] = {}
    for asked in questions:
        found.setdefault(str(asked.task.video), []).append(asked)
    return found


def _rows(path: Path, found: Gathered) -> list[Asked]:
    tasks, problems = read_tasks(path)
    found.problems += problems
    questions: list[Asked] = []
    for task in tasks:
        with found.row(str(path)):
            questions += questions_of(task)
    return questions


def _released(folder: Path, found: Gathered) -> list[Asked]:
    videos, questions = VideoFiles(folder), list[Asked]()
    (file, *_) = question_files(folder, *_FILES)
    for entry, (where, row) in enumerate(rows_of(file)):
        with found.row(f"{folder}: {where}"):
            questions += _entry(entry, row, videos)
    return questions


def _entry(number: int, row: Mapping[str, Json], videos: VideoFiles) -> list[Asked]:
    """The questions of one entry of the released file."""
    info: dict[str, Any] = dict(row["info"])
    video = _video(videos, info)
    classes = {key: info[key] for key in ("class_1", "class_2") if info.get(key) is not None}
    found = []
    for place, asked in enumerate(row["breakpoint"]):
        task = Task(
            id=f"{info['class_1']}-{Path(video).stem}-{number}-{place}",
            question=str(asked["question"]).strip(),
            answer=str(asked["answer"]).strip(),
            meta={**classes, KIND: str(asked["class"])},
            video=video,
        )
        at_s = float(asked["time"])
        if not 0 <= at_s < float("inf"):
            raise DataError(f"breakpoint {place}: time must be seconds, 0 or more, got {asked['time']!r}")
        found.append(Asked(task, at_s))
    return found


def _video(videos: VideoFiles, info: Mapping[str, Any]) -> str:
    """The file of an entry: in its class's folder, where a name is there twice."""
    try:
        return str(videos.find(f"{info['class_1']}/{info['video_path']}"))
    except DataError:
        return str(videos.find(info["video_path"]))
