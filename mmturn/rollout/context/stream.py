"""A question of a stream is answered from what is remembered with it, and from earlier dialogues."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mmturn.errors import ConfigError
from mmturn.grading.likeness import likeness
from mmturn.interfaces import Context, Message, Room, Said
from mmturn.rollout.context.conversation import conversation
from mmturn.types import Observation, Turn, View


@dataclass(frozen=True)
class StreamConfig:
    """Settings of the stream context policy."""

    recent: int = 2
    """Last dialogues, a question and its answer, that stay as words."""
    retrieved: int = 1
    """Older dialogues that come back because they are most like the question."""
    limit_tokens: int = 0
    """Tokens that the context may have; retrieved dialogues leave first, then the oldest. 0: as many as
    rollout.max_context leaves."""

    def __post_init__(self) -> None:
        if min(self.recent, self.retrieved, self.limit_tokens) < 0:
            found = f"{self.recent}, {self.retrieved} and {self.limit_tokens}"
            raise ConfigError(f"context.recent, retrieved and limit_tokens must be 0 or more, got {found}")


class Stream:
    """The dialogues that matter as words alone, then the open question with what it was shown and what came of it.

    Made for the environment ``video_stream``, which tells of a dialogue's end by the fact ``question``, and of a
    caption's by ``caption``; captions are no dialogues, what they say comes back through the tree.
    Source: StreamChat (arXiv 2501.13468), dialogue memory: the one dialogue most like the question. Differs: words are
    compared instead of embeddings, and the last dialogues stay, as people refer to them without naming them.
    """

    name = "stream"
    instructions = ""
    Config = StreamConfig

    def __init__(self, config: StreamConfig | None = None) -> None:
        self.config = config or StreamConfig()

    def next(self, turns: Sequence[Turn], shown: Observation | None, room: Room) -> Context:
        """Dialogues, then everything since the last of them."""
        ends = [k for k, turn in enumerate(turns) if "question" in turn.facts or "caption" in turn.facts]
        first = ends[-1] + 1 if ends else 0
        messages = conversation(turns[first:], shown)
        dialogues = [turns[k] for k in ends if "question" in turns[k].facts]
        chosen = self._chosen(dialogues, _question(messages[0]) if messages else "")
        limit = min(room.tokens, self.config.limit_tokens or room.tokens)
        while True:
            said = [message for k in sorted(chosen) for message in _as_words(dialogues[k])]
            context = Context((*said, *messages))
            if not chosen or room.size(context) <= limit:
                return context
            chosen = chosen[1:]

    def _chosen(self, dialogues: Sequence[Turn], question: str) -> list[int]:
        """Which dialogues are shown, those that leave first in front."""
        recent = list(range(len(dialogues)))[len(dialogues) - min(self.config.recent, len(dialogues)) :]
        older = range(len(dialogues) - len(recent))
        likes = {k: likeness(question, _words(dialogues[k])) for k in older}
        best = sorted((k for k in older if likes[k] > 0), key=lambda k: (likes[k], k))
        return [*best[len(best) - min(self.config.retrieved, len(best)) :], *recent]


def _as_words(turn: Turn) -> tuple[Message, Message]:
    return Observation((str(turn.facts["question"]["text"]),)), Said(turn)


def _words(turn: Turn) -> str:
    return f"{turn.facts['question']['text']} {turn.facts.get('answer', '')}"


def _question(message: Message) -> str:
    """The words behind the last image of an opening: the question."""
    if isinstance(message, Said):
        return ""
    places = [place for place, part in enumerate(message.parts) if isinstance(part, View)]
    behind = message.parts[places[-1] + 1 :] if places else message.parts
    return "".join(part for part in behind if isinstance(part, str))
