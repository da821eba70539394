"""Reading and writing task rows: bad rows are named and counted, the rest goes on."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmturn.errors import DataError
from mmturn.geometry import Box, Span
from mmturn.rewards.gold import grade_gold
from mmturn.tasks.rows import read_tasks, task_of, write_tasks
from mmturn.types import Task


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "img").mkdir()
    for name in ("a.png", "b.png"):
        (tmp_path / "img" / name).write_bytes(b"not opened here")
    return tmp_path


def row(**fields: Any) -> dict[str, Any]:
    return {"image": "img/a.png", "question": "What?", "answer": "red", **fields}


def write(folder: Path, *rows: Any, name: str = "tasks.jsonl") -> Path:
    path = folder / name
    lines = [r if isinstance(r, bytes) else json.dumps(r).encode() for r in rows]
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


def one(folder: Path, **fields: Any) -> Task:
    ((task,), problems) = read_tasks(write(folder, row(**fields)))
    assert not problems
    return task


def refusal(folder: Path, bad: Any) -> str:
    """What is said of a bad row that stands on line 2 after a good one."""
    tasks, problems = read_tasks(write(folder, row(id="good"), bad))
    assert [task.id for task in tasks] == ["good"]
    (problem,) = problems
    assert problem.line == 2
    assert str(problem).startswith(f"{folder / 'tasks.jsonl'}:2: ")
    return problem.reason


def test_the_least_row(folder: Path) -> None:
    assert one(folder) == Task("tasks-1", "What?", (str(folder / "img" / "a.png"),), "red")


def test_all_of_a_row(folder: Path) -> None:
    task = one(
        folder,
        id="x",
        choices=["red", "blue"],
        answer="blue",
        boxes=[[1, 2, 3, 4], [5, 6, 7.5, 8]],
        meta={"level": "two", "scene": 3},
        source="web",
    )
    assert task.answer == "B"
    assert task.answer_type == "choice"
    assert task.choices == ("red", "blue")
    assert task.boxes == (Box(1, 2, 3, 4), Box(5, 6, 7.5, 8))
    assert task.meta == {"level": "two", "scene": 3, "source": "web"}


def test_absolute_paths_and_several_images(folder: Path) -> None:
    absolute = str(folder / "img" / "b.png")
    assert one(folder, image=absolute).images == (absolute,)
    fields = row(images=["img/a.png", absolute])
    del fields["image"]
    ((task,), _) = read_tasks(write(folder, fields))
    assert task.images == (str(folder / "img" / "a.png"), absolute)


def test_relative_paths_do_not_depend_on_the_current_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder, row())
    monkeypatch.chdir(folder.parent)
    ((task,), _) = read_tasks(os.path.join(folder.name, "tasks.jsonl"))
    assert task.images == (str(folder / "img" / "a.png"),)


@pytest.mark.parametrize(
    ("answer", "letter"),
    [("red", "A"), ("B", "B"), ("b", "B"), ("(B)", "B"), ("B.", "B"), (" Blue car ", "B"), ("blue car.", "B")],
)
def test_gold_choices_by_letter_or_text(folder: Path, answer: str, letter: str) -> None:
    assert one(folder, choices=["red", "blue car"], answer=answer).answer == letter


def test_choices_by_letter_and_of_numbers(folder: Path) -> None:
    assert one(folder, choices={"A": "red", "B": "blue"}, answer="blue").answer == "B"
    assert one(folder, choices=[3, 4, 5], answer=4).answer == "B"
    assert one(folder, choices=["3", "4"], answer="3").choices == ("3", "4")


def test_a_letter_that_is_also_another_choices_text_is_ambiguous(folder: Path) -> None:
    fields = row(choices=["K", "B", "T", "A"], answer="A")
    assert "both a letter and the text of another choice" in refusal(folder, fields)
    assert one(folder, choices=["K", "B", "T", "A"], answer="A", answer_type="choice").answer == "A"
    assert one(folder, choices=["K", "B", "T", "A"], answer="B").answer == "B"
    assert one(folder, choices=["K", "B", "T", "A"], answer="T").answer == "C"


def test_answer_types(folder: Path) -> None:
    assert one(folder, answer=7).answer_type == "number"
    assert one(folder, answer=7).answer == "7"
    assert one(folder, answer="7").answer_type == "text"
    assert one(folder, answer="7", answer_type="number").answer_type == "number"
    assert one(folder, answer=None).answer is None


@pytest.mark.parametrize("key", ["boxes", "bbox", "box"])
def test_one_box_or_several(folder: Path, key: str) -> None:
    assert one(folder, **{key: [1, 2, 3, 4]}).boxes == (Box(1, 2, 3, 4),)
    assert one(folder, **{key: [[1, 2, 3, 4]]}).boxes == (Box(1, 2, 3, 4),)
    assert one(folder, **{key: []}).boxes == ()
    assert one(folder, **{key: None}).boxes == ()


def without(key: str, **fields: Any) -> dict[str, Any]:
    return {name: value for name, value in row(**fields).items() if name != key}


BAD: list[tuple[Any, str]] = [
    (b'{"image": ', "not valid JSON"),
    (b"\xff\xfe{}", "not valid UTF-8 at byte 0"),
    (b'{"question": "caf\xe9"}', "not valid UTF-8"),
    (b"[" * 200_000, "nested too deeply"),
    (b'{"image": "a", "answer": NaN}', "NaN is not JSON"),
    (b'{"answer": ' + b"9" * 5000 + b"}", "not valid JSON"),
    ([1, 2], "must be an object"),
    ("text", "must be an object"),
    (None, "must be an object"),
    (without("image"), "there is no 'image'"),
    (without("question"), "there is no 'question'"),
    (without("answer"), "there is no 'answer'"),
    (without("answer", anwser="x"), "'anwser' meant"),
    (row(question=""), "question must not be empty"),
    (row(question=7), "question must be a text"),
    (row(question="\ud800"), "lone surrogate"),
    (row(answer="\udfff"), "lone surrogate"),
    (row(answer=""), "the answer is empty"),
    (row(answer=True), "answer must be a text or a number"),
    (row(answer=["red"]), "answer must be a text or a number"),
    (row(answer="many", answer_type="number"), "'many' is not a number"),
    (row(answer_type="letter"), "answer_type must be text, number or choice"),
    (row(answer_type="choice"), "needs choices"),
    (row(choices=["a", "b"], answer="a", answer_type="text"), "does not go with choices"),
    (row(choices=["a"]), "2 to 26"),
    (row(choices="ab"), "2 to 26"),
    (row(choices=["a", None]), "must be a text"),
    (row(choices=["a", " "]), "must be a text"),
    (row(choices={"A": "x", "C": "y"}), "without gaps"),
    (row(choices=["a b", "c d"], answer="z"), "is none of the choices"),
    (row(choices=["same", "same"], answer="same"), "is several of the choices"),
    (row(choices=["x y", "z"], answer=0), "is none of the choices"),
    (row(image=""), "empty path"),
    (row(image=7), "image must be a text"),
    (row(image="img/c.png"), "there is no image file"),
    (row(image="img"), "there is no image file"),
    (row(image="img/a\x00.png"), "there is no image file"),
    (row(image="https://example.org/a.png"), "download it first"),
    (row(image="data:image/png;base64,AAAA"), "download it first"),
    (row(images=["img/a.png"]), "not both"),
    (without("image", images="img/a.png"), "must be a list of paths"),
    (row(boxes="1,2,3,4"), "must be a list of boxes"),
    (row(boxes=[[1, 2, 3]]), "four numbers"),
    (row(boxes=[[1, 2, 3, True]]), "four numbers"),
    (row(boxes=[[1, 2, 3, 1e400]]), "not JSON"),
    (row(boxes=[[30, 40, 10, 10]]), "corners, not width and height"),
    (row(boxes=[[-1, 0, 10, 10]]), "0 <= x0 < x1"),
    (row(boxes=[[1, 2, 3, 4]], bbox=[1, 2, 3, 4]), "boxes and bbox"),
    (row(id=""), "id must be"),
    (row(id=[1]), "id must be"),
    (row(id="good"), "already that of line 1"),
    (row(meta=[1]), "meta must be an object"),
]


@pytest.mark.parametrize(("bad", "words"), BAD, ids=[words for _, words in BAD])
def test_bad_rows_are_named_and_left_out(folder: Path, bad: Any, words: str) -> None:
    assert words in refusal(folder, bad)


def test_an_overflowing_number_is_no_box(folder: Path) -> None:
    assert "four numbers" in refusal(folder, b'{"image":"img/a.png","question":"?","answer":"x","box":[0,0,1,1e400]}')


def test_blank_lines_byte_order_mark_and_windows_line_ends(folder: Path) -> None:
    path = folder / "tasks.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(row()).encode() + b"\r\n\r\n  \n" + json.dumps(row()).encode())
    tasks, problems = read_tasks(path)
    assert [task.id for task in tasks] == ["tasks-1", "tasks-4"]
    assert not problems


def test_a_json_list(folder: Path) -> None:
    tasks, problems = read_tasks(write(folder, [row(), 7, row()], name="tasks.json"))
    assert [task.id for task in tasks] == ["tasks-1", "tasks-3"]
    assert [problem.line for problem in problems] == [2]
    with pytest.raises(DataError, match="must hold a list"):
        read_tasks(write(folder, {"a": 1}, name="tasks.json"))
    with pytest.raises(DataError, match="not valid JSON"):
        read_tasks(write(folder, b"[", name="tasks.json"))


def test_files_without_a_good_row(folder: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_tasks(folder / "nowhere.jsonl")
    with pytest.raises(DataError, match="cannot be read"):
        read_tasks(folder)
    with pytest.raises(DataError, match="holds no rows"):
        read_tasks(write(folder, b""))
    with pytest.raises(DataError, match=r"7 bad rows, 0 good ones:\n.*tasks.jsonl:1: .*\n(.*\n){4}  and 2 more"):
        read_tasks(write(folder, *[without("question")] * 7))


def test_strict_reading_names_the_bad_row(folder: Path) -> None:
    with pytest.raises(DataError, match=r"1 bad rows, 1 good ones:\n.*:2: there is no 'question'"):
        read_tasks(write(folder, row(), without("question")), strict=True)
    assert read_tasks(write(folder, row()), strict=True)


def test_images_need_not_be_there_where_they_are_not_checked(folder: Path) -> None:
    tasks, problems = read_tasks(write(folder, row(image="img/c.png")), check_images=False)
    assert len(tasks) == 1
    assert not problems


words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).filter(str.strip)
boxes = st.tuples(*[st.floats(0, 100)] * 2, *[st.floats(1, 100)] * 2).map(
    lambda b: Box(b[0], b[1], b[0] + b[2], b[1] + b[3])
)


spans_strategy = st.tuples(st.floats(0, 1e6), st.floats(0.001, 1e3)).map(lambda pair: Span(pair[0], pair[0] + pair[1]))


@st.composite
def tasks_strategy(draw: st.DrawFn) -> Task:
    kind = draw(st.sampled_from(["text", "number", "choice"]))
    choices: tuple[str, ...] = ()
    answer: str | None = draw(words).strip()
    if kind == "choice":
        choices = tuple(draw(st.lists(words, min_size=2, max_size=5)))
        answer = chr(ord("A") + draw(st.integers(0, len(choices) - 1)))
    elif kind == "number":
        answer = str(draw(st.integers(-1000, 1000)))
    if draw(st.booleans()):
        answer = None
    images = draw(st.lists(st.sampled_from(["img/a.png", "img/b.png", "/elsewhere/c.png"]), max_size=3))
    meta = draw(st.dictionaries(words, st.one_of(st.integers(), words, st.none(), st.lists(st.booleans())), max_size=3))
    found = draw(st.lists(boxes, max_size=3))
    video = draw(st.sampled_from([None, "img/a.mp4", "/elsewhere/b.mkv"]))
    spans = draw(st.lists(spans_strategy, max_size=2)) if video is not None else ()
    return Task(draw(words), draw(words), tuple(images), answer, choices, kind, tuple(found), meta, video, tuple(spans))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tasks=st.lists(tasks_strategy(), min_size=1, max_size=4, unique_by=lambda task: task.id))
def test_round_trip(tmp_path: Path, tasks: list[Task]) -> None:
    """And the gold answer of whatever was read scores 1.0."""
    absolute = [
        replace(
            task,
            images=tuple(str(tmp_path / image) for image in task.images),
            video=None if task.video is None else str(tmp_path / task.video),
        )
        for task in tasks
    ]
    path = tmp_path / "tasks.jsonl"
    write_tasks(absolute, path)
    back, problems = read_tasks(path, check_images=False)
    assert not problems
    assert back == absolute
    assert all(grade_gold(task) == 1.0 for task in back if task.answer is not None)


def test_writing_keeps_a_moved_folder_readable(folder: Path) -> None:
    path = folder / "tasks.jsonl"
    write_tasks([Task("t", "?", (str(folder / "img" / "a.png"),), "red")], path)
    assert json.loads(path.read_text())["image"] == "img/a.png"
    moved = folder.parent / "moved"
    os.rename(folder, moved)
    ((task,), _) = read_tasks(moved / "tasks.jsonl")
    assert task.images == (str(moved / "img" / "a.png"),)


def test_a_failed_write_leaves_the_old_file(folder: Path) -> None:
    path = folder / "tasks.jsonl"
    write_tasks([Task("t", "?", answer="red")], path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"JSON|range"):
        write_tasks([Task("t", "?", meta={"x": float("nan")})], path)
    assert path.read_bytes() == before
    assert sorted(os.listdir(folder)) == ["img", "tasks.jsonl"]


def test_a_row_of_a_video(folder: Path) -> None:
    (folder / "v.mp4").write_bytes(b"")
    row = {"video": "v.mp4", "question": "?", "answer": "red", "spans": [1, 2.5]}
    task = task_of(row, folder, "t")
    assert (task.images, task.video, task.spans) == ((), str(folder / "v.mp4"), (Span(1.0, 2.5),))
    both = task_of({**row, "image": "img/a.png", "spans": [[0, 1], [3, 4]]}, folder, "t")
    assert len(both.images) == 1 and both.spans == (Span(0, 1), Span(3, 4))
    for bad, part in (
        ({"video": "gone.mp4"}, "no video file"),
        ({"video": "https://x/v.mp4"}, "not a file"),
        ({"video": 3}, "video must be a text"),
        ({"spans": [[2, 1]]}, "0 <= start < end"),
        ({"spans": [[0, 1, 2]]}, "0 <= start < end"),
        ({"spans": "1-2"}, "spans must be a list"),
        ({"video": None}, "there is no 'image'|no 'video'"),
    ):
        with pytest.raises(DataError, match=part):
            task_of({**row, **bad}, folder, "t")
    with pytest.raises(DataError, match="no 'video'"):
        task_of({"image": "img/a.png", "question": "?", "answer": "x", "spans": [[0, 1]]}, folder, "t")
