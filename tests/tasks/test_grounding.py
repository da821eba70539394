"""Grounding benchmarks as they are handed out: rows, boxes of each layout, problems that name their row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mmturn.errors import DataError
from mmturn.tasks.grounding import read_grounding
from mmturn.types import Task


def folder_of(folder: Path, files: dict[str, Any], images: tuple[str, ...] = ("imgs/a.png",)) -> Path:
    """A folder of annotations and of images with 200 x 100 px."""
    for name in images:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (200, 100), "white").save(folder / name)
    for name, rows in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(rows), encoding="utf-8")
    return folder


SPOT = {"img_filename": "a.png", "bbox": [20, 10, 40, 30], "instruction": "close <it>", "data_type": "icon",
        "data_source": "windows"}  # fmt: skip
PRO = {
    "id": "word_1", "img_filename": "word/a.png", "bbox": [20, 10, 60, 40], "img_size": [200, 100],
    "instruction": "bold", "instruction_cn": "粗体", "application": "word", "platform": "windows", "group": "Office",
    "ui_type": "icon",
}  # fmt: skip
OSG = {"id": "g1", "image_path": "a.png", "image_size": [200, 100], "instruction": "the arrow", "box_type": "bbox",
       "box_coordinates": [20, 10, 40, 30], "GUI_types": ["Icon", "Layout"]}  # fmt: skip


def target(task: Task) -> tuple[str, list[float]]:
    return task.meta["target"]["kind"], task.meta["target"]["numbers"]


@pytest.mark.parametrize(("name", "suffix"), [("screenspot", ""), ("screenspot_v2", "_v2")])
def test_screenspot(name: str, suffix: str, tmp_path: Path) -> None:
    files = {f"screenspot_{platform}{suffix}.json": [SPOT] for platform in ("mobile", "desktop", "web")}
    other = {"screenspot_web_v2.json" if not suffix else "screenspot_web.json": [SPOT, SPOT]}
    tasks, problems = read_grounding(name, folder_of(tmp_path, {**files, **other}))
    assert not problems and len(tasks) == 3
    assert [task.meta["cell"] for task in tasks] == ["desktop/icon", "mobile/icon", "web/icon"]
    assert target(tasks[0]) == ("box", [20, 10, 60, 40]) and tasks[0].boxes[0].x1 == 60
    assert tasks[0].question == "Click on what this means: close <it>" and tasks[0].meta["data_source"] == "windows"
    assert tasks[0].images == (str(tmp_path / "imgs" / "a.png"),)


def test_a_mirror_s_rows_hold_fractions(tmp_path: Path) -> None:
    """They name their image otherwise; the size of the numbers decides nothing."""
    row = {"file_name": "a.png", "bbox": [0.1, 0.1, 0.3, 0.4], "instruction": "x", "data_type": "text"}
    (task,), _ = read_grounding("screenspot", folder_of(tmp_path, {"screenspot_web.json": [row]}))
    assert target(task)[1] == pytest.approx([20, 10, 60, 40])
    _, problems = read_grounding(
        "screenspot", folder_of(tmp_path, {"screenspot_web.json": [row, {**SPOT, "bbox": [20, 10, 190, 40]}]})
    )
    assert "read as x, y, width, height" in str(problems[0]) and "screenspot_web.json:2" in str(problems[0])


def test_screenspot_pro(tmp_path: Path) -> None:
    rows = [PRO, {**PRO, "id": "word_2", "img_size": "[200, 100]", "ui_type": "text"}]
    folder = folder_of(tmp_path, {"annotations/word.json": rows, "stray.json": 3}, ("images/word/a.png",))
    tasks, problems = read_grounding("screenspot_pro", folder)
    assert not problems and [task.id for task in tasks] == ["word_1", "word_2"]
    assert target(tasks[0]) == ("box", [20, 10, 60, 40])
    assert [task.meta["cell"] for task in tasks] == ["Office/icon", "Office/text"]


def test_osworld_g(tmp_path: Path) -> None:
    corners = [0, 0, 10, 0, 10, 10]
    rows = [
        OSG,
        {**OSG, "id": "g2", "box_type": "polygon", "box_coordinates": corners},
        {**OSG, "id": "g3", "box_type": "refusal", "box_coordinates": [-1, -1, -1, -1]},
    ]
    tasks, problems = read_grounding("osworld_g", folder_of(tmp_path, {"OSWorld-G.json": rows}))
    assert not problems
    assert [target(task) for task in tasks] == [("box", [20, 10, 60, 40]), ("polygon", corners), ("refusal", [])]
    assert tasks[0].meta["GUI_types"] == "Icon+Layout" and "answer none" in tasks[2].question


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bbox": [1, 2, 3]}, "bbox must be 4 numbers"),
        ({"bbox": ["1", 2, 3, 4]}, "bbox must be 4 numbers"),
        ({"bbox": [10**400, 2, 3, 4]}, "bbox must be 4 numbers"),
        ({"bbox": [float("nan"), 2, 3, 4]}, "bbox must be 4 numbers"),
        ({"bbox": [-1.5, 2, 30, 4]}, "outside of its image"),
        ({"data_type": None}, "data_type must be text or icon"),
        ({"data_source": ["windows"]}, "data_source must be a text"),
        ({"bbox": [10, 10, 0, 5]}, "outside of its image"),
        ({"img_filename": "b.png"}, "no image b.png"),
        ({"img_filename": "../../etc/passwd"}, "no image"),
        ({"instruction": " "}, "instruction must be a text"),
        ({"img_size": [20, 10]}, r"\[20, 10\] px, but a.png has \[200, 100\]"),
        ({"data_type": None, "instruction": None}, "instruction"),
    ],
)
def test_a_bad_row_is_named_and_the_others_are_kept(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    folder = folder_of(tmp_path, {"screenspot_web.json": [SPOT, {**SPOT, **change}]})
    tasks, (problem,) = read_grounding("screenspot", folder)
    assert len(tasks) == 1 and "screenspot_web.json:2" in str(problem)
    with pytest.raises(DataError, match=message):
        raise DataError(str(problem))


def test_folders_that_hold_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        read_grounding("screenspot", tmp_path / "none")
    with pytest.raises(DataError, match="holds none of OSWorld-G.json"):
        read_grounding("osworld_g", tmp_path)
    with pytest.raises(DataError, match=r"no good row(.|\n)*there is no 'instruction'"):
        read_grounding("screenspot", folder_of(tmp_path, {"screenspot_web.json": [{"img_filename": "a.png"}]}))
    (tmp_path / "screenspot_web.json").write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match="not valid JSON"):
        read_grounding("screenspot", tmp_path)
