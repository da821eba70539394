"""Tic-tac-toe on a board that is shown as an image: two seats, one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw

from mmturn.errors import ConfigError, EnvError, ToolError
from mmturn.interfaces import SizeRule, Step, Tool
from mmturn.media.views import fit
from mmturn.tasks.board import CELLS, SEATS, moves_next, winner
from mmturn.types import Action, Json, Observation, PixelBudget, Task, ToolSpec, View

if TYPE_CHECKING:
    from mmturn.media.store import ImageStore

_MARK = ToolSpec(
    name="mark",
    description="Puts your mark into an empty cell. Cells are numbered 1 to 9, row by row from the top left.",
    parameters={
        "type": "object",
        "properties": {"cell": {"type": "integer", "minimum": 1, "maximum": CELLS}},
        "required": ["cell"],
    },
)
_CELL_PX = 48
_COLOURS = {"x": (200, 40, 40), "o": (40, 80, 200)}


@dataclass(frozen=True)
class BoardConfig:
    """Settings of the board environment."""

    budget: tuple[int, int] = (3_136, 1_003_520)
    """Least and most pixels of the board as shown; it is drawn with 144 x 144."""

    def __post_init__(self) -> None:
        least, most = self.budget
        if not 1 <= least <= most:
            raise ConfigError(f"budget must be [least, most] pixels with 1 <= least <= most, got {[least, most]}")


class Board:
    """The seats ``x`` and ``o`` mark cells by turns; three in a row win, a full board is a draw, an answer resigns.

    ``Task.meta["opening"]`` lists the cells that are marked already, in the order of play, x first. Facts of a step:
    ``cell``, the number that was marked; at the end ``result``, seat -> 1.0 won, -1.0 lost, 0.0 a draw. Both seats are
    shown the board alone, so that neither reads what the other thought.
    """

    Config = BoardConfig
    tools = (_MARK,)

    def __init__(self, config: BoardConfig, store: ImageStore, size_rule: SizeRule, tools: Sequence[Tool]) -> None:
        if tools:
            raise ConfigError("the board has the tool `mark` and no other: set tools: []")
        self.config, self.store, self.size_rule = config, store, size_rule
        self._played: list[int] | None = None

    @property
    def first_seat(self) -> str:
        """Who moves next."""
        return moves_next(self._played or ())

    def role(self, seat: str) -> str:
        """Which mark is a seat's own."""
        return f"You play {seat.upper()}."

    def reset(self, task: Task, seed: int) -> Observation:
        """Show the opening position. Raises EnvError for one that is none."""
        self._played = []
        opening: Json = task.meta.get("opening", [])
        for cell in opening if isinstance(opening, list | tuple) else [opening]:
            if not _is_free(cell, self._played) or winner(self._played):
                raise EnvError(f"task {task.id}: meta.opening {opening!r} is no position of a game under way")
            self._played.append(cell)
        if winner(self._played) or len(self._played) == CELLS:
            raise EnvError(f"task {task.id}: meta.opening {opening!r}: this game is over")
        return Observation((self._drawn(),))

    def step(self, actions: tuple[Action, ...]) -> Step:
        """Carry out one move. Raises ToolError for an impossible one, after which the same seat may try again."""
        if self._played is None:
            raise EnvError("step before reset")
        seat, action = moves_next(self._played), actions[0]
        if action.kind == "answer":
            answer = str(action.arguments.get("text", ""))
            return Step(None, terminated=True, facts={"result": _won(_other(seat))}, answer=answer)
        if len(actions) > 1 or action.name != "mark":
            raise ToolError("one move at a time: call mark once, and nothing else")
        cell = action.arguments.get("cell")
        if not isinstance(cell, int) or not _is_free(cell, self._played):
            free = ", ".join(str(number) for number in range(1, CELLS + 1) if number not in self._played)
            raise ToolError(f"mark: cell {cell!r} is not an empty cell; those are {free}")
        self._played.append(cell)
        facts: dict[str, Json] = {"cell": cell}
        won = winner(self._played)
        if won or len(self._played) == CELLS:
            result = _won(won) if won else dict.fromkeys(SEATS, 0.0)
            return Step(None, terminated=True, facts={**facts, "result": result})
        return Step(Observation((self._drawn(),)), terminated=False, facts=facts, seat=_other(seat))

    def note_shown(self, views: Sequence[View]) -> None:
        """Moves refer to no view."""

    def close(self) -> None:
        """Forget the game."""
        self._played = None

    def _drawn(self) -> View:
        """The position as a picture."""
        side = 3 * _CELL_PX
        image = Image.new("RGB", (side, side), (250, 250, 245))
        pen = ImageDraw.Draw(image)
        for at in (_CELL_PX, 2 * _CELL_PX):
            pen.line((at, 4, at, side - 5), (60, 60, 60), 2)
            pen.line((4, at, side - 5, at), (60, 60, 60), 2)
        for number, cell in enumerate(self._played or ()):
            mark = SEATS[number % 2]
            left, top = (cell - 1) % 3 * _CELL_PX, (cell - 1) // 3 * _CELL_PX
            near, far = 10, _CELL_PX - 10
            if mark == "x":
                pen.line((left + near, top + near, left + far, top + far), _COLOURS[mark], 5)
                pen.line((left + near, top + far, left + far, top + near), _COLOURS[mark], 5)
            else:
                pen.ellipse((left + near, top + near, left + far, top + far), outline=_COLOURS[mark], width=5)
        return fit(self.store.put_image(image), self.size_rule, PixelBudget(*self.config.budget))


def _is_free(cell: Json, played: Sequence[int]) -> bool:
    return isinstance(cell, int) and not isinstance(cell, bool) and 1 <= cell <= CELLS and cell not in played


def _other(seat: str) -> str:
    return SEATS[1 - SEATS.index(seat)]


def _won(seat: str) -> dict[str, Json]:
    return {seat: 1.0, _other(seat): -1.0}
