"""Video benchmarks in the layouts in which they are handed out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmturn.errors import DataError
from mmturn.tasks.videos import VIDEO_BENCHMARKS, read_video_benchmark
from mmturn.tasks.videos.subtitles import Subtitle, at_moments, read_srt
from mmturn.types import Task

SRT = """1
00:00:01,500 --> 00:00:03,000
<font color="white" size=".72c">Hello</font> there

2
00:00:03,000 --> 00:00:04,000


3
01:00:04,000 --> 01:00:05,250
{\\an8}Bye
"""


def put(folder: Path, name: str, content: Any) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        parquet = pytest.importorskip("pyarrow.parquet")
        import pyarrow

        parquet.write_table(pyarrow.Table.from_pylist(content), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in content), encoding="utf-8")
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


def video_mme(folder: Path) -> None:
    rows = [
        {"video_id": "001", "videoID": "fFjv93ACGo8", "question_id": f"001-{k}", "duration": "short",
         "domain": "Knowledge", "sub_category": "Humanity", "task_type": "Counting Problem", "question": "What colour?",
         "options": ["A. Red.", "B. Green.", "C. Blue.", "D. A cat."], "answer": "C"}
        for k in (1, 2)
    ]  # fmt: skip
    put(folder, "videomme/test-00000-of-00001.parquet", rows)
    put(folder, "data/fFjv93ACGo8.mp4", "")
    put(folder, "subtitle/fFjv93ACGo8.srt", SRT)


def mlvu(folder: Path) -> None:
    row = {"video": "count_1.mp4", "duration": 60.5, "question": "What colour?",
           "candidates": ["Red", "Green", "Blue", "A cat", "e", "f"],
           "answer": "Blue", "question_type": "count"}  # fmt: skip
    put(folder, "json/4_count.json", [row, {**row, "answer": "Pink"}])
    put(folder, "video/4_count/count_1.mp4", "")


def longvideobench(folder: Path) -> None:
    row = {"id": "q1", "video_id": "v", "video_path": "v.mp4", "subtitle_path": "v_en.srt", "question": "What colour?",
           "candidates": ["Red", "Green", "Blue"], "correct_choice": 2, "duration": 12, "duration_group": 15,
           "question_category": "T2E"}  # fmt: skip
    padded = {**row, "id": "q2", "option0": "Red", "option1": "Green", "option2": "Blue", "option3": "N/A"}
    del padded["candidates"]
    put(folder, "lvb_val.json", [row, padded])
    put(folder, "videos/v.mp4", "")
    put(folder, "subtitles/v_en.srt", SRT)


def lvbench(folder: Path) -> None:
    row = {"key": "Cm73ma6Ibcs", "type": "cartoon", "qa": [
        {"uid": "0", "question": "What colour?\n(A) Red\n(B) Green\n(C) Blue\n(D) A (B) cat", "answer": "C",
         "question_type": ["entity recognition", "reasoning"], "time_reference": "00:15-00:19"}]}  # fmt: skip
    put(folder, "video_info.meta.jsonl", [row])
    put(folder, "all_videos/Cm73ma6Ibcs.mp4", "")


def egoschema(folder: Path) -> None:
    rows = [
        {"question": "What colour?", "video_idx": "0074f737", "option": ["A. Red", "B. Green", "C. Blue"], "answer": a}
        for a in ("2", None)
    ]
    put(folder, "Subset/test-00000-of-00001.parquet", rows)
    put(folder, "videos/0074f737.mp4", "")


def video_holmes(folder: Path) -> None:
    row = {"video ID": "ODy", "Question ID": 11, "Question Type": "SR", "Question": "What colour?",
           "Options": {"A": "Red", "B": "Green", "C": "Blue"}, "Answer": "C", "Explanation": "-"}  # fmt: skip
    put(folder, "test_Video-Holmes.json", [row])
    put(folder, "videos/ODy.mp4", "")


def longvideo_reason(folder: Path) -> None:
    rows = [
        {"videos": "a/b.mp4", "problem": "What colour?\nA. Red\nB. Green\nC. Blue", "answer": "<answer>C</answer>"},
        {"videos": "a/b.mp4", "problem": "How many?", "answer": "7"},
    ]
    put(folder, "test.jsonl", rows)
    put(folder, "longvideo_eval_videos/a/b.mp4", "")


LAYOUTS: dict[str, Callable[[Path], None]] = {
    make.__name__: make
    for make in (video_mme, mlvu, longvideobench, lvbench, egoschema, video_holmes, longvideo_reason)
}


def test_every_benchmark_is_read_here() -> None:
    assert set(LAYOUTS) == set(VIDEO_BENCHMARKS)


@pytest.mark.parametrize("name", LAYOUTS)
def test_official_layouts(name: str, tmp_path: Path) -> None:
    LAYOUTS[name](tmp_path)
    tasks, problems = read_video_benchmark(name, tmp_path)
    first = tasks[0]
    assert first.question == "What colour?"
    assert first.choices[ord(first.answer or "?") - ord("A")].rstrip(".") == "Blue"
    assert first.choices[0].rstrip(".") == "Red"
    assert first.video is not None and Path(first.video).is_file() and first.answer_type == "choice"
    assert set(first.meta) <= set(VIDEO_BENCHMARKS[name].groups)
    assert len(problems) == (name in ("mlvu", "egoschema"))


def test_what_each_keeps(tmp_path: Path) -> None:
    def read(name: str) -> list[Task]:
        LAYOUTS[name](tmp_path / name)
        return read_video_benchmark(name, tmp_path / name, subtitles=True)[0]

    mme = read("video_mme")
    assert [task.id for task in mme] == ["001-1", "001-2"]
    assert mme[0].choices == ("Red.", "Green.", "Blue.", "A cat.")
    assert mme[0].meta["duration"] == "short" and mme[0].meta["subtitles"].endswith("subtitle/fFjv93ACGo8.srt")
    assert len(read("mlvu")[0].choices) == 6
    bench = read("longvideobench")
    assert bench[1].choices == ("Red", "Green", "Blue") and bench[0].meta["subtitles"].endswith("v_en.srt")
    (lv,) = read("lvbench")
    assert lv.choices[3] == "A (B) cat" and lv.meta["question_type"] == "entity recognition+reasoning"
    reason = read("longvideo_reason")
    assert (reason[1].answer, reason[1].choices, reason[1].answer_type) == ("7", (), "text")
    assert "subtitles" not in reason[0].meta


def test_video_mme_in_its_result_files_form(tmp_path: Path) -> None:
    question = {"question_id": "001-1", "question": "What colour?", "options": ["A. Red", "B. Blue"], "answer": "B"}
    put(tmp_path, "all.json", [{"video_id": "v", "duration": "long", "questions": [question]}])
    put(tmp_path, "v.mkv", "")
    ((task,), _) = read_video_benchmark("video_mme", tmp_path)
    assert (task.answer, task.meta["duration"]) == ("B", "long")


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        read_video_benchmark("mlvu", tmp_path / "gone")
    with pytest.raises(DataError, match=r"looked for video_info\.meta\.jsonl"):
        read_video_benchmark("lvbench", tmp_path)
    row = {"video": "gone.mp4", "question": "?", "candidates": ["a", "b"], "answer": "b"}
    rows = [row, {**row, "video": "twice.mp4"}, {**row, "video": "v.mp4"}, {**row, "video": 3}, {"video": "v.mp4"}]
    put(tmp_path, "q.json", rows)
    for name in ("v.mp4", "x/twice.mp4", "y/twice.mp4"):
        put(tmp_path, name, "")
    tasks, problems = read_video_benchmark("mlvu", tmp_path)
    assert [task.id for task in tasks] == ["q-3"]
    texts = [str(problem) for problem in problems]
    reasons = ("no video named 'gone.mp4'", "2 videos named", "named by a text", "'candidates'")
    for text, line, part in zip(texts, (1, 2, 4, 5), reasons, strict=True):
        assert f"q.json:{line}" in text and part in text
    put(tmp_path, "q.json", "{broken")
    with pytest.raises(DataError, match=r"q\.json: cannot be read"):
        read_video_benchmark("mlvu", tmp_path)


def test_a_row_cannot_name_a_file_outside_its_folder(tmp_path: Path) -> None:
    put(tmp_path, "secret.mp4", "")
    row = {"question": "?", "candidates": ["a", "b"], "answer": "b"}
    put(tmp_path, "bench/q.json", [{**row, "video": "../secret.mp4"}, {**row, "video": str(tmp_path / "secret.mp4")}])
    with pytest.raises(DataError, match="no video named"):
        read_video_benchmark("mlvu", tmp_path / "bench")


def test_subtitles(tmp_path: Path) -> None:
    put(tmp_path, "s.srt", SRT.replace("\n", "\r\n"))
    found = read_srt(tmp_path / "s.srt")
    assert found == [Subtitle(1.5, 3.0, "Hello there"), Subtitle(3604.0, 3605.25, "Bye")]
    assert at_moments(found, [1.0, 1.5, 2.9]) == "Hello there"
    assert at_moments(found, [3.0, 3605.25]) == ""
    assert at_moments(found, [2.0, 3604.0]) == "Hello there\nBye"
    put(tmp_path, "no.srt", "nothing like it")
    with pytest.raises(DataError, match=r"no\.srt: no subtitles"):
        read_srt(tmp_path / "no.srt")
    with pytest.raises(DataError, match="cannot be read"):
        read_srt(tmp_path / "gone.srt")
