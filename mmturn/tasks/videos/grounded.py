"""Training data with gold stretches: NExT-GQA and QVHighlights -> tasks.

Sources: NExT-GQA (2309.01327), its val.csv or test.csv with gsub_*.json and map_vid_vidorID.json; QVHighlights
(2107.09609), its highlight_*_release.jsonl. Video-MTR (2508.20478) trains on both, on videos of more than 30 s whose
relevant part is less than half.
Differs: QVHighlights has descriptions and no questions; Video-MTR had a large model write some. Here the question is
which of four descriptions the video shows, three of them of other videos.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmturn.errors import DataError
from mmturn.geometry import Span, united
from mmturn.tasks.rows import RowProblem
from mmturn.tasks.videos.table import VideoFiles, rows_of
from mmturn.types import Json, Task

_DISTRACTORS = 3


@dataclass(frozen=True)
class GroundedFilter:
    """Which tasks are kept."""

    least_seconds: float = 30.0
    """Videos that are not longer are left out."""
    most_relevant: float = 0.5
    """Tasks whose gold stretches cover this share of the video, or more, are left out."""

    def keeps(self, spans: tuple[Span, ...], seconds: float) -> bool:
        """Whether a task with these stretches of a video so long is kept."""
        relevant = sum(span.duration_s for span in united(spans))
        return seconds > self.least_seconds and 0 < relevant < self.most_relevant * seconds


def read_nextgqa(
    annotations: Path, videos: Path, split: str, keep: GroundedFilter | None = None
) -> tuple[list[Task], list[RowProblem]]:
    """Tasks of a split of NExT-GQA, ``val`` or ``test`` (train has no stretches), and a problem for each bad row.

    ``annotations`` holds SPLIT.csv, gsub_SPLIT.json and, where videos are named by VidOR, map_vid_vidorID.json. Raises
    DataError for files that cannot be read.
    """
    located = _json(annotations / f"gsub_{split}.json")
    names = annotations / "map_vid_vidorID.json"
    paths = _json(names) if names.is_file() else {}
    files, keep = VideoFiles(videos), keep or GroundedFilter()
    table = annotations / f"{split}.csv"

    def task_of(row: Mapping[str, Json]) -> Task | None:
        video, qid = str(row["video_id"]), str(row["qid"])
        known = located[video]
        spans = tuple(_span(found) for found in known["location"].get(qid, ()))
        if not keep.keeps(spans, float(known["duration"])):
            return None
        choices = tuple(str(row[f"a{k}"]) for k in range(5))
        return Task(
            id=f"nextgqa-{video}-{qid}",
            question=_sentence(str(row["question"])),
            answer=_letter(str(row["answer"]), choices),
            choices=choices,
            answer_type="choice",
            meta={"category": row.get("type"), "scene": video},
            video=str(_found(files, paths.get(video), video)),
            spans=spans,
        )

    return _collected(table, _csv(table), task_of)


def read_qvhighlights(
    annotations: Path, videos: Path, keep: GroundedFilter | None = None, seed: int = 0
) -> tuple[list[Task], list[RowProblem]]:
    """Tasks of a file of QVHighlights, and a problem for each bad row.

    Options, and their order, depend on ``seed`` and the row alone. Raises DataError for a file that cannot be read, or
    of too few videos to take other descriptions from.
    """
    rows, files, keep = list(rows_of(annotations)), VideoFiles(videos), keep or GroundedFilter()
    said = sorted({(str(row.get("vid")), str(row["query"]).strip()) for _, row in rows if row.get("query")})
    if len({video for video, _ in said}) <= _DISTRACTORS:
        raise DataError(f"{annotations}: needs descriptions of more than {_DISTRACTORS} videos")

    def task_of(row: Mapping[str, Json]) -> Task | None:
        video, query = str(row["vid"]), str(row["query"]).strip()
        spans = tuple(_span(found) for found in row["relevant_windows"])
        if not keep.keeps(spans, float(row["duration"])):
            return None
        others = sorted((text for name, text in said if name != video and text != query), key=_mixed(seed, row["qid"]))
        choices = sorted({query, *others[:_DISTRACTORS]}, key=_mixed(seed + 1, row["qid"]))
        return Task(
            id=f"qvhighlights-{row['qid']}",
            question="Which of these happens in the video?",
            answer=_letter(query, tuple(choices)),
            choices=tuple(choices),
            answer_type="choice",
            meta={"scene": video},
            video=str(files.find(video)),
            spans=spans,
        )

    return _collected(annotations, iter(rows), task_of)


def _collected(
    path: Path, rows: Iterator[tuple[str, Mapping[str, Json]]], task_of: Callable[[Mapping[str, Json]], Task | None]
) -> tuple[list[Task], list[RowProblem]]:
    tasks: list[Task] = []
    problems: list[RowProblem] = []
    for where, row in rows:
        try:
            task = task_of(row)
        except (DataError, KeyError, TypeError, ValueError) as error:
            what = f"there is no {error}" if isinstance(error, KeyError) else str(error)
            problems.append(RowProblem(f"{path.parent}: {where}", what))
        else:
            tasks += [] if task is None else [task]
    return tasks, problems


def _csv(path: Path) -> Iterator[tuple[str, Mapping[str, Json]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for number, row in enumerate(csv.DictReader(file), start=2):
                yield f"{path.name}:{number}", row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise DataError(f"{path}: must hold an object by video")
    return found


def _span(found: Json) -> Span:
    start, end = (float(value) for value in found)
    if not 0 <= start < end:
        raise DataError(f"a stretch must be [start, end] in seconds with 0 <= start < end, got {found!r:.80}")
    return Span(start, end)


def _letter(answer: str, choices: tuple[str, ...]) -> str:
    """Of an answer given as one of the options, or as its number from 0."""
    index = choices.index(answer) if answer in choices else int(answer) if answer.isdecimal() else -1
    if not 0 <= index < len(choices):
        raise DataError(f"the answer {answer!r:.80} is none of the options")
    return chr(ord("A") + index)


def _found(files: VideoFiles, path: Json, name: str) -> Path:
    """By the path in VidOR where there is one, else by the number."""
    try:
        return files.find(f"{path}.mp4" if isinstance(path, str) else name)
    except DataError:
        return files.find(name)


def _sentence(text: str) -> str:
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith("?") else "?")


def _mixed(seed: int, row: Json) -> Callable[[str], bytes]:
    """A sort key that depends on the seed, the row and the text alone."""
    return lambda text: hashlib.sha256(f"{seed}\0{row}\0{text}".encode()).digest()
