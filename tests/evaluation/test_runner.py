"""An evaluation writes each sample as it finishes, resumes without redoing any, and loses none to a failure."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mmturn.errors import DataError
from mmturn.evaluation.report import compare, make_report
from mmturn.evaluation.rows import crops_of, read_rows, run_info, score_trajectory, task_hash
from mmturn.evaluation.runner import evaluate, rescore
from mmturn.evaluation.suites import AnswerScorer
from mmturn.geometry import Box
from mmturn.store.jsonl import StoreWarning
from mmturn.store.trajectories import read_trajectories
from mmturn.types import Score, StopReason, Task, Trajectory

Make = Callable[..., Any]
INFO = run_info("test", {"model": "m"}, sampling={"temperature": 0.0}, seeds={"run": 3, "bootstrap": 1})


class Roll:
    """Yields trajectories, notes what was asked for, and stops with an error after ``limit`` of them."""

    def __init__(self, make: Make, limit: int = 10**9, samples: int = 1, answer: str = "7") -> None:
        self.make, self.limit, self.samples, self.answer = make, limit, samples, answer
        self.rolled: list[str] = []

    def __call__(self, tasks: Sequence[Task]) -> Iterator[Trajectory]:
        for task in reversed(tasks):
            for index in range(self.samples):
                if len(self.rolled) == self.limit:
                    raise KeyboardInterrupt
                self.rolled.append(task.id)
                yield self.make(task, self.answer, index=index)


def test_rows_and_trajectories_are_written(tmp_path: Path, make_task: Make, make_trajectory: Make) -> None:
    tasks = [make_task(i) for i in range(4)]
    seen: list[tuple[int, int, bool]] = []
    report = evaluate(
        tasks,
        Roll(make_trajectory),
        AnswerScorer(),
        tmp_path,
        info=INFO,
        progress=lambda done, total, row: seen.append((done, total, row is None)),
    )
    assert seen == [(0, 4, True), (1, 4, False), (2, 4, False), (3, 4, False), (4, 4, False)]
    rows = list(read_rows(tmp_path))
    assert [row.task_id for row in rows] == ["q3", "q2", "q1", "q0"]
    assert {row.extractor for row in rows} == {"mmturn/number-1"} == set(report.extractors)
    assert (rows[0].value, rows[0].answer, rows[0].gold, rows[0].groups) == (1.0, "7", "7", {"level": "2"})
    assert (rows[0].num_sampled_tokens, rows[0].seconds, rows[0].cluster) == (2, 0.5, "scene:1")
    assert [t.task.id for t in read_trajectories(tmp_path)] == ["q3", "q2", "q1", "q0"]
    stored = json.loads((tmp_path / "report.json").read_text())
    assert stored["overall"]["accuracy"] == 1.0 and stored["info"]["config"] == {"model": "m"}
    assert stored["info"]["packages"]["mmturn"] and stored["info"]["seeds"] == {"run": 3, "bootstrap": 1}
    assert "100.0 %" in (tmp_path / "report.html").read_text()


def test_a_resumed_run_redoes_nothing(tmp_path: Path, make_task: Make, make_trajectory: Make) -> None:
    tasks = [make_task(i) for i in range(6)]
    first = Roll(make_trajectory, limit=2)
    with pytest.raises(KeyboardInterrupt):
        evaluate(tasks, first, AnswerScorer(), tmp_path, info=INFO)
    second = Roll(make_trajectory)
    other_run = replace(INFO, run_id="other", started="later")
    report = evaluate(tasks, second, AnswerScorer(), tmp_path, info=other_run)
    assert (first.rolled, second.rolled) == (["q5", "q4"], ["q3", "q2", "q1", "q0"])
    assert (report.overall.n, report.info.run_id) == (6, INFO.run_id)
    third = Roll(make_trajectory)
    assert evaluate(tasks, third, AnswerScorer(), tmp_path, info=INFO) == report
    assert third.rolled == []
    assert len(list(read_rows(tmp_path))) == len(list(read_trajectories(tmp_path))) == 6


def test_another_config_or_task_is_rolled_anew(tmp_path: Path, make_task: Make, make_trajectory: Make) -> None:
    tasks = [make_task(i) for i in range(3)]
    evaluate(tasks, Roll(make_trajectory), AnswerScorer(), tmp_path, info=INFO)
    moved = [replace(task, images=tuple(path.replace("/somewhere", "/else") for path in task.images)) for task in tasks]
    changed = [*moved[:2], replace(moved[2], question="Which one?")]
    roll = Roll(make_trajectory)
    evaluate(changed, roll, AnswerScorer(), tmp_path, info=INFO)
    assert roll.rolled == ["q2"]
    other = run_info("test", {"model": "other"})
    roll = Roll(make_trajectory, answer="8")
    report = evaluate(tasks, roll, AnswerScorer(), tmp_path, info=other)
    assert len(roll.rolled) == 3 and report.overall.accuracy == 0.0
    assert len(list(read_rows(tmp_path, other.config_hash))) == 3


def test_without_resume_old_files_move_aside(tmp_path: Path, make_task: Make, make_trajectory: Make) -> None:
    tasks = [make_task(0)]
    for _ in range(3):
        roll = Roll(make_trajectory)
        evaluate(tasks, roll, AnswerScorer(), tmp_path, info=INFO, resume=False)
        assert roll.rolled == ["q0"]
    names = sorted(path.name for path in tmp_path.glob("scores*"))
    assert names == ["scores.jsonl", "scores.old-1.jsonl", "scores.old-2.jsonl"]
    assert len(list(read_trajectories(tmp_path / "trajectories.old-1.jsonl"))) == 1


def test_a_failure_is_counted_not_scored(tmp_path: Path, make_task: Make, make_trajectory: Make) -> None:
    tasks = [make_task(i) for i in range(4)]

    def roll(pending: Sequence[Task]) -> Iterator[Trajectory]:
        for task in pending:
            if task.id == "q1":
                yield make_trajectory(task, None, stop=StopReason.ENV_FAILED)
            else:
                yield make_trajectory(task)

    def scorer(trajectory: Trajectory) -> Score:
        if trajectory.task.id == "q2":
            raise RuntimeError("judge is away")
        return Score(trajectory.task.id, float("nan") if trajectory.task.id == "q3" else 1.0, "test-1", "7")

    report = evaluate(tasks, roll, scorer, tmp_path, info=INFO)
    overall = report.overall
    assert (overall.n, overall.num_failed, overall.accuracy, overall.accuracy_failed_wrong) == (4, 3, 1.0, 0.25)
    assert report.stops == {"answered": 1, "env_failed": 1, "scorer_failed": 2}
    assert report.errors[:2] == ("q1: EnvError: lost", "q2: RuntimeError: judge is away")
    assert "counted as wrong, accuracy is 25.0 %" in (tmp_path / "report.html").read_text()
    again = Roll(make_trajectory)
    evaluate(tasks, again, AnswerScorer(), tmp_path, info=INFO)
    assert again.rolled == []
    report = evaluate(tasks, again, AnswerScorer(), tmp_path, info=INFO, retry_failed=True)
    assert again.rolled == ["q3", "q2", "q1"]
    assert (report.overall.num_failed, report.overall.accuracy) == (0, 1.0)


def test_wrong_use_is_named(tmp_path: Path, make_task: Make, make_trajectory: Make) -> None:
    def call(tasks: list[Task], roll: Any = None, samples: int = 1) -> None:
        roll = roll or Roll(make_trajectory)
        evaluate(tasks, roll, AnswerScorer(), tmp_path, info=INFO, samples=samples)

    with pytest.raises(DataError, match="two tasks have the id 'q0'"):
        call([make_task(0), make_task(0)])
    with pytest.raises(DataError, match="2 of 2 samples never came back, the first is task 'q0' sample 0"):
        call([make_task(0), make_task(1)], lambda tasks: iter(()))
    with pytest.raises(DataError, match="is of task 'q9', sample 0, which nobody asked for"):
        call([make_task(0)], lambda tasks: iter([make_trajectory(make_task(9))]))
    with pytest.raises(DataError, match="samples must be at least 1"):
        call([make_task(0)], samples=0)


def test_several_samples_of_a_task(tmp_path: Path, make_task: Make, make_trajectory: Make) -> None:
    tasks = [make_task(i) for i in range(2)]
    with pytest.raises(KeyboardInterrupt):
        evaluate(tasks, Roll(make_trajectory, limit=3, samples=2), AnswerScorer(), tmp_path, info=INFO, samples=2)
    roll = Roll(make_trajectory, samples=2)
    report = evaluate(tasks, roll, AnswerScorer(), tmp_path, info=INFO, samples=2)
    assert roll.rolled == ["q0", "q0"]  # the task is asked again, its stored sample stays
    assert report.overall.n == 4 == len(list(read_rows(tmp_path)))


def test_a_trajectory_without_row_is_cut_off(tmp_path: Path, make_task: Make, make_trajectory: Make) -> None:
    tasks = [make_task(i) for i in range(3)]
    evaluate(tasks, Roll(make_trajectory), AnswerScorer(), tmp_path, info=INFO)
    scores = tmp_path / "scores.jsonl"
    scores.write_bytes(scores.read_bytes()[:-20])  # killed while the last row was written
    roll = Roll(make_trajectory)
    with pytest.warns(StoreWarning):
        report = evaluate(tasks, roll, AnswerScorer(), tmp_path, info=INFO)
    assert roll.rolled == ["q0"] and report.overall.n == 3
    assert [t.task.id for t in read_trajectories(tmp_path)] == ["q2", "q1", "q0"]


CHILD = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from conftest import build_task, build_trajectory
from mmturn.evaluation.runner import evaluate
from mmturn.evaluation.rows import run_info
from mmturn.evaluation.suites import AnswerScorer

def roll(tasks):
    for task in tasks:
        print(task.id, flush=True)
        time.sleep(0.01)
        yield build_trajectory(task)

report = evaluate([build_task(i) for i in range(30)], roll, AnswerScorer(), Path(sys.argv[1]), info=run_info("k", {}))
print("done", report.overall.n, flush=True)
"""


