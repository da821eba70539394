"""Replies that hold JSON objects among words: the objects, and the words around them."""

from __future__ import annotations

import json
import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from mmturn.errors import DataError, ParseError
from mmturn.grammars.gui.dialect import Dialect
from mmturn.grammars.gui.places import Screen
from mmturn.grammars.payload import JSON_DECODER
from mmturn.gui_actions import finish, finish_status
from mmturn.types import Action, Json, ToolSpec

_NAMING = ("action", "type", "action_type", "input")
_OPENING = re.compile(r"""[\[{]\s*(?:\{\s*)?["']([A-Za-z_]\w{0,63})["']\s*:""")
_MEANT = ("action", "type", "name", "action_type", "coordinate", "parameters", "input", "call_id", "id", "text", "x")
"""First keys of what was meant for an action: where the rest is no JSON, that is an error and not words."""
_MOST_BROKEN = 100


def read_objects(text: str) -> list[dict[str, Json]]:
    """The objects of a reply that name an action, in order; a list counts as its items, and words between them are
    skipped. Empty: the reply has none. Raises ParseError for one that is not valid, in linear time."""
    found: list[dict[str, Json]] = []
    at = broken = 0
    while (opening := _OPENING.search(text, at)) is not None:
        try:
            value, at = JSON_DECODER.raw_decode(text, opening.start())
        except RecursionError:
            raise ParseError("the action is nested too deeply") from None
        except ValueError as error:
            broken, at = broken + 1, opening.end()
            if opening.group(1) in _MEANT or broken > _MOST_BROKEN:
                raise ParseError(f"the action is not valid JSON: {error}") from None
            continue
        for item in value if isinstance(value, list) else [value]:
            if not isinstance(item, dict):
                raise ParseError("each action must be an object")
            if any(name in item for name in _NAMING):
                found.append(item)
    return found


def write_objects(objects: list[dict[str, Any]], thought: str) -> str:
    """A thought and objects behind it. Raises DataError for a thought that would be read as an action."""
    check_words(thought)
    body = "\n".join(json.dumps(item, ensure_ascii=False) for item in objects)
    return f"{thought}\n{body}" if thought else body


def check_words(text: str) -> None:
    """Raise DataError where words would be read as an action."""
    try:
        held = bool(read_objects(text))
    except ParseError:
        held = True
    if held:
        raise DataError("a text holds what would be read as an action")


class ObjectDialect(Dialect):
    """Base of dialects whose replies are words and JSON objects, an action each; words alone are the answer and the
    end. One implements ``_action`` and ``_object``."""

    layout = (
        "In each turn say what you do and give it as a JSON object. A reply without one ends the task and answers it."
    )

    @abstractmethod
    def _action(self, item: Mapping[str, Any], screen: Screen) -> Action:
        """The action of an object. Raises ParseError or ToolError."""

    @abstractmethod
    def _object(self, action: Action, screen: Screen) -> dict[str, Json]:
        """The object of an action. Raises DataError."""

    beside: ClassVar[tuple[str, ...]] = ()
    """Types of the objects that may stand beside actions and are none: words and thoughts."""

    def _read(self, text: str, screen: Screen, tools: Sequence[ToolSpec]) -> tuple[Action, ...]:
        found = [item for item in read_objects(text) if item.get("type") not in self.beside]
        if found:
            return tuple(self._action(item, screen) for item in found)
        if not text.strip():
            raise ParseError("the reply is empty")
        return (finish(text.strip()),)

    def _write(self, actions: tuple[Action, ...], screen: Screen, thought: str) -> str:
        if actions[0].kind == "answer":
            text = str(actions[0].arguments["text"])
            if len(actions) > 1 or finish_status(actions[0]) != "success" or not text or text != text.strip():
                raise self._cannot(actions[0], "an end is a text by itself, without blanks around it")
            # What stands before it would be part of it, so that a thought is left out.
            check_words(text)
            return text
        return write_objects([self._object(action, screen) for action in actions], thought)
