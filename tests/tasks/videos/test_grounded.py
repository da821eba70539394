"""Training data with gold stretches."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mmturn.errors import DataError
from mmturn.geometry import Span
from mmturn.tasks.rows import read_tasks
from mmturn.tasks.videos.grounded import GroundedFilter, read_nextgqa, read_qvhighlights

HEADER = "video_id,frame_count,width,height,question,answer,qid,type,a0,a1,a2,a3,a4\n"
REPO = Path(__file__).resolve().parents[3]


@pytest.fixture
def nextgqa(tmp_path: Path) -> Path:
    rows = [
        "10,900,640,480,why did the boy jump,to reach it,1,CW,to run,to reach it,to fall,he slept,he sat",
        "10,900,640,480,where is the dog,2,2,TN,a,b,c,d,e",
        "10,900,640,480,all of it,a,3,TN,a,b,c,d,e",
        "11,900,640,480,too short,a,1,TN,a,b,c,d,e",
        "10,900,640,480,no such option,zebra,4,TN,a,b,c,d,e",
        "12,900,640,480,no video,a,1,TN,a,b,c,d,e",
        "10,900,640,480,no stretch,a,9,TN,a,b,c,d,e",
    ]
    (tmp_path / "val.csv").write_text(HEADER + "\n".join(rows) + "\n")
    located = {
        "10": {"duration": 40, "location": {"1": [[1.2, 5.8]], "2": [[2, 4], [3, 9]], "3": [[0, 30]], "4": [[1, 2]]}},
        "11": {"duration": 29, "location": {"1": [[1, 2]]}},
        "12": {"duration": 60, "location": {"1": [[1, 2]]}},
    }
    (tmp_path / "gsub_val.json").write_text(json.dumps(located))
    (tmp_path / "map_vid_vidorID.json").write_text(json.dumps({"10": "1001/10", "12": "1001/12"}))
    for name in ("videos/1001/10.mp4", "videos/1002/10.mp4", "videos/11.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    return tmp_path


def test_nextgqa(nextgqa: Path) -> None:
    tasks, problems = read_nextgqa(nextgqa, nextgqa / "videos", "val")
    assert [(task.id, task.answer, task.spans) for task in tasks] == [
        ("nextgqa-10-1", "B", (Span(1.2, 5.8),)),
        ("nextgqa-10-2", "C", (Span(2, 4), Span(3, 9))),
    ]
    assert tasks[0].question == "Why did the boy jump?"
    assert (tasks[0].video or "").endswith("1001/10.mp4") and tasks[0].meta == {"category": "CW", "scene": "10"}
    texts = "\n".join(map(str, problems))
    assert len(problems) == 2 and "'zebra' is none" in texts and "no video named" in texts and "val.csv:6" in texts
    loose = read_nextgqa(nextgqa, nextgqa / "videos", "val", GroundedFilter(0, 1.1))[0]
    assert {task.id for task in loose} == {"nextgqa-10-1", "nextgqa-10-2", "nextgqa-10-3", "nextgqa-11-1"}
    with pytest.raises(DataError, match=r"gsub_test\.json"):
        read_nextgqa(nextgqa, nextgqa / "videos", "test")


@pytest.fixture
def qvhighlights(tmp_path: Path) -> Path:
    rows = [
        {
            "qid": k,
            "query": f"Description {k}",
            "duration": 150,
            "vid": f"v{k}_0.0_150.0",
            "relevant_windows": [[2, 16]],
        }
        for k in range(6)
    ]
    rows[4]["relevant_windows"] = [[0, 100]]
    rows[5]["relevant_windows"] = [[9, 3]]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for k in range(6):
        (tmp_path / f"v{k}_0.0_150.0.mp4").write_bytes(b"")
    return tmp_path / "train.jsonl"


def test_qvhighlights(qvhighlights: Path) -> None:
    tasks, problems = read_qvhighlights(qvhighlights, qvhighlights.parent)
    assert [task.id for task in tasks] == [f"qvhighlights-{k}" for k in range(4)]
    assert len(problems) == 1 and "0 <= start < end" in str(problems[0])
    for k, task in enumerate(tasks):
        assert len(set(task.choices)) == 4
        assert task.choices[ord(task.answer or "?") - ord("A")] == f"Description {k}"
        assert task.spans == (Span(2, 16),)
    assert read_qvhighlights(qvhighlights, qvhighlights.parent)[0] == tasks
    other = read_qvhighlights(qvhighlights, qvhighlights.parent, seed=7)[0]
    assert [task.choices for task in other] != [task.choices for task in tasks]
    assert len({task.answer for task in tasks} | {task.answer for task in other}) > 1


def test_qvhighlights_needs_other_videos(tmp_path: Path) -> None:
    row = {"qid": 1, "query": "A", "duration": 150, "vid": "v", "relevant_windows": [[2, 16]]}
    (tmp_path / "few.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(DataError, match="more than 3 videos"):
        read_qvhighlights(tmp_path / "few.jsonl", tmp_path)


def test_the_converter_writes_rows(nextgqa: Path) -> None:
    command = [sys.executable, str(REPO / "data" / "grounded_videos.py"), "nextgqa", "--annotations", str(nextgqa)]
    command += ["--videos", str(nextgqa / "videos"), "--out", str(nextgqa / "rows.jsonl")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "2 rows in" in done.stdout and "left out" in done.stderr
    tasks, problems = read_tasks(nextgqa / "rows.jsonl")
    assert not problems and tasks == read_nextgqa(nextgqa, nextgqa / "videos", "val")[0]
    done = subprocess.run([*command, "--split", "test"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1 and "gsub_test.json" in done.stderr
