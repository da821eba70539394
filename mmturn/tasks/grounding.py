"""Four GUI grounding benchmarks, read from the layouts in which they are handed out.

Sources: ScreenSpot (SeeClick, arXiv 2401.10935), ScreenSpot-v2 (OS-Atlas, arXiv 2410.23218), ScreenSpot-Pro (arXiv
2504.07981), OSWorld-G (arXiv 2505.13227). Boxes are x, y, width, height in ScreenSpot and OSWorld-G, corners in
ScreenSpot-Pro, and fractions (corners) in rows of the mirrors, which name their image ``file_name``: the layout of the
row decides, never the size of the numbers; a box that then leaves its image is a problem of its row.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from mmturn.errors import DataError
from mmturn.geometry import Box
from mmturn.grading.targets import TARGET
from mmturn.tasks.gathered import Gathered
from mmturn.tasks.rows import RowProblem
from mmturn.types import Json, Task

_QUESTION = "Click on what this means: {}"
_REFUSAL = " If it is not on the screen, say so: answer none."
_SLACK_PX = 1.0
"""How far beyond its image a box may reach, for rounding."""
_MOST_PX = 1e9
Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class GroundingBenchmark:
    """How one benchmark is laid out."""

    files: tuple[str, ...]
    """Patterns of its annotation files; the first that finds any counts."""
    read: Callable[[Row, str, tuple[int, int]], tuple[str, list[float], dict[str, Json]]]
    """(row, name of its file, width and height of its image) -> kind of target, its numbers, groups."""
    groups: tuple[str, ...]
    """Keys by which results are broken down."""
    words: str = ""
    """What the question says beside the instruction."""


def read_grounding(name: str, folder: str | Path) -> tuple[list[Task], list[RowProblem]]:
    """The rows as tasks in the order of their files, and a problem for each that cannot be used.

    Raises DataError where there is no such folder, or nothing good in it.
    """
    folder, layout = Path(folder), GROUNDING_BENCHMARKS[name]
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; --data must be the folder of {name}'s annotations and images")
    files = next((matched for pattern in layout.files if (matched := sorted(folder.glob(pattern)))), [])
    if not files:
        raise DataError(f"{folder} holds none of {', '.join(layout.files)}, the annotations of {name}")
    found = Gathered()
    for file in files:
        for number, row in enumerate(_rows(file), start=1):
            with found.row(f"{folder}: {file.relative_to(folder)}:{number}", number):
                found.add(_task(layout, row, file, folder, f"{file.stem}-{number}"))
    if not found.tasks:
        raise found.none(f"{folder} holds no good row of {name}")
    return found.tasks, found.problems


def _rows(file: Path) -> Iterator[Any]:
    try:
        rows = json.loads(file.read_bytes().decode("utf-8-sig"))
    except (ValueError, RecursionError, OSError) as error:
        raise DataError(f"{file} is not valid JSON: {error}") from None
    if not isinstance(rows, list):
        raise DataError(f"{file} must hold a list of rows")
    yield from rows


def _task(layout: GroundingBenchmark, row: Any, file: Path, folder: Path, default_id: str) -> Task:
    if not isinstance(row, Mapping):
        raise DataError("a row must be an object")
    instruction = row["instruction"]
    if not isinstance(instruction, str) or not instruction.strip():
        raise DataError("instruction must be a text")
    image = _image(
        folder, file, row.get("img_filename") or row.get("file_name") or row.get("image_path") or row["image"]
    )
    size = _size(image)
    told = row.get("img_size", row.get("image_size"))
    if isinstance(told, str):
        told = json.loads(told)
    if told is not None and [int(side) for side in told] != list(size):
        raise DataError(f"the row says that its image has {told} px, but {image.name} has {list(size)}")
    kind, numbers, groups = layout.read(row, file.stem, size)
    for key, value in groups.items():
        if value is not None and not isinstance(value, str):
            raise DataError(f"{key} must be a text, got {value!r:.40}")
    boxes = (Box(*numbers),) if kind == "box" else ()
    return Task(
        id=str(row.get("id", default_id)),
        question=_QUESTION.format(instruction.strip()) + layout.words,
        images=(str(image.absolute()),),
        boxes=boxes,
        meta={
            TARGET: {"kind": kind, "numbers": numbers},
            **{key: value for key, value in groups.items() if value is not None},
        },
    )


def _image(folder: Path, file: Path, name: Any) -> Path:
    """The image of a row: beside its file, in the folder, or in one of the folders within it."""
    if not isinstance(name, str) or not name.strip():
        raise DataError("the name of the image must be a text")
    parents = [file.parent, folder, *sorted(path for path in folder.iterdir() if path.is_dir())]
    for parent in parents:
        path = parent / name
        if path.is_file() and path.resolve().is_relative_to(folder.resolve()):
            return path
    raise DataError(f"there is no image {name} in {folder} or in a folder within it")


def _size(path: Path) -> tuple[int, int]:
    """Width and height as shown, from the header."""
    try:
        with Image.open(path) as image:
            width, height = image.size
            turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path.name} is not an image that can be opened: {error}") from None
    return (height, width) if turned else (width, height)


def _numbers(value: Any, what: str, count: int | None = 4) -> list[float]:
    if (
        not isinstance(value, list)
        or (count is not None and len(value) != count)
        or not all(isinstance(v, (int, float)) and not isinstance(v, bool) and abs(v) <= _MOST_PX for v in value)
    ):
        raise DataError(f"{what} must be {count or 'a list of'} numbers, got {value!r:.80}")
    return [float(number) for number in value]


def _inside(corners: list[float], size: tuple[int, int], layout: str) -> list[float]:
    x0, y0, x1, y1 = corners
    width, height = size
    if not (-_SLACK_PX <= x0 < x1 <= width + _SLACK_PX and -_SLACK_PX <= y0 < y1 <= height + _SLACK_PX):
        raise DataError(
            f"the box, read as {layout}, has the corners {corners}, outside of its image of {list(size)} px"
        )
    return corners


def _by_sides(value: Any, what: str, size: tuple[int, int]) -> list[float]:
    x, y, width, height = _numbers(value, what)
    return _inside([x, y, x + width, y + height], size, "x, y, width, height")


def _screenspot(row: Row, file: str, size: tuple[int, int]) -> tuple[str, list[float], dict[str, Json]]:
    if "img_filename" in row:
        box = _by_sides(row["bbox"], "bbox", size)
    else:
        parts = _numbers(row["bbox"], "bbox")
        sides = [size[0], size[1]] * 2
        corners = [part * side for part, side in zip(parts, sides, strict=True)]
        box = _inside(corners, size, "fractions of its image's sides")
    platform = next((word for word in ("mobile", "desktop", "web") if word in file.split("_")), None)
    kind = row["data_type"]
    if not isinstance(kind, str):
        raise DataError(f"data_type must be text or icon, got {kind!r:.40}")
    groups = {"platform": platform, "data_type": kind, "data_source": row.get("data_source")}
    return "box", box, {**groups, "cell": f"{platform}/{kind}" if platform else None}


def _screenspot_pro(row: Row, file: str, size: tuple[int, int]) -> tuple[str, list[float], dict[str, Json]]:
    box = _inside(_numbers(row["bbox"], "bbox"), size, "x0, y0, x1, y1")
    group, kind = row.get("group"), row.get("ui_type", row.get("data_type"))
    groups = {key: row.get(key) for key in ("application", "platform")}
    return "box", box, {"group": group, "ui_type": kind, **groups, "cell": f"{group}/{kind}"}


def _osworld_g(row: Row, file: str, size: tuple[int, int]) -> tuple[str, list[float], dict[str, Json]]:
    kind, types = row["box_type"], row.get("GUI_types") or []
    groups: dict[str, Json] = {
        "box_type": kind,
        "GUI_types": "+".join(map(str, types)) if isinstance(types, list) else str(types),
    }
    if kind == "refusal":
        return "refusal", [], groups
    if kind == "bbox":
        return "box", _by_sides(row["box_coordinates"], "box_coordinates", size), groups
    if kind != "polygon":
        raise DataError(f"box_type must be bbox, polygon or refusal, got {kind!r:.40}")
    numbers = _numbers(row["box_coordinates"], "box_coordinates", None)
    if len(numbers) % 2 or len(numbers) < 4:
        raise DataError(f"a polygon needs x and y of its corners, got {len(numbers)} numbers")
    return "polygon", numbers, groups


_CELLS = ("cell", "data_type", "platform", "data_source")
GROUNDING_BENCHMARKS: Mapping[str, GroundingBenchmark] = {
    "screenspot": GroundingBenchmark(("screenspot_[mdw]*[!2].json", "*.json"), _screenspot, _CELLS),
    "screenspot_v2": GroundingBenchmark(("screenspot_*_v2.json", "*.json"), _screenspot, _CELLS),
    "screenspot_pro": GroundingBenchmark(
        ("annotations/*.json", "*.json"), _screenspot_pro, ("cell", "ui_type", "group", "platform", "application")
    ),
    "osworld_g": GroundingBenchmark(("OSWorld-G.json", "*.json"), _osworld_g, ("box_type", "GUI_types"), _REFUSAL),
}
"""By name on the command line."""
