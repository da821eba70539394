"""Fakes of the seams, for tests of one seam at a time: worlds of text and pictures, one character per token."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

from mmturn.errors import ParseError, ToolError
from mmturn.geometry import Size, Transform
from mmturn.interfaces import Message, Said, Step
from mmturn.types import Action, Completion, ImageRef, Observation, Request, Task, ToolSpec, View

END = 0
PICTURE = "\u25a3"
"""The character that stands for an image."""


@dataclass(frozen=True)
class CharDelta:
    """Ids and their provenance, as a renderer returns them."""

    token_ids: tuple[int, ...]
    provenance: str


class CharRenderer:
    """One id per character, one for each image; 0 ends a completion."""

    end_id = END

    def __init__(self, strips_thinking: bool = False) -> None:
        self.family = SimpleNamespace(
            name="chars", strips_thinking=strips_thinking, placeholders=lambda image_token_id: (image_token_id,)
        )

    def fresh(self, system: str, messages: Sequence[Message]) -> tuple[CharDelta, tuple[View, ...]]:
        """A context from its beginning."""
        ids, marks, views = [*map(ord, system)], "t" * len(system), list[View]()
        for message in messages:
            if isinstance(message, Said):
                said = [*map(ord, _said(message)), END]
                ids, marks = [*ids, *said], marks + "o" * len(said)
            else:
                delta = self.reply(message)
                ids, marks = [*ids, *delta.token_ids], marks + delta.provenance
                views += message.views
        return CharDelta(tuple(ids), marks), tuple(views)

    def reply(self, observation: Observation) -> CharDelta:
        """What a later observation adds."""
        ids = [ord(char) for part in observation.parts for char in (part if isinstance(part, str) else PICTURE)]
        marks = ("o" * len(part) if isinstance(part, str) else "i" for part in observation.parts)
        return CharDelta(tuple(ids), "".join(marks))

    def closing(self, finish: str) -> tuple[int, ...]:
        """The end token, for a completion cut by length."""
        return (END,) if finish == "length" else ()

    def encode_completion(self, text: str) -> tuple[int, ...]:
        """Ids of a completion."""
        return tuple(map(ord, text))

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids."""
        return "".join(chr(i) for i in ids if i != END)


def _said(said: Said) -> str:
    """The text of a completion, or of its last block."""
    text = said.turn.text
    if said.block is None:
        return text
    end = text.rfind(said.block[1])
    return text[text.rfind(said.block[0], 0, end) : end + len(said.block[1])]


class WordGrammar:
    """``look`` or ``look:how`` is a tool call, ``=x`` an answer, anything else does not parse."""

    name = "words"

    def system(self, task: Task, tools: Sequence[ToolSpec]) -> str:
        """System message."""
        return "S"

    def opening(self, task: Task, observation: Observation) -> Observation:
        """First message."""
        return Observation((f"Q:{task.question}",))

    def reply(self, task: Task, observation: Observation, turn: int, max_turns: int) -> Observation:
        """Later message."""
        return Observation((f"R{turn}:{observation.text}",))

    def bad_action(self, task: Task, message: str, views: Sequence[View], turn: int, max_turns: int) -> Observation:
        """Message after a bad action."""
        return Observation((f"E{turn}:{message}",), is_error=True)

    def parse(self, text: str, views: Sequence[View], tools: Sequence[ToolSpec], turn: int) -> tuple[Action, ...]:
        """One action."""
        if text == "look" or text.startswith("look:"):
            return (Action("tool", "look", {"text": text[5:]}),)
        if text.startswith("="):
            return (Action("answer", "answer", {"text": text[1:]}),)
        raise ParseError(f"cannot read {text[:20]!r}")

    def format(self, action: Action, views: Sequence[View], thought: str = "") -> str:
        """Canonical text."""
        text: str = action.arguments["text"]
        return f"look:{text}" if action.kind == "tool" else f"={text}"


