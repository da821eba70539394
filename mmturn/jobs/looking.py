"""Finding what there is to look at in a run."""

from __future__ import annotations

from pathlib import Path

from mmturn.errors import DataError
from mmturn.store.trajectories import FILE_NAME


def trajectories_of(run: Path) -> Path:
    """The newest stored trajectories of a run: itself, its rollouts, or an evaluation within. Raises DataError."""
    if run.is_file() or (run / FILE_NAME).is_file():
        return run
    found = sorted(run.rglob(FILE_NAME), key=lambda path: path.stat().st_mtime) if run.is_dir() else []
    if not found:
        raise DataError(f"{run}: no trajectories here; expected a .jsonl file or a folder that holds {FILE_NAME}")
    return found[-1].parent
