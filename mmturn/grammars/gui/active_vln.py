"""ActiveVLN's turn: up to three moves of a walker, with commas between them, and nothing else.

Source: ActiveVLN, arXiv 2509.12618, vlnce_server/prompt.py and utils/parse_utils.py: ``move forward 25cm`` (50cm,
75cm), ``turn left 15 degrees`` (30, 45; for RxR 30, 60, 90), ``stop``. The instruction is repeated with every
observation. A reply in another form ends the episode with nothing: set ``rollout.bad_action: end``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from mmturn.errors import ConfigError, DataError, ParseError
from mmturn.grammars.gui.dialect import Dialect, DialectConfig, only
from mmturn.grammars.gui.places import Screen
from mmturn.grammars.payload import shorten
from mmturn.gui_actions import act, finish, finish_status
from mmturn.types import Action, Observation, Task, ToolSpec

_MOVE = re.compile(r"move forward ([0-9]{1,4})cm")
_TURN = re.compile(r"turn (left|right) ([0-9]{1,3}) degrees")


@dataclass(frozen=True)
class ActiveVlnConfig(DialectConfig):
    """Settings of the active_vln grammar."""

    steps_cm: tuple[int, ...] = (25, 50, 75)
    """Distances that a move may have."""
    turns_degrees: tuple[int, ...] = (15, 30, 45)
    """Angles that a turn may have: R2R's; RxR's are 30, 60 and 90."""
    max_actions: int = 3
    """Most actions of one reply."""

    def __post_init__(self) -> None:
        for name, most in (("steps_cm", 9999), ("turns_degrees", 360)):
            values = getattr(self, name)
            if not values or not all(1 <= value <= most for value in values):
                raise ConfigError(f"grammar.{name} must list numbers from 1 to {most}, got {list(values)}")
        if self.max_actions < 1:
            raise ConfigError(f"grammar.max_actions must be at least 1, got {self.max_actions}")


class ActiveVlnGrammar(Dialect):
    """Reads and writes ActiveVLN's moves."""

    name = "active_vln"
    Config = ActiveVlnConfig

    def __init__(self, config: ActiveVlnConfig | None = None) -> None:
        super().__init__(config or ActiveVlnConfig())

    def system(self, task: Task, tools: Sequence[ToolSpec]) -> str:
        """System message: the moves."""
        steps = ", ".join(f"move forward {step}cm" for step in self.config.steps_cm)
        turns = ", ".join(
            f"turn {side} {angle} degrees" for side in ("left", "right") for angle in self.config.turns_degrees
        )
        if self.config.instructions == "brief":
            steps, turns = ("|".join(map(str, some)) for some in (self.config.steps_cm, self.config.turns_degrees))
            return f"actions: move forward {steps}cm, turn left|right {turns} degrees, stop"
        return (
            "You walk through a building and follow an instruction. You see what lies ahead of you. Reply with one to "
            f"{self.config.max_actions} actions with commas between them, and nothing else. The actions: {steps}, "
            f"{turns}, and stop, once you have arrived."
        )

    def opening(self, task: Task, observation: Observation) -> Observation:
        """First user message: what is seen, and the instruction."""
        return self._asked("[Initial Observation]:", task, observation)

    def reply(self, task: Task, observation: Observation, turn: int, max_turns: int) -> Observation:
        """Later user message: what is seen now, and the instruction again."""
        return self._asked("After that, the observation is:", task, observation)

    def _asked(self, head: str, task: Task, observation: Observation) -> Observation:
        tail = f"\nInstruction: {task.question}\nDecide your next action."
        return Observation((head, *observation.parts, tail), observation.is_error)

    def _read(self, text: str, screen: Screen, tools: Sequence[ToolSpec]) -> tuple[Action, ...]:
        words = [word.strip() for word in text.split(",") if word.strip()]
        if len(words) > self.config.max_actions:
            raise ParseError(f"{len(words)} actions in one reply; at most {self.config.max_actions} are allowed")
        return tuple(self._action(word) for word in words)

    def _action(self, word: str) -> Action:
        if word == "stop":
            return finish()
        move, turn = _MOVE.fullmatch(word), _TURN.fullmatch(word)
        if move is not None and int(move.group(1)) in self.config.steps_cm:
            return act("move_forward", distance_cm=int(move.group(1)))
        if turn is not None and int(turn.group(2)) in self.config.turns_degrees:
            angle = int(turn.group(2))
            return act("turn", degrees=angle if turn.group(1) == "left" else -angle)
        raise ParseError(f"{shorten(word)} is none of the actions")

    def _write(self, actions: tuple[Action, ...], screen: Screen, thought: str) -> str:
        if len(actions) > self.config.max_actions:
            raise DataError(f"a reply has at most {self.config.max_actions} actions, got {len(actions)}")
        return ", ".join(self._word(action) for action in actions)

    def _word(self, action: Action) -> str:
        """The words of a move. A thought has no place in this dialect and is left out."""
        given = action.arguments
        if action.kind == "answer" and not given["text"] and finish_status(action) == "success":
            return "stop"
        if action.name == "move_forward" and given["distance_cm"] in self.config.steps_cm:
            return f"move forward {int(given['distance_cm'])}cm"
        if action.name == "turn" and only(action, "degrees") and abs(given["degrees"]) in self.config.turns_degrees:
            side = "left" if given["degrees"] > 0 else "right"
            return f"turn {side} {int(abs(given['degrees']))} degrees"
        raise self._cannot(action)
