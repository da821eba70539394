"""Seven video benchmarks, read from the layouts in which they are handed out.

Sources: Video-MME (2405.21075), MLVU (2406.04264), LongVideoBench (2407.15754), LVBench (2406.08035), EgoSchema
(2308.09126), Video-Holmes (2505.21374), LongVideo-Reason (2507.07966). Options keep their order, and replies are read
by ``mmturn.grading``, not by each benchmark's own rule: scores say so (``mmturn/choice-1``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmturn.errors import DataError
from mmturn.tasks.gathered import Gathered
from mmturn.tasks.rows import RowProblem
from mmturn.tasks.videos.table import Row, VideoFiles, question_files, rows_of
from mmturn.types import Json, Task

_LABEL = re.compile(r"^\s*\(?([A-Z])\s*[.):]\s*", re.DOTALL)
_INLINE = re.compile(r"\n\s*\(?([A-Z])[.)]\s*")


@dataclass(frozen=True, slots=True)
class VideoBenchmark:
    """How one benchmark is laid out."""

    files: tuple[str, ...]
    """Patterns of its question files; the first that finds any counts."""
    rows: Callable[[str, Row, str], Iterator[dict[str, Any]]]
    """(where, row of a file, name of the file) -> questions: id, question, options, answer, video and groups."""
    groups: tuple[str, ...]
    """Keys by which results are broken down."""


def read_video_benchmark(
    name: str, folder: str | Path, *, subtitles: bool = False
) -> tuple[list[Task], list[RowProblem]]:
    """The questions as tasks in the order of their files, and a problem for each that cannot be used.

    ``subtitles``: each task's ``meta["subtitles"]`` names its file, where it has one. Raises DataError where there is
    no such folder, or nothing good in it.
    """
    folder, layout = Path(folder), VIDEO_BENCHMARKS[name]
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; --data must be the folder of {name}'s questions and videos")
    videos, found = VideoFiles(folder), Gathered()
    for file in question_files(folder, *layout.files):
        for where, row in rows_of(file):
            with found.row(f"{folder}: {where}"):
                for question in layout.rows(where, row, file.stem):
                    found.add(_task(question, videos, folder if subtitles else None))
    if not found.tasks:
        raise found.none(f"{folder} holds no good question of {name}")
    return found.tasks, found.problems


def _task(found: Mapping[str, Any], videos: VideoFiles, subtitles: Path | None) -> Task:
    options = [_LABEL.sub("", str(option), count=1).strip() for option in found["options"]]
    answer = found["answer"]
    if options and not (isinstance(answer, str) and len(answer) == 1 and 0 <= ord(answer) - ord("A") < len(options)):
        raise DataError(f"the answer {answer!r:.80} is none of the letters of {len(options)} options")
    path = videos.find(found["video"])
    meta: dict[str, Json] = {key: value for key, value in found["groups"].items() if value is not None}
    if subtitles is not None:
        file = _subtitle_file(subtitles, path, found.get("subtitle"))
        if file is not None:
            meta["subtitles"] = str(file)
    return Task(
        id=str(found["id"]),
        question=str(found["question"]).strip(),
        answer=answer,
        choices=tuple(options),
        answer_type="choice" if options else "text",
        meta=meta,
        video=str(path),
    )


def _subtitle_file(folder: Path, video: Path, named: Json) -> Path | None:
    """The .srt of a video: where the row says, or in a folder of subtitles by the video's name."""
    places = [f"{part}/{video.stem}{end}.srt" for part in ("subtitle", "subtitles") for end in ("", "_en")]
    if isinstance(named, str):
        places = [named, f"subtitles/{named}", *places]
    found = next((folder / place for place in places if (folder / place).is_file()), None)
    return None if found is None or found.suffix != ".srt" else found.resolve()


def letter(index: int) -> str:
    """Letter of an option, A for 0."""
    return chr(ord("A") + index)


def _video_mme(where: str, row: Row, file: str) -> Iterator[dict[str, Any]]:
    for question in row.get("questions") or [row]:
        row_of = {**row, **question}
        yield {
            "id": row_of["question_id"], "question": row_of["question"], "options": list(row_of["options"]),
            "answer": row_of["answer"], "video": row_of.get("videoID") or row_of["video_id"],
            "groups": {key: row_of.get(key) for key in ("duration", "domain", "sub_category", "task_type")},
        }  # fmt: skip


