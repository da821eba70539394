"""Stored trajectories as runs learn from them: found, read in an order that names decide, graded where they are not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from mmturn.build import Policy
from mmturn.errors import DataError
from mmturn.interfaces import Rubric
from mmturn.store.trajectories import FILE_NAME, images_folder, read_trajectories, trajectory_file
from mmturn.training.rl import ROLLOUTS_NAME
from mmturn.types import Row, Trajectory


def rollout_files(path: Path) -> list[Path]:
    """Where a run keeps the rollouts of its processes; a file or a folder of trajectories is itself."""
    if path.is_file() or (path / FILE_NAME).is_file():
        return [path]
    return sorted(file.parent for file in path.glob(f"{ROLLOUTS_NAME}*/{FILE_NAME}")) or [path]


def check_stored(path: Path) -> None:
    """Raise DataError where there are no trajectories."""
    for folder in rollout_files(path):
        trajectory_file(folder)


def stored_trajectories(policy: Policy, sources: Iterable[Path]) -> list[Trajectory]:
    """The trajectories of some files or folders; the policy's store finds their images."""
    found: list[Trajectory] = []
    for source in sources:
        policy.store.add_folder(images_folder(source))
        found += read_trajectories(trajectory_file(source))
    return found


def rewarded(trajectories: Iterable[Trajectory], rubric: Rubric) -> list[Trajectory]:
    """In order of group, index and id; ``rubric`` grades what has no reward yet and did not fail."""
    ordered = sorted(trajectories, key=lambda t: (t.group, t.index, t.id))
    return [t if t.reward is not None or t.stop.status == "failed" else replace(t, reward=rubric(t)) for t in ordered]


def trainable(rows: Sequence[Row], trajectory: Trajectory) -> list[Row]:
    """The rows, if anything in them was sampled. Raises DataError."""
    if not any(any(row.loss_mask) for row in rows):
        raise DataError(f"trajectory {trajectory.id}: nothing in it was sampled")
    return list(rows)
