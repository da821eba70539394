"""Updates with nothing left to learn from: said at once, and after some in a row the end of the run."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mmturn.errors import MmturnError

MAX_IN_A_ROW = 3
"""One such update is bad luck; so many are an engine, environment or data set that never works."""


class Outages:
    """Watches over a run; ``say`` shows a remark in the terminal."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._in_a_row = 0

    def note(self, update: int, total: int, problems: Sequence[str], what: str) -> bool:
        """Whether an update has nothing to learn from: each of its ``total`` ``what`` has its problem.

        ``problems`` are those of all processes. Raises MmturnError at the last of ``MAX_IN_A_ROW``.
        """
        if not total or len(problems) < total:
            self._in_a_row = 0
            return False
        self._in_a_row += 1
        self._say(f"update {update} learned nothing: all of its {total} {what} failed; the first: {problems[0]}")
        if self._in_a_row == MAX_IN_A_ROW:
            raise MmturnError(
                f"the {MAX_IN_A_ROW} updates up to {update} learned nothing, since all of their {what} failed: an "
                f"engine, environment or image folder is broken, and the run stops here. The first: {problems[0]}"
            )
        return True
