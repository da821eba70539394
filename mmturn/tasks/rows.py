"""Task rows: JSON Lines whose least row is ``{"image", "question", "answer"}``, or with ``video`` for ``image``.

Known keys: ``image`` or ``images`` (paths, absolute or relative to the file), ``video`` (a path), ``question``,
``answer``, ``id``, ``choices`` (a list, or an object by letter), ``answer_type``, ``boxes`` / ``bbox`` / ``box``
(pixels ``[x0, y0, x1, y1]`` of the first image), ``spans`` (seconds ``[start, end]`` of the video), ``meta``. Other
keys are kept in ``meta``. A ``.json`` file with a list of rows is read too.
"""

from __future__ import annotations

import difflib
import json
import math
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mmturn.errors import DataError
from mmturn.geometry import Box, Span
from mmturn.grading import gold_problem, normalise_text
from mmturn.types import Json, Task

_KNOWN = (
    "id", "image", "images", "video", "question", "answer", "choices", "answer_type", "boxes", "bbox", "box", "spans",
    "meta",
)  # fmt: skip
_SHOWN_PROBLEMS = 5


@dataclass(frozen=True, slots=True)
class RowProblem:
    """A row that was left out, and why."""

    where: str
    """File and line, or file and name of the sample."""
    reason: str
    line: int | None = None
    """1-based line (or position in a JSON list); None where rows are files."""

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"


def read_tasks(
    path: str | Path, strict: bool = False, check_images: bool = True
) -> tuple[list[Task], list[RowProblem]]:
    """The good rows of a file as tasks, and a problem for each bad one.

    ``strict``: raise DataError where any row is bad. ``check_images``: a row whose image file is missing is bad.
    Raises DataError for a file that cannot be read or holds no good row.
    """
    path = Path(path)
    numbered, problems = scan_tasks(path, check_images)
    tasks = [task for _, task in numbered]
    if not tasks or (strict and problems):
        raise DataError(_summary(path, problems, len(tasks)))
    return tasks, problems


def scan_tasks(path: Path, check_images: bool = True) -> tuple[list[tuple[int, Task]], list[RowProblem]]:
    """``read_tasks`` with the line of each good row, and no objection to a file of bad rows alone.

    Raises DataError for a file that cannot be read.
    """
    tasks: list[tuple[int, Task]] = []
    problems: list[RowProblem] = []
    lines_of: dict[str, int] = {}
    for line, row in _rows(path):
        where = f"{path}:{line}"
        try:
            if isinstance(row, DataError):
                raise row
            task = task_of(row, path.parent, f"{path.stem}-{line}", check_images)
            if task.id in lines_of:
                raise DataError(f"the id {task.id!r} is already that of line {lines_of[task.id]}; ids must be unique")
            lines_of[task.id] = line
            tasks.append((line, task))
        except DataError as exc:
            problems.append(RowProblem(where, str(exc), line))
    return tasks, problems


def write_tasks(tasks: Sequence[Task], path: str | Path) -> None:
    """Write tasks as JSON Lines, atomically. Images in or below the file's folder are written relative to it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            for task in tasks:
                file.write(json.dumps(row_of(task, path.parent), ensure_ascii=False, allow_nan=False) + "\n")
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def row_of(task: Task, folder: Path) -> dict[str, Json]:
    """A task as a row of a file in ``folder``; ``task_of`` gives it back."""
    row: dict[str, Json] = {"id": task.id}
    images = [_relative(image, folder) for image in task.images]
    if task.video is not None:
        row["video"] = _relative(task.video, folder)
    if images or task.video is None:
        row |= {"image": images[0]} if len(images) == 1 else {"images": images}
    row |= {"question": task.question, "answer": task.answer}
    if task.choices:
        row["choices"] = list(task.choices)
    row["answer_type"] = task.answer_type
    if task.boxes:
        row["boxes"] = [list(box.as_tuple()) for box in task.boxes]
    if task.spans:
        row["spans"] = [[span.start_s, span.end_s] for span in task.spans]
    if task.meta:
        row["meta"] = dict(task.meta)
    return row


def task_of(row: Json, folder: Path, default_id: str, check_images: bool = True) -> Task:
    """One row as a task. Raises DataError that says what is wrong with it and what would be right."""
    if not isinstance(row, Mapping):
        raise DataError('a row must be an object like {"image": ..., "question": ..., "answer": ...}')
    question = _text(row, "question")
    if not question.strip():
        raise DataError("question must not be empty")
    choices = _choices(row.get("choices"))
    answer, answer_type = _answer(row, choices)
    task_id = row.get("id", default_id)
    if isinstance(task_id, bool) or not isinstance(task_id, (str, int)) or str(task_id) == "":
        raise DataError(f"id must be a text or a whole number, got {task_id!r}")
    meta = row.get("meta") or {}
    if not isinstance(meta, Mapping):
        raise DataError("meta must be an object")
    task = Task(
        id=_encodable("id", str(task_id)),
        question=question,
        images=_images(row, folder, check_images),
        video=_video(row, folder, check_images),
        answer=answer,
        choices=choices,
        answer_type=answer_type,
        boxes=_boxes(row),
        spans=_spans(row),
        meta={**{key: value for key, value in row.items() if key not in _KNOWN}, **meta},
    )
    problem = gold_problem(task)
    if problem:
        raise DataError(problem)
    return task


def _rows(path: Path) -> Iterator[tuple[int, Json | DataError]]:
    """(line, row or what is wrong with the line) for each line that is not blank."""
    try:
        data = path.read_bytes()
    except OSError as exc:
        raise DataError(f"{path} cannot be read: {exc.strerror or exc}; give a .jsonl file of task rows") from None
    data = data.removeprefix(b"\xef\xbb\xbf")
    if path.suffix == ".json":
        rows = _parsed(data)
        if isinstance(rows, DataError):
            raise DataError(f"{path}: {rows}")
        if not isinstance(rows, list):
            raise DataError(f"{path}: a .json file must hold a list of rows; for one row per line name it .jsonl")
        yield from enumerate(rows, start=1)
        return
    for line, text in enumerate(data.split(b"\n"), start=1):
        if text.strip():
            yield line, _parsed(text)


def _parsed(data: bytes) -> Json | DataError:
    """A JSON value, or what is wrong with it."""

    def refuse(constant: str) -> Any:
        raise ValueError(f"{constant} is not JSON")

    try:
        return json.loads(data.decode("utf-8"), parse_constant=refuse)
    except UnicodeDecodeError as exc:
        return DataError(f"not valid UTF-8 at byte {exc.start}; save the file as UTF-8")
    except RecursionError:
        return DataError("nested too deeply")
    except ValueError as exc:
        return DataError(f"not valid JSON: {exc}")


def _encodable(name: str, text: str) -> str:
    """The text, if it can be written as UTF-8."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise DataError(f"{name} holds a lone surrogate, which is not a character") from None
    return text


