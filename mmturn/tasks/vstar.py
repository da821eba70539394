"""The folder layout of V* Bench: ``direct_attributes/`` and ``relative_position/`` with NAME.jpg and NAME.json.

Source: V*, arXiv 2312.14135; penghao-wu/vstar. Each JSON holds ``question``, ``options`` (the gold one always first),
``target_object`` and ``bbox`` (x, y, width, height). Since the gold option is always first, letters made from the
file order are always A; options are therefore shuffled, by a seed that is recorded with each sample's order.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from mmturn.errors import DataError
from mmturn.geometry import Box
from mmturn.tasks.gathered import Gathered
from mmturn.tasks.rows import RowProblem
from mmturn.types import Json, Task

CATEGORIES = ("direct_attributes", "relative_position")
"""The folders of the benchmark."""
_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


def read_vstar(folder: str | Path, seed: int | None = 0) -> tuple[list[Task], list[RowProblem]]:
    """The samples as tasks, in the order of their names, and a problem for each that is missing a part or broken.

    ``seed``: shuffles the options, each sample's by itself; ``meta`` records ``option_order`` (the file index of each
    option shown) and ``option_seed``. None is the parity mode: file order, the gold answer always A.
    Raises DataError where there is no such folder or no good sample.
    """
    folder = Path(folder)
    present = [category for category in CATEGORIES if (folder / category).is_dir()]
    if not present:
        raise DataError(f"{folder} is not a V* folder: it has neither {CATEGORIES[0]}/ nor {CATEGORIES[1]}/")
    found = Gathered()
    for category in present:
        files = sorted(path for path in (folder / category).iterdir() if not path.name.startswith("."))
        images = _by_stem(path for path in files if path.suffix.lower() in _SUFFIXES)
        rows = _by_stem(path for path in files if path.suffix == ".json")
        for stem in sorted({*images, *rows}):
            where = f"{category}/{stem}"
            with found.row(where):
                found.add(_task(where, images.get(stem), rows.get(stem), category, seed))
    if not found.tasks:
        raise found.none(f"{folder} holds no good V* sample")
    return found.tasks, found.problems


def write_vstar(tasks: Sequence[Task], folder: str | Path) -> None:
    """Write tasks with choices as a V* folder: the gold option first, one JPEG and one JSON file each.

    The folder is ``meta["category"]`` where that is one of the two, else relative_position for two or more boxes.
    JPEG images are copied, others are encoded at quality 95. Raises DataError for a task that the layout cannot hold.
    """
    folder = Path(folder)
    used: set[str] = set()
    for task in tasks:
        category, stem = _category(task), _stem(task)
        if f"{category}/{stem}" in used:
            raise DataError(f"task {task.id}: another task is written as {category}/{stem}; ids must differ")
        used.add(f"{category}/{stem}")
        target = folder / category / stem
        target.parent.mkdir(parents=True, exist_ok=True)
        _write_image(task, Path(f"{target}.jpg"))
        Path(f"{target}.json").write_text(json.dumps(_row(task), ensure_ascii=False), encoding="utf-8")


def option_order(seed: int, sample: str, count: int) -> list[int]:
    """A permutation of ``count`` options that depends on nothing but the seed and the sample's name."""

    def key(index: int) -> bytes:
        return hashlib.sha256(f"{seed}\0{sample}\0{index}".encode()).digest()

    return sorted(range(count), key=key)


def _by_stem(paths: Any) -> dict[str, Path]:
    return {path.stem: path for path in paths}