def _mlvu(where: str, row: Row, file: str) -> Iterator[dict[str, Any]]:
    options = list(row["candidates"])
    yield {
        "id": row.get("question_id") or f"{file}-{where.rpartition(':')[2]}", "question": row["question"],
        "options": options, "answer": letter(options.index(row["answer"])), "video": row["video"],
        "groups": {"task_type": row.get("question_type") or file},
    }  # fmt: skip


def _longvideobench(where: str, row: Row, file: str) -> Iterator[dict[str, Any]]:
    options = row.get("candidates") or [
        row[f"option{k}"] for k in range(5) if row.get(f"option{k}") not in (None, "N/A")
    ]
    yield {
        "id": row["id"], "question": row["question"], "options": list(options), "answer": letter(row["correct_choice"]),
        "video": row["video_path"], "subtitle": row.get("subtitle_path"),
        "groups": {key: row.get(key) for key in ("duration_group", "question_category")},
    }  # fmt: skip


def _lvbench(where: str, row: Row, file: str) -> Iterator[dict[str, Any]]:
    for question in row["qa"]:
        words, *options = _INLINE.split(question["question"])
        kinds = question.get("question_type") or []
        yield {
            "id": question["uid"], "question": words, "options": options[1::2], "answer": question["answer"],
            "video": row["key"],
            "groups": {"question_type": "+".join(kinds) if isinstance(kinds, list) else kinds, "type": row.get("type")},
        }  # fmt: skip


def _egoschema(where: str, row: Row, file: str) -> Iterator[dict[str, Any]]:
    name = row.get("q_uid") or row["video_idx"]
    options = row.get("option") or [row[f"option {k}"] for k in range(5)]
    answer = row.get("answer")
    if answer is None:
        raise DataError("has no public answer")
    number = str(answer)
    yield {
        "id": name, "question": row["question"], "options": list(options),
        "answer": letter(int(number)) if number.isdecimal() else number, "video": name, "groups": {},
    }  # fmt: skip


def _video_holmes(where: str, row: Row, file: str) -> Iterator[dict[str, Any]]:
    options = row["Options"]
    if not isinstance(options, Mapping) or sorted(options) != [letter(k) for k in range(len(options))]:
        raise DataError("Options must be an object with the keys A, B, ... without gaps")
    yield {
        "id": row["Question ID"], "question": row["Question"], "options": [options[key] for key in sorted(options)],
        "answer": row["Answer"], "video": row["video ID"], "groups": {"question_type": row.get("Question Type")},
    }  # fmt: skip


def _longvideo_reason(where: str, row: Row, file: str) -> Iterator[dict[str, Any]]:
    words, *options = _INLINE.split(str(row["problem"]))
    answer = re.sub(r"</?answer>", "", str(row["answer"])).strip()
    videos = row["videos"]
    yield {
        "id": row.get("id") or where, "question": words, "options": options[1::2],
        "answer": answer[:1] if options and _LABEL.match(answer + ".") else answer,
        "video": videos[0] if isinstance(videos, list) else videos, "groups": {"problem_type": row.get("problem_type")},
    }  # fmt: skip


VIDEO_BENCHMARKS: Mapping[str, VideoBenchmark] = {
    "video_mme": VideoBenchmark(
        ("videomme/*.parquet", "*.parquet", "*.jsonl", "*.json"), _video_mme,
        ("duration", "domain", "task_type", "sub_category"),
    ),
    "mlvu": VideoBenchmark(("json/*.json", "*.json", "*.jsonl", "*.parquet"), _mlvu, ("task_type",)),
    "longvideobench": VideoBenchmark(
        ("lvb_val.json", "*.json", "*.jsonl", "*.parquet"), _longvideobench, ("duration_group", "question_category")
    ),
    "lvbench": VideoBenchmark(("video_info.meta.jsonl", "*.jsonl"), _lvbench, ("question_type", "type")),
    "egoschema": VideoBenchmark(("Subset/*.parquet", "*.parquet", "*.jsonl", "*.json"), _egoschema, ()),
    "video_holmes": VideoBenchmark(("test_Video-Holmes.json", "*.json"), _video_holmes, ("question_type",)),
    "longvideo_reason": VideoBenchmark(
        ("test/*.parquet", "*.parquet", "*.jsonl", "*.json"), _longvideo_reason, ("problem_type",)
    ),
}  # fmt: skip
"""By name on the command line."""