def _text(row: Mapping[str, Json], name: str) -> str:
    """A text of a row."""
    if name not in row:
        near = difflib.get_close_matches(name, [key for key in row if isinstance(key, str) and key not in _KNOWN], n=1)
        hint = f" (is {near[0]!r} meant to be it?)" if near else ""
        raise DataError(f"there is no {name!r}{hint}")
    value = row[name]
    if not isinstance(value, str):
        raise DataError(f"{name} must be a text, got {value!r:.80}")
    return _encodable(name, value)


def _images(row: Mapping[str, Json], folder: Path, check: bool) -> tuple[str, ...]:
    """Absolute paths of the images."""
    if "image" in row and "images" in row:
        raise DataError("give image (one path) or images (a list of paths), not both")
    if "images" not in row:
        values: Json = [] if "video" in row and "image" not in row else [_text(row, "image")]
    else:
        values = row["images"]
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise DataError("images must be a list of paths")
    return tuple(_path("image", value, folder, check) for value in values)


def _video(row: Mapping[str, Json], folder: Path, check: bool) -> str | None:
    """Absolute path of the video."""
    return _path("video", _text(row, "video"), folder, check) if row.get("video") is not None else None


def _path(name: str, value: str, folder: Path, check: bool) -> str:
    """Absolute path of a file of a row."""
    _encodable(name, value)
    if not value.strip():
        raise DataError(f"{name} must not be an empty path")
    if "://" in value or value.startswith("data:"):
        raise DataError(f"{name} {value[:120]!r} is not a file: download it first and give its path")
    path = os.path.abspath(os.path.join(folder, os.path.expanduser(value)))
    if check and not os.path.isfile(path):
        raise DataError(f"there is no {name} file {path}")
    return path


def _choices(value: Json) -> tuple[str, ...]:
    """Texts of the options."""
    if value is None or value == []:
        return ()
    if isinstance(value, Mapping):
        letters = [chr(ord("A") + i) for i in range(len(value))]
        if sorted(value) != letters:
            raise DataError(f"choices by letter must have the keys A, B, ... without gaps, got {sorted(value)!r:.80}")
        value = [value[letter] for letter in letters]
    if not isinstance(value, list) or not 2 <= len(value) <= 26:
        raise DataError("choices must be a list of 2 to 26 texts")
    texts = []
    for item in value:
        if isinstance(item, bool) or not isinstance(item, (str, int, float)) or not str(item).strip():
            raise DataError(f"each of the choices must be a text, got {item!r:.80}")
        texts.append(_encodable("choices", str(item)))
    return tuple(texts)