def _task(where: str, image: Path | None, row_path: Path | None, category: str, seed: int | None) -> Task:
    """One sample."""
    if row_path is None:
        raise DataError("there is an image, but no .json beside it")
    if image is None:
        raise DataError("there is a .json, but no image beside it")
    try:
        row: Json = json.loads(row_path.read_bytes().decode("utf-8-sig"))
    except (ValueError, RecursionError, OSError) as exc:
        raise DataError(f"{row_path.name} is not valid JSON: {exc}") from None
    if not isinstance(row, Mapping) or not isinstance(row.get("question"), str) or not row["question"].strip():
        raise DataError(f"{row_path.name} must hold an object with a question")
    options = row.get("options")
    if (
        not isinstance(options, list)
        or not 2 <= len(options) <= 26
        or not all(isinstance(option, str) and option.strip() for option in options)
    ):
        raise DataError(f"{row_path.name}: options must be a list of 2 to 26 texts, the gold one first")
    order = list(range(len(options))) if seed is None else option_order(seed, where, len(options))
    return Task(
        id=where,
        question=row["question"],
        images=(str(image.absolute()),),
        answer=chr(ord("A") + order.index(0)),
        choices=tuple(options[i] for i in order),
        answer_type="choice",
        boxes=_boxes(row_path.name, row.get("bbox")),
        meta={
            "category": category,
            "target_object": row.get("target_object"),
            "option_order": order,
            "option_seed": seed,
            "image_size": list(_image_size(image)),
        },
    )


def _image_size(path: Path) -> tuple[int, int]:
    """Size from the header. Raises DataError for a file that is no image."""
    try:
        with Image.open(path) as image:
            return image.size
    except (OSError, ValueError, Image.DecompressionBombError) as exc:
        raise DataError(f"{path.name} is not an image that can be opened: {exc}") from None


def _boxes(name: str, value: Json) -> tuple[Box, ...]:
    """Gold regions from one ``[x, y, width, height]`` or a list of them; none where the key is missing."""
    if value in (None, []):
        return ()
    if isinstance(value, list) and not any(isinstance(item, list) for item in value):
        value = [value]
    boxes = []
    for item in value if isinstance(value, list) else [value]:
        if (
            not isinstance(item, list)
            or len(item) != 4
            or not all(isinstance(v, (int, float)) and not isinstance(v, bool) and abs(v) <= 1e9 for v in item)
            or item[2] <= 0
            or item[3] <= 0
        ):
            raise DataError(f"{name}: bbox must be [x, y, width, height] in pixels, got {item!r:.80}")
        x, y, width, height = map(float, item)
        boxes.append(Box(x, y, x + width, y + height))
    return tuple(boxes)


def _category(task: Task) -> str:
    """Folder of a task."""
    category = task.meta.get("category")
    if category in CATEGORIES:
        return str(category)
    return CATEGORIES[1] if len(task.boxes) >= 2 else CATEGORIES[0]


def _stem(task: Task) -> str:
    """File name of a task: the last part of its id, with only characters that every file system takes."""
    last = task.id.rsplit("/", 1)[-1]
    stem = "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "_" for c in last).strip(".")
    if not stem:
        raise DataError(f"task {task.id!r}: the id makes no file name")
    return stem


def _row(task: Task) -> dict[str, Json]:
    """The JSON of a sample."""
    gold = ord(task.answer) - ord("A") if task.answer and len(task.answer) == 1 else -1
    if task.answer_type != "choice" or not 0 <= gold < len(task.choices):
        raise DataError(f"task {task.id}: a V* sample needs choices and the letter of one as the answer")
    others = [choice for i, choice in enumerate(task.choices) if i != gold]
    boxes = [[box.x0, box.y0, box.width, box.height] for box in task.boxes]
    target = task.meta.get("target_object") or []
    options = [task.choices[gold], *others]
    return {"target_object": target, "bbox": boxes, "question": task.question, "options": options}


def _write_image(task: Task, target: Path) -> None:
    """The task's only image as a JPEG."""
    if len(task.images) != 1:
        raise DataError(f"task {task.id}: a V* sample has one image, this task has {len(task.images)}")
    source = Path(task.images[0])
    try:
        with Image.open(source) as image:
            if image.format == "JPEG":
                shutil.copyfile(source, target)
                return
            upright = ImageOps.exif_transpose(image).convert("RGB")
            upright.save(target, quality=95, subsampling=0)
    except (OSError, ValueError, Image.DecompressionBombError) as exc:
        raise DataError(f"task {task.id}: image {source} cannot be written: {exc}") from None