def test_killed_and_resumed(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-c", CHILD, str(tmp_path / "out"), str(Path(__file__).parent)]
    rolled: list[str] = []
    for stop_at in (3, 8, 5, None):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            lines: list[str] = []
            for line in child.stdout:
                lines.append(line.strip())
                if len(lines) == stop_at:
                    os.kill(child.pid, signal.SIGKILL)
                    break
            rolled += [line for line in lines if line.startswith("q")]
    assert lines[-1] == "done 30"
    ids = [row.task_id for row in read_rows(tmp_path / "out")]
    assert len(ids) == len(set(ids)) == 30
    assert len(rolled) - 30 <= 3  # at most the sample under way at each kill was rolled twice
    assert [t.task.id for t in read_trajectories(tmp_path / "out")] == ids


def test_rescoring_needs_no_roll(tmp_path: Path, make_task: Make, make_trajectory: Make) -> None:
    tasks = [make_task(i) for i in range(3)]
    evaluate(tasks, Roll(make_trajectory), AnswerScorer(), tmp_path / "a", info=INFO)
    info = run_info("test", {"model": "m", "scorer": "harsh"})

    def harsh(trajectory: Trajectory) -> Score:
        return Score(trajectory.task.id, 0.5, "harsh-1", None)

    report = rescore(read_trajectories(tmp_path / "a"), harsh, tmp_path / "b", info=info)
    assert (report.overall.accuracy, report.overall.wilson, report.overall.unparsed) == (0.5, None, 3)
    assert report.extractors == ("harsh-1",)


def test_breakdowns_and_crops(make_task: Make, make_trajectory: Make) -> None:
    good, off, wide = (90, 90, 210, 210), (150, 100, 400, 400), (99.5, 0, 300, 201)
    rows = [
        score_trajectory(make_trajectory(make_task(0), "7", (good,)), AnswerScorer(), INFO),
        score_trajectory(make_trajectory(make_task(1), "8", (off, wide)), AnswerScorer(), INFO),
        score_trajectory(make_trajectory(make_task(2), "7"), AnswerScorer(), INFO),
        score_trajectory(make_trajectory(make_task(3, boxes=()), "7", (off,)), AnswerScorer(), INFO),
        score_trajectory(make_trajectory(make_task(4), None, (off,), StopReason.TURN_LIMIT), AnswerScorer(), INFO),
    ]
    assert [row.useful_crops for row in rows] == [1, 1, 0, None, 0]
    report = make_report(INFO, rows)
    overall = report.overall
    assert (overall.crops, overall.useful_crops, overall.useful_crop_rate) == (4, 2, 0.5)
    assert overall.useful_sample_rate == 0.5
    assert (overall.mean_turns, overall.mean_crops, overall.truncated, overall.unparsed) == (2.0, 1.0, 1, 1)
    assert overall.accuracy == 0.6 and overall.num_clusters == 3
    assert {key: group.n for key, group in report.by["crops"].items()} == {"0": 1, "1": 3, "2": 1}
    assert {key: group.accuracy for key, group in report.by["level"].items()} == {"1": 2 / 3, "2": 0.5}
    assert report.macro == {"level": (2 / 3 + 0.5) / 2}
    assert overall.wilson is not None and overall.bootstrap is not None
    assert "clustered" in overall.bootstrap.method


def test_crop_facts_of_several_calls(make_task: Make, make_trajectory: Make) -> None:
    trajectory = make_trajectory(make_task(0), "7", ((1, 2, 3, 4),))
    turn = replace(trajectory.turns[0], facts={"crop": [[1, 2, 3, 4], [5, 6, 7, 8]]})
    assert crops_of(replace(trajectory, turns=(turn,))) == [Box(1, 2, 3, 4), Box(5, 6, 7, 8)]
    assert crops_of(replace(trajectory, turns=(replace(turn, facts={"crop": None}),))) == []
    no_ids = replace(trajectory, turns=(replace(turn, token_ids=None),))
    assert score_trajectory(no_ids, AnswerScorer(), INFO).num_sampled_tokens is None


def test_comparison_is_paired(make_task: Make, make_trajectory: Make) -> None:
    def rows(answers: str) -> list[Any]:
        return [
            score_trajectory(
                make_trajectory(make_task(i), a, stop=StopReason.ENV_FAILED if a == "x" else StopReason.ANSWERED),
                AnswerScorer(),
                INFO,
            )
            for i, a in enumerate(answers)
        ]

    result = compare(rows("8888887777x"), rows("77777777787"))
    assert (result.n, result.left_out) == (10, 1)
    assert (result.first.accuracy, result.second.accuracy) == (0.4, 0.9)
    assert result.mcnemar is not None and (result.mcnemar.gained, result.mcnemar.lost) == (6, 1)
    assert result.difference.mean == 0.5 and result.difference.num_clusters == 5
    assert result.intervals_overlap is True
    assert result.to_json()["mcnemar"]["p_value"] == result.mcnemar.p_value
    with pytest.raises(DataError, match="nothing to compare"):
        compare(rows("7"), [])
    with pytest.raises(DataError, match="task 'q0' differs between"):
        compare(rows("7"), [replace(rows("7")[0], task_hash="x")])
    with pytest.raises(DataError, match=r"read by 'mmturn/number-1' in one evaluation and 'z' in the other"):
        compare(rows("7"), [replace(rows("7")[0], extractor="z")])


def test_the_report_page_escapes(tmp_path: Path, make_task: Make, make_trajectory: Make) -> None:
    evil = "<script>alert(1)</script>\"'&"
    tasks = [make_task(0, id=evil, meta={"level": evil, "scene": evil})]
    info = run_info(evil, {evil: evil}, sampling={evil: evil})

    def roll(pending: Sequence[Task]) -> Iterator[Trajectory]:
        for task in pending:
            yield replace(make_trajectory(task, stop=StopReason.ENGINE_FAILED), error=evil)

    evaluate(tasks, roll, AnswerScorer(), tmp_path, info=info)
    page = (tmp_path / "report.html").read_text()
    assert "<script" not in page and page.count("&lt;script&gt;") >= 5


def test_the_task_hash_sees_content_alone(make_task: Make) -> None:
    task = make_task(0)
    assert task_hash(task) == task_hash(replace(task, images=("/else/scene0.png",)))
    assert task_hash(task) != task_hash(replace(task, answer="8"))
    assert task_hash(task) != task_hash(replace(task, images=("/somewhere/other.png",)))