def _answer(
    row: Mapping[str, Json], choices: tuple[str, ...]
) -> tuple[str | None, Literal["text", "number", "choice"]]:
    """Gold answer (the letter, with choices) and answer type."""
    kind: Any = row.get("answer_type")
    if kind not in (None, "text", "number", "choice"):
        raise DataError(f"answer_type must be text, number or choice, got {kind!r:.80}")
    if kind is not None and (kind == "choice") != bool(choices):
        wrong = "needs choices" if kind == "choice" else "does not go with choices"
        raise DataError(f"answer_type {kind} {wrong}")
    value = row["answer"] if "answer" in row else _text(row, "answer")
    if isinstance(value, bool) or not isinstance(value, (str, int, float, type(None))):
        raise DataError(f"answer must be a text or a number, got {value!r:.80}")
    if isinstance(value, float) and not math.isfinite(value):
        raise DataError("answer must be a finite number")
    if kind is None:
        kind = "choice" if choices else "number" if isinstance(value, (int, float)) else "text"
    if value is None:
        return None, kind
    text = _encodable("answer", str(value)).strip()
    return (_gold_letter(text, choices, "answer_type" in row) if choices else text), kind


def _gold_letter(text: str, choices: tuple[str, ...], letters_meant: bool) -> str:
    """Letter of the gold option, given as a letter or as its text."""
    bare = text.strip("().: ")
    index = ord(bare.upper()) - ord("A") if len(bare) == 1 and bare.isascii() and bare.isalpha() else None
    by_letter = index if index is not None and index < len(choices) else None
    hits = [i for i, choice in enumerate(choices) if choice.strip() == text]
    hits = hits or [i for i, choice in enumerate(choices) if normalise_text(choice) == normalise_text(text)]
    if by_letter is not None and (letters_meant or not hits or hits == [by_letter]):
        return chr(ord("A") + by_letter)
    if by_letter is not None:
        raise DataError(
            f"the answer {text!r} is both a letter and the text of another choice; "
            'give the letter and "answer_type": "choice"'
        )
    if len(hits) != 1:
        found = "several" if hits else "none"
        raise DataError(f"the answer {text!r:.80} is {found} of the choices; give the letter or the text of one")
    return chr(ord("A") + hits[0])


def _boxes(row: Mapping[str, Json]) -> tuple[Box, ...]:
    """Gold regions."""
    given = [name for name in ("boxes", "bbox", "box") if row.get(name) is not None]
    if len(given) > 1:
        raise DataError(f"give one of boxes, bbox and box, not {' and '.join(given)}")
    if not given:
        return ()
    value = row[given[0]]
    if isinstance(value, list) and value and not any(isinstance(item, list) for item in value):
        value = [value]
    if not isinstance(value, list):
        raise DataError(f"{given[0]} must be a list of boxes [x0, y0, x1, y1]")
    return tuple(_box(given[0], item) for item in value)


def _box(name: str, value: Json) -> Box:
    if (
        not isinstance(value, list)
        or len(value) != 4
        or not all(isinstance(v, (int, float)) and not isinstance(v, bool) and abs(v) <= 1e9 for v in value)
    ):
        raise DataError(f"each of {name} must be four numbers [x0, y0, x1, y1] in pixels, got {value!r:.80}")
    box = Box(*map(float, value))
    if box.x0 < 0 or box.y0 < 0 or box.width <= 0 or box.height <= 0:
        raise DataError(f"{name}: {value} must have 0 <= x0 < x1 and 0 <= y0 < y1 (corners, not width and height)")
    return box


def _spans(row: Mapping[str, Json]) -> tuple[Span, ...]:
    """Gold stretches of the video."""
    value = row.get("spans")
    if value is None:
        return ()
    if row.get("video") is None:
        raise DataError("spans are stretches of a video, and there is no 'video'")
    if isinstance(value, list) and value and not any(isinstance(item, list) for item in value):
        value = [value]
    if not isinstance(value, list):
        raise DataError("spans must be a list of [start, end] in seconds")
    return tuple(_span(item) for item in value)


def _span(value: Json) -> Span:
    if (
        not isinstance(value, list)
        or len(value) != 2
        or not all(isinstance(v, (int, float)) and not isinstance(v, bool) and 0 <= v <= 1e9 for v in value)
        or not value[0] < value[1]
    ):
        raise DataError(f"each of spans must be [start, end] in seconds with 0 <= start < end, got {value!r:.80}")
    return Span(*map(float, value))


def _relative(image: str, folder: Path) -> str:
    """Relative to the folder where the image lies in or below it."""
    folder_path = os.path.abspath(folder)
    path = os.path.abspath(image)
    inside = os.path.commonpath([folder_path, path]) == folder_path
    return Path(os.path.relpath(path, folder_path)).as_posix() if inside else path


def _summary(path: Path, problems: Sequence[RowProblem], good: int) -> str:
    """What is wrong with a file, its first problems named."""
    if not problems:
        return f"{path} holds no rows; each line must be an object with image, question and answer"
    shown = "\n  ".join(map(str, problems[:_SHOWN_PROBLEMS]))
    more = f"\n  and {len(problems) - _SHOWN_PROBLEMS} more" if len(problems) > _SHOWN_PROBLEMS else ""
    return f"{path}: {len(problems)} bad rows, {good} good ones:\n  {shown}{more}"