class TextWorld:
    """Looks succeed, or fail as the word after ``look:`` says: refuse, crash, full, sleep, object."""

    tools: tuple[ToolSpec, ...] = (ToolSpec("look", "look again", {"type": "object", "properties": {}}),)

    def __init__(self) -> None:
        self.closed = 0

    def reset(self, task: Task, seed: int) -> Observation:
        """Start; ``meta: {broken: true}`` fails, ``meta: {opened: ...}`` is recorded."""
        if task.meta.get("broken"):
            raise OSError("disk is gone")
        return Observation(("start",), facts=task.meta.get("opened", {}))

    def step(self, actions: tuple[Action, ...]) -> Step:
        """Carry out the first action."""
        action = actions[0]
        if action.kind == "answer":
            return Step(None, True, answer=action.arguments["text"])
        facts: Mapping[str, Any] = {"crop": [0, 0, 1, 1]}
        match action.arguments["text"]:
            case "refuse":
                raise ToolError("that is outside")
            case "crash":
                raise RuntimeError("segfault")
            case "full":
                return Step(None, False, facts, limit="image_limit")
            case "sleep":
                time.sleep(2)
            case "object":
                facts = {"it": object()}
        return Step(Observation(("seen",)), False, facts)

    def note_shown(self, views: Sequence[View]) -> None:
        """A text world shows none."""

    def close(self) -> None:
        """Count the call."""
        self.closed += 1


class PictureGrammar(WordGrammar):
    """The same with the views that the world shows; what ends in ``>`` is no part of the action."""

    def opening(self, task: Task, observation: Observation) -> Observation:
        """First message."""
        return Observation((*observation.parts, f"Q:{task.question}"))

    def reply(self, task: Task, observation: Observation, turn: int, max_turns: int) -> Observation:
        """Later message."""
        return Observation((f"R{turn}:", *observation.parts), observation.is_error)

    def parse(self, text: str, views: Sequence[View], tools: Sequence[ToolSpec], turn: int) -> tuple[Action, ...]:
        """One action."""
        return super().parse(text.rpartition(">")[2], views, tools, turn)


class PictureWorld(TextWorld):
    """Each look shows a word and a picture of its own; ``pictures`` are all that this instance has shown."""

    def __init__(self) -> None:
        super().__init__()
        self.pictures: list[View] = []

    def reset(self, task: Task, seed: int) -> Observation:
        """Show the first picture."""
        self.pictures.clear()
        super().reset(task, seed)
        return self._shown("")

    def step(self, actions: tuple[Action, ...]) -> Step:
        """Show the next picture."""
        step = super().step(actions)
        return step if step.observation is None else replace(step, observation=self._shown("seen"))

    def note_shown(self, views: Sequence[View]) -> None:
        """Views that the driver showed again."""
        self.pictures.extend(views)

    def _shown(self, word: str) -> Observation:
        size = Size(28, 28)
        source = ImageRef(f"{len(self.pictures):064x}", size)
        self.pictures.append(View(source, Transform(1, 0, 0, 0, 1, 0), size))
        return Observation((*filter(None, [word]), self.pictures[-1]))


class PlanEngine:
    """Answers turn k of a task with the k-th entry of its plan; an Exception entry fails the request."""

    name = "plan"
    version = 3

    def __init__(self, plans: Mapping[str, Sequence[str | Exception]], batch: int = 4) -> None:
        self.plans, self.batch = plans, batch
        self.waiting: list[Request] = []
        self.seen: list[Request] = []

    def submit(self, request: Request) -> None:
        """Queue a request."""
        self.waiting.append(request)

    @property
    def room(self) -> int:
        """How many more requests the next batch can take."""
        return max(self.batch - len(self.waiting), 0)

    @property
    def idle(self) -> bool:
        """True when no request waits."""
        return not self.waiting

    def collect(self, max_steps: int | None = None) -> list[Completion]:
        """Answers to up to ``batch`` requests."""
        batch, self.waiting = self.waiting[: self.batch], self.waiting[self.batch :]
        self.seen += batch
        return [self._answer(request) for request in batch]

    def close(self) -> None:
        """Nothing to free."""

    def _answer(self, request: Request) -> Completion:
        text = self.plans[request.task_id][request.turn]
        if isinstance(text, Exception):
            return Completion(request.id, "", finish="error", error=str(text))
        ids = (*map(ord, text), END)
        limit = request.sampling.max_new_tokens
        finish: Any = "stop" if len(ids) <= limit else "length"
        ids = ids[:limit]
        text = "".join(chr(i) for i in ids if i != END)
        return Completion(request.id, text, ids, tuple(-0.5 for _ in ids), finish, policy_version=self.version)
