"""Replies that hold JSON objects among words: the objects, and the words around them."""

from __future__ import annotations

import json
import re
from typing import Any

from mmturn.errors import DataError, ParseError
from mmturn.grammars.payload import JSON_DECODER
from mmturn.types import Json

_NAMING = ("action", "type", "action_type", "input")
_OPENING = re.compile(
    r'[\[{]\s*(?:\{\s*)?"(?:action|type|name|action_type|coordinate|parameters|input|call_id|id|text|x)"\s*:'
)


def read_objects(text: str) -> list[dict[str, Json]]:
    """The objects of a reply that name an action, in order; a list counts as its items, and words between them are
    skipped. Empty: the reply has none. Raises ParseError for one that is not valid, in linear time."""
    found: list[dict[str, Json]] = []
    at = 0
    while (opening := _OPENING.search(text, at)) is not None:
        try:
            value, at = JSON_DECODER.raw_decode(text, opening.start())
        except RecursionError:
            raise ParseError("the action is nested too deeply") from None
        except ValueError as error:
            raise ParseError(f"the action is not valid JSON: {error}") from None
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
    if _OPENING.search(text):
        raise DataError("a text holds what would be read as an action")
