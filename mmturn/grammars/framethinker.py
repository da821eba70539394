"""FrameThinker's verbs: think, then choose frames between two, ask for the number of one, or answer.

Source: FrameThinker, arXiv 2509.24304, and its repository (think_with_video): ``<think>...</think>`` and
``<action>...</action>`` with ``choose frames between START and END``, ``get frame number at time MM:SS`` (minutes may
exceed 59) or ``output answer: OPTION``. START and END are numbers of frames in the file.
Differs: the sentences are our own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from mmturn.errors import DataError, ParseError
from mmturn.grammars.question import question_text
from mmturn.types import Action, Observation, Task, ToolSpec, View

_CHOOSE = re.compile(r"choose frames between ([0-9]{1,9}) and ([0-9]{1,9})")
_TIME = re.compile(r"get frame number at time ((?:[0-9]{1,6}:)?[0-9]{1,6}:[0-9]{2})")
_ANSWER = "output answer:"
_TAGS = ("<think>", "</think>", "<action>", "</action>")
_FORMS = (
    "choose frames between START and END\n   shows more frames between two frame numbers\n"
    "get frame number at time MM:SS\n   tells which frame number a time has; minutes may exceed 59\n"
    "output answer: YOUR ANSWER\n   ends the conversation"
)


@dataclass(frozen=True)
class FrameThinkerConfig:
    """Settings of the framethinker grammar."""

    choose: str = "choose_frames"
    """Name of the tool behind ``choose frames between``; its arguments are ``start`` and ``end``."""
    number: str = "frame_number"
    """Name of the tool behind ``get frame number at time``; its argument is ``time``."""
    force_last: bool = True
    """Whether the last turn is told to answer."""


class FrameThinkerGrammar:
    """Reads and writes thoughts and verbs. Pure: no state, no pixels."""

    name = "framethinker"
    Config = FrameThinkerConfig

    def __init__(self, config: FrameThinkerConfig | None = None) -> None:
        self.config = config or FrameThinkerConfig()

    def system(self, task: Task, tools: Sequence[ToolSpec]) -> str:
        """System message: how to look again, and the verbs."""
        return (
            "You answer a question about a video, in turns. You are shown a few of its frames with their numbers, and "
            "may ask for more before you answer. In each turn first think between <think> and </think>; then write "
            f"exactly one action between <action> and </action>:\n{_FORMS}"
        )

    def opening(self, task: Task, observation: Observation) -> Observation:
        """First user message: the question and its options, then the frames."""
        return Observation((f"Question: {question_text(task)}\n", *observation.parts))

    def reply(self, task: Task, observation: Observation, turn: int, max_turns: int) -> Observation:
        """Later user message: what came of the action."""
        return Observation((*observation.parts, *self._last(turn, max_turns)), observation.is_error)

    def bad_action(self, task: Task, message: str, views: Sequence[View], turn: int, max_turns: int) -> Observation:
        """User message after an action that could not be read or carried out."""
        return Observation((f"That action is invalid: {message}", *self._last(turn, max_turns)), is_error=True)

    def parse(self, text: str, views: Sequence[View], tools: Sequence[ToolSpec], turn: int) -> tuple[Action, ...]:
        """The action of a completion: that of its last ``<action>`` block behind its thought. Raises ParseError and
        nothing else, in linear time."""
        thought, close, acting = text.rpartition("</think>")
        if not close or "<think>" not in thought:
            raise ParseError("a turn must begin with a thought between <think> and </think>")
        end = acting.rfind("</action>")
        start = acting.rfind("<action>", 0, max(end, 0))
        if end < 0 or start < 0:
            raise ParseError("after the thought must come one action between <action> and </action>")
        return (self._verb(acting[start + len("<action>") : end].strip()),)

    def format(self, action: Action, views: Sequence[View], thought: str = "") -> str:
        """Canonical text of an action. Raises DataError for one that no verb expresses."""
        given = action.arguments
        if action.kind == "answer":
            body = f"{_ANSWER} {str(given['text']).strip()}"
        elif action.name == self.config.choose:
            body = f"choose frames between {given.get('start')} and {given.get('end')}"
        elif action.name == self.config.number:
            body = f"get frame number at time {given.get('time')}"
        else:
            raise DataError(f"the framethinker grammar has no verb for {action.name}")
        if any(tag in part for part in (body, thought) for tag in _TAGS):
            raise DataError("a thought or an action holds a tag of the template, and could not be read back")
        try:
            read = self._verb(body)
        except ParseError as error:
            raise DataError(f"the framethinker grammar cannot write {body!r:.80}: {error}") from error
        if dict(read.arguments) != ({"text": str(given["text"]).strip()} if action.kind == "answer" else dict(given)):
            raise DataError(f"the framethinker grammar cannot write all of {dict(given)!r:.80}")
        return f"<think>{thought}</think><action>{body}</action>"

    def answer_frame(self, task: Task) -> tuple[str, str]:
        """What stands before and behind an answer."""
        return f"<think></think><action>{_ANSWER} ", "</action>"

    def _verb(self, body: str) -> Action:
        if body.startswith(_ANSWER):
            text = body[len(_ANSWER) :].strip()
            if not text:
                raise ParseError("the answer is empty")
            return Action("answer", "answer", {"text": text})
        if found := _CHOOSE.fullmatch(body):
            return Action("tool", self.config.choose, {"start": int(found.group(1)), "end": int(found.group(2))})
        if found := _TIME.fullmatch(body):
            return Action("tool", self.config.number, {"time": found.group(1)})
        raise ParseError(
            "an action must be one of: choose frames between START and END; get frame number at time MM:SS; "
            "output answer: YOUR ANSWER"
        )

    def _last(self, turn: int, max_turns: int) -> tuple[str, ...]:
        """Words that ask for an answer in the last turn."""
        if not self.config.force_last or turn + 1 < max_turns:
            return ()
        return ("\nThis is the last turn: the only action left is output answer.",)
