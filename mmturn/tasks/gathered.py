"""Tasks gathered from the files of a benchmark: bad rows are named and left out, and ids are unique."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mmturn.errors import DataError
from mmturn.tasks.rows import RowProblem
from mmturn.types import Task


class Gathered:
    """The good tasks of a benchmark, in order, and a problem for each row that cannot be used."""

    def __init__(self) -> None:
        self.tasks: list[Task] = []
        self.problems: list[RowProblem] = []
        self._ids: set[str] = set()

    def add(self, task: Task) -> None:
        """Take a task. Raises DataError for an id that is there already."""
        if task.id in self._ids:
            raise DataError(f"the id {task.id!r} is there twice")
        self._ids.add(task.id)
        self.tasks.append(task)

    @contextmanager
    def row(self, where: str, line: int | None = None) -> Iterator[None]:
        """What is done within is about the row at ``where``: what it lacks, or has wrong, is a problem of it alone."""
        try:
            yield
        except (DataError, KeyError, TypeError, ValueError) as error:
            reason = f"there is no {error}" if isinstance(error, KeyError) else str(error)
            self.problems.append(RowProblem(where, reason, line))

    def none(self, what: str) -> DataError:
        """The error of a place that ``what`` names, of which nothing is good: with its first problems."""
        shown = "\n  ".join(map(str, self.problems[:5])) or "it holds no rows"
        return DataError(f"{what}:\n  {shown}")
