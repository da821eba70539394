"""What all dialects share: words around screenshots, what to make of a completion that cannot be read, and checks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from mmturn.errors import DataError, ParseError, ToolError
from mmturn.grammars.gui.places import Coordinates, Screen, coordinate_words, screen_size
from mmturn.grammars.payload import shorten
from mmturn.grammars.question import question_text
from mmturn.gui_actions import canonical_key, finish
from mmturn.interfaces import ActionGrammar
from mmturn.types import Action, Observation, Task, ToolSpec, View

Invalid = Literal["error", "finish", "infeasible"]
"""What a completion counts for that cannot be read. ``error``: a bad action, which ``rollout.bad_action`` deals with.
``finish``: the end, as if it were done. ``infeasible``: the end, as if the task were said to be impossible."""
Form = tuple[str, str]
"""Names of the canonical actions that a way of writing stands for (one of them is enough), and that way."""
MAX_CHARS = 50_000
"""A longer completion is refused unread."""


@dataclass(frozen=True)
class DialectConfig:
    """Settings of every dialect."""

    invalid: Invalid = "error"
    """What a reply counts for that cannot be read."""
    instructions: Literal["full", "brief"] = "full"
    """full: rules in the system message. brief: the names of the actions alone."""


@dataclass(frozen=True)
class PointingConfig(DialectConfig):
    """Settings of dialects that may point by any rule."""

    coordinates: Coordinates = "view_px"
    """Coordinate rule of points."""


class Dialect(ABC):
    """Base of the dialects. One implements ``_read`` and ``_write`` and names its ``forms``. Pure: no state, no pixels.

    A completion may hold several actions where the dialect has a way to write them. ``parse`` gives canonical actions
    that the environment's tools hold; points are those of the newest view.
    """

    name: str
    intro: ClassVar[str] = "You use a screen to carry out a task. You are shown a screenshot after each turn."
    forms: ClassVar[tuple[Form, ...]] = ()
    layout: ClassVar[str] = ""
    """How a turn is laid out, for the system message."""
    error: ClassVar[str] = "Error: "

    def __init__(self, config: Any) -> None:
        self.config = config

    @property
    def coordinates(self) -> str | None:
        """The coordinate rule; None for a dialect without points."""
        found: str | None = getattr(self.config, "coordinates", None)
        return found

    def system(self, task: Task, tools: Sequence[ToolSpec]) -> str:
        """System message: the layout of a turn and the ways to write the actions that the tools allow."""
        known = {tool.name for tool in tools} | {"finish"}
        if self.config.instructions == "brief":
            return "actions: " + ", ".join(sorted(known))
        ways = [way for names, way in self.forms if known.intersection(names.split())]
        lines = [self.intro, self.layout, "", "The actions:", *(f"- {way}" for way in ways)]
        if self.coordinates is not None:
            lines += ["", f"Points are given {coordinate_words(self.coordinates)}."]
        return "\n".join(lines)

    def opening(self, task: Task, observation: Observation) -> Observation:
        """First user message: what the environment shows, the task and, where coordinates are pixels, the size."""
        return Observation((*observation.parts, question_text(task), self._size_words(observation.views)))

    def reply(self, task: Task, observation: Observation, turn: int, max_turns: int) -> Observation:
        """Later user message: what the environment shows, as it is."""
        return observation

    def bad_action(self, task: Task, message: str, views: Sequence[View], turn: int, max_turns: int) -> Observation:
        """User message after an action that could not be parsed or carried out."""
        return Observation((f"{self.error}{message}",), is_error=True)

    def parse(self, text: str, views: Sequence[View], tools: Sequence[ToolSpec], turn: int) -> tuple[Action, ...]:
        """Actions of a completion, at least one. One that cannot be read is what ``invalid`` says. Raises ParseError
        and nothing else, in linear time."""
        try:
            if len(text) > MAX_CHARS:
                raise ParseError(f"the reply is too long: {len(text)} characters, at most {MAX_CHARS}")
            actions = self._read(text, Screen(self.coordinates or "view_px", views), tools)
            if not actions:
                raise ParseError("the reply holds no action")
            _check_known(actions, tools)
        except (ParseError, ToolError, DataError) as error:
            invalid: Invalid = self.config.invalid
            if invalid == "error":
                raise ParseError(f"{error!s:.500}") from None
            status = "success" if invalid == "finish" else "infeasible"
            return (finish("", status, invalid=f"{error!s:.500}"),)
        return actions

    def format(self, action: Action, views: Sequence[View], thought: str = "") -> str:
        """Text of an action. Raises DataError for one that the dialect cannot express."""
        return self.format_turn((action,), views, thought)

    def format_turn(self, actions: Sequence[Action], views: Sequence[View], thought: str = "") -> str:
        """Text of a turn of one or more actions. Raises DataError for what the dialect cannot express."""
        if not actions:
            raise DataError("a turn needs at least one action")
        try:
            return self._write(tuple(actions), Screen(self.coordinates or "view_px", views), thought)
        except (ToolError, ParseError) as error:
            raise DataError(f"the {self.name} dialect cannot write {actions[0].name}: {error}") from None

    @abstractmethod
    def _read(self, text: str, screen: Screen, tools: Sequence[ToolSpec]) -> tuple[Action, ...]:
        """Actions of a completion. Raises ParseError, ToolError or DataError."""

    @abstractmethod
    def _write(self, actions: tuple[Action, ...], screen: Screen, thought: str) -> str:
        """Text of a turn. Raises DataError, ToolError or ParseError."""

    def _size_words(self, views: Sequence[View]) -> str:
        size = screen_size(self.coordinates, views[-1]) if self.coordinates is not None and views else None
        return "" if size is None else f"\nThe screen is {size.width} x {size.height} pixels."

    def _cannot(self, action: Action, why: str = "") -> DataError:
        """The error for an action that has no form here."""
        detail = f": {why}" if why else ""
        return DataError(f"the {self.name} dialect cannot write {action.name} {dict(action.arguments)!r:.200}{detail}")


def can_express(grammar: ActionGrammar, action: Action, views: Sequence[View]) -> bool:
    """Whether a grammar has a way to write an action. ``views``: those that ``Action.view`` counts."""
    try:
        grammar.format(action, views)
    except DataError:
        return False
    return True


def written_key(key: str, names: dict[str, str], dialect: str) -> str:
    """A canonical key by a dialect's own name. Raises DataError where that would be read as another key."""
    written = names.get(key, key)
    try:
        if canonical_key(written) == key:
            return written
    except ToolError:
        pass
    raise DataError(f"the {dialect} dialect has no name for the key {key!r}")


def only(action: Action, *names: str) -> bool:
    """Whether an action has no other arguments than these."""
    return set(action.arguments) <= set(names)


def without_drag_moves(actions: Sequence[Action]) -> tuple[Action, ...]:
    """Actions with each move that a drag to a single point follows made the beginning of that drag's path."""
    merged: list[Action] = []
    for action in actions:
        before = merged[-1] if merged else None
        if (
            action.name == "drag"
            and len(action.arguments["path"]) == 1
            and before is not None
            and before.name == "move"
            and "point" in before.arguments
        ):
            path = [before.arguments["point"], *action.arguments["path"]]
            merged[-1] = Action("tool", "drag", {**action.arguments, "path": path}, action.view)
        else:
            merged.append(action)
    return tuple(merged)


def _check_known(actions: Sequence[Action], tools: Sequence[ToolSpec]) -> None:
    known = [tool.name for tool in tools]
    for action in actions:
        if action.kind != "answer" and action.name not in known:
            raise ParseError(f"{shorten(action.name)} cannot be done here; what can: {', '.join(known) or 'nothing'}")
