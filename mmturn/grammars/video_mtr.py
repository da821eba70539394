"""The template of Video-MTR: think, then answer or retrieve a stretch of the frame pool.

Source: Video-MTR, arXiv 2508.20478, and its repository (vagen/env/video): ``<think>...</think><answer>X</answer>`` or
``<think>...</think><retrieve>s,e</retrieve>`` and nothing else; ``s`` and ``e`` are indices of candidate frames; the
question and the form are repeated in every turn; the last turn may only answer. Options are answered by a letter, free
answers in at most 50 characters.
Differs: the sentences are our own. The environment labels and lists the frames (``label``, ``heading``).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from mmturn.errors import DataError, ParseError
from mmturn.grammars.question import question_text
from mmturn.types import Action, Observation, Task, ToolSpec, View

_OPEN, _CLOSE = "<think>", "</think>"
_TAGS = (_OPEN, _CLOSE, "<answer>", "</answer>", "<retrieve>", "</retrieve>")
_PAIR = re.compile(r"\s*([0-9]{1,9})\s*,\s*([0-9]{1,9})\s*")


@dataclass(frozen=True)
class VideoMtrConfig:
    """Settings of the video_mtr grammar."""

    tool: str = "retrieve"
    """Name of the tool that shows a stretch; its arguments are ``start`` and ``end``."""
    answer_chars: int = 50
    """Most characters of an answer."""


class VideoMtrGrammar:
    """Reads and writes thoughts, retrievals and answers. Pure: no state, no pixels."""

    name = "video_mtr"
    Config = VideoMtrConfig

    def __init__(self, config: VideoMtrConfig | None = None) -> None:
        self.config = config or VideoMtrConfig()

    def system(self, task: Task, tools: Sequence[ToolSpec]) -> str:
        """System message: what there is to do, and how."""
        return (
            "You answer a question about a video. You are shown some of its frames, each with its index. If they do "
            "not settle the question, retrieve more frames of the stretch that may; otherwise answer."
        )

    def opening(self, task: Task, observation: Observation) -> Observation:
        """First user message: the frames, the question, the form of a reply."""
        return Observation(("Turn 1.\n", *_framed(observation), self._ask(task, False)))

    def reply(self, task: Task, observation: Observation, turn: int, max_turns: int) -> Observation:
        """Later user message: the frames retrieved, the question again; in the last turn only an answer."""
        counter = f"Turn {turn + 1} of {max_turns}.\n"
        parts = (counter, *_framed(observation), self._ask(task, turn + 1 >= max_turns))
        return Observation(parts, observation.is_error)

    def bad_action(self, task: Task, message: str, views: Sequence[View], turn: int, max_turns: int) -> Observation:
        """User message after an invalid reply: why, and the question again, without frames."""
        counter = f"Turn {turn + 1} of {max_turns}.\n"
        words = f"{counter}Your last reply was invalid: {message}{self._ask(task, turn + 1 >= max_turns)}"
        return Observation((words,), is_error=True)

    def parse(self, text: str, views: Sequence[View], tools: Sequence[ToolSpec], turn: int) -> tuple[Action, ...]:
        """The action of a completion, which must match the form from end to end. Raises ParseError and nothing else,
        in linear time."""
        text = text.strip()
        thought, close, acting = text.partition(_CLOSE)
        if not text.startswith(_OPEN) or not close or _OPEN in thought[len(_OPEN) :]:
            raise ParseError("a reply must begin with one thought between <think> and </think>")
        acting = acting.strip()
        for kind in ("answer", "retrieve"):
            before, after = f"<{kind}>", f"</{kind}>"
            if acting.startswith(before) and acting.endswith(after) and len(acting) >= len(before) + len(after):
                inside = acting[len(before) : -len(after)]
                if any(tag in inside for tag in _TAGS):
                    break
                return (self._answer(inside) if kind == "answer" else self._retrieval(inside),)
        raise ParseError(
            "after the thought must come <answer>...</answer> or <retrieve>start,end</retrieve>, and nothing else"
        )

    def format(self, action: Action, views: Sequence[View], thought: str = "") -> str:
        """Canonical text of an action. Raises DataError for one that the template cannot express."""
        if action.kind == "answer":
            body, kind = str(action.arguments["text"]).strip(), "answer"
            if not 0 < len(body) <= self.config.answer_chars:
                raise DataError(f"an answer must have 1 to {self.config.answer_chars} characters, got {body!r:.80}")
        elif action.name == self.config.tool and {"start", "end"} <= action.arguments.keys():
            body, kind = f"{action.arguments['start']},{action.arguments['end']}", "retrieve"
            if _PAIR.fullmatch(body) is None:
                raise DataError(f"a retrieval needs two whole numbers, got {body!r:.80}")
        else:
            raise DataError(f"the video_mtr grammar can only write {self.config.tool}, not {action.name}")
        if any(tag in part for part in (body, thought) for tag in _TAGS):
            raise DataError("a thought or an answer holds a tag of the template, and could not be read back")
        return f"{_OPEN}{thought}{_CLOSE}<{kind}>{body}</{kind}>"

    def answer_frame(self, task: Task) -> tuple[str, str]:
        """What stands before and behind an answer."""
        return f"{_OPEN}{_CLOSE}<answer>", "</answer>"

    def _answer(self, inside: str) -> Action:
        text = inside.strip()
        if not text:
            raise ParseError("the answer is empty")
        if len(text) > self.config.answer_chars:
            raise ParseError(f"the answer has {len(text)} characters; at most {self.config.answer_chars} are allowed")
        return Action("answer", "answer", {"text": text})

    def _retrieval(self, inside: str) -> Action:
        pair = _PAIR.fullmatch(inside)
        if pair is None:
            raise ParseError("a retrieval must be two whole numbers with a comma: <retrieve>start,end</retrieve>")
        return Action("tool", self.config.tool, {"start": int(pair.group(1)), "end": int(pair.group(2))})

    def _ask(self, task: Task, last: bool) -> str:
        wanted = "the letter of the right option" if task.choices else f"at most {self.config.answer_chars} characters"
        form = f"<think>your thoughts</think><answer>{wanted}</answer>"
        if last:
            return f"\nQuestion: {question_text(task)}\nThis is the last turn. Reply in this form:\n{form}"
        return (
            f"\nQuestion: {question_text(task)}\nReply in one of these forms:\n{form}\n"
            "<think>your thoughts</think><retrieve>first index,last index</retrieve>"
        )


def _framed(observation: Observation) -> tuple[str | View, ...]:
    """The frames under their title."""
    return ("Frames:\n", *observation.parts) if observation.views else observation.parts
