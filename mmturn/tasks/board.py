"""Tic-tac-toe: its rules, and tasks that begin from many positions."""

from __future__ import annotations

import random
from collections.abc import Sequence

from mmturn.types import Task

SEATS = ("x", "o")
"""In the order of play."""
CELLS = 9
_LINES = ((1, 2, 3), (4, 5, 6), (7, 8, 9), (1, 4, 7), (2, 5, 8), (3, 6, 9), (1, 5, 9), (3, 5, 7))
_QUESTION = "Three in a row win. It is your move."
_MOST_MARKS = 4
"""Marks of an opening: two of each, so that nobody has won yet."""


def moves_next(played: Sequence[int]) -> str:
    """The seat whose turn it is; ``played``: cells, 1 to 9 row by row, in the order of play."""
    return SEATS[len(played) % 2]


def winner(played: Sequence[int]) -> str | None:
    """The seat with three in a row; None: nobody."""
    for first, seat in enumerate(SEATS):
        own = set(played[first::2])
        if any(own.issuperset(line) for line in _LINES):
            return seat
    return None


def board_tasks(split: str, count: int, *, seed: int = 0) -> list[Task]:
    """``count`` tasks of one split, each with an opening of 0 to 4 marks, which decides who moves first. A function of
    split and seed; positions come again."""
    dice = random.Random(f"board/{split}/{seed}")
    tasks = []
    for number in range(count):
        opening = dice.sample(range(1, CELLS + 1), dice.randint(0, _MOST_MARKS))
        tasks.append(
            Task(f"board-{split}-{number:05d}", _QUESTION, meta={"game": "tic_tac_toe", "opening": opening})
        )  # fmt: skip
    return tasks
