"""Runs a benchmark: one row per sample as it finishes, resumed without redoing any."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

from mmturn.errors import DataError
from mmturn.evaluation.report import EvalReport, make_report, write_report_files
from mmturn.evaluation.rows import (
    FILE_NAME,
    SCORES,
    RunInfo,
    ScoreRow,
    read_rows,
    score_trajectory,
    stored_info,
    task_hash,
)
from mmturn.interfaces import Scorer
from mmturn.store.codec import encode
from mmturn.store.jsonl import LineWriter
from mmturn.store.trajectories import FILE_NAME as TRAJECTORIES_NAME
from mmturn.store.trajectories import TrajectoryWriter
from mmturn.types import Task, Trajectory

if TYPE_CHECKING:
    from mmturn.media.store import ImageStore

Roll = Callable[[Sequence[Task]], Iterator[Trajectory]]
"""Runs tasks and yields their trajectories as they finish, in any order."""
Progress = Callable[[int, int, ScoreRow | None], None]
"""(samples done, samples in all, the row just written; None at the start)."""

Key = tuple[str, int]
_SYNC_S = 1.0


def evaluate(
    tasks: Sequence[Task],
    roll: Roll,
    scorer: Scorer,
    out_dir: Path,
    *,
    info: RunInfo,
    images: ImageStore | None = None,
    samples: int = 1,
    resume: bool = True,
    retry_failed: bool = False,
    keep_trajectories: bool = True,
    progress: Progress | None = None,
    also: Callable[[Trajectory, ScoreRow], object] | None = None,
) -> EvalReport:
    """Evaluate ``tasks`` and write scores.jsonl, trajectories.jsonl with images/, report.json and report.html.

    ``samples``: trajectories that ``roll`` yields per task (index 0 up). Rows of the same task content, index and
    ``info.config_hash`` that are there already are reused; with ``retry_failed`` only those that did not fail. Without
    ``resume``, files of an earlier run are moved aside (``scores.old-1.jsonl``), never deleted. ``also`` is called with
    each new sample before it is stored.
    Raises DataError for two tasks of one id, and for a roll that leaves samples out or yields an unknown task.
    """
    wanted = _wanted(tasks, samples)
    if not resume:
        _move_aside(out_dir)
    earlier = stored_info(out_dir)
    if earlier is not None and earlier.config_hash == info.config_hash:
        info = replace(info, run_id=earlier.run_id, started=earlier.started)
    done = _finished(out_dir, wanted, info, retry_failed)
    pending = [task for task in tasks if any((task.id, index) not in done for index in range(samples))]
    if progress is not None:
        progress(len(done), len(wanted), None)
    with _Sink(out_dir, info, images, keep_trajectories) as sink:
        for trajectory in roll(pending) if pending else ():
            key = _key(trajectory, wanted)
            if key in done:  # a task with several samples of which some were there already
                continue
            row = score_trajectory(trajectory, scorer, info)
            if also is not None:
                also(trajectory, row)
            done[key] = sink.write(trajectory, row)
            if progress is not None:
                progress(len(done), len(wanted), done[key])
    missing = [key for key in wanted if key not in done]
    if missing:
        raise DataError(
            f"{out_dir}: {len(missing)} of {len(wanted)} samples never came back, the first is task {missing[0][0]!r} "
            f"sample {missing[0][1]}; run again to resume"
        )
    report = make_report(info, [done[key] for key in wanted])
    write_report_files(out_dir, report)
    return report


def rescore(trajectories: Iterable[Trajectory], scorer: Scorer, out_dir: Path, *, info: RunInfo) -> EvalReport:
    """Score stored trajectories anew, with another rule perhaps, into a folder of its own."""
    _move_aside(out_dir)
    rows: list[ScoreRow] = []
    with LineWriter(out_dir / FILE_NAME, SCORES, {"info": encode(info, RunInfo)}) as scores:
        for trajectory in trajectories:
            rows.append(score_trajectory(trajectory, scorer, info))
            scores.write(encode(rows[-1], ScoreRow))
    report = make_report(info, rows)
    write_report_files(out_dir, report)
    return report


def _wanted(tasks: Sequence[Task], samples: int) -> dict[Key, str]:
    """(task id, sample) -> hash of the task, in order."""
    if samples < 1:
        raise DataError(f"samples must be at least 1, got {samples}")
    wanted: dict[Key, str] = {}
    for task in tasks:
        if (task.id, 0) in wanted:
            raise DataError(f"two tasks have the id {task.id!r}; ids must be unique within an evaluation")
        wanted.update(dict.fromkeys(((task.id, index) for index in range(samples)), task_hash(task)))
    return wanted


def _key(trajectory: Trajectory, wanted: dict[Key, str]) -> Key:
    key = (trajectory.task.id, trajectory.index)
    if key not in wanted:
        raise DataError(f"trajectory {trajectory.id!r} is of task {key[0]!r}, sample {key[1]}, which nobody asked for")
    return key


def _finished(out_dir: Path, wanted: dict[Key, str], info: RunInfo, retry_failed: bool) -> dict[Key, ScoreRow]:
    """Rows that count already; of several for one sample the last one."""
    if not (out_dir / FILE_NAME).exists():
        return {}
    done: dict[Key, ScoreRow] = {}
    for row in read_rows(out_dir, info.config_hash):
        key = (row.task_id, row.index)
        if wanted.get(key) == row.task_hash:
            done[key] = row
    if retry_failed:
        return {key: row for key, row in done.items() if row.status != "failed"}
    return done


class _Sink:
    """Both files of an evaluation. A killed process keeps every row; a lost machine all but the last second's."""

    def __init__(self, out_dir: Path, info: RunInfo, images: ImageStore | None, keep_trajectories: bool) -> None:
        self._scores = LineWriter(out_dir / FILE_NAME, SCORES, {"info": encode(info, RunInfo)})
        self._kept: TrajectoryWriter | None = None
        self._synced = time.monotonic()
        if keep_trajectories:
            scored = [row.stored_bytes for row in read_rows(out_dir) if row.stored_bytes is not None]
            self._kept = TrajectoryWriter(out_dir, images)
            if max(scored, default=self._kept.position) < self._kept.position:
                self._kept.rewind(max(scored))  # trajectories that never got a row

    def write(self, trajectory: Trajectory, row: ScoreRow) -> ScoreRow:
        """Store a sample; its row as stored."""
        due = time.monotonic() - self._synced > _SYNC_S
        if self._kept is not None:
            # The trajectory goes first: a crash in between leaves one without a row, cut off on resuming.
            self._kept.write(trajectory, sync=due)
            row = replace(row, stored_bytes=self._kept.position)
        self._scores.write(encode(row, ScoreRow), sync=due)
        self._synced = time.monotonic() if due else self._synced
        return row

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._kept is not None:
            self._kept.close()
        self._scores.close()


def _move_aside(out_dir: Path) -> None:
    for name in (FILE_NAME, TRAJECTORIES_NAME):
        path = out_dir / name
        if path.exists():
            number = 1
            while (aside := path.with_name(f"{path.stem}.old-{number}.jsonl")).exists():
                number += 1
            os.replace(path, aside)
