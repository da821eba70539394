"""The V* Bench folder layout."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from mmturn.errors import DataError
from mmturn.geometry import Box
from mmturn.rewards.gold import grade_gold
from mmturn.tasks.vstar import option_order, read_vstar, write_vstar
from mmturn.types import Task

OPTIONS = ["The glove is red.", "The glove is blue.", "The glove is black.", "The glove is white."]


def add(folder: Path, category: str, name: str, **fields: object) -> Path:
    """An official sample."""
    target = folder / category / name
    target.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (64, 48), (10, 20, 30)).save(f"{target}.jpg")
    row = {"target_object": ["glove"], "bbox": [[10, 20, 5, 6]], "question": "Which colour?", "options": OPTIONS}
    Path(f"{target}.json").write_text(json.dumps(row | fields))
    return target


def test_reading(tmp_path: Path) -> None:
    add(tmp_path, "direct_attributes", "sa_1")
    add(tmp_path, "relative_position", "sa_2", bbox=[[0, 0, 5, 6], [7, 8, 9, 10]], options=OPTIONS[:2])
    tasks, problems = read_vstar(tmp_path)
    assert not problems
    assert [task.id for task in tasks] == ["direct_attributes/sa_1", "relative_position/sa_2"]
    first, second = tasks
    assert first.boxes == (Box(10, 20, 15, 26),)
    assert second.boxes == (Box(0, 0, 5, 6), Box(7, 8, 16, 18))
    assert first.images == (str(tmp_path / "direct_attributes" / "sa_1.jpg"),)
    assert first.meta["category"] == "direct_attributes"
    assert first.meta["target_object"] == ["glove"]
    assert first.meta["image_size"] == [64, 48]
    assert all(grade_gold(task) == 1.0 for task in tasks)


def test_options_are_shuffled_by_a_recorded_seed(tmp_path: Path) -> None:
    for i in range(40):
        add(tmp_path, "direct_attributes", f"s{i:02}")
    tasks, _ = read_vstar(tmp_path, seed=3)
    for task in tasks:
        order = task.meta["option_order"]
        assert task.choices == tuple(OPTIONS[i] for i in order)
        assert task.choices[ord(str(task.answer)) - ord("A")] == OPTIONS[0]
        assert task.meta["option_seed"] == 3
    # the gold option is not always A, as it is in the files
    assert {task.answer for task in tasks} == set("ABCD")
    assert [task.choices for task in read_vstar(tmp_path, seed=3)[0]] == [task.choices for task in tasks]
    assert [task.choices for task in read_vstar(tmp_path, seed=4)[0]] != [task.choices for task in tasks]


def test_a_samples_order_does_not_depend_on_the_others(tmp_path: Path) -> None:
    add(tmp_path, "direct_attributes", "b")
    ((alone,), _) = read_vstar(tmp_path, seed=1)
    add(tmp_path, "direct_attributes", "a")
    assert read_vstar(tmp_path, seed=1)[0][1] == alone
    assert option_order(1, "direct_attributes/b", 4) == alone.meta["option_order"]


def test_parity_mode_keeps_the_file_order(tmp_path: Path) -> None:
    add(tmp_path, "direct_attributes", "a")
    ((task,), _) = read_vstar(tmp_path, seed=None)
    assert (task.answer, list(task.choices)) == ("A", OPTIONS)
    assert task.meta["option_order"] == [0, 1, 2, 3]
    assert task.meta["option_seed"] is None


def test_a_flat_box_and_none(tmp_path: Path) -> None:
    add(tmp_path, "direct_attributes", "a", bbox=[10, 20, 5, 6])
    add(tmp_path, "direct_attributes", "b", bbox=None)
    tasks, problems = read_vstar(tmp_path)
    assert not problems
    assert [task.boxes for task in tasks] == [(Box(10, 20, 15, 26),), ()]


def test_broken_samples_are_reported_by_name(tmp_path: Path) -> None:
    add(tmp_path, "direct_attributes", "good")
    for name in ("noimage", "nojson", "notjson", "noquestion", "nooptions", "nobox", "noimagedata"):
        add(tmp_path, "direct_attributes", name)
    base = tmp_path / "direct_attributes"
    (base / "noimage.jpg").unlink()
    (base / "nojson.json").unlink()
    (base / "notjson.json").write_bytes(b'{"question": "\xff"')
    (base / "noquestion.json").write_text("[]")
    (base / "nooptions.json").write_text(json.dumps({"question": "?", "options": ["one"]}))
    (base / "nobox.json").write_text(json.dumps({"question": "?", "options": OPTIONS, "bbox": [[1, 2, 0, 4]]}))
    (base / "noimagedata.jpg").write_bytes(b"\xff\xd8\xff\xe0 nothing")
    (base / ".hidden.json").write_text("x")
    (base / "readme.txt").write_text("x")
    tasks, problems = read_vstar(tmp_path)
    assert [task.id for task in tasks] == ["direct_attributes/good"]
    said = {problem.where.split("/")[1]: problem.reason for problem in problems}
    assert sorted(said) == sorted(["noimage", "nojson", "notjson", "noquestion", "nooptions", "nobox", "noimagedata"])
    assert "no image beside it" in said["noimage"]
    assert "no .json beside it" in said["nojson"]
    assert "notjson.json is not valid JSON" in said["notjson"]
    assert "a question" in said["noquestion"]
    assert "options must be" in said["nooptions"]
    assert "[x, y, width, height]" in said["nobox"]
    assert "noimagedata.jpg is not an image" in said["noimagedata"]


def test_folders_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a V\\* folder"):
        read_vstar(tmp_path)
    (tmp_path / "relative_position").mkdir()
    with pytest.raises(DataError, match="no good V\\* sample"):
        read_vstar(tmp_path)


def make_task(folder: Path, number: int, suffix: str = ".png", **fields: object) -> Task:
    path = folder / f"own{number}{suffix}"
    Image.new("RGBA" if suffix == ".png" else "RGB", (32, 32), (number, 0, 0)).save(path)
    base: dict[str, object] = {
        "id": f"own/{number}",
        "question": "Which?",
        "images": (str(path),),
        "answer": "C",
        "choices": ("x", "y", "z"),
        "answer_type": "choice",
        "boxes": (Box(1, 2, 4, 8),) * (1 + number % 2),
    }
    return Task(**(base | fields))  # type: ignore[arg-type]


def test_round_trip(tmp_path: Path) -> None:
    tasks = [make_task(tmp_path, i, suffix) for i, suffix in enumerate([".png", ".jpg", ".png"])]
    write_vstar(tasks, tmp_path / "out")
    parity, problems = read_vstar(tmp_path / "out", seed=None)
    assert not problems
    assert [task.meta["category"] for task in parity] == ["direct_attributes"] * 2 + ["relative_position"]
    by_question = {task.id.rsplit("/", 1)[1]: task for task in parity}
    for number, task in enumerate(tasks):
        back = by_question[str(number)]
        assert (back.question, back.boxes, back.answer) == (task.question, task.boxes, "A")
        assert back.choices == ("z", "x", "y")
        with Image.open(back.images[0]) as image:
            assert (image.format, image.size, image.mode) == ("JPEG", (32, 32), "RGB")
    # a JPEG is not encoded again
    assert Path(by_question["1"].images[0]).read_bytes() == Path(tasks[1].images[0]).read_bytes()
    shuffled, _ = read_vstar(tmp_path / "out", seed=0)
    for task in shuffled:
        assert task.choices[ord(str(task.answer)) - ord("A")] == "z"
    # writing what was read gives the same folder again
    write_vstar(shuffled, tmp_path / "again")
    assert read_vstar(tmp_path / "again", seed=None)[0][0].choices[0] == "z"


def test_tasks_that_the_layout_cannot_hold(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for fields, words in (
        ({"answer": "zzz", "choices": (), "answer_type": "text"}, "needs choices"),
        ({"answer": "D"}, "needs choices"),
        ({"images": ()}, "has one image"),
        ({"id": "..."}, "no file name"),
        ({"images": (str(tmp_path / "missing.png"),)}, "cannot be written"),
    ):
        with pytest.raises(DataError, match=words):
            write_vstar([make_task(tmp_path, 0, **fields)], out)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="ids must differ"):
        write_vstar([make_task(tmp_path, 0), make_task(tmp_path, 0)], out)
